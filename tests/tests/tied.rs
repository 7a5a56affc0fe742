//! Embeddings and heads that share a table, under every way of training one of them: what is saved,
//! loaded and merged is the same function, whatever the architecture makes of the two.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Hooks, SiteKind};
use peft_format::{
    Adapter, AdapterConfig, Error, merged_tensors, read_safetensors, tensors_under,
    unmerged_tensors,
};
use peft_models::{Model, ModelInput};
use serde_json::{Map, Value, json};

/// Language models, and whether their head can have a table of its own. That of the third is not tied.
const BASES: [(&str, bool); 7] = [
    ("gpt2-left", true),
    ("bert-mlm", true),
    ("llama-linear", true),
    ("roberta-mlm", true),
    ("distilbert-mlm", true),
    ("t5-left", false),
    ("bart-left", false),
];

/// What is trained beside queries, with the embedding's and the head's names for `E` and `H`. Whether
/// both still have one table then.
fn ways() -> Vec<(Value, bool)> {
    vec![
        (json!({}), true),
        (json!({"modules_to_save": ["E"]}), false),
        (json!({"modules_to_save": ["H"]}), false),
        (json!({"modules_to_save": ["E", "H"]}), false),
        (json!({"modules_to_save": ["E"], "ensure_weight_tying": true}), true),
        (json!({"modules_to_save": ["H"], "ensure_weight_tying": true}), true),
        (json!({"trainable_token_indices": [3, 7]}), true),
        (json!({"trainable_token_indices": {"E": [3, 7], "H": [3, 7]}}), true),
        (json!({"trainable_token_indices": {"E": [3, 7], "H": [5]}}), false),
        (json!({"trainable_token_indices": {"H": [5, 2]}}), false),
        (json!({"target_modules": ["E", "Q"]}), false),
        (json!({"target_modules": ["H", "Q"]}), false),
        (json!({"target_modules": ["E", "H"]}), false),
        (json!({"target_modules": ["E"], "ensure_weight_tying": true}), true),
        (json!({"target_modules": ["H", "Q"], "ensure_weight_tying": true}), true),
    ]
}

struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.clone() + tensor.random_like(Distribution::Normal(0.0, 0.2)))
    }
}

/// The values of a text with names in the place of `E`, `H` and `Q`.
fn named(fields: &Value, names: &[(&str, &str); 3]) -> Value {
    let name = |text: &str| {
        let found = names.iter().find(|(short, _)| *short == text);
        found.map_or(text, |(_, name)| name).to_string()
    };
    match fields {
        Value::String(text) => name(text).into(),
        Value::Array(values) => values.iter().map(|value| named(value, names)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (name(key), named(value, names)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

fn logits(model: &Model, input: &ModelInput, hooks: &dyn Hooks) -> Vec<f32> {
    let logits = model.infer(input, hooks).expect("it runs");
    logits.into_data().convert::<f32>().try_into_vec().expect("floats")
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let far = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs()));
    let far = far.fold(0.0, f32::max);
    assert!(far <= 1e-4, "{what}: {far:e}");
}

#[test]
fn what_is_saved_and_merged_is_what_was_trained() {
    let device = Device::default();
    let registry = peft::registry();
    for (name, can_have_own) in BASES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bases").join(name);
        let (model, _) = Model::load(&directory, None, &device).expect("a base");
        let io = read_safetensors(&directory.join("io.safetensors")).expect("its texts");
        let text = |prefix: &str| {
            let [ids, mask] = ["input_ids", "attention_mask"].map(|it| format!("{prefix}{it}"));
            let mask = io.get(&mask).cloned();
            ModelInput::from_data(io[&ids].clone(), mask, None, &device).expect("a batch")
        };
        let input = match io.contains_key("decoder_input_ids") {
            true => text("").with_decoder(text("decoder_")).expect("as many"),
            false => text(""),
        };
        let base = model.base();
        let head = base.sites().find(|site| site.is_unembedding).expect("a language model");
        let is_tied = head.tied_to.is_some();
        let words = base.sites().find(|site| site.kind == SiteKind::Embedding).expect("words");
        let query = base.linears().next().expect("a linear layer");
        let names = [("E", &words.path[..]), ("H", &head.path), ("Q", &query.path)];
        let alone = logits(&model, &input, &());
        for (fields, stays_tied) in ways() {
            let what = format!("{name}: {fields}");
            let mut fields: Map<String, Value> = match named(&fields, &names) {
                Value::Object(fields) => fields,
                _ => unreachable!("an object"),
            };
            fields.entry("target_modules").or_insert_with(|| json!([query.path]));
            device.seed(3);
            let config = AdapterConfig::configure(&registry, "lora", fields).expect("it is right");
            let mut adapter = Adapter::new(config, base, &device)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            adapter.method = adapter.method.map(&mut Noise);
            let trained = logits(&model, &input, &adapter.method.valid());
            assert!(trained.iter().zip(&alone).any(|(a, b)| (a - b).abs() > 1e-2), "{what}");

            let folder = tempfile::tempdir().expect("a directory");
            adapter.save(folder.path(), base).expect("saved");
            let read = Adapter::load(folder.path(), &registry, base, &device)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(logits(&model, &input, &read.method.valid()), trained, "{what}");
            assert_eq!(read.tensors(base), adapter.tensors(base), "{what}");

            let merged = merged_tensors(&adapter, base);
            if is_tied && !stays_tied && !can_have_own {
                let refused = merged.err();
                let reason = match refused {
                    Some(Error::Core(peft_core::Error::Merge { reason, .. })) => reason,
                    other => panic!("{what}: {other:?}"),
                };
                assert!(reason.contains(&head.path), "{reason}");
                continue;
            }
            let merged = merged.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(base.untied_in(&merged), is_tied && !stays_tied, "{what}");
            let merged = model.with_tensors(merged).expect("it is whole");
            // What was not replaced comes off again, under the keys that the merged model has.
            let (tensors, _) =
                unmerged_tensors(&adapter, merged.base()).expect("it has an inverse");
            let unmerged = merged.with_tensors(tensors.clone()).expect("it is whole");
            let keys =
                |model: &Model| tensors_under(&(), model.base()).into_keys().collect::<Vec<_>>();
            assert_eq!(tensors.into_keys().collect::<Vec<_>>(), keys(&unmerged), "{what}");
            assert_close(&what, &logits(&merged, &input, &()), &trained);
        }
    }
}
