//! SHiRA: single entries of weights, at random places.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use peft_core::{
    Base, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Layout, Method,
    MethodCard, MethodConfig, Pass, Result, Site, SiteKind, Size, Sparse, Targets,
    torch_permutation,
};
use serde::{Deserialize, Serialize};

use crate::DEFAULT_ROLES;

/// How the entries are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShiraMask {
    /// At random.
    #[default]
    Random,
}

/// Configuration of [`Shira`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 32 | how many entries of a weight are trained: `r (d_in + d_out)`, as many values as a LoRA of that rank has |
/// | `mask_type` | `random` | how they are chosen |
/// | `random_seed` (`seed`) | none | the seed of the choice, which is PyTorch's; none: the one that it has by itself |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `init_weights` (`init`) | true | start at zeros; false: at values from `N(0, 1)`, which is not the base; for tests |
/// | `fan_in_fan_out` | false | for PEFT, which has no other value here |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShiraConfig {
    /// How many entries are trained, as the rank of a LoRA with as many values.
    #[serde(rename = "r")]
    pub rank: usize,
    /// How they are chosen.
    #[serde(rename = "mask_type")]
    pub mask: ShiraMask,
    /// The seed of the choice.
    #[serde(rename = "random_seed")]
    pub seed: Option<u64>,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Whether the checkpoint stores the weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for ShiraConfig {
    fn default() -> Self {
        Self {
            rank: 32,
            mask: ShiraMask::Random,
            seed: None,
            targets: Targets::default(),
            fan_in_fan_out: false,
            init: true,
        }
    }
}

/// The seed of a PyTorch generator that was given none.
const OWN_SEED: u64 = 67_280_421_310_721;

impl ShiraConfig {
    /// How many entries of a weight are trained.
    fn count(&self, [d_in, d_out]: [usize; 2]) -> usize {
        self.rank.saturating_mul(d_in + d_out)
    }

    /// The places of a layer: the outputs, and the inputs, in the order of a weight `[d_out, d_in]`.
    fn places(&self, [d_in, d_out]: [usize; 2]) -> Vec<i64> {
        let count = self.count([d_in, d_out]);
        let mut places = torch_permutation(d_in * d_out, self.seed.unwrap_or(OWN_SEED), count);
        places.sort_unstable();
        let outputs = places.iter().map(|place| (place / d_in) as i64);
        outputs.chain(places.iter().map(|place| (place % d_in) as i64)).collect()
    }
}

impl MethodConfig for ShiraConfig {
    const NAME: &'static str = "shira";
    const PEFT_TYPE: &'static str = "SHIRA";
    const ABOUT: &'static str =
        "single entries of weights, at random places (Bhardwaj et al. 2024)";
    // As LoRA's, whose number of values it has.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("seed", "random_seed"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r (d_in + d_out) per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Shira;

    /// By modules alone: HF PEFT knows no other field here.
    fn for_file(&self, base: &Base) -> Result<Self> {
        let targets = self.targets.by_modules(base, &[SiteKind::Linear], DEFAULT_ROLES)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("r", 0, "must be at least 1"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| Size::new("r", self.rank, 3.0 * self.count(site.shape) as f64);
        Ok(self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Shira> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        for site in self.targets.resolve(base, DEFAULT_ROLES)? {
            let ([d_in, d_out], count) = (site.shape, self.count(site.shape));
            if count > d_in * d_out {
                let most = d_in * d_out / (d_in + d_out);
                let expected = format!(
                    "must be at most {most} at {site}, whose weight has {} entries",
                    d_in * d_out
                );
                return Err(Error::config("r", self.rank, expected));
            }
            let values = match self.init {
                true => Tensor::zeros([count], device),
                false => context.random([count], Distribution::Normal(0.0, 1.0)),
            };
            let places = match context.is_read() {
                true => vec![0; 2 * count],
                false => self.places(site.shape),
            };
            let places = TensorData::new(places, [2, count]);
            let places = Tensor::<2, Int>::from_data(places, device);
            let (values, places) =
                (Param::from_tensor(values), Param::initialized(ParamId::new(), places));
            layers[site.index] = Some(ShiraLayer { values, places });
        }
        Ok(Shira { layers })
    }
}

/// Sparse high-rank adaptation (Bhardwaj et al. 2024, arXiv 2406.13175): `y = x (W + S) + b`, where `S`,
/// `[d_in, d_out]`, has `r (d_in + d_out)` values, at places that are chosen once.
///
/// Created with [`ShiraConfig`].
#[derive(Module, Debug)]
pub struct Shira {
    /// By [`Site::index`].
    layers: Vec<Option<ShiraLayer>>,
}

/// The entries that are trained at one layer.
#[derive(Module, Debug)]
pub struct ShiraLayer {
    /// `[n]`.
    pub values: Param<Tensor<1>>,
    /// `[2, n]`: the output of each value, and its input.
    pub places: Param<Tensor<2, Int>>,
}

impl Hooks for Shira {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some(Some(layer)) = self.layers.get(site.index) else { return Edits::none() };
        let row = |number| layer.places.val().narrow(0, number, 1).squeeze_dim(0);
        Sparse { inputs: row(1), outputs: row(0), values: layer.values.val() }.into()
    }
}

impl Method for Shira {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("shira_weight"), &mut layer.values, Layout::AsIs);
                let bounds = [site.d_out(), site.d_in()];
                file.places(site.key("shira_indices"), &mut layer.places, &bounds);
            }
        }
    }
}
