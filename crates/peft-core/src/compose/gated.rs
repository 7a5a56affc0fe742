//! A learned gate beside a method.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor, activation::sigmoid, module::linear};

use crate::{
    Base, BoxedMethod, Calibration, Change, Embedded, Exchange, Hooks, Key, KeyValue, Layout,
    LinearLayer, Method, NormLayer, Probe, Progress, ResidualLayer, ResidualStates, Site,
};

/// How a gate is called in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateNames {
    /// After the site's path: `lora_gate`.
    pub peft: &'static str,
    /// The same in adapter-hub/adapters' files, where `{}` is the adapter's name: `loras.{}.gate`.
    pub hub: &'static str,
}

/// A method whose effect is scaled by a learned gate at each of its sites, one value per example
/// (UniPELT, Mao et al. 2022, arXiv 2110.07577, §3.2):
///
/// `y = f(x) + g (f'(x) - f(x))`, `g = meanₜ σ(xₜ w + b)`,
///
/// where `f` is the model, `f'` the model under the method, and `x` (`[batch, tokens, d]`) what the
/// method reads. The mean runs over all positions of the batch, padding included, as in the
/// reference. Positions that a method puts before the text are scaled by `g` themselves.
///
/// It cannot be merged, as `g` depends on the input.
#[derive(Module, Debug)]
pub struct Gated {
    method: BoxedMethod,
    /// By [`Site::index`].
    gates: Vec<Option<Gate>>,
    #[module(skip)]
    names: GateNames,
    #[module(skip)]
    probe: Option<Probe>,
}

#[derive(Module, Debug)]
struct Gate {
    /// `[d, 1]`.
    weight: Param<Tensor<2>>,
    /// `[1]`.
    bias: Param<Tensor<1>>,
}

impl Gated {
    /// Puts a gate beside `method` at each of `sites`, where it reads vectors of width
    /// [`Site::d_in`]. `w` starts from `N(0, 0.02)`, `b` from `bias`.
    pub fn new<'s>(
        method: BoxedMethod,
        names: GateNames,
        sites: impl IntoIterator<Item = &'s Site>,
        bias: Option<f64>,
        base: &Base,
        device: &Device,
    ) -> Self {
        let mut gates = vec![None; base.len()];
        for site in sites {
            let d = site.d_in();
            // Where no bias is given, as PyTorch starts a linear layer.
            let bias = match bias {
                Some(bias) => Tensor::full([1], bias, device),
                None => {
                    let bound = 1.0 / (d as f64).sqrt();
                    Tensor::random([1], Distribution::Uniform(-bound, bound), device)
                }
            };
            let weight = Tensor::random([d, 1], Distribution::Normal(0.0, 0.02), device);
            gates[site.index] =
                Some(Gate { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) });
        }
        Self { method, gates, names, probe: None }
    }

    /// `[batch, 1, 1]` at a site for what the method reads there; `None` where there is no gate.
    fn gate(&self, site: &Site, input: &Tensor<3>) -> Option<Tensor<3>> {
        let gate = self.gates.get(site.index)?.as_ref()?;
        let open = sigmoid(linear(input.clone(), gate.weight.val(), Some(gate.bias.val())));
        let open = open.mean_dim(1);
        if let Some(probe) = &self.probe {
            probe.record(site, self.names.peft, open.clone().squeeze_dim(2));
        }
        Some(open)
    }
}

/// `base + gate (full - base)`.
fn between(base: Tensor<3>, full: Tensor<3>, gate: Tensor<3>) -> Tensor<3> {
    base.clone() + (full - base) * gate
}

impl Hooks for Gated {
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.gate(layer.site(), &input) {
            Some(gate) => {
                let base = layer.forward(input.clone());
                between(base, self.method.linear(layer, input), gate)
            }
            None => layer.forward(input),
        }
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.gate(layer.site(), &input) {
            Some(gate) => {
                let base = layer.forward(input.clone());
                between(base, self.method.norm(layer, input), gate)
            }
            None => layer.forward(input),
        }
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.gated_embedding(site, embedded, |method, embedded| method.embed(site, embedded))
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.gated_embedding(site, embedded, |method, embedded| method.layers_input(site, embedded))
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        let Some(gate) = self.gate(site, hidden) else { return states };
        let [batch, _, own, _] = states.key.dims();
        let states = self.method.key_value(site, hidden, states);
        let gate = gate.reshape([batch, 1, 1, 1]);
        let added = states.key.dims()[2] - own;
        let scaled = |states: Tensor<4>| {
            let front = states.clone().narrow(2, 0, added) * gate.clone();
            Tensor::cat(vec![front, states.narrow(2, added, own)], 2)
        };
        KeyValue { key: scaled(states.key), value: scaled(states.value), ..states }
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        let input = || self.method.residual_input(layer, &states);
        if self.gates.get(layer.site().index).is_none_or(Option::is_none) {
            return states;
        }
        let Some(gate) = self.gate(layer.site(), &input()) else { return states };
        let full = self.method.residual(layer, states.clone());
        let output = between(states.output.clone(), full.output, gate.clone());
        let residual = between(states.residual.clone(), full.residual, gate);
        ResidualStates { output, residual, ..states }
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        self.method.residual_input(layer, states)
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        let method = self.method.for_rows(rows)?;
        Some(BoxedMethod::new(Self { method, ..self.clone() }))
    }
}

impl Gated {
    fn gated_embedding(
        &self,
        site: &Site,
        embedded: Embedded,
        apply: impl Fn(&BoxedMethod, Embedded) -> Embedded,
    ) -> Embedded {
        let Some(gate) = self.gate(site, &embedded.hidden) else {
            // Where it acts elsewhere, a method may still say where positions begin.
            let shift = apply(&self.method, embedded.clone()).shift;
            return Embedded { shift, ..embedded };
        };
        let base = embedded.hidden.clone();
        let own = base.dims()[1];
        let full = apply(&self.method, embedded);
        let hidden = full.hidden.clone();
        let added = hidden.dims()[1] - own;
        let hidden = match added {
            0 => between(base, hidden, gate),
            _ => {
                let front = hidden.clone().narrow(1, 0, added) * gate;
                Tensor::cat(vec![front, hidden.narrow(1, added, own)], 1)
            }
        };
        Embedded { hidden, ..full }
    }
}

impl Method for Gated {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        self.method.exchange(file, base);
        for site in base.sites() {
            let Some(gate) = self.gates.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let key = |name: &str| {
                Key::from(site.key(&format!("{}.{name}", self.names.peft)))
                    .hub(format!("{}.{}.{name}", site.path, self.names.hub))
            };
            file.param(key("weight"), &mut gate.weight, Layout::Transposed);
            file.param(key("bias"), &mut gate.bias, Layout::AsIs);
        }
    }

    fn change(&self, _site: &Site) -> Change {
        Change::default()
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("its gates depend on the input".into())
    }

    fn prepare(&mut self, batches: &mut dyn Calibration) {
        self.method.prepare(batches);
    }

    fn penalty(&self) -> Option<Tensor<1>> {
        self.method.penalty()
    }

    fn after_step(&mut self, progress: Progress) {
        self.method.after_step(progress);
    }

    fn finish(&mut self) {
        self.method.finish();
    }

    fn virtual_tokens(&self) -> usize {
        self.method.virtual_tokens()
    }

    fn observe(&mut self, probe: &Probe) {
        self.probe = Some(probe.clone());
        self.method.observe(probe);
    }

    fn lr_factors(&self) -> Vec<(String, f64)> {
        self.method.lr_factors()
    }
}
