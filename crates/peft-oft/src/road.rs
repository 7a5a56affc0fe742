//! RoAd: pairs of outputs, turned and scaled.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor, TensorData};
use peft_core::{
    Base, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Layout, MemoKey, Method,
    MethodCard, MethodConfig, Pass, Result, Rotate, Side, Site, SiteKind, Size, Targets,
};
use serde::{Deserialize, Serialize};

use crate::DEFAULT_ROLES;

/// How many angles and scales a pair of outputs has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoadVariant {
    /// One of each: a rotation with a scale.
    #[default]
    #[serde(rename = "road_1")]
    One,
    /// One of each for each output of the pair.
    #[serde(rename = "road_2")]
    Two,
    /// One of each for each entry of its matrix.
    #[serde(rename = "road_4")]
    Four,
}

impl RoadVariant {
    /// Angles, or scales, for so many outputs.
    fn values(self, d_out: usize) -> usize {
        match self {
            Self::One => d_out / 2,
            Self::Two => d_out,
            Self::Four => 2 * d_out,
        }
    }
}

/// Configuration of [`Road`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `variant` | `road_1` | `road_1`, `road_2`, `road_4`: how many angles and scales a pair has |
/// | `group_size` | 64 | outputs are paired within groups of so many, the first of one half with the first of the other; it must divide `d_out` |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `init_weights` (`init`) | true | start at the base; false: at random angles and scales, which is not the base; for tests |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoadConfig {
    /// How many angles and scales a pair has.
    pub variant: RoadVariant,
    /// The outputs that are paired with each other.
    pub group_size: usize,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for RoadConfig {
    fn default() -> Self {
        let (variant, targets) = (RoadVariant::One, Targets::default());
        Self { variant, group_size: 64, targets, init: true }
    }
}

impl MethodConfig for RoadConfig {
    const NAME: &'static str = "road";
    const PEFT_TYPE: &'static str = "ROAD";
    const ABOUT: &'static str = "pairs of outputs, turned and scaled (Liao and Monz 2024)";
    // Angles and scales, as (IA)³'s, which bear larger steps than matrices.
    const LEARNING_RATE: f64 = 3e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "d_out per matrix; road_2: 2 d_out, road_4: 4 d_out",
        merges: "yes",
        formats: "peft",
    };
    type Method = Road;

    /// HF PEFT does not know `exclude_modules` and `layers_to_transform` here: then by path.
    fn for_file(&self, base: &Base) -> Result<Self> {
        let targets = self.targets.by_modules(base, &[SiteKind::Linear], DEFAULT_ROLES)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        if self.group_size == 0 || !self.group_size.is_multiple_of(2) {
            let expected = "must be an even number: half of a group is paired with the other half";
            return Err(Error::config("group_size", self.group_size, expected));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let values = 2 * self.variant.values(site.d_out());
            Size::new("variant", "(given)", values as f64)
        };
        Ok(self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Road> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        for site in self.targets.resolve(base, DEFAULT_ROLES)? {
            let d_out = site.d_out();
            if !d_out.is_multiple_of(self.group_size) {
                let expected = format!("must divide the {d_out} outputs of {site}");
                return Err(Error::config("group_size", self.group_size, expected));
            }
            let count = self.variant.values(d_out);
            let around = |mean: f64| match self.init {
                true => Tensor::full([count], mean, device),
                false => context.random([count], Distribution::Normal(mean, 0.5)),
            };
            let [theta, alpha] = [around(0.0), around(1.0)].map(Param::from_tensor);
            layers[site.index] = Some(RoadLayer { theta, alpha });
        }
        Ok(Road { layers, variant: self.variant, group_size: self.group_size })
    }
}

/// RoAd (Liao and Monz 2024, arXiv 2409.00119): `y = (x W + b) R`, in which `R` turns and scales pairs
/// of outputs: `yᵢ' = αᵢ cos θᵢ yᵢ - αᵢ sin θᵢ yⱼ` and `yⱼ' = αⱼ sin θⱼ yᵢ + αⱼ cos θⱼ yⱼ`, for `i` in the
/// first half of a group and `j` at the same place in the second one.
///
/// Created with [`RoadConfig`].
#[derive(Module, Debug)]
pub struct Road {
    /// By [`Site::index`].
    layers: Vec<Option<RoadLayer>>,
    #[module(skip)]
    variant: RoadVariant,
    #[module(skip)]
    group_size: usize,
}

/// The angles and scales of one layer; how many there are says the variant.
#[derive(Module, Debug)]
pub struct RoadLayer {
    /// `θ`.
    pub theta: Param<Tensor<1>>,
    /// `α`.
    pub alpha: Param<Tensor<1>>,
}

impl Road {
    /// The blocks of `R`, `[groups, g, g]`.
    fn blocks(&self, layer: &RoadLayer) -> Tensor<3> {
        let (theta, alpha) = (layer.theta.val(), layer.alpha.val());
        let size = self.group_size;
        let [cos, sin] = match self.variant {
            // Both of a pair have the values of the pair.
            RoadVariant::One => {
                let both = |values: Tensor<1>| {
                    let groups = values.reshape([-1, size as i64 / 2]);
                    Tensor::cat(vec![groups.clone(), groups], 1)
                };
                let (theta, alpha) = (both(theta), both(alpha));
                [alpha.clone() * theta.clone().cos(), alpha * theta.sin()]
            }
            RoadVariant::Two => {
                let [theta, alpha] = [theta, alpha].map(|v| v.reshape([-1, size as i64]));
                [alpha.clone() * theta.clone().cos(), alpha * theta.sin()]
            }
            // Those of the diagonal of a group, and then the others.
            RoadVariant::Four => {
                let [theta, alpha] = [theta, alpha].map(|v| v.reshape([-1, 2, size as i64]));
                let part = |values: &Tensor<3>, number| {
                    values.clone().narrow(1, number, 1).squeeze_dim::<2>(1)
                };
                [part(&alpha, 0) * part(&theta, 0).cos(), part(&alpha, 1) * part(&theta, 1).sin()]
            }
        };
        // Column j has its own factor at j, and that of its partner where that is.
        let (own, partner) = self.places(&cos);
        own * cos.unsqueeze_dim(1) + partner * sin.unsqueeze_dim(1)
    }

    /// `[1, g, g]`: where an output itself is, and where its partner is, with its sign.
    fn places(&self, like: &Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let (size, device) = (self.group_size, like.device().without_autodiff());
        let half = size / 2;
        let mut partner = vec![0.0f32; size * size];
        for j in 0..half {
            partner[(j + half) * size + j] = -1.0;
            partner[j * size + j + half] = 1.0;
        }
        let partner = Tensor::from_data(TensorData::new(partner, [1, size, size]), &device);
        (Tensor::<2>::eye(size, &device).unsqueeze(), partner)
    }
}

impl Hooks for Road {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(Some(layer)) = self.layers.get(site.index) else { return Edits::none() };
        let key = MemoKey { of: layer.theta.id, name: "rotation", site: None };
        let blocks = pass.memo.get(key, || self.blocks(layer));
        Rotate::blocks(blocks, Side::Output).into()
    }
}

impl Method for Road {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("road_theta"), &mut layer.theta, Layout::AsIs);
                file.param(site.key("road_alpha"), &mut layer.alpha, Layout::AsIs);
            }
        }
    }
}
