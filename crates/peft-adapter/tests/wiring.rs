//! Adapters meet a sublayer as their equations say.

use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use peft_adapter::{Bottleneck, BottleneckConfig, InvertibleKind, presets};
use peft_conformance::Host;
use peft_core::{
    BoxedMethod, Dialect, EmptyPass, Exchange, Hooks, InitContext, Method, MethodConfig, NormEdit,
    NormLayer, PerLayer, Role, Rows, Site, Stage, SublayerEnd, TensorMap, Tokens,
};
use serde_json::{Value, json};

const HIDDEN: usize = 24;

struct Setting {
    host: Host,
    bottleneck: Bottleneck,
    /// The input, the output and the residual of a sublayer, each `[6, d]`.
    states: [Tensor<2>; 3],
}

fn setting(fields: Value) -> Setting {
    let device = Device::default();
    let host = Host::new(&device);
    let mut config: BottleneckConfig = serde_json::from_value(fields).expect("it can be read");
    config.bottleneck_size = Some(8);
    let context = InitContext::new(host.model.base(), &device);
    let bottleneck = config.init(&context).expect("it fits");
    let random = |_| Tensor::random([6, HIDDEN], Distribution::Normal(0.0, 1.0), &device);
    Setting { bottleneck, states: [0, 1, 2].map(random), host }
}

impl Setting {
    fn site(&self, role: Role, layer: usize) -> &Site {
        let mut sites = self.host.model.base().sites();
        sites.find(|s| s.role == role && s.layer == Some(layer)).expect("the host has it")
    }

    /// `o'`, and what `expected` makes of output and residual, of the sublayer's norm and of `s f`.
    #[track_caller]
    fn assert_output(&self, expected: impl Fn([Tensor<2>; 2], &Map<'_>, &Map<'_>) -> Tensor<2>) {
        let norm_site = self.site(Role::FeedForwardNorm, 1);
        let entry = self.host.model.base().at(norm_site);
        let gain = entry.gain.as_ref().expect("a norm has a gain");
        let norm = NormLayer::new(norm_site, gain, entry.bias.as_ref(), 1e-12);
        let site = self.site(Role::FeedForwardSublayer, 1);
        let parts = EmptyPass::new(&Device::default());
        let pass = &parts.pass();
        let end = SublayerEnd::new(site, Some(&norm), &(), self.states.clone());
        let found = self.bottleneck.sublayer(site, pass).forward(&end, pass);
        let update: &Map<'_> = &|x| self.bottleneck.update(site, x, pass).expect("it is adapted");
        let normalize: &Map<'_> = &|x| norm.forward(&NormEdit::default(), x, pass);
        let expected = expected([end.output, end.residual], normalize, update);
        found.into_data().assert_approx_eq(&expected.into_data(), Tolerance::<f32>::absolute(1e-6));
    }
}

type Map<'m> = dyn Fn(Tensor<2>) -> Tensor<2> + 'm;

#[test]
fn the_output_is_that_of_the_equation() {
    setting(json!({ "original_ln_before": false }))
        .assert_output(|[o, _], _, f| o.clone() + f(o.clone()));
    setting(json!({})).assert_output(|[o, r], norm, f| o.clone() + f(norm(o + r)));
    setting(json!({ "residual_before_ln": false })).assert_output(|[o, r], norm, f| {
        let x = norm(o + r);
        x.clone() + f(x)
    });
    setting(json!({ "residual_before_ln": "post_add" })).assert_output(|[o, r], norm, f| {
        let sum = o + r;
        sum.clone() + f(norm(sum))
    });
    setting(json!({ "is_parallel": true, "adapter_residual_before_ln": true }))
        .assert_output(|[o, r], _, f| o + f(r));
}

#[test]
fn a_layer_left_out_at_inference_is_the_base() {
    let setting = setting(json!({ "mh_adapter": true, "train_norms": true }));
    let left_out = |of_layer: Vec<Option<usize>>| {
        PerLayer::new(vec![BoxedMethod::new(setting.bottleneck.clone())], of_layer, None)
    };
    let logits = |of_layer| setting.host.logits(&left_out(of_layer));
    assert_eq!(logits(vec![None, None]), setting.host.logits(&()));
    assert_eq!(logits(vec![Some(0), Some(0)]), setting.host.logits(&setting.bottleneck));
    assert_ne!(logits(vec![None, Some(0)]), setting.host.logits(&()));
}

#[test]
fn the_invertible_adapter_is_undone_at_the_output() {
    for kind in ["nice", "glow"] {
        let setting = setting(json!({ "inv_adapter": kind }));
        let mut sites = setting.host.model.base().sites();
        let site = sites.find(|site| site.role == Role::Embeddings).expect("it has embeddings");
        let hidden = setting.states[0].clone();
        let tokens = Tokens::new(hidden.clone(), Rows::packed(&[4, 2], &Device::default()));
        let parts = EmptyPass::new(&Device::default());
        let through = |stage, tokens| setting.bottleneck.tokens(stage, site, tokens, &parts.pass());
        let inner = through(Stage::Input, through(Stage::Embedded, tokens));
        assert_ne!(inner.hidden.to_data(), hidden.to_data());
        let back = through(Stage::Output, inner).hidden.into_data();
        back.assert_approx_eq(&hidden.into_data(), Tolerance::<f32>::absolute(1e-5));
    }
}

#[test]
fn files_for_adapters_have_its_keys() {
    let keys = |fields: Value| -> Vec<String> {
        let mut setting = setting(fields);
        let mut file = TensorMap::new();
        let dialect = Dialect::adapters("task");
        let mut exchange = Exchange::write(&mut file).in_dialect(dialect);
        setting.bottleneck.exchange(&mut exchange, setting.host.model.base());
        file.keys().cloned().collect()
    };
    let adapter = "bert.encoder.layer.1.output.adapters.task";
    let dense = keys(json!({ "leave_out": [0], "inv_adapter": "nice", "scaling": "learned" }));
    let names = ["adapter_down.0.bias", "adapter_down.0.weight", "adapter_up.bias"];
    let mut expected: Vec<String> = names.iter().map(|name| format!("{adapter}.{name}")).collect();
    expected.extend(["adapter_up.weight", "scaling"].map(|name| format!("{adapter}.{name}")));
    for network in ["F", "G"] {
        for name in ["0.bias", "0.weight", "2.bias", "2.weight"] {
            expected.push(format!("bert.invertible_adapters.task.{network}.{name}"));
        }
    }
    assert_eq!(dense, expected);

    let compacter = keys(json!({ "leave_out": [0], "phm_layer": true }));
    let mut expected = Vec::new();
    for projection in ["adapter_down.0", "adapter_up"] {
        for name in ["W_left", "W_right", "b"] {
            expected.push(format!("{adapter}.{projection}.{name}"));
        }
    }
    expected.push("bert.shared_parameters.task.phm_rule".into());
    assert_eq!(compacter, expected);
}

#[test]
fn what_adapters_writes_is_read_as_it_was() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    for (name, _, fields) in presets() {
        let config: BottleneckConfig = serde_json::from_value(fields).expect("it can be read");
        let Value::Object(mut theirs) = config.to_adapters(base).expect("that library has it")
        else {
            panic!("an object");
        };
        // Whether the inverse acts becomes the model's class where the file is written.
        let inverts = theirs.remove("inv_adapter_inverse");
        assert_eq!(inverts.is_some(), config.inv_adapter.is_some(), "{name}");
        assert_eq!(theirs.len(), 33, "the number of fields that the library writes");
        let read = BottleneckConfig::from_adapters(&theirs, base).expect("it is ours");
        // Of experts their average.
        let kept = config.for_file(base).expect("it fits");
        assert_eq!(read.expect("it is supported"), kept, "{name}");
    }
    let glow =
        BottleneckConfig { inv_adapter: Some(InvertibleKind::Glow), ..BottleneckConfig::default() };
    let refused = glow.to_adapters(base).expect_err("its coupling is another").to_string();
    assert!(refused.contains("adapter-hub/adapters"), "{refused}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = Device::default();
    let base = Host::new(&device);
    let base = base.model.base();
    let refused = |fields: Value| {
        let config: BottleneckConfig = serde_json::from_value(fields).expect("it can be read");
        let context = InitContext::new(base, &device);
        config.init(&context).map(|_| ()).map_err(|error| error.to_string())
    };
    let error = refused(json!({ "phm_layer": true, "reduction_factor": 4 })).unwrap_err();
    assert!(
        error.starts_with("phm_dim = 4: must divide the hidden size 24 and the bottleneck 6 at"),
        "{error}"
    );
    let error = refused(json!({ "leave_out": [0, 1] })).unwrap_err();
    assert_eq!(error, "leave_out = [0, 1]: leaves no layer with an adapter");
    let error = refused(json!({ "reduction_factor": { "1": 4 } })).unwrap_err();
    assert!(error.starts_with("reduction_factor = {\"1\":4}: needs a \"default\""), "{error}");
    let shared = json!({
        "phm_layer": true,
        "shared_W_phm": true,
        "reduction_factor": { "1": 3, "default": 6 },
    });
    let error = refused(shared).unwrap_err();
    assert!(error.starts_with("shared_W_phm = true: the layers must have one shape"), "{error}");

    let unmatched = |fields: Value| {
        let config: BottleneckConfig = serde_json::from_value(fields).expect("it can be read");
        let unmatched = config.unmatched(base).expect("no pattern is wrong");
        unmatched.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let fields = json!({ "leave_out": [1, 7], "reduction_factor": { "9": 2, "default": 4 } });
    assert_eq!(
        unmatched(fields),
        [
            "leave_out 7 matches no layer of the model; it has: 0 to 1",
            "reduction_factor 9 matches no layer of the model; it has: 0 to 1",
        ]
    );
}
