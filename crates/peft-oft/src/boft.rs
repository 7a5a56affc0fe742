//! BOFT: rotations of blocks of the input, and a scale of the weight's columns.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, BiasChoice, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Key, Layout,
    MemoKey, Method, MethodCard, MethodConfig, NormEdit, Pass, Result, Rotate, Scale, Side, Site,
    Size, Targets, TrainedBiases,
};
use serde::{Deserialize, Serialize};

use crate::blocks::{cayley, dropped};
use crate::{DEFAULT_ROLES, named};

/// Configuration of [`Boft`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `boft_block_size` (`block_size`) | 4 | the size of a block, which must divide `d_in` |
/// | `boft_block_num` (`blocks`) | 0 | instead of the size, with `boft_block_size = 0`: how many blocks there are |
/// | `boft_n_butterfly_factor` | 1 | taken as 1, whatever it says, with a warning: HF PEFT does so wherever its CUDA extension cannot be built, and its files have one factor |
/// | `boft_dropout` (`dropout`) | 0 | in training, the probability that a block is left out; not where there is only one |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `boft_only`: biases that are trained beside |
/// | `init_weights` (`init`) | true | start at the base; false: at random values, which is not the base; for tests |
/// | `fan_in_fan_out` | false | says that the checkpoint stores `[d_in, d_out]`; the model knows, so it is written, not needed |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoftConfig {
    /// The size of a block.
    #[serde(rename = "boft_block_size")]
    pub block_size: usize,
    /// How many blocks there are, in the place of their size.
    #[serde(rename = "boft_block_num")]
    pub blocks: usize,
    /// How many factors the rotation has; one, whatever it says.
    #[serde(rename = "boft_n_butterfly_factor")]
    pub factors: usize,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// In training, the probability that a block is left out.
    #[serde(rename = "boft_dropout")]
    pub dropout: f64,
    /// Whether the checkpoint stores the weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
    /// Which biases are trained.
    pub bias: BiasChoice,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for BoftConfig {
    fn default() -> Self {
        Self {
            block_size: 4,
            blocks: 0,
            factors: 1,
            targets: Targets::default(),
            dropout: 0.0,
            fan_in_fan_out: false,
            bias: BiasChoice::None,
            init: true,
        }
    }
}

impl BoftConfig {
    /// How many blocks there are at a layer with so many inputs, and their size; `None` where they do
    /// not fit.
    fn blocks_of(&self, d_in: usize) -> Option<[usize; 2]> {
        let of = |part: usize| d_in.is_multiple_of(part).then(|| d_in / part);
        match self.blocks {
            0 => of(self.block_size).map(|count| [count, self.block_size]),
            count => of(count).map(|size| [count, size]),
        }
    }

    /// The field that says how large a block is.
    fn size_field(&self) -> (&'static str, usize) {
        match self.blocks {
            0 => ("boft_block_size", self.block_size),
            count => ("boft_block_num", count),
        }
    }
}

impl MethodConfig for BoftConfig {
    const NAME: &'static str = "boft";
    const PEFT_TYPE: &'static str = "BOFT";
    const ABOUT: &'static str = "rotations of blocks of the input, with a scale (Liu et al. 2023)";
    // As OFT's.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("block_size", "boft_block_size"),
        ("blocks", "boft_block_num"),
        ("dropout", "boft_dropout"),
        ("init", "init_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "d_in b + d_out per matrix, with blocks of b",
        merges: "yes",
        formats: "peft",
    };
    type Method = Boft;

    /// With the one factor that is meant, wherever the file is read.
    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = named(&self.targets, base)?;
        Ok(Self { targets, fan_in_fan_out, factors: 1, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        match (self.blocks, self.block_size) {
            (0, 0) => {
                let expected = "must be at least 1, or boft_block_num the number of blocks";
                return Err(Error::config("boft_block_size", 0, expected));
            }
            (0, _) | (_, 0) => {}
            (blocks, size) => {
                let expected = format!(
                    "there are as many blocks as their size leaves: give boft_block_num = 0 with it, \
                     or boft_block_size = 0, which is {size}"
                );
                return Err(Error::config("boft_block_num", blocks, expected));
            }
        }
        if self.factors == 0 {
            return Err(Error::config("boft_n_butterfly_factor", 0, "must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("boft_dropout", self.dropout, "must be at least 0, below 1"));
        }
        self.bias.validate("boft_only")?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let (field, value) = self.size_field();
        let at = |site: &Site| {
            let [count, size] = self.blocks_of(site.d_in()).unwrap_or([0, 0]);
            Size::new(field, value, (count * size) as f64 * size as f64 + site.d_out() as f64)
        };
        Ok(self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Boft> {
        self.validate()?;
        if self.factors > 1 {
            tracing::warn!(
                "boft_n_butterfly_factor = {}: taken as 1, as HF PEFT does without its CUDA extension",
                self.factors
            );
        }
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        for site in &sites {
            let [d_in, d_out] = site.shape;
            let Some([count, size]) = self.blocks_of(d_in) else {
                let (field, value) = self.size_field();
                let expected = format!("must divide the {d_in} inputs of {site}");
                return Err(Error::config(field, value, expected));
            };
            let (rotation, scale) = match self.init {
                true => (Tensor::zeros([count, size, size], device), Tensor::ones([d_out], device)),
                false => (
                    context.random([count, size, size], Distribution::Normal(0.0, 0.1)),
                    context.random([d_out], Distribution::Normal(1.0, 0.1)),
                ),
            };
            let (rotation, scale) = (Param::from_tensor(rotation), Param::from_tensor(scale));
            layers[site.index] = Some(BoftLayer { rotation, scale });
        }
        let biases = TrainedBiases::new(&self.bias, &sites, base, device);
        Ok(Boft { layers, biases, dropout: self.dropout })
    }
}

/// Butterfly orthogonal fine-tuning (Liu et al. 2023, arXiv 2311.06243) with one factor:
/// `y = (x R) W ⊙ s + b`, with `R` of blocks `[blocks, b, b]` on its diagonal,
/// `(I - S) (I + S)⁻¹` with `S = (P - Pᵀ) / 2`, and a scale `s`, `[d_out]`.
///
/// Created with [`BoftConfig`].
#[derive(Module, Debug)]
pub struct Boft {
    /// By [`Site::index`].
    layers: Vec<Option<BoftLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    dropout: f64,
}

/// What is trained at one layer.
#[derive(Module, Debug)]
pub struct BoftLayer {
    /// `P`, `[blocks, b, b]`.
    pub rotation: Param<Tensor<3>>,
    /// `s`, `[d_out]`.
    pub scale: Param<Tensor<1>>,
}

impl Boft {
    fn edits(&self, layer: &BoftLayer, pass: &Pass<'_>) -> Edits {
        let key = MemoKey { of: layer.rotation.id, name: "rotation", site: None };
        let blocks = pass.memo.get(key, || {
            let own = layer.rotation.val();
            cayley((own.clone() - own.swap_dims(1, 2)) * 0.5)
        });
        let blocks = dropped(blocks, self.dropout, pass);
        Edits::from(Rotate::blocks(blocks, Side::Input).orthogonal())
            .then(Scale::output(layer.scale.val()).keeping_bias())
    }
}

impl Hooks for Boft {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let own = self.layers.get(site.index).and_then(Option::as_ref);
        self.biases.below(site, own.map(|layer| self.edits(layer, pass)))
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Boft {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                let [count, size, _] = layer.rotation.lazy_shape().dims();
                let key = Key::from(site.key("boft_R")).peft_shape([1, count, size, size]);
                file.param(key, &mut layer.rotation, Layout::AsIs);
                let key = Key::from(site.key("boft_s")).peft_shape([site.d_out(), 1]);
                file.param(key, &mut layer.scale, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }
}
