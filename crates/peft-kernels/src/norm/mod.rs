//! Norms over the last axis, of a sum or of one tensor.

#[cfg(feature = "flex")]
mod fast;

use burn::tensor::{Tensor, module::layer_norm};

use crate::Dropout;

/// A norm over the last axis: a layer norm, `(x - mean) / sqrt(var + ε) ⊙ gain + bias`, or an RMS
/// norm, `x / sqrt(mean(x²) + ε) ⊙ gain + bias`.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[d]`.
    pub gain: Tensor<1>,
    /// `[d]`.
    pub bias: Option<Tensor<1>>,
    /// `ε`.
    pub epsilon: f64,
    /// Whether the mean is taken away: a layer norm.
    pub centred: bool,
}

impl Norm {
    /// Of `x`, `[tokens, d]`.
    pub fn forward(self, x: Tensor<2>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if crate::fused::is_fast(&x) && crate::fused::is_fast(&self.gain) {
            return fast::norm(self, None, x, None);
        }
        if self.centred {
            return layer_norm(x, self.gain, self.bias, self.epsilon);
        }
        let scale = (x.clone().square().mean_dim(1) + self.epsilon).sqrt().recip();
        let y = x * scale * self.gain.unsqueeze();
        match self.bias {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        }
    }

    /// Of `residual + drop(x)`, each `[tokens, d]`: the end of a sublayer.
    pub fn of_sum(self, residual: Tensor<2>, x: Tensor<2>, dropout: Option<Dropout>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if [&residual, &x].into_iter().all(crate::fused::is_fast)
            && crate::fused::is_fast(&self.gain)
        {
            return fast::norm(self, Some(residual), x, dropout);
        }
        self.forward(sum(residual, x, dropout))
    }
}

/// `residual + drop(x)`.
pub fn sum<const D: usize>(
    residual: Tensor<D>,
    x: Tensor<D>,
    dropout: Option<Dropout>,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if residual.dims() == x.dims() && [&residual, &x].into_iter().all(crate::fused::is_fast) {
        return crate::elementwise::sum(residual, x, dropout);
    }
    match dropout {
        Some(dropout) => residual + dropout.forward(x),
        None => residual + x,
    }
}
