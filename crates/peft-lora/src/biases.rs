//! Biases of the model that are trained beside a method.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{Edit, Edits, Exchange, InitContext, Layout, NormEdit, Site, trained_copy};
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
        alias = "MiSS_only",
        alias = "miss_only",
        alias = "delora_only",
        alias = "gralora_only",
        alias = "randlora_only"
    )]
    LoraOnly,
}

/// The biases that [`LoraBias`] chooses.
#[derive(Module, Debug)]
pub struct TrainedBiases {
    /// By [`Site::index`].
    values: Vec<Option<Param<Tensor<1>>>>,
}

impl TrainedBiases {
    /// Copies of those of the base; `is_adapted` says of a site's index whether a method acts there.
    pub(crate) fn new(
        choice: LoraBias,
        context: &InitContext<'_>,
        is_adapted: impl Fn(usize) -> bool,
    ) -> Self {
        let mut values = vec![None; context.base.len()];
        for entry in context.base.iter() {
            let index = entry.site.index;
            let trained = match choice {
                LoraBias::None => false,
                LoraBias::All => true,
                LoraBias::LoraOnly => is_adapted(index),
            };
            if let (true, Some(bias)) = (trained, &entry.bias) {
                values[index] = Some(trained_copy(bias, context.device));
            }
        }
        Self { values }
    }

    fn at(&self, site: &Site) -> Option<Tensor<1>> {
        self.values.get(site.index)?.as_ref().map(Param::val)
    }

    /// What happens at a linear layer.
    pub(crate) fn linear(&self, site: &Site) -> Edits {
        self.at(site).map(Edit::Bias).into_iter().collect()
    }

    /// What happens at a norm.
    pub(crate) fn norm(&self, site: &Site) -> NormEdit {
        self.at(site).map(NormEdit::bias).unwrap_or_default()
    }

    /// Names the one of a site.
    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site, is_adapted: bool) {
        if let Some(bias) = self.values.get_mut(site.index).and_then(Option::as_mut) {
            // HF PEFT wraps the layers that it adapts, and their biases' names with them.
            let name = if is_adapted { "base_layer.bias" } else { "bias" };
            file.param(site.key(name), bias, Layout::AsIs);
        }
    }
}
