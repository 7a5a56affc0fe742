//! LN tuning: gains and biases of norms.

use burn::module::Module;
use peft_core::{
    Base, ComputationFunction, Error, Exchange, Hooks, InitContext, Method, MethodCard,
    MethodConfig, ModuleNames, NormEdit, Pass, Result, Site, SiteKind, Targets, TrainedNorm,
};
use serde::{Deserialize, Serialize};

use crate::all_but_the_head;

/// Configuration of [`LnTuning`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | every norm | see [`Targets`] |
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LnTuningConfig {
    /// The norms that are trained.
    #[serde(flatten)]
    pub targets: Targets,
}

impl LnTuningConfig {
    fn norms<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve_kinds(base, &[SiteKind::Norm], &all_but_the_head(base))
    }
}

impl MethodConfig for LnTuningConfig {
    const NAME: &'static str = "ln-tuning";
    const PEFT_TYPE: &'static str = "LN_TUNING";
    const ABOUT: &'static str = "gains and biases of norms (Zhao et al. 2023)";
    // Vectors near one and zero, as in BitFit.
    const LEARNING_RATE: f64 = 1e-3;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "norms",
        trainable: "2 d per norm",
        merges: "yes, bit for bit",
        formats: "peft",
    };
    type Method = LnTuning;

    fn validate(&self) -> Result<()> {
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched_kinds(base, &[SiteKind::Norm], &all_but_the_head(base))
    }

    /// By path: HF PEFT has no choice of its own for encoders, and it does not know
    /// `layers_to_transform`.
    fn for_file(&self, base: &Base) -> Result<Self> {
        if self.targets.target_modules.is_some() && self.targets.layers_to_transform.is_none() {
            return Ok(self.clone());
        }
        let paths = ModuleNames::list(self.norms(base)?.iter().map(|site| site.path.clone()));
        Ok(Self { targets: Targets { target_modules: Some(paths), ..Targets::default() } })
    }

    fn init(&self, context: &InitContext<'_>) -> Result<LnTuning> {
        self.validate()?;
        let InitContext { base, device, .. } = context;
        let mut norms = vec![None; base.len()];
        for site in self.norms(base)? {
            norms[site.index] = TrainedNorm::copied(base.at(site), device);
        }
        Ok(LnTuning { norms })
    }
}

/// LN tuning (Zhao et al. 2023, arXiv 2312.11420): `y = (x - mean) / sqrt(var + eps) ⊙ g' + b'`,
/// in which the gain `g'` and the bias `b'` of every norm, each `[d]`, are trained. They start at
/// the base's.
///
/// Created with [`LnTuningConfig`].
#[derive(Module, Debug)]
pub struct LnTuning {
    /// By [`Site::index`].
    norms: Vec<Option<TrainedNorm>>,
}

impl Hooks for LnTuning {
    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        let norm = self.norms.get(site.index).and_then(Option::as_ref);
        norm.map(TrainedNorm::edit).unwrap_or_default()
    }
}

impl Method for LnTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(norm) = self.norms.get_mut(site.index).and_then(Option::as_mut) {
                norm.exchange(file, site, "ln_tuning_layers.");
            }
        }
    }
}
