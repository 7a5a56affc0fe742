//! BitFit: biases.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, ComputationFunction, Edit, Edits, Error, Exchange, Hooks, InitContext, Layout, Method,
    MethodCard, MethodConfig, NormEdit, Pass, Result, Role, Site, SiteKind, Targets, trained_copy,
};
use serde::{Deserialize, Serialize};

use crate::all_but_the_head;

/// Which biases are trained where `target_modules` does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasTerms {
    /// Those of all linear layers and norms.
    #[default]
    All,
    /// Those of queries and of the first feed-forward layers: the paper's `b_q` and `b_m2`, half
    /// as many values for nearly the same results (section 4).
    QueryIntermediate,
}

/// Configuration of [`BitFit`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `bias_terms` (`terms`) | `all` | `all`, `query_intermediate`; see [`BiasTerms`] |
/// | `add_missing` | true | give a linear layer without a bias one of zeros, as t-few does for T5 |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | what `bias_terms` says | linear layers and norms, see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BitFitConfig {
    /// Which biases are trained, by default.
    pub bias_terms: BiasTerms,
    /// Whether a linear layer without a bias gets one.
    pub add_missing: bool,
    /// The modules whose biases are trained.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for BitFitConfig {
    fn default() -> Self {
        Self { bias_terms: BiasTerms::All, add_missing: true, targets: Targets::default() }
    }
}

impl BitFitConfig {
    fn default_roles(&self, base: &Base) -> Vec<Role> {
        match self.bias_terms {
            BiasTerms::All => all_but_the_head(base),
            BiasTerms::QueryIntermediate => vec![Role::Query, Role::FeedForwardUp],
        }
    }

    /// The linear layers and norms that are meant.
    fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let roles = self.default_roles(base);
        self.targets.resolve_kinds(base, KINDS, &roles)
    }
}

/// What has a bias.
const KINDS: &[SiteKind] = &[SiteKind::Linear, SiteKind::Norm];

impl MethodConfig for BitFitConfig {
    const NAME: &'static str = "bitfit";
    const PEFT_TYPE: &'static str = "BITFIT";
    const ABOUT: &'static str = "biases only (Ben Zaken et al. 2021)";
    // The upper end of the paper's 1e-4 to 1e-3.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("terms", "bias_terms")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "biases of linear layers and norms",
        trainable: "d_out per layer",
        merges: "yes, bit for bit",
        formats: "ours, in the layout of peft",
    };
    type Method = BitFit;

    fn validate(&self) -> Result<()> {
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched_kinds(base, KINDS, &self.default_roles(base))
    }

    fn init(&self, context: &InitContext<'_>) -> Result<BitFit> {
        self.validate()?;
        let InitContext { base, device, .. } = context;
        let mut biases = vec![None; base.len()];
        for site in self.sites(base)? {
            let missing = self.add_missing && site.kind == SiteKind::Linear;
            biases[site.index] = match &base.at(site).bias {
                Some(bias) => Some(trained_copy(bias, device)),
                None => missing.then(|| Param::from_tensor(Tensor::zeros([site.d_out()], *device))),
            };
        }
        if biases.iter().all(Option::is_none) {
            let expected = "none of the chosen modules has a bias";
            return Err(Error::config("add_missing", self.add_missing, expected));
        }
        Ok(BitFit { biases })
    }
}

/// BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): `y = x W + b'`, in which the bias alone is
/// trained. `b'` has shape `[d_out]` and starts at the base's `b`.
///
/// Created with [`BitFitConfig`].
#[derive(Module, Debug)]
pub struct BitFit {
    /// By [`Site::index`].
    biases: Vec<Option<Param<Tensor<1>>>>,
}

impl BitFit {
    fn bias_at(&self, site: &Site) -> Option<Tensor<1>> {
        self.biases.get(site.index)?.as_ref().map(Param::val)
    }
}

impl Hooks for BitFit {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        self.bias_at(site).map(Edit::Bias).into_iter().collect()
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.bias_at(site).map(NormEdit::bias).unwrap_or_default()
    }
}

impl Method for BitFit {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(bias) = self.biases.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("bias"), bias, Layout::AsIs);
            }
        }
    }
}
