//! Decoders that go on from kept keys and values, against passes over the whole text.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use peft_core::{AdapterPool, BoxedMethod, Hooks, Slots, Stack, TensorMap};
use peft_format::{Adapter, AdapterConfig, read_safetensors};
use peft_models::{Cache, Forward, Model, ModelInput};
use serde_json::{Value, json};

/// Virtual tokens of every method that has some.
const VIRTUAL: usize = 2;
/// Three rows, one under a prompt of 1, one under a prefix, one under a prompt of 2.
const MIXED: &str = "mixed rows";

fn base(name: &str) -> (Model, TensorMap) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bases").join(name);
    let (model, _) = Model::load(&directory, None, &Device::default()).expect("a base");
    (model, read_safetensors(&directory.join("io.safetensors")).expect("its texts"))
}

fn adapter(model: &Model, name: &str, fields: Value) -> Stack {
    let Value::Object(fields) = fields else { unreachable!("an object") };
    let method = peft::registry().configure(name, fields).expect("a method");
    let device = model.base().device();
    let adapter = Adapter::new(AdapterConfig::new(method), model.base(), device);
    adapter.expect("it fits the model").method.valid()
}

/// Columns of a `[batch, tokens]` array.
fn columns(data: &TensorData, from: usize, to: usize) -> TensorData {
    let [batch, tokens] = data.shape().dims::<2>();
    let values: Vec<i64> = data.clone().convert::<i64>().try_into_vec().expect("converted");
    let rows = values.chunks(tokens).flat_map(|row| row[from..to].to_vec());
    TensorData::new(rows.collect::<Vec<i64>>(), [batch, to - from])
}

/// The decoder's tokens `from..to`, and before them what the encoder reads, if there is one.
fn part(io: &TensorMap, from: usize, to: usize, counted: bool) -> ModelInput {
    let device = Device::default();
    let text = |prefix: &str, range: Option<[usize; 2]>| {
        let (ids, mask) =
            (&io[&format!("{prefix}input_ids")], &io[&format!("{prefix}attention_mask")]);
        let [from, to] = range.unwrap_or([0, ids.shape().dims::<2>()[1]]);
        let (ids, mask) = (columns(ids, from, to), columns(mask, from, to));
        ModelInput::from_data(ids, Some(mask), None, &device).expect("a batch")
    };
    let input = match io.contains_key("decoder_input_ids") {
        true => text("", None).with_decoder(text("decoder_", Some([from, to]))).expect("as many"),
        false => text("", Some([from, to])),
    };
    if counted { input.counting_tokens() } else { input }
}

/// The output for every token of `input`, `[batch, tokens, words]`; `before` says what the rows of a
/// mixed batch get before them.
fn at_tokens(
    model: &Model,
    input: &ModelInput,
    how: Forward<'_>,
    before: Option<[usize; 3]>,
) -> Tensor<3> {
    let output = model.forward(input, how).expect("it fits");
    let (tokens, positions) = (input.output_shape()[1], output.dims()[1]);
    let added = positions - tokens;
    let before = before.filter(|_| added > 0).unwrap_or([added; 3]);
    let rows = before
        .into_iter()
        .enumerate()
        .map(|(row, before)| output.clone().narrow(0, row, 1).narrow(1, before, tokens));
    Tensor::cat(rows.collect(), 0)
}

/// Whether a row has no token from one column to another.
fn has_padding_only(mask: &TensorData, from: usize, to: usize) -> bool {
    let mask: Vec<i64> = columns(mask, from, to).try_into_vec().expect("they are whole numbers");
    mask.chunks(to - from).any(|row| row.iter().all(|is_token| *is_token == 0))
}

/// The text at once, and in parts.
fn assert_same(name: &str, hooks: &dyn Hooks, counted: bool, what: &str) {
    let (model, io) = base(name);
    let before = (what == MIXED).then_some([1, 0, 2]);
    let decoder = io.get("decoder_attention_mask").unwrap_or(&io["attention_mask"]);
    // With what methods add, no model has room for more.
    let tokens = decoder.shape().dims::<2>()[1].min(8);
    let input = part(&io, 0, tokens, counted);
    let slots = match what {
        MIXED => Slots::new([0, 1, 2].map(Some).into()),
        _ => Slots::default(),
    };
    let how = Forward::infer(hooks).with_slots(&slots);
    let whole = at_tokens(&model, &input, how, before);
    let lengthens = model.forward(&input, how).expect("it fits").dims()[1] > tokens;
    let is_token = columns(decoder, 0, tokens).convert::<f32>();
    let is_token = Tensor::<2>::from_data(is_token, &Device::default()).unsqueeze_dim::<3>(2);
    // In one of the recorded batches, all that comes first of a text is padding, in a later part all
    // of another.
    for [first, second] in [[3, 4], [tokens - 2, tokens - 1]] {
        let parts = [[0, first], [first, second], [second, tokens]];
        let cache = Cache::new();
        let how = how.with_cache(&cache);
        let [begin, to] = parts[0];
        if lengthens && has_padding_only(decoder, begin, to) {
            let begin = model.forward(&part(&io, begin, to, counted), how);
            let error = begin.expect_err("nothing says where its first token is").to_string();
            assert!(error.contains("only padding where the cache begins"), "{error}");
            continue;
        }
        let parts =
            parts.map(|[from, to]| at_tokens(&model, &part(&io, from, to, counted), how, before));
        let difference = (whole.clone() - Tensor::cat(parts.to_vec(), 1)) * is_token.clone();
        let distance: f32 = difference.abs().max().into_scalar();
        assert!(distance <= 1e-5, "{name} under {what}: {distance:e}");
    }
    let plain = at_tokens(&model, &input, Forward::infer(&()), None);
    let moved: f32 = (plain - whole).abs().max().into_scalar();
    assert!(what == "nothing" || moved > 1e-3, "{what} changes {name} by {moved:e} only");
}

#[test]
fn going_on_from_a_cache_is_as_reading_the_whole_text() {
    let methods = [
        ("prefix", json!({"num_virtual_tokens": VIRTUAL})),
        (
            "prefix",
            json!({"num_virtual_tokens": VIRTUAL, "shift_positions": false,
            "encoder_prefix": true, "cross_prefix": true}),
        ),
        ("prompt", json!({"num_virtual_tokens": VIRTUAL})),
        ("prompt", json!({"num_virtual_tokens": VIRTUAL, "after_embeddings": true})),
        ("p-tuning", json!({"num_virtual_tokens": VIRTUAL})),
        ("lora", json!({"init_lora_weights": false})),
        ("houlsby", json!({"init_weights": "mam_adapter", "bottleneck_size": 4})),
    ];
    for name in ["llama-llama3", "gpt2-left", "mistral", "t5-left", "bart-left"] {
        let (model, _) = base(name);
        for counted in [false, true] {
            assert_same(name, &(), counted, "nothing");
            for (method, fields) in methods.clone() {
                let what = format!("{method} {fields}");
                let adapter = adapter(&model, method, fields);
                // This one starts as nothing.
                let what = if method == "houlsby" { "nothing" } else { &what };
                assert_same(name, &adapter, counted, what);
            }
            // Rows that get more and less before them.
            let virtual_tokens = |count: usize| json!({"num_virtual_tokens": count});
            let members = [
                adapter(&model, "prompt", virtual_tokens(1)),
                adapter(&model, "prefix", virtual_tokens(2)),
                adapter(&model, "prompt", virtual_tokens(2)),
            ];
            let mixed = AdapterPool::new(members.map(BoxedMethod::new).into());
            assert_same(name, &mixed, counted, MIXED);
        }
    }
}
