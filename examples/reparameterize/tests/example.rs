//! What the example shows, held to it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use peft_core::num_trainable;
use peft_core::reparameterize;
use reparameterize::{accuracy, data::strokes, lora, model::Cnn, train};

/// Every float parameter by path, bit for bit.
fn parameters(model: &Cnn) -> Vec<(String, Vec<u8>)> {
    #[derive(Default)]
    struct Read(Vec<String>, Vec<(String, Vec<u8>)>);
    impl ModuleVisitor for Read {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let bytes = param.base().into_data().as_bytes().to_vec();
            self.1.push((self.0.join("."), bytes));
        }
    }
    let mut read = Read::default();
    model.visit(&mut read);
    read.1
}

#[test]
fn lora_adapts_a_network_that_does_not_know_it() {
    let device = Device::default().autodiff();
    device.seed(7);
    let (pictures, unseen) = (strokes(300, 1, &device), strokes(300, 2, &device));
    let (turned, turned_unseen) = (pictures.clone().turned(), unseen.clone().turned());

    let (model, losses) = train(Cnn::new(&device), &pictures, 5e-3, 150);
    assert!(losses[149] < 0.3 * losses[0], "{losses:?}");
    assert!(accuracy(&model, &unseen) > 0.9);
    let before = accuracy(&model, &turned_unseen);
    assert!(before < 0.5, "the new task is the old one: {before}");

    let plain = model.valid().forward(turned.pixels.clone().inner());
    let model = reparameterize(model, &lora()).expect("the network has matrices");
    // Rank 4 on 54 by 32 and on 32 by 3.
    assert_eq!(num_trainable(&model), 4 * (54 + 32) + 4 * (32 + 3));
    let attached = model.valid().forward(turned.pixels.clone().inner());
    assert_eq!(plain.into_data(), attached.into_data(), "attaching changes nothing yet");

    let untrained = parameters(&model);
    let (model, losses) = train(model, &turned, 1e-2, 150);
    assert!(losses[149] < 0.3 * losses[0], "{losses:?}");
    let after = accuracy(&model, &turned_unseen);
    assert!(after > 0.9, "{before} before, {after} after");
    let trained = parameters(&model);
    assert_eq!(untrained.iter().filter(|(path, _)| path.contains("lora_")).count(), 4);
    for ((path, old), (_, new)) in untrained.iter().zip(&trained) {
        assert_eq!(old != new, path.contains("lora_"), "{path}");
    }

    let merged = model.valid().materialize();
    assert_eq!(parameters(&merged).len(), trained.len() - 4, "the factors are folded in");
    let outputs = [model.valid(), merged].map(|model| {
        let logits = model.forward(turned_unseen.pixels.clone().inner());
        logits.into_data().try_into_vec::<f32>().expect("floats")
    });
    let far = outputs[0].iter().zip(&outputs[1]).fold(0.0f32, |far, (a, b)| far.max((a - b).abs()));
    assert!(far < 1e-5, "merged outputs are {far:e} away");
}
