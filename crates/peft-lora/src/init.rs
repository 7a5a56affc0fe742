//! How LoRA's factors start.

use burn::tensor::linalg::svd;
use burn::tensor::{Device, Distribution, Tensor};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
}

impl Serialize for LoraInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kaiming => serializer.serialize_bool(true),
            Self::Random => serializer.serialize_bool(false),
            Self::Gaussian => serializer.serialize_str("gaussian"),
            Self::Pissa => serializer.serialize_str("pissa"),
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
            Value::Name(name) if name.eq_ignore_ascii_case("gaussian") => Ok(Self::Gaussian),
            Value::Name(name) if name == "pissa" => Ok(Self::Pissa),
            Value::Name(name) => Err(D::Error::custom(format!(
                "unknown initialisation {name:?}; there are true, false, \"gaussian\", \"pissa\""
            ))),
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
        device: &Device,
    ) -> [Tensor<2>; 2] {
        // Over the root of the fan-in, the number of rows.
        let uniform = |shape: [usize; 2]| {
            let bound = 1.0 / (shape[0] as f64).sqrt();
            Tensor::random(shape, Distribution::Uniform(-bound, bound), device)
        };
        let [rank, _] = b;
        match self {
            Self::Kaiming => [uniform(a), Tensor::zeros(b, device)],
            Self::Random => [uniform(a), uniform(b)],
            Self::Gaussian => {
                let normal = Distribution::Normal(0.0, 1.0 / rank as f64);
                [Tensor::random(a, normal, device), Tensor::zeros(b, device)]
            }
            Self::Pissa => principal_factors(weight(), rank, scaling)
                .map(|factor| Tensor::from_data(factor.into_data(), device)),
        }
    }
}

/// Sweeps of the QR iteration allowed for each singular value; it takes two or three.
const SVD_SWEEPS: usize = 30;

fn principal_factors(weight: Tensor<2>, rank: usize, scaling: f64) -> [Tensor<2>; 2] {
    let (u, s, vt) = svd::<2, 1>(weight.detach(), SVD_SWEEPS);
    let root = (s.narrow(0, 0, rank) / scaling).sqrt();
    let a = u.narrow(1, 0, rank) * root.clone().unsqueeze_dim(0);
    let b = vt.narrow(0, 0, rank) * root.unsqueeze_dim(1);
    [a, b]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(tensor: Tensor<2>) -> f32 {
        tensor.abs().max().into_scalar()
    }

    /// `W = s A B + R` is the best approximation of its rank exactly if `R` is orthogonal to the
    /// factors on both sides, and no singular value of `R` exceeds one of `s A B`.
    #[test]
    fn principal_factors_are_the_best_of_their_rank() {
        let (device, scaling, rank) = (Device::default(), 7.0 / 3.0, 3);
        for shape in [[24, 40], [40, 24]] {
            let weight = Tensor::<2>::random(shape, Distribution::Normal(0.1, 0.5), &device);
            let [a, b] = principal_factors(weight.clone(), rank, scaling);
            assert_eq!((a.dims(), b.dims()), ([shape[0], rank], [rank, shape[1]]));
            let rest = weight - a.clone().matmul(b.clone()) * scaling;
            assert!(largest(a.clone().transpose().matmul(rest.clone())) < 1e-4);
            assert!(largest(rest.clone().matmul(b.clone().transpose())) < 1e-4);

            // Each factor has half of each singular value, largest first.
            let (left, right) = (a.clone().transpose().matmul(a), b.clone().matmul(b.transpose()));
            assert!(largest(left.clone() - right) < 1e-4);
            let kept = left.into_data().try_into_vec::<f32>().expect("floats");
            let kept: Vec<f32> = (0..rank).map(|i| kept[i * rank + i] * scaling as f32).collect();
            assert!(kept.is_sorted_by(|a, b| a >= b), "{kept:?}");

            // The largest singular value of what is left, by power iteration.
            let mut vector = Tensor::<2>::ones([shape[1], 1], &device);
            for _ in 0..500 {
                let next = rest.clone().transpose().matmul(rest.clone().matmul(vector));
                vector = next.clone() / next.square().sum().sqrt().unsqueeze();
            }
            let left_out: f32 = rest.matmul(vector).square().sum().sqrt().into_scalar();
            assert!(left_out > 0.1 && left_out <= kept[rank - 1], "{left_out} and {kept:?}");
        }
    }
}
