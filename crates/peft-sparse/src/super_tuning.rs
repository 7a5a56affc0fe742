//! Super-Tuning: the largest or the smallest entries of weights.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use peft_core::{
    Base, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Layout, LowRank, Method,
    MethodCard, MethodConfig, Pass, Result, Site, SiteKind, Size, Sparse, Targets,
};
use serde::{Deserialize, Serialize};

use crate::DEFAULT_ROLES;
use crate::selection::in_order;

/// Configuration of [`SuperTuning`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `sparsity` | 0.99 | the share of a weight's entries that stays as it is |
/// | `select_top` | true | train the entries that are largest in magnitude; false: the smallest |
/// | `r` (`rank`) | none | with factors of this rank beside them ("supra") |
/// | `lora_alpha` (`alpha`) | none | their scale is `alpha / r`; none: `2 r` |
/// | `lora_dropout` (`dropout`) | 0 | dropout on their input, in training |
/// | `save_precomputed_indices` | true | write the places of the entries; false: find them again in the model |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `init_weights` (`init`) | true | start at the base; false: at random values, which is not the base; for tests |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuperTuningConfig {
    /// The share of entries that stays as it is.
    pub sparsity: f64,
    /// Whether the largest entries are trained, not the smallest.
    pub select_top: bool,
    /// The rank of factors beside them.
    #[serde(rename = "r")]
    pub rank: Option<usize>,
    /// Numerator of the factors' scale.
    #[serde(rename = "lora_alpha")]
    pub alpha: Option<f64>,
    /// Dropout on the input of the factors.
    #[serde(rename = "lora_dropout")]
    pub dropout: f64,
    /// Whether the places are written.
    #[serde(rename = "save_precomputed_indices")]
    pub save_places: bool,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for SuperTuningConfig {
    fn default() -> Self {
        Self {
            sparsity: 0.99,
            select_top: true,
            rank: None,
            alpha: None,
            dropout: 0.0,
            save_places: true,
            targets: Targets::default(),
            init: true,
        }
    }
}

impl SuperTuningConfig {
    /// How many entries of a weight are trained.
    fn count(&self, [d_in, d_out]: [usize; 2]) -> usize {
        ((d_in * d_out) as f64 * (1.0 - self.sparsity)) as usize
    }

    /// The places of a weight `[d_in, d_out]`, as numbers of entries of `[d_out, d_in]`, the largest or
    /// the smallest first.
    fn places(&self, weight: Tensor<2>) -> Vec<i64> {
        let count = self.count(weight.dims());
        let sizes: Vec<f32> = in_order(weight).into_iter().map(f32::abs).collect();
        let order = |a: &usize, b: &usize| {
            let by_size = sizes[*a].total_cmp(&sizes[*b]);
            let by_size = if self.select_top { by_size.reverse() } else { by_size };
            by_size.then(a.cmp(b))
        };
        let mut places: Vec<usize> = (0..sizes.len()).collect();
        if count < places.len() {
            places.select_nth_unstable_by(count, order);
            places.truncate(count);
        }
        places.sort_unstable_by(order);
        places.into_iter().map(|place| place as i64).collect()
    }

    fn scaling(&self, rank: usize) -> f64 {
        self.alpha.unwrap_or(2.0 * rank as f64) / rank as f64
    }
}

impl MethodConfig for SuperTuningConfig {
    const NAME: &'static str = "super-tuning";
    const PEFT_TYPE: &'static str = "SUPERTUNING";
    const ABOUT: &'static str =
        "the largest entries of weights, with a LoRA beside them or without";
    // As SHiRA's.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "r"),
        ("alpha", "lora_alpha"),
        ("dropout", "lora_dropout"),
        ("init", "init_weights"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "d_in d_out (1 - sparsity) per matrix; with r: + r (d_in + d_out)",
        merges: "yes",
        formats: "peft",
    };
    type Method = SuperTuning;

    /// By modules alone: HF PEFT knows no other field here.
    fn for_file(&self, base: &Base) -> Result<Self> {
        let targets = self.targets.by_modules(base, &[SiteKind::Linear], DEFAULT_ROLES)?;
        let alpha = self.alpha.or(self.rank.map(|rank| 2.0 * rank as f64));
        Ok(Self { targets, alpha, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.sparsity) {
            return Err(Error::config("sparsity", self.sparsity, "must be at least 0, below 1"));
        }
        if self.rank == Some(0) {
            return Err(Error::config("r", 0, "must be at least 1, or null for no factors"));
        }
        if let Some(alpha) = self.alpha {
            if self.rank.is_none() {
                let expected = "is the scale of factors, which there are with r only";
                return Err(Error::config("lora_alpha", alpha, expected));
            }
            if !(alpha.is_finite() && alpha != 0.0) {
                return Err(Error::config("lora_alpha", alpha, "must be a number other than 0"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("lora_dropout", self.dropout, "must be at least 0, below 1"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let sparse = Size::new("sparsity", self.sparsity, self.count(site.shape) as f64);
            let width = (site.d_in() + site.d_out()) as f64;
            let factors = self.rank.map(|rank| Size::new("r", rank, rank as f64 * width));
            [Some(sparse), factors].into_iter().flatten()
        };
        Ok(self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().flat_map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<SuperTuning> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        for site in self.targets.resolve(base, DEFAULT_ROLES)? {
            let ([d_in, d_out], count) = (site.shape, self.count(site.shape));
            if count == 0 {
                let expected = format!("leaves nothing of the {} entries at {site}", d_in * d_out);
                return Err(Error::config("sparsity", self.sparsity, expected));
            }
            let values = match self.init {
                true => Tensor::zeros([count], device),
                false => context.random([count], Distribution::Normal(0.0, 1.0)),
            };
            let places = match context.is_read() && self.save_places {
                true => vec![0; count],
                false => self.places(base.weight(site).dense()),
            };
            let places = TensorData::new(places, [count]);
            let places = Tensor::<1, Int>::from_data(places, device);
            let factors = self.rank.map(|rank| {
                let uniform = |shape: [usize; 2], most: f64| {
                    context.random(shape, Distribution::Uniform(-most, most))
                };
                let a = uniform([d_in, rank], 1.0 / (d_in as f64).sqrt());
                let b = match self.init {
                    true => Tensor::zeros([rank, d_out], device),
                    false => uniform([rank, d_out], 1.0 / (rank as f64).sqrt()),
                };
                [a, b].map(Param::from_tensor)
            });
            let (values, places) =
                (Param::from_tensor(values), Param::initialized(ParamId::new(), places));
            layers[site.index] = Some(SuperTuningLayer { values, places, factors });
        }
        let scaling = self.rank.map_or(1.0, |rank| self.scaling(rank));
        let (dropout, save_places) = (self.dropout, self.save_places);
        Ok(SuperTuning { layers, scaling, dropout, save_places })
    }
}

/// Super-Tuning, of HF PEFT: `y = x (W + S) + b`, where `S`, `[d_in, d_out]`, has a value for each of the
/// entries of `W` that are largest, or smallest, in magnitude; with `r` ("supra"), `y + s (x A) B`, too.
///
/// Created with [`SuperTuningConfig`].
#[derive(Module, Debug)]
pub struct SuperTuning {
    /// By [`Site::index`].
    layers: Vec<Option<SuperTuningLayer>>,
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    save_places: bool,
}

/// What is trained at one layer.
#[derive(Module, Debug)]
pub struct SuperTuningLayer {
    /// `[n]`.
    pub values: Param<Tensor<1>>,
    /// `[n]`: the number of each entry in `[d_out, d_in]`.
    pub places: Param<Tensor<1, Int>>,
    /// `A`, `[d_in, r]`, and `B`, `[r, d_out]`.
    pub factors: Option<[Param<Tensor<2>>; 2]>,
}

impl Hooks for SuperTuning {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some(Some(layer)) = self.layers.get(site.index) else { return Edits::none() };
        let (places, d_in) = (layer.places.val(), site.d_in() as i64);
        let (inputs, outputs) = (places.clone().remainder_scalar(d_in), places.div_scalar(d_in));
        let edits = Edits::from(Sparse { inputs, outputs, values: layer.values.val() });
        let edits = match &layer.factors {
            None => edits,
            Some([a, b]) => {
                edits.then(LowRank::new(a.val(), b.val(), self.scaling).with_dropout(self.dropout))
            }
        };
        match self.save_places {
            true => edits,
            false => edits.without_inverse(
                "its places, which are not saved, are those of a weight that is no longer there",
            ),
        }
    }
}

impl Method for SuperTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            file.param(site.key("supertuning_values"), &mut layer.values, Layout::AsIs);
            if self.save_places {
                let bound = site.d_in() * site.d_out();
                file.places(site.key("supertuning_indices"), &mut layer.places, &[bound]);
            }
            if let Some([a, b]) = &mut layer.factors {
                file.param(site.key("supertuning_lora_A.weight"), a, Layout::Transposed);
                file.param(site.key("supertuning_lora_B.weight"), b, Layout::Transposed);
            }
        }
    }
}
