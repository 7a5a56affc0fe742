//! Texts that end where they must, and errors where none can be written.

use burn::tensor::{Device, Tensor, TensorData};
use peft_core::{Hooks, Pass, Piece, Site, Stage, TensorMap, Tokens};
use peft_format::read_safetensors;
use peft_models::{Checkpoint, GenerationConfig, Generator, Model, ModelConfig, ModelTask};
use serde_json::{Value, json};

use crate::support::base;

const PROMPTS: [&[u32]; 2] = [&[31, 29, 22, 16, 5, 53, 21, 58, 10], &[40, 39, 32, 54]];

fn model(name: &str) -> Model {
    Model::load(&base(name), None, &Device::default()).expect("a base").0
}

/// The base `name` with other tensors.
fn changed(name: &str, change: impl FnOnce(&mut TensorMap)) -> Model {
    let config = ModelConfig::load(&base(name)).expect("a configuration");
    let mut tensors = read_safetensors(&base(name).join("model.safetensors")).expect("tensors");
    change(&mut tensors);
    let task = ModelTask { task: config.own_task(), seed: 0 };
    let mut checkpoint = Checkpoint::from_tensors("changed", tensors);
    Model::from_checkpoint(config, &mut checkpoint, task, &Device::default()).expect("a model").0
}

fn settings(fields: Value) -> GenerationConfig {
    let fields = fields.as_object().expect("an object");
    GenerationConfig::default().with_fields(fields).expect("settings")
}

fn generated(
    model: &Model,
    hooks: &dyn Hooks,
    fields: Value,
    prompts: &[&[u32]],
) -> peft_models::Result<Vec<Vec<u32>>> {
    Generator::new(model, hooks, &settings(fields))?.generate(prompts)
}

/// The ways to choose tokens.
fn ways() -> [Value; 3] {
    [json!({"num_beams": 1}), json!({"do_sample": true}), json!({"num_beams": 3})]
}

#[test]
fn a_model_whose_scores_are_no_numbers_writes_no_text() {
    for value in [f32::NAN, f32::INFINITY] {
        let broken = changed("gpt2-left", |tensors| {
            tensors.insert("transformer.ln_f.bias".into(), TensorData::new(vec![value; 16], [16]));
        });
        for fields in ways() {
            let error = generated(&broken, &(), fields, &PROMPTS).unwrap_err().to_string();
            let start = "text 0 of the batch cannot be continued after 9 tokens: the model's score";
            assert!(error.starts_with(start), "{error}");
        }
    }
}

#[test]
fn a_text_for_which_every_token_is_ruled_out_is_an_error() {
    let model = model("mistral");
    // No token may come twice, and there are 61.
    for fields in [json!({"num_beams": 1}), json!({"num_beams": 2})] {
        let mut fields = fields;
        fields["no_repeat_ngram_size"] = json!(1);
        fields["max_new_tokens"] = json!(80);
        let error = generated(&model, &(), fields, &PROMPTS[1..]).unwrap_err().to_string();
        assert!(
            error.contains("cannot be continued after 61 tokens: every token is ruled out"),
            "{error}"
        );
    }
}

#[test]
fn tokens_that_the_model_does_not_have_are_refused_when_the_generator_is_made() {
    let model = model("bart-left");
    let fields =
        ["forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id", "pad_token_id"];
    for field in fields {
        for (id, fits) in [(60, true), (61, false), (u32::MAX, false)] {
            let settings = settings(json!({ field: id }));
            match Generator::new(&model, &(), &settings) {
                Ok(_) => assert!(fits, "{field} = {id}"),
                Err(error) => {
                    assert!(!fits, "{error}");
                    let start = format!("input: {field} = {id}: the model's 61 tokens");
                    assert!(error.to_string().starts_with(&start), "{error}");
                }
            }
        }
    }
}

#[test]
fn any_seed_draws_for_any_number_of_texts() {
    let fields = json!({"do_sample": true, "seed": u64::MAX, "max_new_tokens": 2});
    let texts = generated(&model("mistral"), &(), fields, &PROMPTS).expect("two texts");
    assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
}

/// Takes three positions before each text.
#[derive(Debug)]
struct Shifts;

impl Hooks for Shifts {
    fn tokens(&self, stage: Stage, _site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        if stage == Stage::Embedded { tokens.shifted(3) } else { tokens }
    }
}

/// Puts two virtual tokens before each text.
#[derive(Debug)]
struct Prepends;

impl Hooks for Prepends {
    fn tokens(&self, stage: Stage, _site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        if stage != Stage::Embedded {
            return tokens;
        }
        let [_, d] = tokens.hidden.dims();
        let added = Tensor::zeros([2, d], &tokens.hidden.device());
        tokens.assembled(&[Piece::Virtual(added), Piece::Text])
    }
}

#[test]
fn a_text_ends_where_the_positions_of_the_model_do() {
    // Twelve positions, and a last token that is not read; the decoder's text has a token to begin
    // with.
    let methods: [(&dyn Hooks, usize); 3] = [(&(), 0), (&Shifts, 3), (&Prepends, 2)];
    for (base, beginnings) in [("gpt2-left", [9, 4]), ("bart-left", [1, 1])] {
        let model = model(base);
        for (hooks, taken) in methods {
            let prompts = if taken > 0 { [PROMPTS[1], PROMPTS[1]] } else { PROMPTS };
            let beginnings = if taken > 0 { beginnings.map(|b| b.min(4)) } else { beginnings };
            for mut fields in ways() {
                fields["max_new_tokens"] = json!(40);
                fields["decoder_start_token_id"] = json!(2);
                let texts = generated(&model, hooks, fields.clone(), &prompts).expect("they fit");
                let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
                let room = beginnings.map(|beginning| 13 - beginning - taken);
                assert_eq!(lengths, room, "{base} {hooks:?} {fields}");
                // As far as it goes, it is the text that it always was.
                fields["max_new_tokens"] = json!(room[0].min(room[1]));
                let short = generated(&model, hooks, fields.clone(), &prompts).expect("they fit");
                if fields.get("num_beams") != Some(&json!(3)) {
                    let begins = texts.iter().zip(&short).all(|(text, s)| text.starts_with(s));
                    assert!(begins, "{base} {hooks:?} {fields}: {texts:?} {short:?}");
                }
            }
        }
    }
}

#[test]
fn a_prompt_after_which_no_token_can_come_is_named() {
    let model = model("gpt2-left");
    let long = [1_u32; 13];
    for (hooks, tokens, positions) in [
        (&() as &dyn Hooks, 13, "12 positions"),
        (&Shifts, 10, "12 positions, and the method takes 3"),
        (&Prepends, 11, "12 positions, and the method takes 2"),
    ] {
        for fields in ways() {
            let prompts = [PROMPTS[1], &long[..tokens - 1]];
            let texts = generated(&model, hooks, fields.clone(), &prompts).expect("they fit");
            assert_eq!(texts[1].len(), 1);
            let prompts = [PROMPTS[1], &long[..tokens]];
            let error = generated(&model, hooks, fields, &prompts).unwrap_err().to_string();
            let start = format!("text 1 of the batch cannot be continued after {tokens} tokens");
            assert_eq!(error, format!("{start}: the model has {positions}"));
        }
    }
}

#[test]
fn a_model_without_a_table_of_positions_goes_on() {
    let model = model("llama-linear");
    assert_eq!(model.max_tokens(), 12);
    let fields = json!({"max_new_tokens": 20});
    let texts = generated(&model, &(), fields, &PROMPTS).expect("there is no limit");
    assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20]);
}

#[test]
fn settings_that_cannot_be_read_are_not_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = ModelConfig::load(&base("gpt2-left")).expect("a configuration");
    let load = || GenerationConfig::load(directory.path(), &config);
    assert_eq!(load().expect("the model's own").eos_token_id, [50256]);
    let path = directory.path().join("generation_config.json");
    std::fs::create_dir(&path).expect("a directory");
    let error = load().unwrap_err().to_string();
    assert!(error.contains("generation_config.json"), "{error}");
    std::fs::remove_dir(&path).expect("removed");
    let ids = json!({"eos_token_id": [7, -1], "pad_token_id": -1, "forced_bos_token_id": -1});
    std::fs::write(&path, ids.to_string()).expect("written");
    let loaded = load().expect("-1 is no token");
    assert_eq!(loaded.eos_token_id, [7]);
    assert_eq!((loaded.pad_token_id, loaded.forced_bos_token_id), (None, None));
    std::fs::write(&path, json!({"pad_token_id": 1_u64 << 32}).to_string()).expect("written");
    let error = load().unwrap_err().to_string();
    assert!(error.contains("4294967296 is no index of a token"), "{error}");
}

#[test]
fn values_of_python_are_settings() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = ModelConfig::load(&base("gpt2-left")).expect("a configuration");
    let load = |fields: Value| {
        let path = directory.path().join("generation_config.json");
        std::fs::write(&path, fields.to_string()).expect("written");
        GenerationConfig::load(directory.path(), &config).map_err(|error| error.to_string())
    };
    for (found, expected) in [
        (json!({"do_sample": 0}), json!({"do_sample": false})),
        (json!({"do_sample": 1}), json!({"do_sample": true})),
        (json!({"early_stopping": 0}), json!({"early_stopping": false})),
        (json!({"early_stopping": 1}), json!({"early_stopping": true})),
        (json!({"forced_eos_token_id": [3]}), json!({"forced_eos_token_id": 3})),
        (json!({"no_repeat_ngram_size": -1}), json!({"no_repeat_ngram_size": 0})),
        (json!({"forced_eos_token_id": []}), json!({"forced_eos_token_id": null})),
    ] {
        assert_eq!(load(found.clone()), load(expected), "{found}");
        load(found).expect("a setting");
    }
    let error = load(json!({"forced_eos_token_id": [2, 3]})).expect_err("two");
    assert!(error.contains("forced_eos_token_id = [2,3]"), "{error}");
    let error = load(json!({"early_stopping": 2})).expect_err("no switch");
    assert!(error.contains("early_stopping = 2"), "{error}");
}

#[test]
fn what_a_decoder_alone_does_not_use_is_not_looked_at() {
    let model = model("gpt2-left");
    let plain = json!({"max_new_tokens": 3});
    let plain = generated(&model, &(), plain, &PROMPTS).expect("texts");
    let fields = json!({"max_new_tokens": 3, "decoder_start_token_id": 1000,
                        "forced_bos_token_id": 1000, "length_penalty": 1e300});
    assert_eq!(generated(&model, &(), fields, &PROMPTS).expect("texts"), plain);
}

#[test]
fn settings_of_drawing_count_only_where_something_is_drawn() {
    let model = model("gpt2-left");
    let greedy = generated(&model, &(), json!({"max_new_tokens": 4}), &PROMPTS).expect("texts");
    for fields in [
        json!({"temperature": 0.0}),
        json!({"temperature": -1.0}),
        json!({"top_p": 0.0}),
        json!({"top_p": 7}),
        json!({"top_k": -1}),
    ] {
        let mut all = fields.clone();
        all["max_new_tokens"] = json!(4);
        assert_eq!(generated(&model, &(), all.clone(), &PROMPTS).expect("texts"), greedy);
        all["do_sample"] = json!(true);
        let drawn = generated(&model, &(), all, &PROMPTS);
        // The likeliest token is always among the likeliest.
        let fits = ["top_k", "top_p"]
            .iter()
            .any(|field| fields[*field].as_f64() <= Some(0.0) && !fields[*field].is_null());
        assert_eq!(drawn.is_ok(), fits, "{fields}: {drawn:?}");
    }
}

#[test]
fn no_number_of_a_setting_is_too_large() {
    let model = model("gpt2-left");
    for penalty in [1e300, -1e300, 1e30, -1e30, 200.0, -200.0, 0.0] {
        let fields = json!({"num_beams": 3, "length_penalty": penalty, "max_new_tokens": 4,
                            "eos_token_id": [1, 2, 3, 4, 5, 6, 7, 8]});
        match generated(&model, &(), fields, &PROMPTS) {
            Ok(texts) => assert_eq!(texts.len(), 2),
            Err(error) => assert!(error.to_string().contains("length_penalty"), "{error}"),
        }
    }
    for beams in [10_000_000, 1_u64 << 40, 1 << 63] {
        let error = generated(&model, &(), json!({ "num_beams": beams }), &PROMPTS);
        let error = error.expect_err("so many beams").to_string();
        assert!(error.contains(&format!("num_beams = {beams}: at most")), "{error}");
    }
    let fields = json!({"max_new_tokens": usize::MAX, "no_repeat_ngram_size": usize::MAX});
    assert!(generated(&model, &(), fields, &PROMPTS).is_ok());
}

#[test]
fn an_empty_prompt_begins_with_the_token_that_begins_a_text() {
    let model = model("gpt2-left");
    let fields = json!({"max_new_tokens": 4, "bos_token_id": 3});
    let begun = generated(&model, &(), fields.clone(), &[&[3], &[5]]).expect("texts");
    assert_eq!(generated(&model, &(), fields, &[&[], &[5]]).expect("texts"), begun);
    // Without one, or with a token that the model lacks, the text is named.
    let error = generated(&model, &(), json!({}), &[&[5], &[]]).unwrap_err().to_string();
    assert!(error.starts_with("text 1 of the batch cannot be continued after 0"), "{error}");
    let error = generated(&model, &(), json!({}), &[&[5], &[1 << 31]]).unwrap_err().to_string();
    assert!(error.starts_with("text 1 of the batch"), "{error}");
    assert!(error.ends_with("token 2147483648 is outside the vocabulary of 61"), "{error}");
}

#[test]
fn a_longest_prompt_leaves_positions_for_new_tokens() {
    for name in ["gpt2-left", "mistral"] {
        let model = model(name);
        let limit = model.max_tokens();
        for (new, expected) in [(1, limit), (5, limit - 4), (usize::MAX, limit - limit / 2)] {
            let settings = settings(json!({ "max_new_tokens": new }));
            let longest = Generator::new(&model, &(), &settings).expect("it fits").longest_prompt();
            assert_eq!(longest, expected, "{name}, {new} new tokens");
        }
    }
    let settings = settings(json!({}));
    let model = model("bart-left");
    let generator = Generator::new(&model, &(), &settings).expect("it fits");
    assert_eq!(generator.longest_prompt(), model.max_tokens());
}
