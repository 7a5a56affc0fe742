//! Batches of language models whose rows have different methods, against each row alone: logits, and
//! tokens with a cache, with beams, and without either.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use peft_core::{AdapterPool, BoxedMethod, Hooks, InitContext, Slots, Stack};
use peft_format::{Adapter, AdapterConfig};
use peft_models::{Forward, GenerationConfig, Generator, Model, ModelInput, Place, Task};
use serde_json::{Map, Value, json};

/// Which method each row has: not in their order, one of them twice, and one row without any.
const ROWS: [Option<usize>; 8] =
    [Some(2), Some(0), None, Some(1), Some(4), Some(0), Some(3), Some(5)];
/// How many tokens each row has.
const LENGTHS: [u32; 8] = [3, 2, 3, 1, 1, 2, 3, 2];

/// Prefixes and prompts of two lengths, weights, and a prefix as adapter-hub/adapters has it, none of
/// them at its start.
fn methods(model: &Model) -> Vec<BoxedMethod> {
    let fields = [
        ("prefix", json!({"num_virtual_tokens": 1})),
        ("prompt", json!({"num_virtual_tokens": 2})),
        ("lora", json!({"init_lora_weights": false, "target_modules": "all-linear", "alpha": 32})),
        ("prefix", json!({"num_virtual_tokens": 3})),
        ("prompt", json!({"num_virtual_tokens": 1, "after_embeddings": true})),
        (
            "prefix",
            json!({"num_virtual_tokens": 2, "shift_positions": false,
            "encoder_prefix": true, "cross_prefix": true}),
        ),
    ];
    let device = model.base().device();
    let method = |(number, (name, fields)): (usize, (&str, Value))| {
        let Value::Object(fields) = fields else { unreachable!("an object") };
        let config = peft::registry().configure(name, fields).expect("a method");
        let context = InitContext::new(model.base(), device).with_seed(number as u64);
        let adapter = Adapter::init(AdapterConfig::new(config), &context);
        BoxedMethod::new(adapter.expect("it fits the model").method.valid())
    };
    fields.into_iter().enumerate().map(method).collect()
}

/// A language model, with the most tokens that there is room for behind its prompts.
fn models() -> Vec<(&'static str, Model, usize)> {
    let load = |(name, room)| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bases").join(name);
        let (model, _) = Model::load(&directory, None, &Device::default()).expect("a base");
        (name, model, room)
    };
    [("gpt2-left", 5), ("llama-llama3", 8), ("t5-left", 8), ("bart-left", 8)].map(load).into()
}

fn texts(seed: u32) -> Vec<Vec<u32>> {
    let text = |(row, length): (usize, &u32)| {
        (0..*length).map(|i| 3 + (31 * i + 17 * row as u32 + seed) % 57).collect()
    };
    LENGTHS.iter().enumerate().map(text).collect()
}

fn batch(rows: &[Vec<u32>]) -> ModelInput {
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    ModelInput::from_rows(&rows, None, 0, &Device::default()).expect("a batch")
}

/// `read` is what the model goes on with; an encoder reads `texts`.
fn input(model: &Model, texts: &[Vec<u32>], read: &[Vec<u32>]) -> ModelInput {
    match model.task() {
        Task::Seq2SeqLm => batch(texts).with_decoder(batch(read)).expect("as many"),
        _ => batch(read),
    }
}

fn of_row(methods: &[BoxedMethod], row: usize) -> &dyn Hooks {
    ROWS[row].map_or(&() as &dyn Hooks, |method| &methods[method])
}

/// `[tokens, words]` of `[batch, tokens, words]`.
fn flat(output: Tensor<3>) -> Tensor<2> {
    let [batch, tokens, words] = output.dims();
    output.reshape([batch * tokens, words])
}

fn distance(a: Tensor<2>, b: Tensor<2>) -> f32 {
    (a - b).abs().max().into_scalar()
}

#[test]
fn logits_of_each_row_are_as_if_alone() {
    for (name, model, _) in models() {
        let methods = methods(&model);
        let (texts, read) = (texts(0), texts(9));
        let places: Vec<Place> = (0..ROWS.len())
            .flat_map(|row| (0..read[row].len()).map(move |token| [row, token]))
            .collect();
        let (pool, slots) = (AdapterPool::new(methods.clone()), Slots::new(ROWS.into()));
        let batch = input(&model, &texts, &read);
        let how = Forward::infer(&pool).with_slots(&slots);
        let mixed = model.forward_at(&batch, &places, how).expect("it fits");
        let mut before = 0;
        for row in 0..ROWS.len() {
            let tokens = read[row].len();
            let own = mixed.clone().narrow(0, before, tokens);
            before += tokens;
            let (texts, read) = (&texts[row..=row], &read[row..=row]);
            let alone = |hooks: &dyn Hooks| {
                let output = model.infer(&input(&model, texts, read), hooks).expect("it fits");
                // What a method puts before the text has outputs too.
                let added = output.dims()[1] - tokens;
                flat(output.narrow(1, added, tokens))
            };
            let (wanted, plain) = (alone(of_row(&methods, row)), alone(&()));
            let far = distance(own, wanted.clone());
            assert!(far <= 1e-5, "row {row} of {name}: {far:e}");
            let changed = distance(wanted, plain);
            let method = ROWS[row].is_some();
            assert!(!method || changed > 1e-3, "row {row} of {name} changes by {changed:e} only");
        }
    }
}

/// The likeliest tokens, each from a pass over the whole text.
fn without_cache(model: &Model, how: Forward<'_>, config: &GenerationConfig) -> Vec<Vec<u32>> {
    let texts = texts(0);
    let mut read = match config.decoder_start_token_id {
        Some(start) => vec![vec![start]; texts.len()],
        None => texts.clone(),
    };
    let beginnings: Vec<usize> = read.iter().map(Vec::len).collect();
    for _ in 0..config.max_new_tokens {
        let last = |(row, text): (usize, &Vec<u32>)| [row, text.len() - 1];
        let places: Vec<Place> = read.iter().enumerate().map(last).collect();
        let input = input(model, &texts, &read);
        let logits = model.forward_at(&input, &places, how).expect("it fits");
        let best = logits.argmax(1).into_data();
        read.iter_mut().zip(best.iter::<i64>()).for_each(|(text, token)| text.push(token as u32));
    }
    read.iter_mut().zip(beginnings).map(|(text, from)| text.split_off(from)).collect()
}

#[test]
fn tokens_of_each_row_are_as_if_alone() {
    for (name, model, room) in models() {
        let methods = methods(&model);
        let texts = texts(0);
        let prompts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let alone = |hooks: &dyn Hooks, prompts: &[&[u32]], config: &GenerationConfig| {
            let generator = Generator::new(&model, hooks, config).expect("a language model");
            generator.generate(prompts).expect("the prompts fit")
        };
        let mixed = |pool: &AdapterPool, rows: &[Option<usize>], config: &GenerationConfig| {
            let slots = Slots::new(rows.to_vec());
            let generator = Generator::new(&model, pool, config).expect("a language model");
            generator.with_slots(&slots).generate(&prompts).expect("the prompts fit")
        };
        let own = model.config();
        let plain = GenerationConfig {
            max_new_tokens: room,
            decoder_start_token_id: own.decoder_start_token_id(),
            ..GenerationConfig::default()
        };
        let (pool, slots) = (AdapterPool::new(methods.clone()), Slots::new(ROWS.into()));
        let greedy = mixed(&pool, &ROWS, &plain);
        let how = Forward::infer(&pool).with_slots(&slots);
        assert_eq!(greedy, without_cache(&model, how, &plain), "{name} without a cache");
        let changed = alone(&(), &prompts, &plain);
        let changed = greedy.iter().zip(&changed).filter(|(a, b)| a != b).count();
        assert!(changed >= 3, "methods change the texts of {changed} rows of {name}");
        // The same adapters in other slots, one of them twice.
        let others = methods.iter().rev().chain(&methods[..1]).cloned().collect();
        let moved = AdapterPool::new(others);
        let last = methods.len();
        let of_rows: Vec<Option<usize>> = (ROWS.iter().enumerate())
            .map(|(row, slot)| {
                slot.map(|slot| if slot == 0 && row > 3 { last } else { last - 1 - slot })
            })
            .collect();
        // So that some texts end before others.
        let end = json!([greedy[1][1], greedy[3][0], greedy[6][2]]);
        for fields in [
            json!({}),
            json!({"eos_token_id": end}),
            json!({"num_beams": 4}),
            json!({"num_beams": 4, "eos_token_id": end, "early_stopping": true}),
        ] {
            let fields: Map<String, Value> = fields.as_object().cloned().expect("an object");
            let config = plain.with_fields(&fields).expect("known fields");
            let together = mixed(&pool, &ROWS, &config);
            assert_eq!(together, mixed(&moved, &of_rows, &config), "{name} with {fields:?}");
            let each: Vec<Vec<u32>> = (0..ROWS.len())
                .flat_map(|row| alone(of_row(&methods, row), &prompts[row..=row], &config))
                .collect();
            assert_eq!(together, each, "{name} with {fields:?}");
        }
    }
}

#[test]
fn adapters_side_by_side_go_on_with_one_text() {
    for (name, model, room) in models() {
        let methods = methods(&model);
        let config = GenerationConfig {
            max_new_tokens: room,
            decoder_start_token_id: model.config().decoder_start_token_id(),
            do_sample: true,
            seed: 3,
            ..GenerationConfig::default()
        };
        let pool = AdapterPool::new(methods.clone());
        let slots = Slots::new((0..methods.len()).map(Some).collect());
        let prompt: &[u32] = &[5, 6, 7];
        let generator = Generator::new(&model, &pool, &config).expect("a language model");
        // Each draws as it does alone.
        let numbers = vec![0; methods.len()];
        let together = generator.with_slots(&slots).with_numbers(&numbers);
        let together = together.generate(&vec![prompt; methods.len()]).expect("it fits");
        for (method, found) in methods.iter().zip(&together) {
            let generator = Generator::new(&model, method, &config).expect("a language model");
            assert_eq!(*found, generator.generate(&[prompt]).expect("it fits")[0], "{name}");
        }
        let different = together.iter().filter(|text| **text != together[0]).count();
        assert!(different > 1, "{name}: {together:?}");
    }
}

#[test]
fn rows_and_the_slots_that_are_named_for_them_are_as_many() {
    let (_, model, _) = models().remove(0);
    let pool = AdapterPool::new(methods(&model));
    let slots = Slots::new(vec![Some(0), Some(1)]);
    let config = GenerationConfig::default();
    let generator = Generator::new(&model, &pool, &config).expect("a language model");
    let error = generator.with_slots(&slots).generate(&[&[5, 6]]);
    let error = error.expect_err("two adapters for one text").to_string();
    assert!(error.contains("1 texts, and slots for 2"), "{error}");
}

/// Opens the gates of a new method.
struct Moved;

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value + 0.3)
    }
}

#[test]
fn a_prompt_beside_the_text_is_projected_under_the_adapter_of_each_row() {
    let [_, (name, model, _), ..] = &models()[..] else { unreachable!("several models") };
    let device = model.base().device();
    let method = |name: &str, seed: u64, fields: Value| {
        let Value::Object(fields) = fields else { unreachable!("an object") };
        let config = peft::registry().configure(name, fields).expect("a method");
        let context = InitContext::new(model.base(), device).with_seed(seed);
        let adapter = Adapter::init(AdapterConfig::new(config), &context).expect("it fits");
        BoxedMethod::new(adapter.method.valid().map(&mut Moved))
    };
    let lora = || json!({"init_lora_weights": false, "target_modules": ["k_proj", "v_proj"]});
    let loras = [method("lora", 0, lora()), method("lora", 1, lora())];
    let prompt = method("llama-adapter", 2, json!({"adapter_len": 3, "adapter_layers": 2}));
    let pool = BoxedMethod::new(AdapterPool::new(loras.to_vec()));
    let mixed = Stack::new(vec![pool, prompt.clone()]);
    let read = [vec![5, 9, 31], vec![7, 4], vec![11, 3, 8]];
    let slots = Slots::new(vec![Some(1), Some(0), None]);
    let how = Forward::infer(&mixed).with_slots(&slots);
    let together = model.forward(&batch(&read), how).expect("it fits");
    for (row, slot) in slots.as_slice().iter().enumerate() {
        let tokens = read[row].len();
        let below = slot.map(|slot| loras[slot].clone());
        let alone = Stack::new(below.into_iter().chain([prompt.clone()]).collect());
        let alone = flat(model.infer(&batch(&read[row..=row]), &alone).expect("it fits"));
        let own = together.clone().narrow(0, row, 1).narrow(1, 0, tokens);
        let away = distance(flat(own), alone.clone());
        assert!(away < 1e-4, "{name}, row {row}: {away:e}");
        let bare = model.infer(&batch(&read[row..=row]), &()).expect("it fits");
        assert!(distance(flat(bare), alone) > 1e-2, "row {row} is under nothing");
    }
}

#[test]
fn an_activated_adapter_acts_the_same_in_a_text_that_is_padded_on_either_side() {
    let [_, (_, model, _), ..] = &models()[..] else { unreachable!("several models") };
    let device = model.base().device();
    let fields = json!({"init_lora_weights": false, "alora_invocation_tokens": [9, 31]});
    let Value::Object(fields) = fields else { unreachable!("an object") };
    let config = peft::registry().configure("lora", fields).expect("a method");
    let adapter =
        Adapter::init(AdapterConfig::new(config), &InitContext::new(model.base(), device));
    let lora = adapter.expect("it fits").method.valid();
    let text = [5i64, 9, 31, 4];
    let logits = |padding: [usize; 2], hooks: &dyn Hooks| {
        let [before, behind] = padding;
        let ids = [&vec![2; before][..], &text, &vec![2; behind]].concat();
        let mask = [vec![0i64; before], vec![1; text.len()], vec![0; behind]].concat();
        let shape = [1, ids.len()];
        let [ids, mask] = [ids, mask].map(|values| TensorData::new(values, shape));
        let input = ModelInput::from_data(ids, Some(mask), None, device).expect("a batch");
        // By place, or by token, which leaves padding out.
        [input.clone(), input.counting_tokens()].map(|input| {
            let output = model.infer(&input, hooks).expect("it fits");
            flat(output.narrow(1, before, text.len()))
        })
    };
    let [alone, _] = logits([0, 0], &lora);
    let [plain, _] = logits([0, 0], &());
    assert!(distance(alone.clone(), plain) > 1e-2, "it does nothing");
    for padding in [[3, 0], [0, 2], [2, 1]] {
        for found in logits(padding, &lora) {
            let away = distance(found, alone.clone());
            assert!(away < 1e-4, "padded by {padding:?}: {away:e}");
        }
    }
}
