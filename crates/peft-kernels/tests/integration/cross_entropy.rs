use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_kernels::{
    Element, LinearParts, PackedMatrix, PackedTensor, PackedWeight, cross_entropy,
    cross_entropy_of_product, laid_out,
};

use crate::both::{both, values};

#[test]
fn the_loss_and_its_gradient_are_those_of_burn_in_f64() {
    for [rows, classes] in [[1, 2], [37, 5], [3, 2500], [130, 33]] {
        both(&format!("{rows} x {classes}"), &[[rows, classes]], 2e-6, |inputs| {
            let device = inputs[0].device().without_autodiff();
            let chosen = (0..rows).map(|row| (row * 7 % classes) as i64).collect();
            let chosen = Tensor::<1, Int>::from_data(TensorData::new(chosen, [rows]), &device);
            // The gradient of a mean is small beside the loss; logits are neither small nor alike.
            let loss = cross_entropy(inputs[0].clone() * 9.0 - 4.0, chosen);
            (loss * rows as f64).unsqueeze()
        });
    }
}

/// Numbers of f32.
fn floats(count: usize, seed: u64) -> Vec<f32> {
    values(count, seed).into_iter().map(|value| value as f32).collect()
}

/// A class for each row.
fn some_classes(rows: usize, classes: usize, device: &Device) -> Tensor<1, Int> {
    let chosen: Vec<i64> = (0..rows).map(|row| (row * 7 % classes) as i64).collect();
    Tensor::from_data(TensorData::new(chosen, [rows]), device)
}

#[test]
fn of_a_product_loss_and_gradient_are_those_of_burn_in_f64() {
    // More rows than there are at once, and numbers of them that are no multiple of anything.
    for [rows, d, classes] in [[1, 5, 2], [37, 24, 60], [3, 24, 2500], [1100, 16, 300]] {
        for has_bias in [false, true] {
            both(&format!("{rows} x {classes}"), &[[rows, d]], 2e-6, |inputs| {
                let device = inputs[0].device().without_autodiff();
                let options = (&device, inputs[0].dtype());
                // A table of words is used the other way round.
                let table = TensorData::new(floats(d * classes, 1), [classes, d]);
                let weight = Tensor::<2>::from_data(table, options).transpose();
                let bias = TensorData::new(floats(classes, 2), [classes]);
                let bias = has_bias.then(|| Tensor::<1>::from_data(bias, options));
                let chosen = some_classes(rows, classes, &device);
                let loss = cross_entropy_of_product(inputs[0].clone(), weight, bias, chosen);
                (loss * rows as f64).unsqueeze()
            });
        }
    }
}

#[test]
fn of_a_product_with_a_packed_weight_they_are_those_by_way_of_the_logits() {
    let device = Device::flex();
    let on = device.clone().autodiff();
    let (rows, [classes, d]) = (1100, [300, 64]);
    let table = floats(d * classes, 1);
    let packed = [PackedTensor::eight_bit, PackedTensor::four_bit].map(|pack| {
        let tensor = pack(vec![classes, d], &table).expect("whole blocks");
        (format!("{:?}", tensor.format()), PackedMatrix::new(tensor, &device).transpose(), 1e-6)
    });
    let laid_out = [(Element::F32, 4e-6), (Element::Bf16, 4e-3)].map(|(element, apart)| {
        let weight = laid_out(&table, [classes, d], false, element, &device).expect("the CPU's");
        // In bf16 what the gradient is multiplied with is rounded, before a factor or after it.
        (format!("{element:?}"), weight.transpose(), apart)
    });
    for (what, weight, apart) in packed.into_iter().chain(laid_out) {
        let bias = TensorData::new(floats(classes, 2), [classes]);
        let bias = Some(Tensor::<1>::from_data(bias, &device));
        let x = TensorData::new(floats(rows * d, 3), [rows, d]);
        let x = Tensor::<2>::from_data(x, &on).require_grad();
        let chosen = some_classes(rows, classes, &device);
        let of_logits = {
            let parts = LinearParts { bias: bias.clone(), ..LinearParts::default() };
            cross_entropy(weight.linear(x.clone(), parts), chosen.clone())
        };
        let of_product = weight.cross_entropy(x.clone(), bias, chosen);
        let [found, expected] = [of_product, of_logits].map(|loss| {
            // The loss is not the end.
            let gradients = (loss.clone() * 0.7).backward();
            let of_x = x.grad(&gradients).expect("a gradient").into_data();
            (loss.into_scalar::<f32>(), of_x.try_into_vec::<f32>().expect("f32"))
        });
        assert!((found.0 - expected.0).abs() <= 1e-6 * expected.0, "{what}");
        let largest = expected.1.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.1.iter().zip(&expected.1) {
            assert!((found - expected).abs() <= apart * largest, "{what}");
        }
    }
}

#[test]
fn of_a_product_a_weight_and_a_bias_that_are_trained_have_gradients() {
    let [rows, d, classes] = [9, 4, 7];
    let device = Device::flex();
    let on = device.clone().autodiff();
    let x = Tensor::<2>::ones([rows, d], &device);
    let chosen = some_classes(rows, classes, &device);
    let weight = Tensor::<2>::ones([d, classes], &device);
    let bias = Tensor::<1>::zeros([classes], &on).require_grad();
    let loss = cross_entropy_of_product(x.clone(), weight, Some(bias.clone()), chosen.clone());
    assert!(bias.grad(&loss.backward()).is_some());
    let weight = Tensor::<2>::ones([d, classes], &on).require_grad();
    let loss = cross_entropy_of_product(x, weight.clone(), None, chosen);
    assert!(weight.grad(&loss.backward()).is_some());
}
