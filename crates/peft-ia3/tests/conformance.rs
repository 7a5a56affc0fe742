//! (IA)³ has the properties that every method must have, and the files of its references.

use burn::tensor::{Device, Tensor};
use peft_conformance::{Expect, Host, HostKind, conformance};
use peft_core::{
    Base, Dialect, EmptyPass, Error, Exchange, Hooks, InitContext, LinearLayer, Method,
    MethodConfig, ModuleNames, Role, Targets, change_at,
};
use peft_ia3::Ia3Config;
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

/// The same on BERT alone, whose modules are named.
fn by_berts_names(trainable: usize) -> Expect {
    Expect { unfit: HostKind::OTHERS, ..trains(trainable) }
}

fn on(names: ModuleNames, feedforward: &[&str]) -> Ia3Config {
    Ia3Config {
        targets: Targets { target_modules: Some(names), ..Targets::default() },
        feedforward_modules: Some(ModuleNames::list(feedforward.iter().copied())),
        ..Ia3Config::default()
    }
}

// Outputs of keys and values, inputs of the second feed-forward layer.
conformance!(ia3, Ia3Config::default(), trains(LAYERS * (2 * HIDDEN + INNER)));

// HF PEFT's default for BERT, in which a name stands for the attention's output too.
conformance!(
    by_names,
    on(ModuleNames::list(["key", "value", "output.dense"]), &["output.dense"]),
    by_berts_names(LAYERS * (2 * HIDDEN + HIDDEN + INNER))
);

// As adapter-hub/adapters: outputs only.
conformance!(
    outputs,
    on(ModuleNames::list(["key", "value", "intermediate.dense"]), &[]),
    by_berts_names(LAYERS * (2 * HIDDEN + INNER))
);

conformance!(
    inputs_by_a_pattern,
    Ia3Config {
        feedforward_modules: Some(ModuleNames::Pattern(r".*layer\.\d+\.output\.dense".into())),
        ..on(ModuleNames::Pattern(r".*(key|value|output\.dense)".into()), &[])
    },
    // The attention's output is not of the feed-forward network here: its output is scaled.
    by_berts_names(LAYERS * (2 * HIDDEN + HIDDEN + INNER))
);

conformance!(
    with_a_factor,
    Ia3Config { alpha: -1.5, ..Ia3Config::default() },
    Expect { identity_at_init: false, ..Expect::default() }
);

conformance!(
    random,
    Ia3Config { init: false, ..Ia3Config::default() },
    Expect { identity_at_init: false, ..Expect::default() }
);

fn text(error: Option<Error>) -> String {
    error.expect("it is an error").to_string()
}

fn keys(config: &Ia3Config, base: &Base, dialect: Dialect) -> Vec<(String, Vec<usize>)> {
    let mut method = config.init(&InitContext::new(base, &Device::default())).expect("it fits");
    let mut file = Exchange::describe().in_dialect(dialect);
    method.exchange(&mut file, base);
    file.into_specs().into_iter().map(|spec| (spec.key, spec.shape)).collect()
}

#[test]
fn keys_are_hf_pefts() {
    let host = Host::new(&Device::default());
    let config = on(ModuleNames::list(["key", "output.dense"]), &["output.dense"]);
    let layer = |rest: &str| format!("base_model.model.bert.encoder.layer.0.{rest}.ia3_l");
    let expected = [
        (layer("attention.self.key"), vec![24, 1]),
        (layer("attention.output.dense"), vec![1, 24]),
        (layer("output.dense"), vec![1, 40]),
    ];
    assert_eq!(keys(&config, host.model.base(), Dialect::Peft)[..3], expected);
}

#[test]
fn adapters_configuration_is_read_and_written() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let file = json!({
        "alpha": 1, "architecture": "lora", "attn_matrices": ["k", "v"],
        "composition_mode": "scale", "dropout": 0.0, "dtype": null, "init_weights": "ia3",
        "init_weights_seed": null, "intermediate_lora": true, "leave_out": [1],
        "output_lora": false, "r": 1, "selfattn_lora": true, "use_dora": false,
        "use_gating": false, "vera_b": null, "vera_d": null,
    });
    let read = |file: &Value| {
        let Value::Object(fields) = file else { unreachable!("an object") };
        Ia3Config::from_adapters(fields, base)
    };
    let config = read(&file).expect("it is (IA)³").expect("it is supported");
    assert_eq!(config.to_adapters(base).expect("it has (IA)³"), file);
    let layer = |rest: &str| format!("bert.encoder.layer.0.{rest}.loras.task.lora_B");
    let expected = [
        (layer("attention.self.key"), vec![24, 1]),
        (layer("attention.self.value"), vec![24, 1]),
        (layer("intermediate.dense"), vec![40, 1]),
    ];
    let dialect = Dialect::adapters("task");
    assert_eq!(keys(&config, base, dialect), expected);

    let mut lora = file.clone();
    lora["composition_mode"] = "add".into();
    assert!(read(&lora).is_none(), "that is LoRA");
    for alpha in [json!(2), json!(1.5), json!(-3)] {
        let mut scaled = file.clone();
        scaled["alpha"] = alpha;
        let config = read(&scaled).expect("it is (IA)³").expect("it is supported");
        assert_eq!(Some(config.alpha), scaled["alpha"].as_f64());
        assert_eq!(config.to_adapters(base).expect("it has (IA)³"), scaled);
    }
    // A gate is beside (IA)³, not in it.
    for (field, value) in [("r", json!(4)), ("use_gating", json!(true))] {
        let mut other = file.clone();
        other[field] = value.clone();
        assert_eq!(
            text(read(&other).and_then(Result::err)),
            format!("{field} = {value} in adapter-hub/adapters is not supported")
        );
    }
    assert_eq!(
        text(Ia3Config::default().to_adapters(base).err()),
        "ia3 cannot be written for adapter-hub/adapters: it scales outputs only, and the input of \
         bert.encoder.layer.0.output.dense is scaled: train with feedforward_modules = []"
    );
    assert_eq!(
        text(on(ModuleNames::list(["pooler.dense"]), &[]).to_adapters(base).err()),
        "ia3 cannot be written for adapter-hub/adapters: it scales no module like \
         bert.pooler.dense"
    );
}

#[test]
fn a_feed_forward_module_is_a_target() {
    let config = on(ModuleNames::list(["key", "value"]), &["output.dense"]);
    assert_eq!(
        text(config.validate().err()),
        "feedforward_modules = \"output.dense\": must be one of target_modules too"
    );
    let config = Ia3Config {
        feedforward_modules: Some(ModuleNames::Pattern("dense(".into())),
        ..Ia3Config::default()
    };
    assert!(text(config.validate().err()).starts_with("feedforward_modules: \"dense(\" is not"));
}

/// A projection `[4, 6]` that is query, key and value in one.
fn fused() -> Base {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::ones([4, 6], &device);
    let bias = Tensor::ones([6], &device) * 3;
    base.conv1d("h.0.attn.c_attn", Role::QueryKeyValue, Some(0), weight, Some(bias));
    base
}

#[test]
fn parts_of_a_fused_projection_are_scaled() {
    let base = fused();
    let site = base.sites().next().expect("there is one");
    let json = json!({"init_ia3_weights": false, "attn_matrices": ["v", "q"]});
    let config: Ia3Config = serde_json::from_value(json).expect("it can be read");
    let dialect = Dialect::adapters("task");
    let key = "h.0.attn.c_attn.loras.task.lora_B".to_string();
    assert_eq!(keys(&config, &base, dialect), [(key, vec![4, 1])]);

    let ia3 = config.init(&InitContext::new(&base, &Device::default())).expect("it fits");
    let parts = EmptyPass::new(base.device());
    let edits = ia3.linear(site, &parts.pass());
    let entry = base.at(site);
    let layer = LinearLayer::new(site, base.weight(site), entry.bias.as_ref());
    let (weight, bias) = edits.dense(&layer);
    let values = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().expect("floats");
    let l = values(ia3.layer(site).expect("it is scaled").scale.val());
    let factors = [l[0], l[1], 1.0, 1.0, l[2], l[3]];
    assert_eq!(values(weight.narrow(0, 2, 1).squeeze_dim(0)), factors);
    assert_eq!(values(bias.expect("there is one")), factors.map(|factor| 3.0 * factor));
    let change = change_at(&ia3, site, &parts.pass());
    assert_eq!((change.weight, change.bias, change.rank), (16, 4, 4));
}

#[test]
fn alpha_scales_the_parts_without_scales_too() {
    let base = fused();
    let site = base.sites().next().expect("there is one");
    let scaled = |json: Value| {
        let config: Ia3Config = serde_json::from_value(json).expect("it can be read");
        let ia3 = config.init(&InitContext::new(&base, &Device::default())).expect("it fits");
        let parts = EmptyPass::new(base.device());
        let entry = base.at(site);
        let layer = LinearLayer::new(site, base.weight(site), entry.bias.as_ref());
        let (weight, bias) = ia3.linear(site, &parts.pass()).dense(&layer);
        let values = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().expect("floats");
        let l = values(ia3.layer(site).expect("it is scaled").scale.val());
        let found = values(weight.narrow(0, 3, 1).squeeze_dim(0));
        let bias = values(bias.expect("there is one"));
        assert_eq!(bias, found.iter().map(|factor| 3.0 * factor).collect::<Vec<_>>());
        (found, l)
    };
    let random = |alpha: f64, matrices: Value| json!({"init_ia3_weights": false, "ia3_alpha": alpha, "attn_matrices": matrices});
    let (found, l) = scaled(random(2.5, json!(["v"])));
    assert_eq!(found, [2.5, 2.5, 2.5, 2.5, 2.5 * l[0], 2.5 * l[1]]);
    let (found, l) = scaled(random(2.5, json!(["q", "k", "v"])));
    assert_eq!(found, l.iter().map(|l| 2.5 * l).collect::<Vec<_>>());
    let (found, l) = scaled(random(-0.5, json!([])));
    assert_eq!(found, l.iter().map(|l| -0.5 * l).collect::<Vec<_>>());
    // Without it they stay as they are.
    let (found, l) = scaled(random(1.0, json!(["v"])));
    assert_eq!(found, [1.0, 1.0, 1.0, 1.0, l[0], l[1]]);

    let config = Ia3Config { alpha: f64::NAN, ..Ia3Config::default() };
    assert_eq!(text(config.validate().err()), "ia3_alpha = NaN: must be a number");
    assert_eq!(Ia3Config { alpha: 2.0, ..Ia3Config::default() }.card().formats, "adapters");
}

#[test]
fn parts_of_what_is_not_fused_are_told() {
    let host = Host::new(&Device::default());
    let json = json!({"attn_matrices": ["k"]});
    let config: Ia3Config = serde_json::from_value(json).expect("it can be read");
    let unmatched = config.unmatched(host.model.base()).expect("something matches");
    assert_eq!(
        text(unmatched.into_iter().next()),
        "attn_matrices = [\"k\"]: no target is query, key and value in one; name the projections in \
         target_modules"
    );
}
