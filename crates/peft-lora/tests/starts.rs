//! LoRA's starts from data, against what HF PEFT computes from the same batches.

use std::path::{Path, PathBuf};

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_core::{Calibration, Hooks, InitContext, MethodConfig, TensorMap};
use peft_format::{Adapter, AdapterConfig, read_safetensors};
use peft_lora::{
    CordaConfig, CordaMethod, LoraConfig, LoraGaConfig, LoraGaDirection, LoraGaScale, LoraInit,
};
use peft_models::{Forward, Model, ModelInput};
use serde::Deserialize;
use serde_json::{Value, json};

/// What `tests/interop/record_starts.py` writes.
#[derive(Deserialize)]
struct Recorded {
    r: usize,
    lora_alpha: f64,
    target_modules: Value,
    texts: Vec<Vec<u32>>,
    labels: Vec<i64>,
    eva: Value,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases/bert")
}

fn recorded() -> (Recorded, TensorMap) {
    let text = std::fs::read_to_string(directory().join("starts.json")).expect("it is recorded");
    let tensors = read_safetensors(&directory().join("starts.safetensors")).expect("tensors");
    (serde_json::from_str(&text).expect("as it is written"), tensors)
}

/// Batches of so many texts each.
struct Batches<'a> {
    model: &'a Model,
    recorded: &'a Recorded,
    size: usize,
}

impl Calibration for Batches<'_> {
    fn len(&self) -> usize {
        self.recorded.texts.len() / self.size
    }

    fn loss(&self, batch: usize, hooks: &dyn Hooks) -> peft_core::Result<Tensor<1>> {
        Ok(self.loss_of(batch * self.size..(batch + 1) * self.size, hooks))
    }

    fn num_examples(&self) -> usize {
        self.recorded.texts.len()
    }

    fn example_loss(&self, example: usize, hooks: &dyn Hooks) -> peft_core::Result<Tensor<1>> {
        Ok(self.loss_of(example..example + 1, hooks))
    }
}

impl Batches<'_> {
    fn loss_of(&self, own: std::ops::Range<usize>, hooks: &dyn Hooks) -> Tensor<1> {
        let rows: Vec<&[u32]> =
            self.recorded.texts[own.clone()].iter().map(Vec::as_slice).collect();
        let device = self.model.base().device();
        let input = ModelInput::from_rows(&rows, None, 0, device).expect("texts");
        let logits = self.model.forward(&input, Forward::infer(hooks)).expect("it fits");
        let labels = TensorData::new(self.recorded.labels[own].to_vec(), [rows.len(), 1]);
        let labels = Tensor::<2, Int>::from_data(labels, device);
        log_softmax(logits.squeeze_dim::<2>(1), 1).gather(1, labels).mean().neg()
    }
}

/// The tensors that a new adapter begins with, and its configuration.
fn start(config: LoraConfig, size: usize) -> (Value, TensorMap) {
    let (recorded, _) = recorded();
    let device = Device::default();
    let (model, _) = Model::load(&directory(), None, &device).expect("a base");
    let config = LoraConfig {
        rank: recorded.r,
        alpha: recorded.lora_alpha,
        targets: serde_json::from_value(json!({"target_modules": recorded.target_modules}))
            .expect("targets"),
        ..config
    };
    let calibration = Batches { model: &model, recorded: &recorded, size };
    let context = InitContext::new(model.base(), &device).with_calibration(&calibration);
    let adapter = Adapter::init(AdapterConfig::new(Box::new(config)), &context).expect("it fits");
    (Value::Object(adapter.config.method.to_fields()), adapter.tensors(model.base()))
}

/// Rows, or columns, are the same up to their signs.
fn assert_same(what: &str, found: &TensorData, expected: &TensorData, by_row: bool) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let [rows, columns] = [found.shape()[0], found.shape()[1]];
    let values = |data: &TensorData| -> Vec<f32> {
        data.clone().convert::<f32>().try_into_vec().expect("floats")
    };
    let (found, expected) = (values(found), values(expected));
    let (lines, length) = if by_row { (rows, columns) } else { (columns, rows) };
    let at = |line: usize, place: usize| match by_row {
        true => line * columns + place,
        false => place * columns + line,
    };
    for line in 0..lines {
        let of = |values: &[f32]| -> Vec<f32> {
            (0..length).map(|place| values[at(line, place)]).collect()
        };
        let (found, expected) = (of(&found), of(&expected));
        let size = expected.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-6);
        let distance = |sign: f32| {
            let terms = found.iter().zip(&expected).map(|(a, b)| (a - sign * b).powi(2));
            terms.sum::<f32>().sqrt() / size
        };
        let nearest = distance(1.0).min(distance(-1.0));
        assert!(nearest < 2e-3, "{what}, line {line}: {nearest:e} of its length apart");
    }
}

fn assert_recorded(name: &str, found: &TensorMap) {
    let (_, tensors) = recorded();
    let prefix = format!("{name}.");
    let mut compared = 0;
    for (key, expected) in tensors.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let own = format!("base_model.model.{}", &key[prefix.len()..]);
        let is_a = key.contains("lora_A");
        assert_same(key, &found[&own], expected, is_a);
        compared += 1;
    }
    assert_eq!(compared, found.len(), "{name}");
    assert_eq!(compared, 16, "two factors of four layers in two blocks");
}

#[test]
fn eva_begins_as_in_hf_peft_and_notes_its_ranks() {
    let (settled, found) = start(LoraConfig { init: LoraInit::Eva, ..LoraConfig::default() }, 4);
    assert_recorded("eva", &found);
    let (recorded, _) = recorded();
    for field in ["rank_pattern", "alpha_pattern"] {
        let own: std::collections::BTreeMap<String, f64> =
            serde_json::from_value(settled[field].clone()).expect("numbers");
        let theirs = serde_json::from_value(recorded.eva[field].clone()).expect("numbers");
        assert_eq!(own, theirs, "{field}");
    }
}

#[test]
fn lora_ga_begins_as_in_hf_peft() {
    let of = |direction, scale| LoraConfig {
        init: LoraInit::LoraGa,
        lora_ga_config: Some(LoraGaConfig { direction, scale, ..LoraGaConfig::default() }),
        ..LoraConfig::default()
    };
    for (name, direction, scale) in [
        ("lora_ga", LoraGaDirection::ArB2r, LoraGaScale::Stable),
        ("lora_ga_weights", LoraGaDirection::ArBr, LoraGaScale::WeightSvd),
        ("lora_ga_descent", LoraGaDirection::A2rBr, LoraGaScale::GdScale),
    ] {
        assert_recorded(name, &start(of(direction, scale), 4).1);
    }
}

#[test]
fn corda_begins_as_in_hf_peft() {
    for (name, corda_method) in [
        ("corda_ipm", CordaMethod::InstructionPreviewed),
        ("corda_kpm", CordaMethod::KnowledgePreserved),
    ] {
        let corda_config = Some(CordaConfig { corda_method, ..CordaConfig::default() });
        let config = LoraConfig { init: LoraInit::Corda, corda_config, ..LoraConfig::default() };
        assert_recorded(name, &start(config, 1).1);
    }
}

#[test]
fn a_start_of_data_is_the_base() {
    let (recorded, _) = recorded();
    let device = Device::default();
    let (model, _) = Model::load(&directory(), None, &device).expect("a base");
    let rows: Vec<&[u32]> = recorded.texts.iter().map(Vec::as_slice).collect();
    let input = ModelInput::from_rows(&rows, None, 0, &device).expect("texts");
    let logits = |hooks: &dyn Hooks| -> Vec<f32> {
        let logits = model.infer(&input, hooks).expect("it fits");
        logits.into_data().try_into_vec().expect("floats")
    };
    let expected = logits(&());
    let calibration = Batches { model: &model, recorded: &recorded, size: 4 };
    let context = InitContext::new(model.base(), &device).with_calibration(&calibration);
    for init in [LoraInit::Eva, LoraInit::LoraGa, LoraInit::Corda] {
        let config = LoraConfig { init, rank: 3, alpha: 7.0, ..LoraConfig::default() };
        let method = config.init(&context).expect("it fits");
        for (found, expected) in logits(&method).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{init:?}: {found} and {expected}");
        }
    }
}
