//! C3A: a change of circulant blocks.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use peft_core::{
    Added, Base, BiasChoice, ComputationFunction, Edit, Edits, Error, Exchange, Hooks, InitContext,
    Layout, MemoKey, Method, MethodCard, MethodConfig, NormEdit, Pass, PatternMap, Result, Site,
    SiteKind, Size, Targets, TrainedBiases, pattern_value, unmatched_patterns,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::DEFAULT_ROLES;

/// How the kernels start: HF PEFT's `init_weights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum C3aInit {
    /// `"xavier_uniform"`, or false: uniform within `sqrt(6 / (d_in + d_out))`; not the base.
    #[default]
    Xavier,
    /// `"kaiming_uniform"`: uniform within `1 / sqrt(d_in)`; not the base.
    Kaiming,
    /// `"gaussian"`: `N(0, 1)`; not the base.
    Gaussian,
    /// true: zeros, the base.
    Zeros,
}

impl Serialize for C3aInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Xavier => serializer.serialize_str("xavier_uniform"),
            Self::Kaiming => serializer.serialize_str("kaiming_uniform"),
            Self::Gaussian => serializer.serialize_str("gaussian"),
            Self::Zeros => serializer.serialize_bool(true),
        }
    }
}

impl<'de> Deserialize<'de> for C3aInit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        use serde::de::Error as _;
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Zeros),
            Value::Bool(false) => Ok(Self::Xavier),
            Value::String(name) if name == "xavier_uniform" => Ok(Self::Xavier),
            Value::String(name) if name == "kaiming_uniform" => Ok(Self::Kaiming),
            Value::String(name) if name == "gaussian" => Ok(Self::Gaussian),
            other => Err(D::Error::custom(format!(
                "{other} is none of true, false, \"xavier_uniform\", \"kaiming_uniform\", \"gaussian\""
            ))),
        }
    }
}

/// Configuration of [`C3a`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `block_size` | 256 | the size of a block, which must divide `d_in` and `d_out` |
/// | `block_size_pattern` | empty | sizes for some modules, see [`PatternMap`] |
/// | `init_weights` (`init`) | `"xavier_uniform"` | see [`C3aInit`]; true starts at the base |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `c3a_only`: biases that are trained beside |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct C3aConfig {
    /// The size of a block.
    pub block_size: usize,
    /// Sizes for some modules.
    pub block_size_pattern: PatternMap<usize>,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Which biases are trained.
    pub bias: BiasChoice,
    /// How the kernels start.
    #[serde(rename = "init_weights")]
    pub init: C3aInit,
}

impl Default for C3aConfig {
    fn default() -> Self {
        Self {
            block_size: 256,
            block_size_pattern: PatternMap::default(),
            targets: Targets::default(),
            bias: BiasChoice::None,
            init: C3aInit::Xavier,
        }
    }
}

impl C3aConfig {
    fn size_at(&self, site: &Site) -> Result<usize> {
        pattern_value("block_size_pattern", &self.block_size_pattern, &site.path, self.block_size)
    }
}

impl MethodConfig for C3aConfig {
    const NAME: &'static str = "c3a";
    const PEFT_TYPE: &'static str = "C3A";
    const ABOUT: &'static str = "a change of weights by circulant blocks (Chen et al. 2024)";
    // Kernels are divided by d_in: a step on the weight is that much smaller.
    const LEARNING_RATE: f64 = 3e-2;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "d_in d_out / b per matrix, with blocks of b",
        merges: "yes",
        formats: "peft",
    };
    type Method = C3a;

    /// Without `exclude_modules`, which HF PEFT does not know here.
    fn for_file(&self, base: &Base) -> Result<Self> {
        let targets = match self.targets.exclude_modules {
            Some(_) => self.targets.by_modules(base, &[SiteKind::Linear], DEFAULT_ROLES)?,
            None => self.targets.named(base, &[SiteKind::Linear], DEFAULT_ROLES)?,
        };
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        let of = |(key, size): (&String, &usize)| (format!("block_size_pattern[{key:?}]"), *size);
        let patterns = self.block_size_pattern.iter().map(of);
        for (field, size) in patterns.chain([("block_size".to_string(), self.block_size)]) {
            if size == 0 {
                return Err(Error::config(field, size, "must be at least 1"));
            }
        }
        self.bias.validate("c3a_only")?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        let mut unmatched = self.targets.unmatched(base, DEFAULT_ROLES)?;
        let patterns = &self.block_size_pattern;
        unmatched.extend(unmatched_patterns("block_size_pattern", patterns, &sites)?);
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let size = self.size_at(site)?;
            let field = if size == self.block_size { "block_size" } else { "block_size_pattern" };
            let values = site.d_in() as f64 * site.d_out() as f64 / size as f64;
            Ok(Size::new(field, size, values))
        };
        self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<C3a> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        for site in &sites {
            let ([d_in, d_out], size) = (site.shape, self.size_at(site)?);
            if !d_in.is_multiple_of(size) || !d_out.is_multiple_of(size) {
                let expected =
                    format!("must divide the {d_in} inputs and {d_out} outputs of {site}");
                return Err(Error::config("block_size", size, expected));
            }
            let shape = [d_out / size, d_in / size, size];
            let uniform = |most: f64| Distribution::Uniform(-most, most);
            let kernel = match self.init {
                C3aInit::Zeros => Tensor::zeros(shape, device),
                C3aInit::Gaussian => context.random(shape, Distribution::Normal(0.0, 1.0)),
                C3aInit::Xavier => {
                    context.random(shape, uniform((6.0 / (d_in + d_out) as f64).sqrt()))
                }
                C3aInit::Kaiming => context.random(shape, uniform(1.0 / (d_in as f64).sqrt())),
            };
            layers[site.index] = Some(Param::from_tensor(kernel));
        }
        let biases = TrainedBiases::new(&self.bias, &sites, base, device);
        Ok(C3a { layers, biases })
    }
}

/// Circular convolution adaptation (Chen et al. 2024, arXiv 2407.19342): `y = x (W + C / d_in) + b`,
/// where each block `[b, b]` of `C` is circulant: what an input `i` of one block adds to an output `j` of
/// another is `w[(i - j) mod b]`, of the kernel `w` of the two.
///
/// Created with [`C3aConfig`].
#[derive(Module, Debug)]
pub struct C3a {
    /// The kernels, `[d_out / b, d_in / b, b]`, by [`Site::index`].
    layers: Vec<Option<Param<Tensor<3>>>>,
    biases: TrainedBiases,
}

/// `C / d_in`, `[d_in, d_out]`.
fn circulant(kernel: Tensor<3>) -> Tensor<2> {
    let [outputs, inputs, size] = kernel.dims();
    let device = kernel.device().without_autodiff();
    // [i, j]: which value of a kernel stands there.
    let place = |at: usize| ((at / size + size - at % size) % size) as i64;
    let places: Vec<i64> = (0..size * size).map(place).collect();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [size * size]), &device);
    let blocks = kernel.select(2, places).reshape([outputs, inputs, size, size]);
    let weight = blocks.permute([1, 2, 0, 3]).reshape([inputs * size, outputs * size]);
    weight / (inputs * size) as f64
}

impl Hooks for C3a {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let own = self.layers.get(site.index).and_then(Option::as_ref).map(|kernel| {
            let key = MemoKey { of: kernel.id, name: "circulant", site: None };
            let values = pass.memo.get(key, || circulant(kernel.val()));
            Edit::Weight(Arc::new(Added { values, rank: None })).into()
        });
        self.biases.below(site, own)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for C3a {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(kernel) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("c3a_kernel"), kernel, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }
}
