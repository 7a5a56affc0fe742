//! What prompts do to a sequence, their files, and the errors of their configurations.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use peft_conformance::Host;
use peft_core::{
    Base, Dialect, EmptyPass, Encode, Error, Exchange, ExtraKeys, Hooks, InitContext, Method,
    MethodConfig, Mode, Pass, Role, Row, Rows, Site, Stage, TensorMap, Tokens,
};
use peft_prefix::{
    Combine, EncoderType, PTuning, PTuningConfig, PrefixTuning, PrefixTuningConfig, PromptInit,
    PromptPart, PromptTuningConfig,
};
use serde_json::{Value, json};

fn host() -> Host {
    Host::new(&Device::default())
}

fn site(base: &Base, role: Role) -> &Site {
    base.sites().find(|site| site.role == role).expect("the host has it")
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("floats")
}

/// Two texts of three and of two tokens, `[6, d]`, the second with padding behind it.
fn texts(d: usize) -> Tokens {
    let device = Device::default();
    let hidden = Tensor::<1, Int>::arange(0..6 * d as i64, &device).float().reshape([6, d]);
    let mut padded = Row::new(3);
    padded.mask = Some(vec![true, true, false]);
    Tokens::new(hidden, Rows::new(vec![Row::new(3), padded], &device))
}

fn parts() -> EmptyPass {
    EmptyPass::new(&Device::default())
}

/// What a method makes of the texts as they are embedded.
fn embedded(method: &impl Hooks, base: &Base) -> Tokens {
    let embeddings = site(base, Role::Embeddings);
    method.tokens(Stage::Embedded, embeddings, texts(24), &parts().pass())
}

/// Whether there is a token at each place of a text.
fn mask(tokens: &Tokens, text: usize) -> Vec<bool> {
    let row = tokens.rows.iter().nth(text).expect("it is there");
    (0..row.len()).map(|place| row.has(place)).collect()
}

/// The keys and shapes of a method's file.
fn keys(method: &mut impl Method, base: &Base, dialect: Dialect) -> Vec<(String, Vec<usize>)> {
    let mut file = Exchange::describe().in_dialect(dialect);
    method.exchange(&mut file, base);
    file.into_specs().into_iter().map(|spec| (spec.key, spec.shape)).collect()
}

fn adapters() -> Dialect {
    Dialect::adapters("task")
}

fn text(error: Option<Error>) -> String {
    error.expect("it is an error").to_string()
}

fn init<C: MethodConfig>(config: &C, base: &Base) -> peft_core::Result<C::Method> {
    config.init(&InitContext::new(base, &Device::default()))
}

fn method<C: MethodConfig>(config: &C, base: &Base) -> C::Method {
    init(config, base).expect("it fits")
}

fn prefix(host: &Host) -> PrefixTuning {
    let config = PrefixTuningConfig { num_virtual_tokens: 5, ..PrefixTuningConfig::default() };
    method(&config, host.model.base())
}

#[test]
fn a_layer_gets_its_slices_of_the_table() {
    let host = host();
    let base = host.model.base();
    let mut prefix = prefix(&host);
    let mut file = TensorMap::new();
    prefix.exchange(&mut Exchange::write(&mut file), base);
    let table: Vec<f32> = file["prompt_embeddings"].iter::<f32>().collect();
    let site = base.sites().filter(|site| site.role == Role::SelfAttention).nth(1).expect("two");
    let ExtraKeys::Some(states) = prefix.attention(site, &parts().pass()) else {
        panic!("there is a prefix")
    };
    for (which, states) in [(2, states.key), (3, states.value)] {
        assert_eq!(states.dims(), [5, 24]);
        let states = values(states);
        for (position, column) in [(0, 0), (4, 23), (3, 13)] {
            assert_eq!(states[position * 24 + column], table[(position * 4 + which) * 24 + column]);
        }
    }
}

#[test]
fn a_network_makes_the_prefix_once_a_pass() {
    let host = host();
    let base = host.model.base();
    let config = PrefixTuningConfig { prefix_projection: true, ..PrefixTuningConfig::default() };
    let (first, second) = (method(&config, base), method(&config, base));
    let keys = |prefix: &PrefixTuning, layer: usize, pass: &Pass<'_>| {
        let site = base.sites().filter(|s| s.role == Role::SelfAttention).nth(layer).expect("two");
        match prefix.attention(site, pass) {
            ExtraKeys::Some(states) => values(states.key),
            other => panic!("there is a prefix: {other:?}"),
        }
    };
    // Other values in the same parameters are not seen before the pass is over.
    let mut file = TensorMap::new();
    second.clone().exchange(&mut Exchange::write(&mut file), base);
    let one = parts();
    let before = keys(&first, 0, &one.pass());
    let mut changed = first.clone();
    changed.exchange(&mut Exchange::read(&mut file), base);
    assert_eq!(keys(&changed, 0, &one.pass()), before);
    assert_eq!(keys(&changed, 1, &parts().pass()), keys(&second, 1, &parts().pass()));
}

#[test]
fn a_projected_prefix_is_the_same_once_it_is_finished() {
    let host = host();
    let config = PrefixTuningConfig {
        num_virtual_tokens: 4,
        prefix_projection: true,
        encoder_hidden_size: Some(10),
        ..PrefixTuningConfig::default()
    };
    let mut prefix = method(&config, host.model.base());
    let before = host.logits(&prefix.valid());
    prefix.finish();
    let after = host.logits(&prefix.valid());
    let far = before.iter().zip(&after).fold(0.0f32, |far, (a, b)| far.max((a - b).abs()));
    assert!(far < 1e-5, "{far}");
}

#[test]
fn positions_go_on_behind_a_prefix_unless_told_otherwise() {
    let host = host();
    let base = host.model.base();
    let shifted = prefix(&host);
    assert_eq!(embedded(&shifted, base).rows.positions(), [5, 6, 7, 5, 6, 7]);
    assert_eq!(shifted.virtual_tokens(), 5);
    let config = PrefixTuningConfig { shift_positions: false, ..PrefixTuningConfig::default() };
    let unshifted = method(&config, base);
    assert_eq!(embedded(&unshifted, base).rows.positions(), [0, 1, 2, 0, 1, 2]);
    assert_eq!(unshifted.virtual_tokens(), 0);
}

#[test]
fn files_of_a_prefix() {
    let host = host();
    let base = host.model.base();
    let pool = "bert.prefix_tuning.prefix_tunings.task.self_prefix";
    let flat = keys(&mut prefix(&host), base, adapters());
    assert_eq!(flat, [(format!("{pool}.control_trans"), vec![480])]);
    let config = PrefixTuningConfig {
        num_virtual_tokens: 5,
        prefix_projection: true,
        encoder_hidden_size: Some(12),
        ..PrefixTuningConfig::default()
    };
    let mut projected = method(&config, base);
    let expected = [
        ("wte.weight", vec![5, 24]),
        ("control_trans.0.weight", vec![12, 24]),
        ("control_trans.0.bias", vec![12]),
        ("control_trans.2.weight", vec![96, 12]),
        ("control_trans.2.bias", vec![96]),
    ];
    let expected = expected.map(|(name, shape)| (format!("{pool}.{name}"), shape));
    assert_eq!(keys(&mut projected, base, adapters()), expected);
    projected.finish();
    let file = keys(&mut projected, base, Dialect::PeftPrompt);
    assert_eq!(file, [("prompt_embeddings".to_string(), vec![5, 96])]);
}

#[test]
fn adapters_prefix_is_read_and_written() {
    let host = host();
    let base = host.model.base();
    let file = json!({
        "architecture": "prefix_tuning", "bottleneck_size": 12, "cross_prefix": true,
        "dropout": 0.0, "encoder_prefix": true, "flat": false, "init_weights_seed": null,
        "leave_out": [1], "non_linearity": "tanh", "prefix_length": 5, "shared_gating": true,
        "use_gating": false,
    });
    let Value::Object(fields) = file.clone() else { unreachable!("an object") };
    let config = PrefixTuningConfig::from_adapters(&fields, base).expect("a prefix");
    let config = config.expect("it is supported");
    let expected = PrefixTuningConfig {
        num_virtual_tokens: 5,
        prefix_projection: true,
        encoder_hidden_size: Some(12),
        leave_out: vec![1],
        shift_positions: false,
        ..PrefixTuningConfig::default()
    };
    assert_eq!(config, expected);
    let mut written = file;
    written["flat"] = true.into();
    written["bottleneck_size"] = 512.into();
    assert_eq!(config.to_adapters(base).expect("it has prefixes"), written);

    let mut gated = fields;
    gated.insert("use_gating".into(), true.into());
    assert_eq!(
        text(PrefixTuningConfig::from_adapters(&gated, base).and_then(Result::err)),
        "use_gating = true: a gated prefix is part of UniPELT, and read with the whole of it"
    );
    assert_eq!(
        text(PrefixTuningConfig::default().to_adapters(base).err()),
        "prefix cannot be written for adapter-hub/adapters: it counts the positions of the text \
         from 0: train with shift_positions = false"
    );
}

#[test]
fn a_prompt_goes_where_it_is_told() {
    let host = host();
    let base = host.model.base();
    for (combine, text) in [(Combine::Prefix, [2, 3, 4]), (Combine::PrefixAfterBos, [0, 3, 4])] {
        let config = PromptTuningConfig { num_virtual_tokens: 2, combine, ..Default::default() };
        let prompt = method(&config, base);
        let (before, after) = (texts(24), embedded(&prompt, base));
        assert_eq!(after.hidden.dims(), [10, 24]);
        for (from, to) in text.into_iter().enumerate() {
            let row = |tokens: &Tokens, place| values(tokens.hidden.clone().narrow(0, place, 1));
            assert_eq!(row(&before, from), row(&after, to));
        }
        assert_eq!(mask(&after, 0), [true; 5]);
        assert_eq!(mask(&after, 1), [true, true, true, true, false]);
        let embeddings = site(base, Role::Embeddings);
        let unchanged = prompt.tokens(Stage::Input, embeddings, texts(24), &parts().pass());
        assert_eq!(unchanged.hidden.dims(), [6, 24]);
    }
}

#[test]
fn a_prompt_of_a_text_repeats_its_words() {
    let host = host();
    let base = host.model.base();
    let config = PromptTuningConfig {
        num_virtual_tokens: 5,
        prompt_tuning_init: PromptInit::Text,
        prompt_tuning_init_ids: Some(vec![17, 5]),
        ..Default::default()
    };
    let prompt = values(method(&config, base).prompt());
    let words = values(base.weight(site(base, Role::WordEmbedding)).dense());
    for (row, id) in [17, 5, 17, 5, 17].into_iter().enumerate() {
        assert_eq!(prompt[row * 24..][..24], words[id * 24..][..24]);
    }
}

#[test]
fn a_text_has_to_be_tokenised_unless_the_prompt_is_read() {
    let host = host();
    let base = host.model.base();
    let config = PromptTuningConfig {
        prompt_tuning_init: PromptInit::Text,
        prompt_tuning_init_text: Some("good or bad".into()),
        ..Default::default()
    };
    assert_eq!(
        text(init(&config, base).err()),
        "prompt_tuning_init_text = \"good or bad\": needs a tokenizer, or its tokens as \
         prompt_tuning_init_ids"
    );
    // As long as the text is; one that is outside is as those that were given.
    let encoded = |encode: Encode<'_>| {
        let device = Device::default();
        config.init(&InitContext::new(base, &device).with_tokenizer(encode))
    };
    let prompt = encoded(&|text| Ok(vec![text.len(), 5])).expect("it has tokens");
    let given = PromptTuningConfig { prompt_tuning_init_ids: Some(vec![11, 5]), ..config.clone() };
    assert_eq!(values(prompt.prompt()), values(method(&given, base).prompt()));
    let none = encoded(&|_| Ok(Vec::new()));
    assert_eq!(text(none.err()), "prompt_tuning_init_text = \"good or bad\": has no tokens");
    let failed = encoded(&|text| Err(Error::encode(text, std::fmt::Error)));
    assert_eq!(text(failed.err()), "the text \"good or bad\" cannot be tokenised");
    let loaded = PromptTuningConfig { inference_mode: true, ..config.clone() };
    assert!(init(&loaded, base).is_ok());
    let outside = PromptTuningConfig { prompt_tuning_init_ids: Some(vec![3, 60]), ..config };
    assert_eq!(
        text(init(&outside, base).err()),
        "prompt_tuning_init_ids = 60: the model's vocabulary has 60 entries, from 0"
    );
    let nothing = PromptTuningConfig { prompt_tuning_init: PromptInit::Text, ..Default::default() };
    assert_eq!(
        text(nothing.validate().err()),
        "prompt_tuning_init = \"TEXT\": needs prompt_tuning_init_text beside it"
    );
}

#[test]
fn adapters_prompt_is_read_and_written() {
    let host = host();
    let base = host.model.base();
    let file = json!({
        "architecture": "prompt_tuning", "combine": "prefix_after_bos", "init_weights_seed": null,
        "prompt_init": "random_uniform", "prompt_init_text": null, "prompt_length": 5,
    });
    let Value::Object(fields) = file.clone() else { unreachable!("an object") };
    let config = PromptTuningConfig::from_adapters(&fields, base).expect("a prompt");
    let config = config.expect("it is supported");
    assert!(config.after_embeddings && config.combine == Combine::PrefixAfterBos);
    assert_eq!(config.to_adapters(base).expect("it has prompts"), file);
    let key = "bert.prompt_tuning.prompt_tunings.task.prompt_embedding.weight";
    assert_eq!(
        keys(&mut method(&config, base), base, adapters()),
        [(key.to_string(), vec![5, 24])]
    );
    assert_eq!(
        text(PromptTuningConfig::default().to_adapters(base).err()),
        "prompt cannot be written for adapter-hub/adapters: it puts the prompt behind the \
         embeddings' norm: train with after_embeddings = true"
    );
}

fn around(host: &Host, encoder: EncoderType) -> PTuning {
    let config = PTuningConfig {
        num_virtual_tokens: 3,
        encoder_reparameterization_type: encoder,
        encoder_dropout: 0.5,
        template: Some(vec![
            PromptPart::Bos,
            PromptPart::Virtual(2),
            PromptPart::Anchor(vec![44, 9]),
            PromptPart::Text,
            PromptPart::Virtual(1),
        ]),
        ..PTuningConfig::default()
    };
    method(&config, host.model.base())
}

#[test]
fn virtual_tokens_and_anchors_follow_the_template() {
    let host = host();
    let base = host.model.base();
    let tuning = around(&host, EncoderType::Mlp);
    assert_eq!(tuning.virtual_tokens(), 5);
    let after = embedded(&tuning, base);
    assert_eq!(after.hidden.dims(), [16, 24]);
    // The padding of the second text comes last.
    assert_eq!(mask(&after, 1), [true, true, true, true, true, true, true, false]);
    let row = |place| values(after.hidden.clone().narrow(0, place, 1));
    let tokens = values(tuning.virtual_embeddings(&parts().pass()));
    let words = values(base.weight(site(base, Role::WordEmbedding)).dense());
    let text = values(texts(24).hidden);
    assert_eq!(row(0), text[..24]);
    assert_eq!(row(2), tokens[24..48]);
    assert_eq!(row(3), words[44 * 24..][..24]);
    assert_eq!(row(4), words[9 * 24..][..24]);
    assert_eq!(row(5), text[24..48]);
    assert_eq!(row(7), tokens[48..]);
    assert_eq!(row(8 + 6), tokens[48..]);
}

#[test]
fn a_finished_encoder_leaves_its_output() {
    let host = host();
    for encoder in [EncoderType::Mlp, EncoderType::Lstm] {
        let mut tuning = around(&host, encoder);
        // Dropout is for training, not for what is kept.
        let step = parts();
        let training = Pass { mode: Mode::Train { seed: 0, step: 0 }, ..step.pass() };
        let dropped = values(tuning.virtual_embeddings(&training));
        let before = values(tuning.valid().virtual_embeddings(&parts().pass()));
        assert_eq!(dropped != before, encoder == EncoderType::Lstm);
        tuning.finish();
        assert_eq!(values(tuning.valid().virtual_embeddings(&parts().pass())), before);
        let file = keys(&mut tuning, host.model.base(), Dialect::PeftPrompt);
        assert_eq!(file, [("prompt_embeddings".to_string(), vec![3, 24])]);
    }
}

#[test]
fn an_unfinished_encoder_is_written_and_read() {
    let host = host();
    let base = host.model.base();
    let mut first = around(&host, EncoderType::Lstm);
    let mut second = around(&host, EncoderType::Lstm);
    let mut file = TensorMap::new();
    first.exchange(&mut Exchange::write(&mut file), base);
    let mut read = Exchange::read(&mut file);
    second.exchange(&mut read, base);
    assert_eq!(read.into_problems(), []);
    let tokens = |tuning: &PTuning| values(tuning.valid().virtual_embeddings(&parts().pass()));
    assert_eq!(tokens(&first), tokens(&second));
}

#[test]
fn templates_that_make_no_sense_are_refused() {
    let refused = |template: Value| {
        let config: PTuningConfig =
            serde_json::from_value(json!({"num_virtual_tokens": 2, "template": template}))
                .expect("it can be read");
        text(config.validate().err())
    };
    for (template, expected) in [
        (json!([{"virtual": 2}]), "must hold \"text\" once"),
        (json!(["text", {"virtual": 2}, "bos"]), "must hold \"bos\" before \"text\""),
        (json!(["bos", "bos", {"virtual": 2}, "text"]), "may hold \"bos\" once"),
        (json!([{"virtual": 0}, "text"]), "a group of virtual tokens is empty"),
        (json!([{"anchor": []}, "text", {"virtual": 2}]), "an anchor has no tokens"),
        (json!([{"virtual": 3}, "text"]), "holds 3 virtual tokens, but num_virtual_tokens is 2"),
    ] {
        assert_eq!(refused(template.clone()), format!("template = {template}: {expected}"));
    }
    let config = PTuningConfig {
        num_virtual_tokens: 1,
        template: Some(vec![
            PromptPart::Anchor(vec![60]),
            PromptPart::Virtual(1),
            PromptPart::Text,
        ]),
        ..PTuningConfig::default()
    };
    assert_eq!(
        text(init(&config, host().model.base()).err()),
        "template = {\"anchor\": [60]}: the model's vocabulary has 60 entries, from 0"
    );
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let host = host();
    let base = host.model.base();
    let config = |fields: Value| -> PrefixTuningConfig {
        serde_json::from_value(fields).expect("it can be read")
    };
    for (fields, expected) in [
        (json!({"num_virtual_tokens": 0}), "num_virtual_tokens = 0: must be at least 1"),
        (json!({"encoder_hidden_size": 0}), "encoder_hidden_size = 0: must be at least 1"),
        (json!({"dropout": 1.0}), "dropout = 1: must be at least 0, below 1"),
        (json!({"token_dim": 32}), "token_dim = 32: the model's is 24"),
        (json!({"num_layers": 3}), "num_layers = 3: the model's is 2"),
        (
            json!({"leave_out": [0, 1]}),
            "leave_out = [0, 1]: leaves no attention of the model for a prefix",
        ),
        (
            json!({"num_transformer_submodules": 2}),
            "num_transformer_submodules = 2: the model has no encoder beside a decoder",
        ),
    ] {
        assert_eq!(text(init(&config(fields), base).err()), expected);
    }
    let unmatched = config(json!({"leave_out": [1, 2]})).unmatched(base).expect("it fits");
    let unmatched: Vec<String> = unmatched.iter().map(ToString::to_string).collect();
    assert_eq!(unmatched, ["leave_out = 2: the model has 2 layers, from 0"]);
}
