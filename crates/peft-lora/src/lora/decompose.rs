//! Singular values of matrices.

use burn::tensor::Tensor;
use burn::tensor::linalg::svd;

/// Sweeps of the QR iteration allowed for each singular value; it takes two or three.
const SWEEPS: usize = 30;

/// `M = U S Vᵀ`, largest singular values first.
pub(super) struct Decomposed {
    /// `[rows, k]`.
    pub(super) u: Tensor<2>,
    /// `[k]`.
    pub(super) s: Tensor<1>,
    /// `Vᵀ`, `[k, columns]`.
    pub(super) vt: Tensor<2>,
}

impl Decomposed {
    /// Of a matrix without a gradient.
    pub(super) fn of(matrix: Tensor<2>) -> Self {
        let (u, s, vt) = svd::<2, 1>(matrix.detach(), SWEEPS);
        Self { u, s, vt }
    }

    /// The inverse `V S⁻¹ Uᵀ` of the matrix, in which a singular value of at most `floor` times the largest
    /// is none.
    pub(super) fn inverse(self, floor: f64) -> Tensor<2> {
        let [count] = self.s.dims();
        let none = self.s.clone().lower_equal((self.s.clone().max() * floor).expand([count]));
        let s = self.s.recip().mask_fill(none, 0.0);
        (self.vt.transpose() * s.unsqueeze_dim(0)).matmul(self.u.transpose())
    }

    /// `A = U sqrt(S / s)` and `B = sqrt(S / s) Vᵀ` of `rank` singular values from `first` on.
    pub(super) fn factors(self, first: usize, rank: usize, scaling: f64) -> [Tensor<2>; 2] {
        let root = (self.s.narrow(0, first, rank) / scaling).sqrt();
        let a = self.u.narrow(1, first, rank) * root.clone().unsqueeze_dim(0);
        [a, self.vt.narrow(0, first, rank) * root.unsqueeze_dim(1)]
    }
}

/// Factors of the largest singular values of a weight.
pub(super) fn principal_factors(weight: Tensor<2>, rank: usize, scaling: f64) -> [Tensor<2>; 2] {
    Decomposed::of(weight).factors(0, rank, scaling)
}
