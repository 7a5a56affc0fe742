//! Layers of what is computed a second time in the backward pass, rather than kept.

use burn::tensor::Device;
use peft_kernels::{
    Activation, Dropout, Element, LinearParts, LowRankPart, Norm, PackedWeight, PrepackedMatrix,
};

use crate::both::{both, values};

#[test]
fn layers_behind_norms_and_gates_have_the_gradients_of_burn_in_f64() {
    let [tokens, d, rank] = [150, 48, 4];
    let weight: Vec<f32> = values(d * d, 7).into_iter().map(|value| value as f32).collect();
    let weight = PrepackedMatrix::new(&weight, [d, d], Element::F32, &Device::flex());
    let shapes = [[tokens, d], [tokens, d], [1, d], [1, d], [d, rank], [rank, d]];
    for (centred, dropout) in [(true, Some(Dropout::new(0.3, 3))), (false, None)] {
        both(&format!("{centred}, {dropout:?}"), &shapes, 5e-5, |inputs| {
            let [x, residual, gain, bias, a, b] = inputs else { unreachable!() };
            let layer = |x| {
                let (a, b, dropout) = (a.clone(), b.clone() * 0.1, None);
                let low_rank = Some(LowRankPart { a, b, scale: 0.7, dropout });
                weight.linear(x, LinearParts { low_rank, ..LinearParts::default() }) * 0.05
            };
            let [gain, bias] = [gain, bias].map(|vector| vector.clone().squeeze_dim::<1>(0));
            let norm = Norm { gain, bias: Some(bias), epsilon: 1e-3, centred };
            let x = norm.of_sum(residual.clone(), x.clone(), dropout);
            layer(Activation::Silu.gated(layer(x.clone()), layer(x)))
        });
    }
}
