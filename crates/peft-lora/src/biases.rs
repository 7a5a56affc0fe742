//! Biases of the model that are trained beside a method.

use peft_core::{BiasChoice, InitContext, Site, TrainedBiases};
use serde::{Deserialize, Serialize};

/// Which biases are trained beside the factors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// None.
    #[default]
    None,
    /// Every bias of the model, norms included.
    All,
    /// Those of the adapted layers: `lora_only`, which is what HF PEFT takes any `..._only` for.
    #[serde(
        alias = "vera_only",
        alias = "vblora_only",
        alias = "MiSS_only",
        alias = "miss_only",
        alias = "delora_only",
        alias = "gralora_only",
        alias = "randlora_only"
    )]
    LoraOnly,
}

impl LoraBias {
    /// Copies of the base's; `is_adapted` says of a site's index whether a method acts there.
    pub(crate) fn copies(
        self,
        context: &InitContext<'_>,
        is_adapted: impl Fn(usize) -> bool,
    ) -> TrainedBiases {
        let choice = match self {
            Self::None => BiasChoice::None,
            Self::All => BiasChoice::All,
            Self::LoraOnly => BiasChoice::Only("lora_only".into()),
        };
        let sites = context.base.sites().map(AsRef::as_ref);
        let adapted: Vec<&Site> = sites.filter(|site: &&Site| is_adapted(site.index)).collect();
        TrainedBiases::new(&choice, &adapted, context.base, context.device)
    }
}
