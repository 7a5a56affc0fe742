//! The directions of an intervention, orthonormal or not.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{Exchange, InitContext, Key, Layout};

/// `R` of an intervention, transposed: `[d, r]`.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Directions {
    /// Orthonormal, as `LoReFT` has them.
    Orthogonal(Orthogonal),
    /// Any.
    Free(Param<Tensor<2>>),
}

/// `r` orthonormal columns `B H₁ ... H_r D`, the first `r` of the product, as PyTorch's
/// `orthogonal` parametrisation has them: `H_i = I - τ_i v_i v_iᵀ` is the reflection whose vector is
/// the `i`-th column of `X`, 1 on the diagonal and 0 above it, `D` is the diagonal of `X` without
/// fractions, and `B` an orthogonal matrix that training starts from.
#[derive(Module, Debug)]
pub struct Orthogonal {
    /// `X`, `[d, r]`.
    pub original: Param<Tensor<2>>,
    /// `B`, `[d, d]`; not trained.
    pub base: Param<Tensor<2>>,
}

impl Directions {
    /// Those of a layer of `d` channels.
    pub(crate) fn new(
        [d, rank]: [usize; 2],
        is_orthogonal: bool,
        context: &InitContext<'_>,
    ) -> Self {
        let bound = 1.0 / (d as f64).sqrt();
        if !is_orthogonal {
            let uniform = Distribution::Uniform(-bound, bound);
            return Self::Free(Param::from_tensor(context.random([d, rank], uniform)));
        }
        let device = context.device;
        let original = Tensor::eye(d, device).narrow(1, 0, rank).neg();
        let base = match context.restored || context.is_read() {
            true => Tensor::zeros([d, d], device),
            false => {
                // Reflections of this size send an axis into any direction.
                let random = context.random([d, rank], Distribution::Normal(0.0, bound));
                reflected(random, Tensor::eye(d, device)).detach()
            }
        };
        let base = Tensor::from_data(base.into_data(), device);
        Self::Orthogonal(Orthogonal {
            original: Param::from_tensor(original),
            base: Param::from_tensor(base).set_require_grad(false),
        })
    }

    /// `Rᵀ`, `[d, r]`.
    pub fn columns(&self) -> Tensor<2> {
        match self {
            Self::Orthogonal(orthogonal) => orthogonal.columns(),
            Self::Free(columns) => columns.val(),
        }
    }

    /// The same, not trained.
    pub(crate) fn frozen(self) -> Self {
        match self {
            Self::Orthogonal(Orthogonal { original, base }) => {
                Self::Orthogonal(Orthogonal { original: original.set_require_grad(false), base })
            }
            Self::Free(columns) => Self::Free(columns.set_require_grad(false)),
        }
    }

    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, key: impl Fn(&str) -> Key) {
        match self {
            Self::Orthogonal(Orthogonal { original, base }) => {
                let name = "projection.parametrizations.weight";
                file.param(key(&format!("{name}.original")), original, Layout::Transposed);
                file.param(key(&format!("{name}.0.base")), base, Layout::AsIs);
            }
            Self::Free(columns) => {
                file.param(key("projection.weight"), columns, Layout::Transposed);
            }
        }
    }
}

impl Orthogonal {
    /// Undoes what weight decay does to the diagonal of `X`, of which nothing but whole numbers counts.
    pub(crate) fn keep_diagonal(&mut self) {
        self.original = self.original.clone().map(|x| {
            let axes = Tensor::<2>::eye(x.dims()[0], &x.device().without_autodiff());
            let inner = x.without_autodiff();
            let diagonal = inner.clone() * axes.narrow(1, 0, inner.dims()[1]);
            let kept = inner - diagonal.clone() + diagonal.round();
            kept.autodiff().require_grad()
        });
    }

    fn columns(&self) -> Tensor<2> {
        let x = self.original.val();
        let ([d, rank], device) = (x.dims(), x.device());
        let axes = Tensor::<2>::eye(d, &device).narrow(1, 0, rank);
        let signs = (x.clone().detach() * axes.clone()).sum_dim(0).int().float();
        self.base.val().matmul(reflected(x, axes) * signs)
    }
}

/// `H₁ ... H_r E` for `X` of shape `[d, r]` and `E` of `[d, n]`.
fn reflected(x: Tensor<2>, e: Tensor<2>) -> Tensor<2> {
    let [d, rank] = x.dims();
    let below = x.tril(-1);
    let factors = (below.clone().square().sum_dim(0) + 1.0).recip() * 2.0;
    let vectors = below + Tensor::<2>::eye(d, &e.device()).narrow(1, 0, rank);
    (0..rank).rev().fold(e, |e, number| {
        let (v, factor) =
            (vectors.clone().narrow(1, number, 1), factors.clone().narrow(1, number, 1));
        let along = v.clone().transpose().matmul(e.clone()) * factor;
        e - v.matmul(along)
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn columns_stay_orthonormal_under_weight_decay() {
        let device = Device::flex().autodiff();
        let base = peft_core::Base::new(&Device::flex());
        let context = InitContext::new(&base, &device);
        let Directions::Orthogonal(mut orthogonal) = Directions::new([7, 3], true, &context) else {
            unreachable!("they were asked for");
        };
        let decayed = context.random([7, 3], Distribution::Normal(0.0, 0.5)).tril(-1)
            - Tensor::<2>::eye(7, &device).narrow(1, 0, 3) * 0.995;
        orthogonal.original = Param::from_tensor(decayed);
        orthogonal.keep_diagonal();
        assert!(orthogonal.original.is_require_grad());
        let columns = orthogonal.columns();
        let products = columns.clone().transpose().matmul(columns).into_data();
        for (place, product) in products.iter::<f32>().enumerate() {
            let expected = if place % 4 == 0 { 1.0 } else { 0.0 };
            assert!((product - expected).abs() < 1e-5, "{product} at {place}");
        }
    }
}
