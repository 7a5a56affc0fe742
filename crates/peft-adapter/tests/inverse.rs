//! When the inverse of an invertible adapter acts, and what files say of it.

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use peft_adapter::{Bottleneck, BottleneckConfig};
use peft_conformance::{Host, HostKind};
use peft_core::{
    AdaptersModel, Base, BoxedMethod, EmptyPass, Hooks, InitContext, Method, MethodConfig, Role,
    Rows, Stage, Tokens,
};
use peft_format::{ADAPTER_CONFIG, Adapter, AdapterConfig, Registry};
use serde_json::{Map, Value, json};

fn config(inverse: bool) -> BottleneckConfig {
    let fields = json!({ "inv_adapter": "nice", "inv_adapter_inverse": inverse });
    serde_json::from_value(fields).expect("it can be read")
}

fn method(config: &BottleneckConfig, host: &Host) -> Bottleneck {
    config.init(&InitContext::new(host.model.base(), &Device::default())).expect("it fits")
}

/// Whether `method` changes tokens at the embeddings of this role, on their way in and out.
fn changes(method: &Bottleneck, base: &Base, role: Role) -> [bool; 2] {
    let site = base.sites().find(|site| site.role == role).expect("it has embeddings");
    let hidden =
        Tensor::<2>::random([3, site.d_out()], Distribution::Normal(0.0, 1.0), &Device::default());
    let parts = EmptyPass::new(&Device::default());
    [Stage::Input, Stage::Output].map(|stage| {
        let tokens = Tokens::new(hidden.clone(), Rows::packed(&[3], &Device::default()));
        let after = method.tokens(stage, site, tokens, &parts.pass()).hidden;
        after.into_data() != hidden.to_data()
    })
}

#[test]
fn the_inverse_acts_if_the_configuration_says_so() {
    let host = Host::new(&Device::default());
    let at =
        |inverse| changes(&method(&config(inverse), &host), host.model.base(), Role::Embeddings);
    assert_eq!(at(true), [true, true]);
    assert_eq!(at(false), [true, false]);
}

#[test]
fn beside_an_encoder_the_states_of_the_decoder_are_inverted_not_its_embeddings() {
    let host = Host::of(HostKind::T5, &Device::default());
    let (method, base) = (method(&config(true), &host), host.model.base());
    assert_eq!(changes(&method, base, Role::Embeddings), [true, true]);
    assert_eq!(changes(&method, base, Role::DecoderEmbeddings), [false, true]);
}

#[test]
fn over_another_adapter_an_invertible_one_does_nothing_at_the_embeddings() {
    let host = Host::new(&Device::default());
    let mut method = method(&config(true), &host);
    assert!(method.adopt(Vec::new()).is_empty());
    assert_eq!(changes(&method, host.model.base(), Role::Embeddings), [true, true]);
    let below = BoxedMethod::new(self::method(&BottleneckConfig::default(), &host));
    assert_eq!(method.adopt(vec![below]).len(), 1);
    assert_eq!(changes(&method, host.model.base(), Role::Embeddings), [false, false]);
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<BottleneckConfig>();
    registry
}

fn fields(directory: &Path) -> Map<String, Value> {
    let text = std::fs::read_to_string(directory.join(ADAPTER_CONFIG)).expect("it was written");
    serde_json::from_str(&text).expect("an object")
}

fn model(model_class: &str, model_type: &str, base: &Base) -> AdaptersModel {
    let hidden_size = base.sites().map(|site| site.d_out()).min().unwrap_or(0);
    let (model_class, model_type) = (model_class.into(), model_type.into());
    AdaptersModel { model_class, model_name: "host".into(), model_type, hidden_size }
}

#[test]
fn the_class_in_a_file_of_adapters_says_whether_it_acts() {
    let (registry, device) = (registry(), Device::default());
    for (kind, written, model_type, inverse, class, prefix) in [
        (HostKind::Bert, "BertForMaskedLM", "bert", true, "BertAdapterModel", "bert."),
        (HostKind::Bert, "BertForMaskedLM", "bert", false, "BertForMaskedLM", "bert."),
        (HostKind::T5, "T5ForConditionalGeneration", "t5", true, "T5AdapterModel", "transformer."),
        (
            HostKind::T5,
            "T5ForConditionalGeneration",
            "t5",
            false,
            "T5ForConditionalGeneration",
            "encoder.",
        ),
    ] {
        let host = Host::of(kind, &device);
        let base = host.model.base();
        let method = registry.configure("pfeiffer", object(inverse)).expect("it makes sense");
        let adapter = Adapter::new(AdapterConfig::new(method), base, &device).expect("it fits");
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let host_model = model(written, model_type, base);
        adapter.save_as_adapters(directory, "it", &host_model, base).expect("written");
        let written = fields(directory);
        assert_eq!(written["model_class"], class);
        assert!(written["config"].get("inv_adapter_inverse").is_none());

        let keys = peft_format::read_safetensors(&directory.join("adapter.safetensors"));
        let keys: Vec<String> = keys.expect("tensors").into_keys().collect();
        let of_coupling =
            format!("{prefix}{}", if prefix == "transformer." { "encoder." } else { "" });
        assert!(
            keys.iter().any(|key| key.starts_with(&format!("{of_coupling}invertible_adapters."))),
            "{keys:?}"
        );
        let read = Adapter::load(directory, &registry, base, &device).expect("it is whole");
        let own = read.config.method.to_fields();
        let said = own.get("inv_adapter_inverse").and_then(Value::as_bool).unwrap_or(true);
        assert_eq!(said, inverse, "{class}");
        assert_eq!(read.tensors(base), adapter.tensors(base));
    }
}

#[test]
fn a_class_that_always_inverts_is_refused_for_an_adapter_that_does_not() {
    let (registry, device) = (registry(), Device::default());
    let host = Host::new(&device);
    let base = host.model.base();
    let method = registry.configure("pfeiffer", object(false)).expect("it makes sense");
    let adapter = Adapter::new(AdapterConfig::new(method), base, &device).expect("it fits");
    let directory = tempfile::tempdir().expect("a directory");
    let host_model = model("BertAdapterModel", "bert", base);
    let refused = adapter.save_as_adapters(directory.path(), "it", &host_model, base);
    let error = refused.expect_err("its class inverts").to_string();
    assert!(error.contains("under BertAdapterModel"), "{error}");
}

#[test]
fn hugging_faces_layout_has_the_field_where_it_is_not_the_default() {
    let (registry, device) = (registry(), Device::default());
    let host = Host::new(&device);
    let base = host.model.base();
    for inverse in [true, false] {
        let method = registry.configure("pfeiffer", object(inverse)).expect("it makes sense");
        let adapter = Adapter::new(AdapterConfig::new(method), base, &device).expect("it fits");
        let directory = tempfile::tempdir().expect("a directory");
        adapter.save(directory.path(), base).expect("written");
        let said = fields(directory.path()).get("inv_adapter_inverse").cloned();
        assert_eq!(said, (!inverse).then_some(json!(false)));
        let read = Adapter::load(directory.path(), &registry, base, &device).expect("it is whole");
        assert_eq!(read.config.method.to_fields(), adapter.config.method.to_fields());
    }
}

fn object(inverse: bool) -> Map<String, Value> {
    match json!({ "inv_adapter": "nice", "inverse": inverse, "bottleneck": 8 }) {
        Value::Object(fields) => fields,
        _ => unreachable!("an object"),
    }
}
