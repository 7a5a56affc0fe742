//! Hybrids have the files of adapter-hub/adapters: unions, and methods with gates.

use burn::tensor::{Device, Tensor};
use peft_adapter::{BottleneckConfig, InvertibleKind};
use peft_conformance::Host;
use peft_core::{
    Base, Dialect, Exchange, Hooks, InitContext, LinearLayer, Memo, Method, MethodConfig, Mode,
    ModuleNames, Pass, Probe, Role, Rows, Slots, Targets, configure,
};
use peft_format::Registry;
use peft_ia3::Ia3Config;
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use peft_unipelt::UniPeltConfig;
use serde_json::{Map, Value, json};

const HIDDEN: usize = 24;
const LAYERS: usize = 2;

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("an object") };
    fields
}

/// Keys of a file with their shapes.
type Shapes = Vec<(String, Vec<usize>)>;

/// What adapter-hub/adapters' configuration is here, and the keys of its gates.
fn read(file: &Value, base: &Base) -> Result<(UniPeltConfig, Shapes), String> {
    let mut registry = Registry::new();
    registry
        .register::<BottleneckConfig>()
        .register::<Ia3Config>()
        .register::<LoraConfig>()
        .register::<PrefixTuningConfig>()
        .register::<UniPeltConfig>();
    let config = registry.configure_adapters(&fields(file.clone()), base);
    let config = config.map_err(|error| error.to_string())?.expect("it is one of these");
    assert_eq!(config.name(), "unipelt");
    let config = configure::<UniPeltConfig>(config.to_fields()).expect("it is one");
    let context = InitContext::new(base, base.device());
    let mut method = config.init(&context).map_err(|error| error.to_string())?;
    let mut described = Exchange::describe().in_dialect(Dialect::adapters("task"));
    method.exchange(&mut described, base);
    let specs = described.into_specs().into_iter().map(|spec| (spec.key, spec.shape));
    Ok((config, specs.filter(|(key, _)| key.contains("gate")).collect()))
}

/// As adapter-hub/adapters writes it.
fn file_of(method: &str, with: &[(&str, Value)]) -> Value {
    let lora_fields = json!({
        "alpha": 2, "architecture": "lora", "attn_matrices": ["q", "v"], "composition_mode": "add",
        "dropout": 0.0, "dtype": null, "init_weights": "lora", "init_weights_seed": null,
        "intermediate_lora": false, "leave_out": [], "output_lora": false, "r": 2,
        "selfattn_lora": true, "use_dora": false, "use_gating": false, "vera_b": null,
        "vera_d": null,
    });
    let mut file = match method {
        "prefix" => json!({
            "architecture": "prefix_tuning", "bottleneck_size": 512, "cross_prefix": true,
            "dropout": 0.0, "encoder_prefix": true, "flat": true, "init_weights_seed": null,
            "leave_out": [], "non_linearity": "tanh", "prefix_length": 3, "shared_gating": true,
            "use_gating": false,
        }),
        "ia3" => {
            let mut file = lora_fields;
            file["composition_mode"] = "scale".into();
            (file["init_weights"], file["r"]) = ("ia3".into(), 1.into());
            file
        }
        "lora" => lora_fields,
        _ => {
            let host = Host::new(&Device::default());
            let own = BottleneckConfig::default().to_adapters(host.model.base());
            own.expect("that library has it")
        }
    };
    for (field, value) in with {
        file[*field] = value.clone();
    }
    file
}

fn union(parts: &[Value]) -> Value {
    json!({"architecture": "union", "configs": parts})
}

#[test]
fn every_choice_of_gates_is_read_and_written() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let yes = || json!(true);
    let layer = |rest: &str| format!("bert.encoder.layer.1.{rest}");
    for gates in 0..16 {
        let [one, two, three, separate] = [1, 2, 4, 8].map(|bit| gates & bit != 0);
        let parts = |third: &str, of_third: &[(&str, Value)]| {
            let shared = json!(!separate || !one);
            [
                file_of("prefix", &[("use_gating", json!(one)), ("shared_gating", shared)]),
                file_of("adapter", &[("use_gating", json!(two))]),
                file_of(third, of_third),
            ]
        };
        for third in ["lora", "ia3"] {
            let alpha = ("alpha", json!(5));
            let file = union(&parts(third, &[("use_gating", json!(three)), alpha]));
            let (config, keys) = read(&file, base).expect("it is supported");
            assert_eq!(config.to_adapters(base).expect("that library has it"), file);
            let shape = |name: &str| {
                let name = format!("{}.weight", layer(name));
                keys.iter().find(|(key, _)| *key == name).map(|(_, shape)| shape.clone())
            };
            let wide = |gated: bool, gates: usize| gated.then(|| vec![gates, HIDDEN]);
            let both = if separate { 2 } else { 1 };
            let prefix = shape("attention.self.prefix_tuning.prefix_gates.task");
            assert_eq!(prefix, wide(one, both));
            assert_eq!(shape("output.adapters.task.gate"), wide(two, 1));
            assert_eq!(shape("attention.self.query.loras.task.gate"), wide(three, 1));
            assert_eq!(keys.len() / 2, LAYERS * (one as usize + two as usize + 2 * three as usize));
        }
    }
    // Alone it is a method of that library.
    for method in ["prefix", "adapter", "lora", "ia3"] {
        let file = file_of(method, &[("use_gating", yes())]);
        let (config, keys) = read(&file, base).expect("it is supported");
        assert_eq!(config.to_adapters(base).expect("that library has it"), file);
        assert!(!keys.is_empty());
    }
    let apart = |mh: bool| {
        let places = [("mh_adapter", json!(mh)), ("output_adapter", json!(!mh))];
        file_of("adapter", &[&places[..], &[("use_gating", json!(mh))]].concat())
    };
    let file = union(&[apart(true), apart(false)]);
    let (config, keys) = read(&file, base).expect("it is supported");
    assert_eq!(config.to_adapters(base).expect("that library has it"), file);
    assert_eq!(keys.len(), LAYERS * 2);
}

#[test]
fn unions_that_the_library_cannot_load_are_refused_both_ways() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let of = |method: &str, left_out: usize| file_of(method, &[("leave_out", json!([left_out]))]);
    for (first, second, what) in [
        ("lora", "lora", "two LoRAs"),
        ("ia3", "ia3", "two (IA)³s"),
        ("lora", "ia3", "LoRA and (IA)³"),
        ("prefix", "prefix", "two prefixes"),
    ] {
        let error = read(&union(&[of(first, 0), of(second, 1)]), base).expect_err("it cannot be");
        let expected = format!(
            "configs = (a union of {what}, which it cannot load itself) in adapter-hub/adapters is \
             not supported"
        );
        assert_eq!(error, expected);
    }
    let prompt = json!({"architecture": "prompt_tuning"});
    let error = read(&union(&[prompt]), base).expect_err("there is no such part");
    assert!(error.contains("prompt_tuning"), "{error}");

    let refused = |config: UniPeltConfig| {
        config.to_adapters(base).expect_err("that library has no such thing").to_string()
    };
    let start = "unipelt cannot be written for adapter-hub/adapters: ";
    let outputs = Ia3Config {
        feedforward_modules: Some(ModuleNames::List(Vec::new())),
        targets: Targets { target_modules: Some(ModuleNames::list(["key"])), ..Targets::default() },
        ..Ia3Config::default()
    };
    let both = UniPeltConfig {
        lora: Some(LoraConfig::default().into()),
        ia3: Some(outputs.into()),
        ..UniPeltConfig::empty()
    };
    let reason = "to it LoRA and (IA)³ are one method, and a union has a method once";
    assert_eq!(refused(both), format!("{start}{reason}"));
    let inverse = BottleneckConfig {
        output_adapter: false,
        inv_adapter: Some(InvertibleKind::Nice),
        ..BottleneckConfig::default()
    };
    let two = UniPeltConfig {
        adapter: vec![BottleneckConfig::default().into(), inverse.into()],
        ..UniPeltConfig::empty()
    };
    let reason = "it takes two configurations of adapters if one is for the attention sublayers and \
                  the other for the feed-forward ones, or one leaves a layer out";
    assert_eq!(refused(two), format!("{start}{reason}"));
}

/// A projection `[4, 6]` that is query, key and value in one.
fn fused() -> Base {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::ones([4, 6], &device);
    base.conv1d("h.0.attn.c_attn", Role::QueryKeyValue, Some(0), weight, None);
    base
}

#[test]
fn each_part_of_a_fused_projection_has_a_gate() {
    let base = fused();
    // As adapter-hub/adapters writes a LoRA with gates, outside of a union.
    let file = fields(json!({
        "alpha": 2, "architecture": "lora", "attn_matrices": ["q", "v"], "composition_mode": "add",
        "dropout": 0.0, "dtype": null, "init_weights": "lora", "init_weights_seed": null,
        "intermediate_lora": false, "leave_out": [], "output_lora": false, "r": 2,
        "selfattn_lora": true, "use_dora": false, "use_gating": true, "vera_b": null,
        "vera_d": null,
    }));
    let mut registry = Registry::new();
    registry.register::<LoraConfig>().register::<UniPeltConfig>();
    let config =
        registry.configure_adapters(&file, &base).expect("it is supported").expect("a LoRA");
    assert_eq!(config.name(), "unipelt");
    let config = configure::<UniPeltConfig>(config.to_fields()).expect("it is one");
    assert_eq!(config.to_adapters(&base).expect("that library has it"), Value::Object(file));

    let device = Device::default();
    let mut method = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let site = base.sites().next().expect("there is one");
    let (rows, slots, memo) = (Rows::packed(&[3, 2], &device), Slots::default(), Memo::new());
    let probe = Probe::default();
    let (mode, watched) = (Mode::Infer, Some(&probe));
    let pass = Pass { rows: &rows, slots: &slots, mode, memo: &memo, probe: watched };
    let layer = LinearLayer::new(site, base.weight(site), None);
    method.linear(site, &pass).apply(&layer, Tensor::ones([5, 4], &device), &pass);
    let seen = probe.observations();
    let seen: Vec<(&str, usize)> = seen.iter().map(|o| (o.name.as_str(), o.count)).collect();
    assert_eq!(seen, [("lora_gate.0", 2), ("lora_gate.1", 2)]);
    let mut described = Exchange::describe().in_dialect(Dialect::adapters("task"));
    method.exchange(&mut described, &base);
    let found: Vec<(String, Vec<usize>)> =
        described.into_specs().into_iter().map(|spec| (spec.key, spec.shape)).collect();
    let key = |name: &str| format!("h.0.attn.c_attn.loras.task.{name}");
    let expected = [
        (key("lora_A"), vec![4, 4]),
        (key("lora_B"), vec![4, 2]),
        (key("gate.weight"), vec![2, 4]),
        (key("gate.bias"), vec![2]),
    ];
    assert_eq!(found, expected);
}
