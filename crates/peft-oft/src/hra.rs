//! HRA: a product of reflections of the input.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, BiasChoice, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Layout,
    MemoKey, Method, MethodCard, MethodConfig, NormEdit, Pass, Result, Rotate, Side, Site, Size,
    Targets, TrainedBiases,
};
use serde::{Deserialize, Serialize};

use crate::blocks::{identity, invert};
use crate::{DEFAULT_ROLES, named};

/// Configuration of [`Hra`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | how many reflections; the start is the base where it is even |
/// | `apply_GS` | false | make the vectors orthogonal (Gram–Schmidt); the start is then never the base |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `bias` | `none` | `none`, `all`, `hra_only`: biases that are trained beside |
/// | `init_weights` (`init`) | true | start with pairs of the same vector, which leave everything as it is; false: with random ones, which do not; for tests |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HraConfig {
    /// How many reflections.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Whether the vectors are made orthogonal.
    #[serde(rename = "apply_GS")]
    pub orthogonal: bool,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Which biases are trained.
    pub bias: BiasChoice,
    /// Whether the start is the base.
    #[serde(rename = "init_weights")]
    pub init: bool,
}

impl Default for HraConfig {
    fn default() -> Self {
        let (targets, bias) = (Targets::default(), BiasChoice::None);
        Self { rank: 8, orthogonal: false, targets, bias, init: true }
    }
}

impl MethodConfig for HraConfig {
    const NAME: &'static str = "hra";
    const PEFT_TYPE: &'static str = "HRA";
    const ABOUT: &'static str = "a product of reflections of the input (Yuan et al. 2024)";
    // As LoRA's, of which it is a kin: the change is of rank r.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("rank", "r"), ("init", "init_weights")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r d_in per matrix",
        merges: "yes",
        formats: "peft",
    };
    type Method = Hra;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let (targets, _) = named(&self.targets, base)?;
        Ok(Self { targets, ..self.clone() })
    }

    fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("r", 0, "must be at least 1"));
        }
        self.bias.validate("hra_only")?;
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, DEFAULT_ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| Size::new("r", self.rank, self.rank as f64 * site.d_in() as f64);
        Ok(self.targets.resolve(base, DEFAULT_ROLES)?.into_iter().map(at).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Hra> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        for site in &sites {
            let (d, rank) = (site.d_in(), self.rank);
            if self.orthogonal && rank > d {
                let expected = format!("must be at most {d} at {site}, with apply_GS");
                return Err(Error::config("r", rank, expected));
            }
            // Two equal vectors cannot be made orthogonal.
            let in_pairs = self.init && rank.is_multiple_of(2) && !self.orthogonal;
            let drawn = if in_pairs { rank / 2 } else { rank };
            let most = 1.0 / (drawn as f64).sqrt();
            let vectors = context.random([d, drawn], Distribution::Uniform(-most, most));
            let vectors = match in_pairs {
                true => vectors.unsqueeze_dim::<3>(2).expand([d, drawn, 2]).reshape([d, rank]),
                false => vectors,
            };
            layers[site.index] = Some(Param::from_tensor(vectors));
        }
        let biases = TrainedBiases::new(&self.bias, &sites, base, device);
        Ok(Hra { layers, biases, orthogonal: self.orthogonal })
    }
}

/// Householder reflection adaptation (Yuan et al. 2024, arXiv 2405.17484): `y = x Qᵀ W + b`, with
/// `Q = H₁ H₂ ... H_r` and `Hᵢ = I - 2 uᵢ uᵢᵀ / ‖uᵢ‖²`, from `u` of shape `[d_in, r]`.
///
/// The product is computed as `Q = I - 2 V Uᵀ`, of rank `r`, with `V (I + 2 N) = U` where `U` has the
/// normalised vectors and `N` is what of `Uᵀ U` is above the diagonal. With orthogonal vectors `N` is
/// zero.
///
/// Created with [`HraConfig`].
#[derive(Module, Debug)]
pub struct Hra {
    /// `u`, `[d_in, r]`, by [`Site::index`].
    layers: Vec<Option<Param<Tensor<2>>>>,
    biases: TrainedBiases,
    #[module(skip)]
    orthogonal: bool,
}

impl Hra {
    fn edits(&self, vectors: &Param<Tensor<2>>, pass: &Pass<'_>) -> Edits {
        let key = MemoKey { of: vectors.id, name: "reflections", site: None };
        let (a, b) = pass.memo.get(key, || {
            let [u, v] = match self.orthogonal {
                true => {
                    let u = orthonormal(vectors.val());
                    [u.clone(), u]
                }
                false => product(normalised(vectors.val())),
            };
            (u * -2.0, v.transpose())
        });
        Rotate::low_rank(a, b, Side::Input).orthogonal().into()
    }
}

/// Columns of length one.
fn normalised(vectors: Tensor<2>) -> Tensor<2> {
    let norms = vectors.clone().square().sum_dim(0).sqrt();
    vectors / norms
}

/// `U` and `V` of `I - 2 V Uᵀ`, the product of the reflections at columns of length one.
fn product(u: Tensor<2>) -> [Tensor<2>; 2] {
    let above = u.clone().transpose().matmul(u.clone()).triu(1).unsqueeze::<3>();
    let inverse = invert(identity(&above) + above * 2.0).squeeze_dim::<2>(0);
    [u.clone(), u.matmul(inverse)]
}

/// Gram–Schmidt: what is along a column is taken out of all behind it before the next one is looked
/// at.
fn orthonormal(vectors: Tensor<2>) -> Tensor<2> {
    let [d, rank] = vectors.dims();
    let mut done = Vec::with_capacity(rank);
    let mut rest = vectors;
    for left in (0..rank).rev() {
        let column = normalised(rest.clone().narrow(1, 0, 1));
        if left > 0 {
            let behind = rest.slice([0..d, 1..left + 1]);
            let along = column.clone().transpose().matmul(behind.clone());
            rest = behind - column.clone().matmul(along);
        } else {
            rest = column.clone();
        }
        done.push(column);
    }
    Tensor::cat(done, 1)
}

impl Hooks for Hra {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let own = self.layers.get(site.index).and_then(Option::as_ref);
        self.biases.below(site, own.map(|vectors| self.edits(vectors, pass)))
    }

    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        self.biases.norm(site)
    }
}

impl Method for Hra {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(vectors) = self.layers.get_mut(site.index).and_then(Option::as_mut) {
                file.param(site.key("hra_u"), vectors, Layout::AsIs);
            }
            self.biases.exchange(file, site);
        }
    }
}
