//! LN tuning: gains and biases of norms.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use peft_core::{
    Base, Change, ComputationFunction, Error, Exchange, Hooks, Layout, Method, MethodCard,
    MethodConfig, ModuleNames, NormLayer, Result, Site, SiteKind, Targets,
};
use serde::{Deserialize, Serialize};

use crate::select::{all_but_the_head, trained_copy};

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
        self.targets.unmatched_kind(base, SiteKind::Norm, &all_but_the_head(base))
    }

    /// By path: HF PEFT has no choice of its own for encoders, and it does not know
    /// `layers_to_transform`.
    fn for_file(&self, base: &Base) -> Result<Self> {
        if self.targets.target_modules.is_some() && self.targets.layers_to_transform.is_none() {
            return Ok(self.clone());
        }
        let norms = self.targets.resolve_kind(base, SiteKind::Norm, &all_but_the_head(base))?;
        let paths = ModuleNames::list(norms.iter().map(|site| site.path.clone()));
        Ok(Self { targets: Targets { target_modules: Some(paths), ..Targets::default() } })
    }

    fn init(&self, base: &Base, device: &Device) -> Result<LnTuning> {
        self.validate()?;
        let mut norms = vec![None; base.len()];
        for site in self.targets.resolve_kind(base, SiteKind::Norm, &all_but_the_head(base))? {
            let frozen = base.at(site);
            norms[site.index] = frozen.gain.as_ref().map(|gain| TrainedNorm {
                gain: trained_copy(gain, device),
                bias: frozen.bias.as_ref().map(|bias| trained_copy(bias, device)),
            });
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

#[derive(Module, Debug)]
struct TrainedNorm {
    /// `[d]`.
    gain: Param<Tensor<1>>,
    /// `[d]`, where the norm has one.
    bias: Option<Param<Tensor<1>>>,
}

impl LnTuning {
    fn at(&self, site: &Site) -> Option<&TrainedNorm> {
        self.norms.get(site.index)?.as_ref()
    }
}

impl Hooks for LnTuning {
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        Some(self.at(layer.site())?.gain.val())
    }

    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.bias.as_ref().map(Param::val)
    }
}

impl Method for LnTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(norm) = self.norms.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            file.param(site.key("ln_tuning_layers.weight"), &mut norm.gain, Layout::AsIs);
            if let Some(bias) = &mut norm.bias {
                file.param(site.key("ln_tuning_layers.bias"), bias, Layout::AsIs);
            }
        }
    }

    fn change(&self, site: &Site) -> Change {
        let Some(norm) = self.at(site) else { return Change::default() };
        let bias = if norm.bias.is_some() { site.d_out() } else { 0 };
        Change { weight: site.d_out(), bias, rank: 0 }
    }
}
