//! The same where the logits are a product with a frozen weight: of some rows at a time, with the
//! gradient of what is multiplied beside the loss.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Int, Tensor};

use super::Weight;
use super::fast::{chosen, log_sums, loss_of, to_slopes};
use crate::fused::{Array, Operation, Saved, Shared, apply, grid, matrix, numbers, output};

/// Rows whose logits there are at once: enough for products as fast as those of all.
const TOGETHER: usize = 512;

/// The mean loss of the classes of `x W + b`: all of it is fast, and `x` alone may be on a tape.
pub(super) fn cross_entropy(
    x: Tensor<2>,
    weight: Weight,
    bias: Option<Tensor<1>>,
    classes: Tensor<1, Int>,
) -> Tensor<1> {
    let (wants_gradient, has_bias) = (x.is_tracked(), bias.is_some());
    let [_, count] = weight.dims();
    let (tensor, packed) = match weight {
        Weight::Tensor(weight) => (Some(weight), None),
        packed => (None, Some(packed)),
    };
    let classes = chosen(classes, count);
    let operation = OfProduct { packed, has_bias, classes, count, wants_gradient };
    let others = [tensor.map(Tensor::into_dispatch), bias.map(Tensor::into_dispatch)];
    apply(operation, [x.into_dispatch()].into_iter().chain(others.into_iter().flatten()))
}

/// The operation. Its inputs are `x`, the weight if it is not packed, and the bias if there is one.
#[derive(Debug)]
struct OfProduct {
    packed: Option<Weight>,
    has_bias: bool,
    /// That of each row.
    classes: Vec<usize>,
    /// How many there are to choose from.
    count: usize,
    wants_gradient: bool,
}

impl OfProduct {
    /// `x W`.
    fn times(&self, x: Array, inputs: &[Array]) -> Array {
        match &self.packed {
            Some(Weight::Packed(weight)) => weight.times(&x),
            Some(Weight::LaidOut(weight)) => weight.times(&x),
            Some(Weight::Tensor(_)) | None => Flex::float_matmul(x, inputs[1].clone()),
        }
    }

    /// `y Wᵀ`.
    fn times_transposed(&self, y: Array, inputs: &[Array]) -> Array {
        match &self.packed {
            Some(Weight::Packed(weight)) => weight.flipped().times(&y),
            Some(Weight::LaidOut(weight)) => weight.flipped().times(&y),
            Some(Weight::Tensor(_)) | None => Flex::float_matmul(y, inputs[1].transpose(0, 1)),
        }
    }
}

impl Operation for OfProduct {
    fn names(&self) -> [&'static str; 2] {
        ["cross entropy of a product", "cross entropy of a product, backward"]
    }

    fn forward(&self, inputs: &[Array]) -> (Array, Vec<Array>) {
        let (x, [rows, d]) = matrix(&inputs[0]);
        let bias = self.has_bias.then(|| inputs[inputs.len() - 1].to_contiguous());
        let mut of_x = Vec::with_capacity(if self.wants_gradient { rows * d } else { 0 });
        let mut sum = 0.0;
        for first in (0..rows).step_by(TOGETHER) {
            let count = TOGETHER.min(rows - first);
            let chosen = &self.classes[first..first + count];
            let mut logits = self.times(x.narrow(0, first, count), inputs).to_contiguous();
            let values = logits.storage_mut::<f32>();
            if let Some(bias) = &bias {
                add_to_rows(values, numbers(bias));
            }
            let logs = log_sums(values, [count, self.count]);
            sum += loss_of(values, self.count, &logs, chosen);
            if self.wants_gradient {
                to_slopes(values, self.count, &logs, chosen, 1.0 / rows as f32);
                let part = self.times_transposed(logits, inputs).to_contiguous();
                of_x.extend_from_slice(numbers(&part));
            }
        }
        let saved = self.wants_gradient.then(|| output(of_x, [rows, d]));
        (output(vec![(sum / rows as f64) as f32], [1]), saved.into_iter().collect())
    }

    fn needs(&self, _input: usize) -> bool {
        false
    }

    fn backward(&self, saved: &Saved, gradient: Array, wanted: &[bool]) -> Vec<Option<Array>> {
        let factor = numbers(&gradient.to_contiguous())[0];
        let mut gradients = vec![None; wanted.len()];
        if wanted[0] {
            let (of_x, shape) = matrix(&saved.values[0]);
            // Most of the time the loss is all that is differentiated.
            gradients[0] = Some(match factor == 1.0 {
                true => of_x,
                false => output(numbers(&of_x).iter().map(|n| n * factor).collect(), shape),
            });
        }
        gradients
    }
}

/// Adds the same numbers to each row.
fn add_to_rows(values: &mut [f32], bias: &[f32]) {
    let (rows, columns) = (values.len() / bias.len(), bias.len());
    let all = Shared::of(values);
    grid(rows, 1, |rows, _| {
        // SAFETY: these rows are this task's.
        let values = unsafe { all.part(rows.start * columns..rows.end * columns) };
        for row in values.chunks_mut(columns) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    });
}
