//! What a method may know of the data before it is trained, on each host.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, activation::gelu, module::linear};
use peft_conformance::{Host, HostKind};
use peft_core::{
    Calibration, Edit, Edits, Hooks, Pass, Replaced, Site, SiteKind, base_gradients, layer_inputs,
};

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("floats")
}

#[track_caller]
fn assert_close(found: Tensor<2>, expected: Tensor<2>) {
    assert_eq!(found.dims(), expected.dims());
    for (found, expected) in values(found).iter().zip(values(expected)) {
        assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{found}, {expected}");
    }
}

/// The linear layers that have a weight of their own.
fn linears(host: &Host) -> Vec<&Site> {
    host.model.base().linears().map(|site| &**site).collect()
}

/// The base with another weight at one site.
#[derive(Debug)]
struct With {
    site: usize,
    weight: Tensor<2>,
}

impl Hooks for With {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        match site.index == self.site {
            true => Edit::Weight(Arc::new(Replaced(self.weight.clone()))).into(),
            false => Edits::none(),
        }
    }
}

#[test]
fn gradients_of_the_base_are_those_that_differences_give() {
    for kind in HostKind::ALL {
        let host = Host::of(kind, &Device::default());
        let calibration = host.calibration();
        let (base, sites) = (host.model.base(), linears(&host));
        let gradients = base_gradients(&calibration, base, &sites, 2).expect("the batches fit");
        assert!(gradients.keys().copied().eq(sites.iter().map(|site| site.index)), "{kind:?}");
        for site in sites {
            let weight = base.weight(site).dense();
            // In the direction of the gradient, the loss changes by its norm.
            let gradient = gradients[&site.index].clone().inner();
            let norm = gradient.clone().square().sum().sqrt().into_scalar::<f32>();
            let loss = |step: f32| {
                let weight = weight.clone() + gradient.clone() / norm * step;
                let hooks = With { site: site.index, weight };
                let of_batch = |batch| calibration.loss(batch, &hooks).expect("it fits");
                let losses = (0..2).map(|batch| values(of_batch(batch))[0]);
                losses.map(f64::from).sum::<f64>() / 2.0
            };
            let step = 1e-2;
            let slope = (loss(step) - loss(-step)) / f64::from(2.0 * step);
            let apart = (slope - f64::from(norm)).abs();
            assert!(apart < 2e-2 * f64::from(norm) + 1e-4, "{kind:?} {site}: {slope}, {norm}");
        }
    }
}

/// What the layers of a host are given, batch by batch.
fn inputs(host: &Host, sites: &[&Site], batches: usize) -> BTreeMap<usize, Vec<Tensor<2>>> {
    let mut inputs: BTreeMap<usize, Vec<Tensor<2>>> = BTreeMap::new();
    layer_inputs(&host.calibration(), sites, batches, |site, input| {
        inputs.entry(site).or_default().push(input);
    })
    .expect("the batches fit");
    inputs
}

#[test]
fn inputs_of_layers_are_what_the_layers_before_return() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let site = |path: &str| {
        let named = |site: &&&Site| site.path.ends_with(path);
        *linears(&host).iter().find(named).unwrap_or_else(|| panic!("there is a {path}"))
    };
    let inputs = inputs(&host, &linears(&host), 2);
    let output = |site: &Site, batch: usize| {
        let (weight, bias) = (base.weight(site).dense(), base.at(site).bias.clone());
        linear(inputs[&site.index][batch].clone(), weight, bias)
    };
    for batch in [0, 1] {
        for layer in ["layer.0", "layer.1"] {
            let [up, down] =
                ["intermediate.dense", "output.dense"].map(|rest| site(&format!("{layer}.{rest}")));
            assert_close(inputs[&down.index][batch].clone(), gelu(output(up, batch)));
            let of = |name: &str| site(&format!("{layer}.attention.self.{name}")).index;
            let [query, key, value] =
                ["query", "key", "value"].map(|name| &inputs[&of(name)][batch]);
            assert_close(query.clone(), key.clone());
            assert_close(query.clone(), value.clone());
        }
        let (pooler, head) = (site("pooler.dense"), site("classifier"));
        assert_close(inputs[&head.index][batch].clone(), output(pooler, batch).tanh());
    }
}

#[test]
fn every_layer_sees_every_token_once() {
    for kind in HostKind::ALL {
        let host = Host::of(kind, &Device::default());
        let sites = linears(&host);
        let inputs = inputs(&host, &sites, 1);
        for site in &sites {
            let [input] = &inputs[&site.index][..] else { panic!("{site}: one batch") };
            let [tokens, d_in] = input.dims();
            assert_eq!(d_in, site.d_in(), "{site}");
            // Two texts of seven and of three tokens without padding; answers of three and six.
            let of_texts = [10, 9, 2];
            assert!(of_texts.contains(&tokens), "{kind:?} {site}: {tokens} tokens");
        }
    }
}

#[test]
fn no_batches_are_an_error() {
    let host = Host::new(&Device::default());
    let (calibration, sites) = (host.calibration(), linears(&host));
    let error = base_gradients(&calibration, host.model.base(), &sites, 0).expect_err("none");
    let expected = "calibration = 0: there must be at least one batch to look at";
    assert_eq!(error.to_string(), expected);
    let error = layer_inputs(&calibration, &sites, 0, |_, _| {}).expect_err("none");
    assert_eq!(error.to_string(), expected);
    assert!(sites.iter().all(|site| site.kind == SiteKind::Linear));
}
