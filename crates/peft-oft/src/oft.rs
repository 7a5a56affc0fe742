//! OFT: rotations of blocks of the input.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, BiasChoice, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Layout,
    MemoKey, Method, MethodCard, MethodConfig, NormEdit, Pass, Result, Rotate, Side, Site, Size,
    StepContext, Targets, TrainedBiases,
};
use serde::{Deserialize, Serialize};

use crate::blocks::{cayley, cayley_neumann, dropped, skew};
use crate::{DEFAULT_ROLES, named};

/// Configuration of [`Oft`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `oft_block_size` (`block_size`) | 32 | the size of a block; where it does not divide `d_in`, the nearest number that does, the smaller of two |
/// | `r` | 0 | instead of the size, with `oft_block_size = 0`: how many blocks there are, adjusted likewise |
/// | `use_cayley_neumann` | true | a series in the place of the exact transform, which needs an inverse and has the other sign |
/// | `num_cayley_neumann_terms` | 5 | the terms of the series |
/// | `coft`, `eps` | false, 6e-5 | keep the norm of each block's `Q` below `eps / sqrt(blocks)` |
/// | `block_share` | false | one block for all |
/// | `module_dropout` (`dropout`) | 0 | in training, the probability that a block is left out; not where there is only one |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `oft_only`: biases that are trained beside |
/// | `init_weights` (`init`) | true | start at the identity; false: at values from `N(0, 0.1)`, which is not the base; for tests |
/// | `fan_in_fan_out` | false | says that the checkpoint stores `[d_in, d_out]`; the model knows, so it is written, not needed |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OftConfig {
    /// How many blocks there are, in the place of their size.
    #[serde(rename = "r")]
    pub blocks: usize,
    /// The size of a block.
    #[serde(rename = "oft_block_size")]
    pub block_size: usize,
    /// In training, the probability that a block is left out.
    #[serde(rename = "module_dropout")]
    pub dropout: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Whether the checkpoint stores the weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
    /// Which biases are trained.
    pub bias: BiasChoice,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
    /// Whether the rotations are kept near the identity.
    pub coft: bool,
    /// How near.
    pub eps: f64,
    /// Whether one block is that of all.
    pub block_share: bool,
    /// Whether a series is in the place of the Cayley transform.
    pub use_cayley_neumann: bool,
    /// Its terms.
    #[serde(rename = "num_cayley_neumann_terms")]
    pub terms: usize,
}

impl Default for OftConfig {
    fn default() -> Self {
        Self {
            blocks: 0,
            block_size: 32,
            dropout: 0.0,
            targets: Targets::default(),
            fan_in_fan_out: false,
            bias: BiasChoice::None,
            init: true,
            coft: false,
            eps: 6e-5,
            block_share: false,
            use_cayley_neumann: true,
            terms: 5,
        }
    }
}

impl OftConfig {
    /// How many blocks there are at a layer with so many inputs, and their size.
    pub fn blocks_of(&self, d_in: usize) -> [usize; 2] {
        match self.blocks {
            0 => {
                let size = divisor_near(d_in, self.block_size);
                [d_in / size, size]
            }
            count => {
                let count = divisor_near(d_in, count);
                [count, d_in / count]
            }
        }
    }

    /// The rows and columns of the parameter at a layer.
    fn shape(&self, d_in: usize) -> [usize; 2] {
        let [count, size] = self.blocks_of(d_in);
        [if self.block_share { 1 } else { count }, size * (size - 1) / 2]
    }

    /// The field that says how large a block is.
    fn size_field(&self) -> (&'static str, usize) {
        if self.blocks == 0 { ("oft_block_size", self.block_size) } else { ("r", self.blocks) }
    }
}

/// The divisor of `d_in` that is nearest to `wanted`, the smaller one of two.
fn divisor_near(d_in: usize, wanted: usize) -> usize {
    let wanted = wanted.clamp(1, d_in);
    let below = (1..=wanted).rev().find(|size| d_in.is_multiple_of(*size)).unwrap_or(1);
    let above = (wanted..=d_in).find(|size| d_in.is_multiple_of(*size)).unwrap_or(d_in);
    if wanted - below <= above - wanted { below } else { above }
}

impl MethodConfig for OftConfig {
    const NAME: &'static str = "oft";
    const PEFT_TYPE: &'static str = "OFT";
    const ABOUT: &'static str = "rotations of blocks of the input (Qiu et al. 2023)";
    // As LoRA's: a rotation by small angles is a small change of the weight.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("block_size", "oft_block_size"),
        ("dropout", "module_dropout"),
        ("init", "init_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "d_in (b - 1) / 2 per matrix, with blocks of b",
        merges: "yes",
        formats: "peft",
    };
    type Method = Oft;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, fan_in_fan_out) = named(&self.targets, base)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        match (self.blocks, self.block_size) {
            (0, 0) => {
                let expected = "must be at least 2, or r the number of blocks";
                return Err(Error::config("oft_block_size", 0, expected));
            }
            (0, 1) => {
                let expected = "must be at least 2: a block of one number cannot turn";
                return Err(Error::config("oft_block_size", 1, expected));
            }
            (0, _) | (_, 0) => {}
            (blocks, size) => {
                let expected = format!(
                    "there are as many blocks as their size leaves: give r = 0 with it, or \
                     oft_block_size = 0, which is {size}"
                );
                return Err(Error::config("r", blocks, expected));
            }
        }
        if self.use_cayley_neumann && self.terms < 2 {
            let expected = "must be at least 2: with fewer, nothing turns";
            return Err(Error::config("num_cayley_neumann_terms", self.terms, expected));
        }
        if self.terms > 64 {
            let expected = "must be at most 64: use_cayley_neumann = false is exact";
            return Err(Error::config("num_cayley_neumann_terms", self.terms, expected));
        }
        if self.coft && !(self.eps.is_finite() && self.eps > 0.0) {
            return Err(Error::config("eps", self.eps, "must be a positive number"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(
                "module_dropout",
                self.dropout,
                "must be at least 0, below 1",
            ));
        }
        self.bias.validate("oft_only")?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let (field, value) = self.size_field();
        let at = |site: &Site| {
            let [rows, columns] = self.shape(site.d_in());
            Size::new(field, value, rows as f64 * columns as f64)
        };
        Ok(self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Oft> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        for site in &sites {
            let [_, size] = self.blocks_of(site.d_in());
            if size == 1 {
                let (field, value) = self.size_field();
                let expected = format!("leaves blocks of one number at {site}, which cannot turn");
                return Err(Error::config(field, value, expected));
            }
            let shape = self.shape(site.d_in());
            let start = match self.init {
                true => Tensor::zeros(shape, device),
                false => context.random(shape, Distribution::Normal(0.0, 0.1)),
            };
            layers[site.index] = Some(Param::from_tensor(start));
        }
        let biases = TrainedBiases::new(&self.bias, &sites, base, device);
        Ok(Oft { layers, biases, config: self.clone() })
    }
}

/// Orthogonal fine-tuning (Qiu et al. 2023, arXiv 2306.07280; of the input, Qiu et al. 2025, arXiv
/// 2506.19847): `y = (x R) W + b`, with `R` of blocks `[blocks, b, b]` on its diagonal, which are made
/// of skew-symmetric `Q`, `b (b - 1) / 2` values each: `R = (I - Q) (I + Q)⁻¹`, or the series
/// `R = I + 2 Q + 2 Q² + 2 Q³ + Q⁴`.
///
/// Created with [`OftConfig`].
#[derive(Module, Debug)]
pub struct Oft {
    /// What is above the diagonals of `Q`, `[blocks, b (b - 1) / 2]`, by [`Site::index`].
    layers: Vec<Option<Param<Tensor<2>>>>,
    biases: TrainedBiases,
    #[module(skip)]
    config: OftConfig,
}

impl Oft {
    fn edits(&self, above: &Param<Tensor<2>>, site: &Site, pass: &Pass<'_>) -> Edits {
        let [count, size] = self.config.blocks_of(site.d_in());
        let key = MemoKey { of: above.id, name: "rotation", site: None };
        let blocks = pass.memo.get(key, || {
            let own = above.val();
            // The gradient is that of where it is projected to.
            let own = match self.projected(own.clone().detach()) {
                Some(projected) => own.clone() + (projected - own.detach()),
                None => own,
            };
            let skew = skew(own, size);
            let blocks = match self.config.use_cayley_neumann {
                true => cayley_neumann(skew, self.config.terms),
                false => cayley(skew),
            };
            blocks.expand([count, size, size])
        });
        let rotate = Rotate::blocks(dropped(blocks, self.config.dropout, pass), Side::Input);
        match self.config.use_cayley_neumann {
            true => rotate.into(),
            false => rotate.orthogonal().into(),
        }
    }

    /// The values that keep `‖Q‖` below `eps / sqrt(blocks)` for each block, where that is wanted.
    fn projected(&self, above: Tensor<2>) -> Option<Tensor<2>> {
        if !self.config.coft {
            return None;
        }
        let most = self.config.eps / (above.dims()[0] as f64).sqrt();
        // Each value is there twice.
        let norms = (above.clone().square().sum_dim(1) * 2.0).sqrt();
        let is_large = norms.clone().greater_elem(most);
        let factors = norms.recip() * most;
        Some(above * Tensor::ones_like(&factors).mask_where(is_large, factors))
    }
}

impl Hooks for Oft {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let own = self.layers.get(site.index).and_then(Option::as_ref);
        self.biases.below(site, own.map(|above| self.edits(above, site, pass)))
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Oft {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(above) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("oft_R.weight"), above, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }

    /// A constrained rotation that left its bound is put back on it.
    fn after_step(&mut self, _context: &StepContext<'_>) {
        if !self.config.coft {
            return;
        }
        let mut layers = std::mem::take(&mut self.layers);
        for above in layers.iter_mut().flatten() {
            let (id, values, mapper) = above.clone().consume();
            let projected = self.projected(values.detach()).expect("it is constrained");
            *above = Param::from_mapped_value(id, projected.detach().require_grad(), mapper);
        }
        self.layers = layers;
    }
}
