//! FourierFT: a change of few frequencies.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, IndexingUpdateOp, Int, Tensor, TensorData};
use peft_core::{
    Added, Base, BiasChoice, ComputationFunction, Edit, Edits, Error, Exchange, Hooks, InitContext,
    Layout, MemoKey, Method, MethodCard, MethodConfig, NormEdit, Pass, PatternMap, Result, Site,
    SiteKind, Size, Targets, TrainedBiases, pattern_value, torch_permutation, unmatched_patterns,
};
use serde::{Deserialize, Serialize};

use crate::DEFAULT_ROLES;

/// Configuration of [`FourierFt`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `n_frequency` (`frequencies`) | 1000 | how many values the spectrum of a change has |
/// | `n_frequency_pattern` | empty | numbers for some modules, see [`PatternMap`] |
/// | `scaling` | 150 | a factor on the change |
/// | `random_loc_seed` (`seed`) | 777 | the seed of the choice of frequencies, which is PyTorch's, since they are not in the file |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `fourierft_only`: biases that are trained beside |
/// | `init_weights` (`init`) | false | start at zeros, the base; false: at values from `N(0, 1)`, as HF PEFT, which is near it |
/// | `fan_in_fan_out` | false | says that the checkpoint stores `[d_in, d_out]`; the model knows, so it is written, not needed |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FourierFtConfig {
    /// How many values a spectrum has.
    #[serde(rename = "n_frequency")]
    pub frequencies: usize,
    /// Numbers for some modules.
    #[serde(rename = "n_frequency_pattern")]
    pub frequency_pattern: PatternMap<usize>,
    /// A factor on the change.
    pub scaling: f64,
    /// The seed of the choice of frequencies.
    #[serde(rename = "random_loc_seed")]
    pub seed: u64,
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
}

impl Default for FourierFtConfig {
    fn default() -> Self {
        Self {
            frequencies: 1000,
            frequency_pattern: PatternMap::default(),
            scaling: 150.0,
            seed: 777,
            targets: Targets::default(),
            fan_in_fan_out: false,
            bias: BiasChoice::None,
            init: false,
        }
    }
}

impl FourierFtConfig {
    fn count_at(&self, site: &Site) -> Result<usize> {
        let patterns = &self.frequency_pattern;
        pattern_value("n_frequency_pattern", patterns, &site.path, self.frequencies)
    }
}

impl MethodConfig for FourierFtConfig {
    const NAME: &'static str = "fourierft";
    const PEFT_TYPE: &'static str = "FOURIERFT";
    const ABOUT: &'static str = "a change of weights by few frequencies (Gao et al. 2024)";
    // Values of a spectrum are divided by d_in d_out: the paper's rates are as large.
    const LEARNING_RATE: f64 = 5e-2;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("frequencies", "n_frequency"), ("seed", "random_loc_seed"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "n_frequency per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = FourierFt;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        let fan_in_fan_out = sites.iter().any(|site| site.fan_in_fan_out);
        let targets = self.targets.named(base, &[SiteKind::Linear], DEFAULT_ROLES)?;
        Ok(Self { targets, fan_in_fan_out, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        let of =
            |(key, count): (&String, &usize)| (format!("n_frequency_pattern[{key:?}]"), *count);
        let patterns = self.frequency_pattern.iter().map(of);
        for (field, count) in patterns.chain([("n_frequency".to_string(), self.frequencies)]) {
            if count == 0 {
                return Err(Error::config(field, count, "must be at least 1"));
            }
        }
        if !(self.scaling.is_finite() && self.scaling != 0.0) {
            return Err(Error::config("scaling", self.scaling, "must be a number other than 0"));
        }
        self.bias.validate("fourierft_only")?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        let mut unmatched = self.targets.unmatched(base, DEFAULT_ROLES)?;
        let patterns = &self.frequency_pattern;
        unmatched.extend(unmatched_patterns("n_frequency_pattern", patterns, &sites)?);
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let count = self.count_at(site)?;
            let is_own = count == self.frequencies;
            let field = if is_own { "n_frequency" } else { "n_frequency_pattern" };
            Ok(Size::new(field, count, count as f64))
        };
        self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<FourierFt> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        for site in &sites {
            let ([d_in, d_out], count) = (site.shape, self.count_at(site)?);
            if count > d_in * d_out {
                let expected = format!("must be at most {} at {site}", d_in * d_out);
                return Err(Error::config("n_frequency", count, expected));
            }
            let spectrum = match self.init {
                true => Tensor::zeros([count], device),
                false => context.random([count], Distribution::Normal(0.0, 1.0)),
            };
            let places = torch_permutation(d_in * d_out, self.seed, count);
            let spectrum = Param::from_tensor(spectrum);
            layers[site.index] = Some(FourierFtLayer { spectrum, places });
        }
        let biases = TrainedBiases::new(&self.bias, &sites, base, device);
        Ok(FourierFt { layers, biases, scaling: self.scaling })
    }
}

/// FourierFT (Gao et al. 2024, arXiv 2405.03003): `y = x (W + s D) + b`, where `D` is the real part of
/// the inverse Fourier transform, in two dimensions, of a spectrum with values at `n` places:
/// `D[i, o] = Σ c cos(2π (o u / d_out + i v / d_in)) / (d_in d_out)`, for each value `c` at `[u, v]`.
///
/// Created with [`FourierFtConfig`].
#[derive(Module, Debug)]
pub struct FourierFt {
    /// By [`Site::index`].
    layers: Vec<Option<FourierFtLayer>>,
    biases: TrainedBiases,
    #[module(skip)]
    scaling: f64,
}

/// The spectrum of one layer.
#[derive(Module, Debug)]
pub struct FourierFtLayer {
    /// `[n]`.
    pub spectrum: Param<Tensor<1>>,
    /// The places of its values, as numbers of entries of `[d_out, d_in]`; they follow from the seed.
    #[module(skip)]
    places: Vec<usize>,
}

impl FourierFtLayer {
    /// `s D`, `[d_in, d_out]`.
    ///
    /// The spectrum is spread along one axis where it has values, and then along the other: two
    /// products for each of the cosine and the sine, with as many frequencies as there are on an axis.
    fn dense(&self, [d_in, d_out]: [usize; 2], scaling: f64) -> Tensor<2> {
        let spectrum = self.spectrum.val();
        let device = spectrum.device().without_autodiff();
        // [d_in, d_out]: v by u.
        let places: Vec<i64> =
            self.places.iter().map(|at| ((at % d_in) * d_out + at / d_in) as i64).collect();
        let count = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device);
        let whole = Tensor::<1>::zeros([d_in * d_out], &spectrum.device());
        let whole = whole.select_assign(0, places, spectrum, IndexingUpdateOp::Add);
        let whole: Tensor<2> = whole.reshape([d_in, d_out]);
        let of = |function: fn(f64) -> f64, size: usize| {
            let angle = |at: usize| (at / size) * (at % size) % size;
            let turn = std::f64::consts::TAU / size as f64;
            let table: Vec<f32> = (0..size).map(|at| function(turn * at as f64) as f32).collect();
            let values: Vec<f32> = (0..size * size).map(|at| table[angle(at)]).collect();
            Tensor::<2>::from_data(TensorData::new(values, [size, size]), &device)
        };
        // cos(a + b) = cos a cos b - sin a sin b.
        let by = |function| of(function, d_in).matmul(whole.clone()).matmul(of(function, d_out));
        (by(f64::cos) - by(f64::sin)) * (scaling / (d_in * d_out) as f64)
    }
}

impl Hooks for FourierFt {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let own = self.layers.get(site.index).and_then(Option::as_ref).map(|layer| {
            let key = MemoKey { of: layer.spectrum.id, name: "change", site: None };
            let values = pass.memo.get(key, || layer.dense(site.shape, self.scaling));
            Edit::Weight(Arc::new(Added { values, rank: None })).into()
        });
        self.biases.below(site, own)
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for FourierFt {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("fourierft_spectrum"), &mut layer.spectrum, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }
}
