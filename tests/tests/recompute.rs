//! Gradient checkpointing: gradients are those of an ordinary pass, whatever the model, the method, and
//! what is trained beside it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{BoxedMethod, Edits, Hooks, LowRank, Memo, Method, Pass, Site, SiteKind, Stack};
use peft_format::{Adapter, AdapterConfig, read_safetensors};
use peft_models::{Checkpoint, Forward, Model, ModelConfig, ModelInput, ModelTask, Recompute};
use serde_json::{Map, Value, json};

/// One of each kind: encoder, decoders, encoders with a decoder.
const BASES: [&str; 5] = ["bert-mlm", "gpt2-left", "llama-linear", "t5-left", "bart-left"];

/// Methods that share tensors among layers, draw random numbers in what is computed once, lengthen
/// texts, read padding, or have several parts.
fn methods() -> Vec<(&'static str, Value)> {
    vec![
        ("lora", json!({"target_modules": "all-linear", "lora_dropout": 0.2})),
        ("dora", json!({"target_modules": "all-linear", "lora_dropout": 0.2})),
        (
            "prefix",
            json!({"num_virtual_tokens": 3, "prefix_projection": true, "encoder_hidden_size": 6}),
        ),
        ("p-tuning", json!({"num_virtual_tokens": 3, "encoder_dropout": 0.3})),
        ("houlsby", json!({})),
        ("compacter", json!({"phm_dim": 2, "reduction_factor": 4})),
        ("unipelt", json!({})),
    ]
}

/// A fixture's model with dropout, and its texts.
fn model(name: &str, device: &Device) -> (Model, ModelInput) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bases").join(name);
    let text = std::fs::read_to_string(directory.join("config.json")).expect("a configuration");
    let mut fields: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    for (field, value) in &mut fields {
        let is_share = field.contains("drop") && !field.contains("layerdrop");
        if is_share && value.is_number() {
            *value = json!(0.2);
        }
    }
    let config = ModelConfig::from_fields(fields, &directory).expect("supported");
    let mut checkpoint = Checkpoint::open(&directory).expect("tensors");
    let task = ModelTask { task: config.own_task(), seed: 0 };
    let (model, _) = Model::from_checkpoint(config, &mut checkpoint, task, device).expect("a base");
    let io = read_safetensors(&directory.join("io.safetensors")).expect("its texts");
    let text = |prefix: &str| {
        let [ids, mask] = ["input_ids", "attention_mask"].map(|it| format!("{prefix}{it}"));
        let mask = io.get(&mask).cloned();
        ModelInput::from_data(io[&ids].clone(), mask, None, device).expect("a batch")
    };
    let input = match io.contains_key("decoder_input_ids") {
        true => text("").with_decoder(text("decoder_")).expect("as many"),
        false => text(""),
    };
    (model, input)
}

/// Away from its start, as a method in training is.
struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_trained = param.is_require_grad();
        param.map(|tensor| {
            let noise = tensor.random_like(Distribution::Normal(0.0, 0.05));
            (tensor + noise).detach().set_require_grad(is_trained)
        })
    }
}

fn adapter(method: &str, fields: &Value, model: &Model, device: &Device) -> Adapter {
    let fields = fields.as_object().cloned().unwrap_or_default();
    let config = AdapterConfig::configure(&peft::registry(), method, fields)
        .unwrap_or_else(|error| panic!("{method}: {error}"));
    let mut adapter = Adapter::new(config, model.base(), device)
        .unwrap_or_else(|error| panic!("{method}: {error}"));
    device.seed(3);
    adapter.method = adapter.method.map(&mut Noise);
    adapter
}

/// The gradients of trained parameters, by path; those that have none have no values.
struct Read<'g> {
    gradients: &'g GradientsParams,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Read<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = |gradient: Tensor<D>| gradient.into_data().try_into_vec().expect("floats");
        let gradient = self.gradients.get::<D>(param.id).map_or(Vec::new(), values);
        self.found.push((self.path.join("."), gradient));
    }
}

/// The gradients of a function of two passes over the texts, and its value.
type Found = (Vec<f32>, Vec<(String, Vec<f32>)>);

fn gradients<M: Module + Hooks>(
    model: &Model,
    input: &ModelInput,
    method: &M,
    recompute: Option<Recompute<'_>>,
) -> Found {
    let memo = Memo::new();
    let how = Forward::train(method, 7, 3).with_memo(&memo);
    let how = recompute.iter().fold(how, Forward::with_recompute);
    let logits = || model.forward(input, how).expect("it runs");
    // The second time under other masks, as some methods have a loss.
    let (first, second) = (logits(), logits());
    let objective = first.clone().sin().mean() + (first - second).square().mean();
    let value = objective.clone().into_data().try_into_vec().expect("floats");
    let gradients = match recompute {
        Some(recompute) => recompute.backward(method, objective),
        None => GradientsParams::from_grads(objective.backward(), method),
    };
    let mut read = Read { gradients: &gradients, path: Vec::new(), found: Vec::new() };
    method.visit(&mut read);
    (value, read.found)
}

#[track_caller]
fn assert_same(what: &str, model: &Model, input: &ModelInput, method: &Stack) {
    let plain = gradients(model, input, method, None);
    let inner = method.valid();
    let saving = gradients(model, input, method, Some(Recompute::new(model, &inner)));
    // Some of Burn's own operations are rounded otherwise where nothing is recorded.
    assert!((saving.0[0] - plain.0[0]).abs() <= 1e-6 * plain.0[0].abs(), "{what}");
    assert!(plain.1.iter().any(|(_, gradient)| gradient.iter().any(|g| *g != 0.0)), "{what}");
    for ((path, saving), (_, plain)) in saving.1.iter().zip(&plain.1) {
        assert_eq!(saving.len(), plain.len(), "{what}: {path}");
        let size = plain.iter().fold(0.0f32, |size, g| size.max(g.abs()));
        let far = saving.iter().zip(plain).map(|(a, b)| (a - b).abs());
        let far = far.fold(0.0, f32::max);
        // What several layers share is summed in another order.
        assert!(far <= 5e-5 * size.max(1e-6), "{what}: {path} is {far:e} of {size:e} away");
    }
}

#[test]
fn gradients_are_those_of_an_ordinary_pass() {
    let device = Device::default();
    for name in BASES {
        let (model, input) = model(name, &device);
        for (method, fields) in methods() {
            let what = format!("{method} on {name}");
            let adapter = adapter(method, &fields, &model, &device);
            assert_same(&what, &model, &input, &adapter.method);
        }
    }
}

#[test]
fn tables_that_are_trained_get_the_gradients_of_both_ends() {
    let device = Device::default();
    for name in BASES {
        let (model, input) = model(name, &device);
        let base = model.base();
        let head = base.sites().find(|site| site.is_unembedding).expect("a language model");
        let words = base.sites().find(|site| site.kind == SiteKind::Embedding).expect("words");
        let query = base.linears().next().expect("a linear layer");
        let (words, head, query) = (&words.path, &head.path, &query.path);
        let ways = [
            json!({"target_modules": [query], "modules_to_save": [words]}),
            json!({"target_modules": [query], "modules_to_save": [head]}),
            json!({"target_modules": [query], "modules_to_save": [words], "ensure_weight_tying": true}),
            json!({"target_modules": [query], "trainable_token_indices": [3, 7]}),
            json!({"target_modules": [words, head]}),
        ];
        for fields in ways {
            let what = format!("{name}: {fields}");
            let adapter = adapter("lora", &fields, &model, &device);
            assert_same(&what, &model, &input, &adapter.method);
        }
    }
}

#[test]
fn what_is_frozen_below_is_no_hindrance() {
    let device = Device::default();
    for name in BASES {
        let (model, input) = model(name, &device);
        let below = adapter("houlsby", &json!({}), &model, &device);
        let above = adapter("lora", &json!({"layers_to_transform": [1]}), &model, &device);
        let frozen = BoxedMethod::new(below.method).frozen();
        let method = Stack::new(vec![frozen, BoxedMethod::new(above.method)]);
        assert_same(name, &model, &input, &method);
    }
}

/// A low rank at some layers that notes where it is asked.
#[derive(Module, Debug)]
struct Noting {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    #[module(skip)]
    from: usize,
    #[module(skip)]
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Hooks for Noting {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some(layer) = site.layer else { return Edits::none() };
        self.asked.lock().expect("nobody panicked").push(layer);
        match layer >= self.from && site.shape == [self.a.dims()[0], self.b.dims()[1]] {
            true => LowRank::new(self.a.val(), self.b.val(), 1.0).into(),
            false => Edits::none(),
        }
    }
}

impl Method for Noting {}

#[test]
fn layers_run_again_from_the_last_but_one_to_the_lowest_that_is_trained() {
    let device = Device::default();
    let (model, input) = model("bert-mlm", &device);
    let d = model.config().hidden_size;
    let on = device.clone().autodiff();
    for (from, times) in [(0, [2, 1]), (1, [1, 1])] {
        let noting = Noting {
            a: Param::from_tensor(Tensor::ones([d, 2], &on)),
            b: Param::from_tensor(Tensor::ones([2, d], &on)),
            from,
            asked: Arc::default(),
        };
        let inner = noting.valid();
        let recompute = Recompute::new(&model, &inner);
        noting.asked.lock().expect("nobody panicked").clear();
        let how = Forward::train(&noting, 0, 0).with_recompute(&recompute);
        let objective = model.forward(&input, how).expect("it runs").sin().mean();
        let gradients = recompute.backward(&noting, objective);
        assert_eq!(gradients.len(), 2);
        let asked = noting.asked.lock().expect("nobody panicked");
        let linears = |layer| model.base().linears().filter(|s| s.layer == Some(layer)).count();
        let found =
            [0, 1].map(|layer| asked.iter().filter(|it| **it == layer).count() / linears(layer));
        assert_eq!(found, times, "trained from layer {from} on");
    }
}
