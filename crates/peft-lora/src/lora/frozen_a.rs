//! LoRA-FA: the gradient of `B` where `A` is frozen.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::LoraLayer;
use super::decompose::Decomposed;

/// What is added to the diagonal of `Aᵀ A`, as in HF PEFT.
const DELTA: f64 = 1e-8;

impl LoraLayer {
    /// Puts `(Aᵀ A)⁻¹ g / s²` in the place of the gradient `g` of `B`, `[r, d_out]`: of all changes
    /// `s A ΔB` of the weight, it is the one that is nearest to the weight's gradient.
    ///
    /// HF PEFT computes the product in bf16 where the processor has that, and here it is f32.
    pub(super) fn precondition(&mut self, gradients: &mut GradientsParams) {
        let Some(gradient) = gradients.remove::<2>(self.lora_b.id) else { return };
        let [rank, width] = gradient.dims();
        let (parts, scaling) = (self.parts.len().max(1), self.scaling);
        // `A` never changes.
        let inverse = self.inverse.get_or_insert_with(|| {
            let a = self.lora_a.val().inner();
            let of_part = |part: usize| {
                let a = a.clone().narrow(1, part * rank, rank);
                inverse(a.clone().transpose().matmul(a)) / scaling.powi(2)
            };
            Tensor::stack((0..parts).map(of_part).collect(), 0)
        });
        // A column for each part of a fused projection.
        let gradient = gradient.reshape([rank, parts, width / parts]).swap_dims(0, 1);
        let gradient = inverse.clone().matmul(gradient).swap_dims(0, 1);
        gradients.register(self.lora_b.id, gradient.reshape([rank, width]));
    }
}

/// The pseudo-inverse of a symmetric matrix `[r, r]`.
fn inverse(matrix: Tensor<2>) -> Tensor<2> {
    let [rank, _] = matrix.dims();
    let diagonal = Tensor::<2>::eye(rank, &matrix.device()) * DELTA;
    // As `torch.linalg.pinv`.
    Decomposed::of(matrix + diagonal).inverse(rank as f64 * f64::from(f32::EPSILON))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn an_inverse_undoes_the_matrix_and_leaves_out_what_it_lacks() {
        let device = Default::default();
        let a = Tensor::<2>::random([11, 4], Distribution::Normal(0.5, 3.0), &device);
        let gram = a.clone().transpose().matmul(a.clone());
        let away = (inverse(gram.clone()).matmul(gram) - Tensor::eye(4, &device)).abs().max();
        assert!(away.into_scalar::<f32>() < 1e-3);
        // A column that is there twice: the projection on what `A` spans stays one.
        let twice = Tensor::cat(vec![a.clone(), a.narrow(1, 0, 1)], 1);
        let gram = twice.clone().transpose().matmul(twice.clone());
        let projection = twice.clone().matmul(inverse(gram)).matmul(twice.clone().transpose());
        let away = (projection.matmul(twice.clone()) - twice).abs().max();
        assert!(away.into_scalar::<f32>() < 1e-2);
    }
}
