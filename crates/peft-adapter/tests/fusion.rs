//! A fusion is the attention of its equation.

use burn::tensor::{Device, Distribution, Tensor, Tolerance, activation::softmax};
use peft_adapter::{Bottleneck, BottleneckConfig, Fuse, FusionConfig, ResidualBeforeNorm};
use peft_core::{
    Base, BoxedMethod, EmptyPass, Exchange, GateKind, GateOn, Gated, Hooks, InitContext, Method,
    MethodConfig, Pass, Probe, Role, SiteKind, SublayerEnd, TensorMap,
};

const D: usize = 8;

/// Two sublayers, each in a layer of its own.
fn base() -> Base {
    let mut base = Base::new(&Device::default());
    for layer in [0, 1] {
        let path = format!("layer.{layer}.output");
        base.place(path, SiteKind::Sublayer, Role::FeedForwardSublayer, Some(layer), D);
    }
    base
}

/// An adapter in the second layer only.
fn adapter(base: &Base) -> Bottleneck {
    adapter_of(&BottleneckConfig::default(), base)
}

fn adapter_of(config: &BottleneckConfig, base: &Base) -> Bottleneck {
    let config =
        BottleneckConfig { bottleneck_size: Some(4), leave_out: vec![0], ..config.clone() };
    config.init(&InitContext::new(base, &Device::default())).expect("it fits")
}

fn fusion(base: &Base, below: &[Bottleneck]) -> Fuse {
    let below = below.iter().map(|method| BoxedMethod::new(method.clone())).collect();
    fusion_of(&FusionConfig::default(), base, below)
}

fn fusion_of(config: &FusionConfig, base: &Base, below: Vec<BoxedMethod>) -> Fuse {
    let device = Device::default();
    let mut fusion = config.init(&InitContext::new(base, &device)).expect("it fits");
    assert!(fusion.adopt(below).is_empty(), "it takes all of them");
    fusion
}

fn states() -> [Tensor<2>; 3] {
    [(); 3].map(|()| Tensor::random([5, D], Distribution::Normal(0.0, 1.0), &Device::default()))
}

#[test]
fn the_output_is_that_of_the_equation() {
    let base = base();
    let adapters = [adapter(&base), adapter(&base)];
    let mut fusion = fusion(&base, &adapters);
    let mut file = TensorMap::new();
    fusion.exchange(&mut Exchange::write(&mut file), &base);
    assert_eq!(file.len(), 2 * 5, "three weights and two biases at each site, no adapter");
    let site = base.sites().nth(1).expect("there are two");
    let tensor = |name: &str| -> Tensor<2> {
        let data = file[&site.key(&format!("fusion.{name}.weight"))].clone();
        Tensor::from_data(data, &Device::default())
    };
    // Biases start at zero.
    let through = |x: Tensor<2>, name: &str| x.matmul(tensor(name).transpose());

    let (parts, probe) = (EmptyPass::new(&Device::default()), Probe::default());
    let pass = Pass { probe: Some(&probe), ..parts.pass() };
    let end = SublayerEnd::new(site, None, &(), states());
    let found = fusion.sublayer(site, &pass).forward(&end, &pass);

    let x = end.output.clone() + end.residual.clone();
    let added =
        adapters.map(|adapter| adapter.update(site, x.clone(), &pass).expect("it is there"));
    let query = through(x, "query");
    let score = |z: &Tensor<2>| (query.clone() * through(z.clone(), "key")).sum_dim(1);
    let attention = softmax(Tensor::cat(added.iter().map(score).collect(), 1), 1);
    let [first, second] = added.map(|z| through(z, "value"));
    let weight = |n: usize| attention.clone().narrow(1, n, 1);
    let expected = end.output.clone() + first * weight(0) + second * weight(1);
    found.into_data().assert_approx_eq(&expected.into_data(), Tolerance::<f32>::absolute(1e-5));

    let seen = probe.observations();
    assert_eq!((seen.len(), seen[0].name.as_str(), seen[0].count), (1, "fusion", 5));
    assert!((seen[0].mean.iter().sum::<f64>() - 1.0).abs() < 1e-5);
}

/// As in adapter-hub/adapters, whose fusion has what an adapter computes before its gate, its norm and
/// its residual.
#[test]
fn what_is_fused_is_added_to_the_residual_of_the_last_adapter() {
    let base = base();
    let site = base.sites().nth(1).expect("there are two");
    let parts = EmptyPass::new(&Device::default());
    let pass = parts.pass();
    let end = SublayerEnd::new(site, None, &(), states());
    let sum = end.output.clone() + end.residual.clone();
    let kind = GateKind { peft: "gate", adapters: "{}.gate", on: GateOn::Change, bias: None };
    for (residual, ln_after, start) in [
        (ResidualBeforeNorm::Output, true, end.output.clone()),
        (ResidualBeforeNorm::Input, false, sum.clone()),
        (ResidualBeforeNorm::PostAdd, true, sum.clone()),
    ] {
        let config =
            BottleneckConfig { residual_before_ln: residual, ln_after, ..Default::default() };
        let adapter = adapter_of(&config, &base);
        let update = adapter.update(site, sum.clone(), &pass).expect("it is there");
        let method = BoxedMethod::new(adapter);
        let gated = Gated::new(
            ("pfeiffer", method.clone()),
            kind,
            [(&**site, 1)],
            &InitContext::new(&base, base.device()),
        );
        let gated = gated.expect("it acts there alone");
        for method in [method, BoxedMethod::new(gated)] {
            // Of one adapter the attention is one, and without a value nothing else is done to it.
            for residual_before in [false, true] {
                let config =
                    FusionConfig { value: false, residual_before, ..FusionConfig::default() };
                let fusion = fusion_of(&config, &base, vec![method.clone()]);
                let found = fusion.sublayer(site, &pass).forward(&end, &pass);
                let expected = (start.clone() + update.clone()).into_data();
                found.into_data().assert_approx_eq(&expected, Tolerance::<f32>::absolute(1e-5));
            }
        }
    }
}

#[test]
fn where_no_adapter_acts_there_is_no_fusion() {
    let base = base();
    let site = base.sites().next().expect("there are two");
    let parts = EmptyPass::new(&Device::default());
    assert!(fusion(&base, &[adapter(&base)]).sublayer(site, &parts.pass()).is_none());
    assert!(fusion(&base, &[]).sublayer(site, &parts.pass()).is_none());
}
