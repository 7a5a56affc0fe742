//! What a side network is made of, and what it keeps.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use peft_conformance::{Host, HostKind};
use peft_core::{
    BoxedMethod, Exchange, Hooks, InitContext, Method, MethodConfig, Role, Site, SiteKind, Stack,
};
use peft_models::Forward;
use peft_side::{DropLayers, LadderSide, LadderSideConfig, SideInit};

fn config(init: SideInit) -> LadderSideConfig {
    LadderSideConfig { reduction_factor: 4, init, ..LadderSideConfig::default() }
}

fn made(config: &LadderSideConfig, host: &Host) -> LadderSide {
    let device = Device::default().autodiff();
    let calibration = host.calibration();
    let context = InitContext::new(host.model.base(), &device).with_calibration(&calibration);
    config.init(&context).expect("it fits")
}

fn host(kind: HostKind) -> Host {
    Host::of(kind, &Device::default())
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("floats")
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{what}: {found} and {expected}");
    }
}

#[test]
fn nothing_of_the_model_is_on_a_tape() {
    for kind in [HostKind::Bert, HostKind::Gpt2, HostKind::Llama] {
        let host = host(kind);
        let base = host.model.base();
        let layers = base.sites().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        let method = made(&config(SideInit::Magnitude), &host);
        let frozen = host.model.frozen_layers(host.input(), &method).expect("one stack");
        assert_eq!(frozen, layers, "{kind:?}: what leaves the last layer is on no tape");
        // Over an adapter there is one.
        let mut lora = base.sites().filter(|site| site.role == Role::FeedForwardDown);
        let trained = Trained::at(lora.next().expect("a layer"));
        let both = Stack::new(vec![BoxedMethod::new(trained), BoxedMethod::new(method)]);
        assert_eq!(
            host.model.frozen_layers(host.input(), &both).expect("one stack"),
            0,
            "{kind:?}"
        );
    }
}

/// Another weight at one layer.
#[derive(Module, Debug)]
struct Trained {
    bias: burn::module::Param<Tensor<1>>,
    #[module(skip)]
    site: usize,
}

impl Trained {
    fn at(site: &Site) -> Self {
        let device = Device::default().autodiff();
        let bias = burn::module::Param::from_tensor(Tensor::ones([site.d_out()], &device));
        Self { bias, site: site.index }
    }
}

impl Hooks for Trained {
    fn linear(&self, site: &Site, _pass: &peft_core::Pass<'_>) -> peft_core::Edits {
        let here = (site.index == self.site).then(|| peft_core::Edit::Bias(self.bias.val()));
        here.into_iter().collect()
    }
}

impl Method for Trained {}

/// What is kept of the frozen layers is as good as they are, whichever layers are kept.
#[test]
fn states_that_were_kept_give_the_same() {
    for kind in [HostKind::Bert, HostKind::Gpt2, HostKind::Llama] {
        let host = host(kind);
        let ladder = made(&config(SideInit::Magnitude), &host).valid();
        let expected = numbers(host.model.infer(host.input(), &ladder).expect("it fits"));
        for layer in [1, 2] {
            let kept = host.model.layer_input(layer, host.input(), &ladder).expect("one stack");
            let how = Forward::infer(&ladder).from_layer(&kept);
            let found = numbers(host.model.forward(host.input(), how).expect("it fits"));
            assert_close(&format!("{kind:?} from layer {layer}"), &found, &expected);
            // As texts on the host, too.
            let texts = kept.into_texts();
            let kept = peft_models::LayerInput::new(layer, &texts, &Device::default());
            let how = Forward::infer(&ladder).from_layer(&kept);
            let found = numbers(host.model.forward(host.input(), how).expect("it fits"));
            assert_close(&format!("{kind:?} from texts at layer {layer}"), &found, &expected);
        }
    }
}

fn keys(method: &mut LadderSide, host: &Host) -> Vec<String> {
    let mut file = Exchange::describe();
    method.exchange(&mut file, host.model.base());
    file.into_specs().into_iter().map(|spec| spec.key).collect()
}

#[test]
fn a_file_has_the_side_network_alone_and_nothing_of_dropped_layers() {
    let host = host(HostKind::Bert);
    let all = keys(&mut made(&config(SideInit::Random), &host), &host);
    assert!(all.iter().all(|key| key.contains(".side")), "{all:?}");
    let drop_layers = DropLayers::Layers(vec![0]);
    let config = LadderSideConfig { drop_layers, ..config(SideInit::Random) };
    let mut method = made(&config, &host);
    assert!(method.rung(0).is_none() && method.rung(1).is_some());
    let kept = keys(&mut method, &host);
    assert!(kept.iter().all(|key| !key.contains("layer.0.")), "{kept:?}");
    let others: Vec<&String> = all.iter().filter(|key| !key.contains("layer.0.")).collect();
    assert_eq!(kept.iter().collect::<Vec<_>>(), others);
}

/// A network beside an encoder, and one beside its decoder.
#[test]
fn an_encoder_and_a_decoder_have_a_network_each() {
    let host = host(HostKind::T5);
    let mut method = made(&config(SideInit::Magnitude), &host);
    let keys = keys(&mut method, &host);
    let count = |name: &str| keys.iter().filter(|key| key.contains(name)).count();
    assert_eq!(count("side_first_downsample.weight"), 2, "{keys:?}");
    assert_eq!(count("side_final_upsample.weight"), 1);
    assert_eq!(count("final_layer_norm.side.weight"), 2);
    // What the encoder's network returns reaches the decoder's.
    let ladder = method.valid();
    let before = numbers(host.model.infer(host.input(), &ladder).expect("it fits"));
    let site = host.model.base().linears().find(|site| site.role == Role::FeedForwardDown);
    let site = site.expect("the encoder's").clone();
    let changed = doubled(ladder, &site);
    let after = numbers(host.model.infer(host.input(), &changed).expect("it fits"));
    let apart = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart > 1e-4, "{apart:e}");
}

/// The same with twice the weight at a side layer.
fn doubled(ladder: LadderSide, site: &Site) -> LadderSide {
    struct Double<'s>(&'s str, bool);
    impl burn::module::ModuleMapper for Double<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.1 |= name == self.0;
        }
        fn exit_module(&mut self, name: &str, _container: &str) {
            self.1 &= name != self.0;
        }
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            let double = self.1;
            param.map(|value| if double { value * 2.0 } else { value })
        }
    }
    ladder.map(&mut Double(&site.index.to_string(), false))
}

/// Entries of the side layers are entries of the frozen ones, at the same features in all layers.
#[test]
fn side_layers_begin_with_a_part_of_the_frozen_ones() {
    for kind in [HostKind::Bert, HostKind::Gpt2, HostKind::Llama, HostKind::T5] {
        let host = host(kind);
        let base = host.model.base();
        for init in [SideInit::Magnitude, SideInit::Fisher] {
            let ladder = made(&config(init), &host);
            let mut seen = 0;
            for site in base.sites().filter(|site| site.layer.is_some()) {
                let entry = base.at(site);
                let (side, frozen) = match site.kind {
                    SiteKind::Linear => {
                        let side = ladder.linear_at(site).expect("each layer has one");
                        let dims = side.weight.val().dims();
                        assert!(dims[0] < site.d_in() && dims[1] < site.d_out(), "{dims:?}");
                        let frozen = base.weight(site).dense();
                        (numbers(side.weight.val()), numbers(frozen))
                    }
                    SiteKind::Norm => {
                        let side = ladder.norm_at(site).expect("each norm has one");
                        let frozen = entry.gain.clone().expect("a gain");
                        (numbers(side.gain.val()), numbers(frozen))
                    }
                    _ => continue,
                };
                assert!(side.iter().all(|value| frozen.contains(value)), "{kind:?} {site}");
                seen += 1;
            }
            assert!(seen > 10, "{kind:?}: {seen}");
        }
        let first = |init| {
            let ladder = made(&config(init), &host);
            let site = base.linears().find(|site| site.layer.is_some()).expect("a layer").clone();
            numbers(ladder.linear_at(&site).expect("its side layer").weight.val())
        };
        assert_ne!(first(SideInit::Magnitude), first(SideInit::Fisher), "{kind:?}");
    }
}

#[test]
fn what_makes_no_network_is_refused_by_name() {
    let host = host(HostKind::Bert);
    let base = host.model.base();
    for (config, field) in [
        (LadderSideConfig { reduction_factor: 0, ..config(SideInit::Random) }, "reduction_factor"),
        (LadderSideConfig { gate_temperature: 0.0, ..config(SideInit::Random) }, "gate_T"),
        (LadderSideConfig { gate_alpha: f64::NAN, ..config(SideInit::Random) }, "gate_alpha"),
        (
            LadderSideConfig { drop_layers: DropLayers::Count(2), ..config(SideInit::Random) },
            "drop_layers",
        ),
        (
            LadderSideConfig {
                drop_layers: DropLayers::Layers(vec![5]),
                ..config(SideInit::Random)
            },
            "drop_layers",
        ),
    ] {
        let error = config.init(&InitContext::new(base, base.device())).expect_err("it is wrong");
        assert!(error.to_string().contains(field), "{error}");
    }
}
