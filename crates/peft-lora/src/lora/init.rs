//! How LoRA's factors start.

use burn::tensor::linalg::qr;
use burn::tensor::{Distribution, Int, Tensor};
use peft_core::InitContext;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::decompose::principal_factors;

/// How the factors `A` (`[d_in, r]`) and `B` (`[r, d_out]`) start; HF PEFT's `init_lora_weights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoraInit {
    /// `true`: `A ~ U(-1/sqrt(d_in), 1/sqrt(d_in))` (Kaiming-uniform with `a = sqrt(5)`), `B = 0`.
    #[default]
    Kaiming,
    /// `"gaussian"`: `A ~ N(0, 1/r)`, `B = 0`.
    Gaussian,
    /// `false`: as `true`, but `B ~ U(-1/sqrt(r), 1/sqrt(r))`: not the identity; for tests.
    Random,
    /// `"pissa"` (Meng et al. 2024, arXiv 2404.02948): from the singular value decomposition
    /// `W = U S Vᵀ` of the weight, `A₀ = U_r sqrt(S_r / s)`, `B₀ = sqrt(S_r / s) V_rᵀ`.
    ///
    /// The reference library writes the residual `W - s A₀ B₀` into the base. Here the base is
    /// shared and stays as it is: the method adds `s (A B - A₀ B₀)`, which is the same function,
    /// keeping the start `A₀, B₀` beside the factors, in files too.
    Pissa,
    /// `"pissa_niter_N"`: as `"pissa"`, which the reference library then approximates in `N` steps.
    PissaNiter(u32),
    /// `"olora"` (Büyükakyüz 2024, arXiv 2406.01775): from the QR decomposition `Wᵀ = Q R`, `A₀` and
    /// `B₀` transposed are the first `r` rows of `R` and columns of `Q`; otherwise as `"pissa"`.
    Olora,
    /// `"orthogonal"`: `A = X Q₁ / 10` and `B = (Y Q₂)ᵀ / 10` with `X, Y ~ N(0, 1)`, where `Q₁` and
    /// `Q₂` are the odd and the even rows of an orthogonal matrix, so that `A B = 0`.
    Orthogonal,
    /// `"eva"` (Paischer et al. 2024, arXiv 2410.07170): `A` has the principal directions of what its
    /// layer is given, and `B` is zero. Layers whose directions explain more of the variance get a higher
    /// rank, up to `rho r`, and others a lower one; see [`EvaConfig`](crate::EvaConfig).
    Eva,
    /// `"corda"` (Yang et al. 2024, arXiv 2406.05223): from the singular value decomposition `W C = U S
    /// Vᵀ` of the weight times the covariance of its inputs; otherwise as `"pissa"`. See [`CordaConfig`](crate::CordaConfig).
    Corda,
    /// `"lora_ga"` (Wang et al. 2024, arXiv 2407.05000): from the singular value decomposition of the
    /// gradient of the loss with respect to the weight; otherwise as `"pissa"`. See [`LoraGaConfig`](crate::LoraGaConfig).
    LoraGa,
    /// `"loftq"` (Li et al. 2023, arXiv 2310.08659): over a rounded weight `Q`, in the place of `W`, from
    /// the best approximation `s A B` of `W - Q`. See [`LoftqConfig`](crate::LoftqConfig).
    Loftq,
}

/// How many values a matrix of the reference's orthogonal start is divided by.
const ORTHOGONAL_SCALE: f64 = 10.0;

impl LoraInit {
    /// Whether the function depends on what the factors started from.
    pub(crate) fn keeps_start(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora | Self::Corda | Self::LoraGa)
    }

    /// Whether it looks at data.
    pub(crate) fn looks_at_data(self) -> bool {
        matches!(self, Self::Eva | Self::Corda | Self::LoraGa)
    }

    /// Whether it is of a whole weight.
    pub(crate) fn is_of_weight(self) -> bool {
        self.keeps_start() || matches!(self, Self::Eva | Self::Loftq)
    }

    pub(crate) fn name(self) -> Option<String> {
        Some(match self {
            Self::Kaiming | Self::Random => return None,
            Self::Gaussian => "gaussian".into(),
            Self::Pissa => "pissa".into(),
            Self::PissaNiter(steps) => format!("{PISSA_NITER}{steps}"),
            Self::Olora => "olora".into(),
            Self::Orthogonal => "orthogonal".into(),
            Self::Eva => "eva".into(),
            Self::Corda => "corda".into(),
            Self::LoraGa => "lora_ga".into(),
            Self::Loftq => "loftq".into(),
        })
    }

    fn named(name: &str) -> Result<Self, String> {
        if let Some(steps) = name.strip_prefix(PISSA_NITER) {
            let steps = steps.parse().map_err(|_| format!("{name:?}: {steps:?} is no number"))?;
            return Ok(Self::PissaNiter(steps));
        }
        Ok(match name.to_ascii_lowercase().as_str() {
            "gaussian" => Self::Gaussian,
            "pissa" => Self::Pissa,
            "olora" => Self::Olora,
            "orthogonal" => Self::Orthogonal,
            "eva" => Self::Eva,
            "corda" => Self::Corda,
            "lora_ga" => Self::LoraGa,
            "loftq" => Self::Loftq,
            "mica" => {
                return Err(format!(
                    "{name:?} changes the base's weights by data that are not in the \
                     adapter's file: convert the adapter with \
                     path_initial_model_for_weight_conversion, as HF PEFT's documentation has it"
                ));
            }
            _ => {
                return Err(format!(
                    "unknown initialisation {name:?}; there are true, false, \"gaussian\", \
                     \"pissa\", \"pissa_niter_N\", \"olora\", \"orthogonal\", \"eva\", \"corda\", \
                     \"lora_ga\", \"loftq\""
                ));
            }
        })
    }
}

const PISSA_NITER: &str = "pissa_niter_";

impl Serialize for LoraInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(&name),
            None => serializer.serialize_bool(*self == Self::Kaiming),
        }
    }
}

impl<'de> Deserialize<'de> for LoraInit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Flag(bool),
            Name(String),
        }
        match Value::deserialize(deserializer)? {
            Value::Flag(true) => Ok(Self::Kaiming),
            Value::Flag(false) => Ok(Self::Random),
            Value::Name(name) => Self::named(&name).map_err(D::Error::custom),
        }
    }
}

impl LoraInit {
    /// The factors `A` and `B`, of these shapes; `weight` makes the weight `[d_in, d_out]`.
    pub(crate) fn factors(
        self,
        [a, b]: [[usize; 2]; 2],
        scaling: f64,
        weight: impl Fn() -> Tensor<2>,
        context: &InitContext<'_>,
    ) -> [Tensor<2>; 2] {
        let device = context.device;
        // Over the root of the fan-in, the number of rows.
        let uniform = |shape: [usize; 2]| {
            let bound = 1.0 / (shape[0] as f64).sqrt();
            context.random(shape, Distribution::Uniform(-bound, bound))
        };
        let [rank, _] = b;
        match self {
            // Those that look at data do so elsewhere.
            Self::Kaiming | Self::Eva | Self::Corda | Self::LoraGa | Self::Loftq => {
                [uniform(a), Tensor::zeros(b, device)]
            }
            Self::Random => [uniform(a), uniform(b)],
            Self::Gaussian => {
                let normal = Distribution::Normal(0.0, 1.0 / rank as f64);
                [context.random(a, normal), Tensor::zeros(b, device)]
            }
            Self::Pissa | Self::PissaNiter(_) => principal_factors(weight(), rank, scaling)
                .map(|factor| Tensor::from_data(factor.into_data(), device)),
            Self::Olora => {
                let (q, r) = qr::<2>(weight().transpose().detach(), true);
                let [a, b] = [r.narrow(0, 0, rank), q.narrow(1, 0, rank)];
                [a, b].map(|factor| Tensor::from_data(factor.transpose().into_data(), device))
            }
            Self::Orthogonal => orthogonal_factors([a[0], rank, b[1]], context),
        }
    }
}

/// Factors whose product is nothing; `rank` must be even.
fn orthogonal_factors(
    [d_in, rank, d_out]: [usize; 3],
    context: &InitContext<'_>,
) -> [Tensor<2>; 2] {
    let plain = context.device.clone().without_autodiff();
    let draw = context.on(&plain);
    let normal = |shape: [usize; 2]| draw.random(shape, Distribution::Normal(0.0, 1.0));
    let (q, _) = qr::<2>(normal([rank, rank]), true);
    let rows = |first: usize| {
        let rows: Vec<i64> = (first..rank).step_by(2).map(|row| row as i64).collect();
        q.clone().select(0, Tensor::<1, Int>::from_data(&rows[..], &q.device()))
    };
    let a = normal([d_in, rank / 2]).matmul(rows(0)) / ORTHOGONAL_SCALE;
    let b = normal([d_out, rank / 2]).matmul(rows(1)).transpose() / ORTHOGONAL_SCALE;
    [a, b].map(|factor| Tensor::from_data(factor.into_data(), context.device))
}
