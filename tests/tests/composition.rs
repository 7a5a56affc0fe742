//! Adapters composed: a batch of mixed rows, side by side, averages, stacks and fusions, over the
//! recorded adapters.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use peft_core::{
    AdapterPool, Average, BoxedMethod, Hooks, Method, MethodConfig, PerLayer, Probe, Slots,
};
use peft_format::{Adapter, AdapterConfig, Composition, Error, merged_tensors};
use peft_models::{Forward, Model, ModelInput};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn model(name: &str) -> Model {
    let (model, _) = Model::load(&fixture(name), None, &Device::default()).expect("a base");
    model
}

fn adapter(name: &str, model: &Model) -> Adapter {
    let registry = peft::registry();
    Adapter::load(&fixture(name), &registry, model.base(), model.base().device())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Six texts of different lengths.
fn texts() -> Vec<Vec<u32>> {
    [9u32, 4, 12, 3, 7, 5]
        .iter()
        .enumerate()
        .map(|(row, length)| (0..*length).map(|i| 5 + (31 * i + 17 * row as u32) % 90).collect())
        .collect()
}

fn input(texts: &[Vec<u32>], device: &Device) -> ModelInput {
    let rows: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    ModelInput::from_rows(&rows, None, 0, device).expect("the texts fit")
}

fn logits(model: &Model, texts: &[Vec<u32>], hooks: &dyn Hooks) -> Vec<Vec<f32>> {
    let output = model.infer(&input(texts, model.base().device()), hooks).expect("it fits");
    rows(output)
}

/// The same with each row under an adapter of a pool, or under none.
fn mixed(
    model: &Model,
    texts: &[Vec<u32>],
    adapters: &[BoxedMethod],
    of_rows: [Option<usize>; 6],
) -> Vec<Vec<f32>> {
    let (pool, slots) = (AdapterPool::new(adapters.to_vec()), Slots::new(of_rows.into()));
    let how = Forward::infer(&pool).with_slots(&slots);
    rows(model.forward(&input(texts, model.base().device()), how).expect("it fits"))
}

fn rows(output: Tensor<3>) -> Vec<Vec<f32>> {
    let [batch, _, labels] = output.dims();
    let data: TensorData = output.reshape([batch, labels]).into_data();
    let values = data.convert::<f32>().try_into_vec::<f32>().expect("floats");
    values.chunks(labels).map(<[f32]>::to_vec).collect()
}

fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
}

/// Logits on the CPU agree within 1e-5; devices that round differently get more.
fn tolerance() -> f32 {
    match std::env::var("BURN_DEVICE").as_deref() {
        Ok("flex" | "ndarray") | Err(_) => 1e-5,
        Ok(_) => 1e-3,
    }
}

fn assert_mixed(base: &str, names: [&str; 4]) {
    let model = model(base);
    let methods: Vec<BoxedMethod> =
        names.map(|name| BoxedMethod::new(adapter(name, &model).method.valid())).into();
    let texts = texts();
    // Not in the order of adapters, one of them twice, and one row without any.
    let of_rows = [Some(2), Some(0), None, Some(1), Some(3), Some(0)];
    let mixed = mixed(&model, &texts, &methods, of_rows);
    for (row, (text, method)) in texts.iter().zip(of_rows).enumerate() {
        let alone = match method {
            Some(method) => logits(&model, std::slice::from_ref(text), &methods[method]),
            None => logits(&model, std::slice::from_ref(text), &()),
        };
        let distance = distance(&mixed[row..=row], &alone);
        assert!(distance <= tolerance(), "row {row} of {base}: {distance:e}");
        let base = logits(&model, std::slice::from_ref(text), &());
        let changed = self::distance(&alone, &base);
        assert!(method.is_none() || changed > 1e-2, "the adapter changes row {row} by {changed:e}");
    }
}

#[test]
fn each_row_of_a_mixed_batch_is_as_if_alone() {
    // A prefix, a prompt before the text, one after the embeddings, a function, a weight.
    let names = ["peft/bert-prefix", "peft/bert-prompt", "adapters/bert-houlsby", "peft/bert-lora"];
    assert_mixed("bases/bert", names);
    // No gates: their mean runs over padding, so they depend on the batch, as in the reference.
    let names =
        ["adapters/bert-prompt", "adapters/bert-compacter", "peft/bert-ia3", "adapters/bert-mam"];
    assert_mixed("bases/bert", names);
    let names = ["peft/roberta-prompt", "adapters/roberta-prefix", "peft/roberta-ia3"];
    assert_mixed("bases/roberta", [names[0], names[1], names[2], "peft/roberta-lora"]);
}

/// A new adapter, away from its start.
fn new_adapter(model: &Model, name: &str, fields: Value) -> BoxedMethod {
    let Value::Object(fields) = fields else { panic!("an object") };
    let method = peft::registry().configure(name, fields).expect("a method");
    let adapter = Adapter::new(AdapterConfig::new(method), model.base(), model.base().device());
    BoxedMethod::new(adapter.expect("it fits the model").method.valid())
}

#[test]
fn hybrids_have_the_reference_s_parts_on_every_model() {
    // As many values as adapters 1.3.0 trains: on the first two, prefixes in each kind of attention.
    for (base, unipelt, mam) in
        [("t5-left", 94706, 145608), ("bart-left", 94706, 145608), ("llama-llama3", 26410, 40272)]
    {
        let model = model(&format!("bases/{base}"));
        for (name, wanted) in [("unipelt", unipelt), ("mam", mam)] {
            let method = peft::registry().configure(name, Default::default()).expect("a method");
            let config = AdapterConfig::new(method);
            let adapter = Adapter::new(config, model.base(), model.base().device());
            let method = adapter.expect("it fits the model").method;
            assert_eq!(peft_core::num_trainable(&method), wanted, "{name} over {base}");
        }
    }
    // Two gates of its own at a fused projection.
    let hybrid = peft::unipelt::UniPeltConfig::default();
    let error = hybrid.to_adapters(model("bases/gpt2-left").base()).expect_err("one gate");
    assert!(error.to_string().contains("fused projection"), "{error}");
}

#[test]
fn a_causal_classifier_reads_the_end_of_each_row() {
    let model = model("bases/llama-sequence");
    let methods = vec![
        new_adapter(&model, "prompt", json!({"num_virtual_tokens": 3})),
        new_adapter(&model, "prompt", json!({"num_virtual_tokens": 1})),
        new_adapter(&model, "prefix", json!({"num_virtual_tokens": 2})),
        new_adapter(&model, "lora", json!({"init_lora_weights": false})),
    ];
    let mut texts = texts();
    // It has a smaller vocabulary.
    texts.iter_mut().flatten().for_each(|token| *token = 1 + *token % 60);
    let of_rows = [Some(2), Some(0), None, Some(1), Some(3), Some(0)];
    let mixed = mixed(&model, &texts, &methods, of_rows);
    for (row, (text, method)) in texts.iter().zip(of_rows).enumerate() {
        let text = std::slice::from_ref(text);
        let alone = match method {
            Some(method) => logits(&model, text, &methods[method]),
            None => logits(&model, text, &()),
        };
        let far = distance(&mixed[row..=row], &alone);
        assert!(far <= tolerance(), "row {row}: {far:e}");
        let changed = distance(&alone, &logits(&model, text, &()));
        assert!(method.is_none() || changed > 1e-3, "row {row} changes by {changed:e}");
    }
}

#[test]
fn side_by_side_each_is_as_if_alone() {
    assert_side_by_side(
        "bases/bert",
        &["peft/bert-prefix", "adapters/bert-pfeiffer", "peft/bert-prompt"],
    );
    assert_side_by_side("bases/roberta", &["adapters/roberta-prefix", "peft/roberta-ia3"]);
}

fn assert_side_by_side(base: &str, names: &[&str]) {
    let model = model(base);
    let adapters: Vec<Adapter> = names.iter().map(|name| adapter(name, &model)).collect();
    let alone: Vec<Vec<f32>> = adapters
        .iter()
        .flat_map(|adapter| logits(&model, &texts(), &adapter.method.valid()))
        .collect();
    let count = adapters.len();
    let parallel =
        Composition::Parallel.of(adapters, None, model.base()).expect("they go together");
    // The texts once for each adapter, in the order of adapters.
    let of_rows = (0..count).flat_map(|slot| vec![Some(slot); texts().len()]);
    let slots = Slots::new(of_rows.collect());
    let method = parallel.method.valid();
    let input = input(&texts(), model.base().device()).repeated(count);
    let together = model.forward(&input, Forward::infer(&method).with_slots(&slots));
    assert!(distance(&rows(together.expect("it fits")), &alone) <= tolerance());
}

#[test]
fn an_average_of_one_is_that_one_and_of_weights_is_mergeable() {
    let model = model("bases/bert");
    let lora = adapter("peft/bert-lora", &model).parts().1;
    let other = adapter("peft/bert-lora-all", &model).parts().1;
    let one = Average::new(vec![(lora.clone(), 3.0)]);
    let expected = logits(&model, &texts(), &lora.valid());
    assert!(distance(&logits(&model, &texts(), &one.valid()), &expected) <= tolerance());

    // Weights are divided by their sum.
    let of = |weights: &[f64]| {
        let pair = ["peft/bert-lora", "peft/bert-lora-all"].map(|name| adapter(name, &model));
        Composition::Average { weights: weights.to_vec() }.of(pair.into(), None, model.base())
    };
    let [thirds, same] = [[0.5, 1.0], [2.0, 4.0]].map(|weights| {
        logits(&model, &texts(), &of(&weights).expect("they go together").method.valid())
    });
    assert!(distance(&thirds, &same) <= tolerance());
    let equal = logits(&model, &texts(), &of(&[1.0, 1.0]).expect("they do").method.valid());
    assert!(distance(&thirds, &equal) > 1e-4);
    let refused = |weights: &[f64]| of(weights).expect_err("it is refused").to_string();
    assert!(refused(&[1.0]).contains("1 weights for 2 adapters"), "{}", refused(&[1.0]));
    assert!(refused(&[1.0, -1.0]).contains("0 is not above 0"), "{}", refused(&[1.0, -1.0]));

    // Of weights, the mean of outputs is the output of the mean.
    let mut mean = adapter("peft/bert-lora", &model);
    let average = Average::new(vec![(lora, 1.0), (other, 3.0)]);
    mean.method = peft_core::Stack::new(vec![BoxedMethod::new(average)]);
    let expected = logits(&model, &texts(), &mean.method.valid());
    let merged = merged_tensors(&mean, model.base()).expect("both can be merged");
    let merged = model.with_tensors(merged).expect("it is whole");
    assert!(distance(&logits(&merged, &texts(), &()), &expected) <= 10.0 * tolerance());
}

#[test]
fn a_stack_of_functions_depends_on_its_order() {
    let model = model("bases/bert");
    let names = ["adapters/bert-houlsby", "adapters/bert-pfeiffer"];
    let of = |names: [&str; 2]| {
        let adapters = names.map(|name| adapter(name, &model)).into();
        let mut stack =
            Composition::Stack.of(adapters, None, model.base()).expect("they go together");
        // The heads differ with the order too; the method alone is compared.
        stack.method = peft_core::Stack::new(vec![stack.parts().1]);
        logits(&model, &texts(), &stack.method.valid())
    };
    let [first, second] = [of(names), of([names[1], names[0]])];
    assert!(distance(&first, &second) > 1e-4);
}

#[test]
fn per_layer_acts_in_its_layers_only() {
    let model = model("bases/bert");
    let houlsby = adapter("adapters/bert-houlsby", &model).parts().1;
    let lora = adapter("peft/bert-lora", &model).parts().1;
    let everywhere =
        PerLayer::new(vec![houlsby.clone(), lora.clone()], vec![Some(0), Some(0)], None);
    let expected = logits(&model, &texts(), &houlsby.valid());
    assert_eq!(logits(&model, &texts(), &everywhere.valid()), expected);
    let nowhere = PerLayer::new(vec![houlsby.clone()], vec![None, None], None);
    assert_eq!(logits(&model, &texts(), &nowhere.valid()), logits(&model, &texts(), &()));
    // Another method in each layer: neither alone.
    let each = PerLayer::new(vec![houlsby, lora.clone()], vec![Some(0), Some(1)], None);
    let each = logits(&model, &texts(), &each.valid());
    assert!(distance(&each, &expected) > 1e-4);
    assert!(distance(&each, &logits(&model, &texts(), &lora.valid())) > 1e-4);
}

#[test]
fn combinations_that_make_no_sense_are_refused_with_the_reason() {
    let model = model("bases/bert");
    let refused = |composition: Composition, names: &[&str], fusion: Option<&str>, why: &str| {
        let adapters = names.iter().map(|name| adapter(name, &model)).collect();
        let fusion = fusion.map(|name| adapter(name, &model));
        match composition.of(adapters, fusion, model.base()) {
            Err(error @ Error::Core(peft_core::Error::Compose { .. })) => {
                let text = error.to_string();
                assert!(text.contains(why), "{text}");
            }
            other => panic!("{composition:?} of {names:?} gave {:?}", other.map(|_| ())),
        }
    };
    let (prefix, lora) = ("peft/bert-prefix", "peft/bert-lora");
    refused(Composition::Average { weights: Vec::new() }, &[lora, prefix], None, "stack it");
    let fusion = Some("adapters/bert-fusion/fusion");
    refused(Composition::Fuse, &[lora], fusion, "lora also acts at");
    refused(Composition::Fuse, &["adapters/bert-pfeiffer"], None, "trained");
    refused(Composition::Fuse, &["adapters/bert-pfeiffer"], Some(lora), "is not a fusion");
    refused(Composition::Stack, &[], None, "at least one");
}

#[test]
fn gates_and_fusions_can_be_observed() {
    let model = model("bases/bert");
    let observe = |adapter: Adapter| {
        let (probe, method) = (Probe::default(), adapter.method.valid());
        let input = input(&texts(), model.base().device());
        model.forward(&input, Forward::infer(&method).with_probe(&probe)).expect("it fits");
        probe.observations()
    };
    let gates = observe(adapter("adapters/bert-unipelt", &model));
    // A prefix, an adapter, and LoRA at queries and values, in two layers.
    assert_eq!(gates.len(), 2 * 4);
    assert!(gates.iter().all(|seen| seen.count == 6 && seen.mean.len() == 1));
    assert!(gates.iter().all(|seen| seen.mean[0] > 0.0 && seen.mean[0] < 1.0));

    let names = ["adapters/bert-fusion/ada", "adapters/bert-fusion/bob"];
    let adapters = names.map(|name| adapter(name, &model)).into();
    let fusion = adapter("adapters/bert-fusion/fusion", &model);
    let fused = Composition::Fuse.of(adapters, Some(fusion), model.base());
    let fused = fused.expect("they go together");
    let attention = observe(fused);
    assert_eq!(attention.len(), 2);
    for seen in attention {
        let sum: f64 = seen.mean.iter().sum();
        assert!(seen.mean.len() == 2 && (sum - 1.0).abs() < 1e-5, "{seen:?}");
    }
}

#[test]
fn a_frozen_adapter_is_neither_trained_nor_saved() {
    let model = model("bases/bert");
    let language = adapter("adapters/bert-madx-stack/lang", &model);
    let task = adapter("adapters/bert-madx-stack/task", &model);
    let (trainable, specs) =
        (peft_core::num_trainable(&task.method), task.specs(model.base()).len());
    let stacked = task.over(vec![language], model.base()).expect("they go together");
    assert_eq!(peft_core::num_trainable(&stacked.method), trainable);
    assert_eq!(stacked.specs(model.base()).len(), specs);
}

#[test]
fn the_first_adapter_of_a_stack_alone_is_invertible() {
    let model = model("bases/bert");
    let language = || adapter("adapters/bert-madx-stack/lang", &model);
    let invertible = || adapter("adapters/bert-invertible", &model);
    let stacked = |adapters: Vec<Adapter>| {
        Composition::Stack.of(adapters, None, model.base()).map_err(|error| error.to_string())
    };
    let of = |adapters| {
        let stack = stacked(adapters).expect("they go together");
        logits(&model, &texts(), &stack.method.valid())
    };
    // The second one's acts nowhere, as if it had none.
    let mut without = invertible();
    let (_, mut method) = without.parts();
    method.adopt(vec![language().parts().1]);
    without.method = peft_core::Stack::new(without.parts().0.into_iter().chain([method]).collect());
    let together = of(vec![language(), invertible()]);
    assert_eq!(together, of(vec![language(), without.clone()]));
    let alone = |adapter: &Adapter| logits(&model, &texts(), &adapter.method.valid());
    assert!(distance(&alone(&without), &alone(&invertible())) > 1e-3);
    // So there is no training one over another.
    let refused = invertible().over(vec![language()], model.base());
    let error = refused.expect_err("it would train nothing").to_string();
    assert!(error.contains("only in the first adapter of a stack"), "{error}");
}

#[test]
fn layers_left_out_at_inference_are_those_of_a_model_without_them() {
    let model = model("bases/bert");
    // Trained without the first layer, so that leaving it out again changes nothing.
    let dropped = adapter("adapters/bert-adapterdrop", &model);
    let expected = logits(&model, &texts(), &dropped.method.valid());
    let left_out = dropped.clone().leave_out(&[0], model.base());
    assert_eq!(logits(&model, &texts(), &left_out.method.valid()), expected);
    // Without both layers, only the head is left.
    let nothing = dropped.clone().leave_out(&[0, 1], model.base());
    let (head, _) = dropped.parts();
    let head = logits(&model, &texts(), &head.expect("it has a head").valid());
    assert_eq!(logits(&model, &texts(), &nothing.method.valid()), head);
    // What is in no layer stays: an invertible adapter at the embeddings.
    let invertible = adapter("adapters/bert-invertible", &model);
    let kept = invertible.clone().leave_out(&[0, 1], model.base());
    let kept = logits(&model, &texts(), &kept.method.valid());
    assert!(distance(&kept, &logits(&model, &texts(), &())) > 1e-3);
    assert!(distance(&kept, &logits(&model, &texts(), &invertible.method.valid())) > 1e-3);
}
