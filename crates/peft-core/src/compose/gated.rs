//! A learned gate beside a method.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};

use super::Composite;
use crate::edit::{Answer, Gate, GateOn};
use crate::{
    Base, BoxedMethod, EmptyPass, Error, Exchange, Hooks, InitContext, Insert, Key, Layout, Pass,
    Result, Site, SiteKind, Stage, Tokens,
};

/// The gates of a method: how they are called in a file, what they multiply, and how they start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateKind {
    /// The name after the site's path: `lora_gate`.
    pub peft: &'static str,
    /// The same in adapter-hub/adapters' files, where `{}` is the adapter's name: `loras.{}.gate`.
    pub adapters: &'static str,
    /// What they multiply of a linear layer.
    pub on: GateOn,
    /// Where `b` starts; without it, as PyTorch starts a linear layer.
    pub bias: Option<f64>,
}

/// A method whose effect is scaled by a learned gate at each of its sites, one value per example
/// (UniPELT, Mao et al. 2022, arXiv 2110.07577, §3.2):
///
/// `y = f(x) + g (f'(x) - f(x))`, `g = meanₜ σ(xₜ w + b)`,
///
/// where `f` is the model, `f'` the model under the method, and `x` (`[tokens, d]`) what the method
/// reads. The mean runs over all positions of the batch, padding included, as in the reference.
/// Keys and values that a method puts before the text are scaled by `g` themselves, and so are the
/// outputs of a linear layer under gates [on the output](GateOn::Output). At the end of a sublayer
/// it is the [update](crate::SublayerFunction::update) that is scaled. What a method does to the
/// embeddings has no gate.
///
/// It cannot be merged, as `g` depends on the input.
#[derive(Module, Debug)]
pub struct Gated {
    methods: Vec<BoxedMethod>,
    /// By [`Site::index`].
    gates: Vec<Option<Gates>>,
    #[module(skip)]
    kind: GateKind,
}

/// The gates at one site: one, or one for each part of what the method does there.
#[derive(Module, Debug)]
struct Gates {
    /// `[d, gates]`.
    weight: Param<Tensor<2>>,
    /// `[gates]`.
    bias: Param<Tensor<1>>,
}

impl Gated {
    /// Puts gates beside a method, which comes with its name, at each of `sites`, where it reads
    /// vectors of width [`Site::d_in`]: as many as the number beside it says, which is one, one for
    /// each edit of a linear layer, or two at an attention, for keys and for values. `w` starts from
    /// `N(0, 0.02)`.
    ///
    /// # Errors
    /// If the method acts where there is no gate, at a norm or an embedding above all, or has other
    /// parts at a site than there are gates.
    pub fn new<'s>(
        (name, method): (&str, BoxedMethod),
        kind: GateKind,
        sites: impl IntoIterator<Item = (&'s Site, usize)>,
        context: &InitContext<'_>,
    ) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let mut gates = vec![None; base.len()];
        let mut counts = vec![0; base.len()];
        for (site, count) in sites {
            let d = site.d_in();
            let bias = match kind.bias {
                Some(bias) => Tensor::full([count], bias, device),
                None => {
                    let bound = 1.0 / (d as f64).sqrt();
                    context.random([count], Distribution::Uniform(-bound, bound))
                }
            };
            let weight = context.random([d, count], Distribution::Normal(0.0, 0.02));
            gates[site.index] =
                Some(Gates { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias) });
            counts[site.index] = count;
        }
        let parts = EmptyPass::new(base.device());
        let pass = &parts.pass();
        let refused = base.sites().find_map(|site| {
            let reason = refuses(&method, site, counts[site.index], pass)?;
            Some((site, reason))
        });
        if let Some((site, reason)) = refused {
            return Err(Error::Compose {
                composition: "gate".into(),
                methods: name.into(),
                reason: format!("{name} acts at {}, {reason}", site.path),
            });
        }
        Ok(Self { methods: vec![method], gates, kind })
    }

    /// The gates at a site.
    fn at(&self, site: &Site) -> Option<Vec<Gate>> {
        let gates = self.gates.get(site.index)?.as_ref()?;
        let (weight, bias) = (gates.weight.val(), gates.bias.val());
        let [count] = bias.dims();
        let one = |number: usize| Gate {
            weight: weight.clone().narrow(1, number, 1),
            bias: bias.clone().narrow(0, number, 1),
            on: self.kind.on,
            name: match count {
                1 => self.kind.peft.into(),
                _ => format!("{}.{number}", self.kind.peft),
            },
        };
        Some((0..count).map(one).collect())
    }
}

/// Why a method cannot act at a site that has `count` gates.
fn refuses(method: &BoxedMethod, site: &Site, count: usize, pass: &Pass<'_>) -> Option<String> {
    if !method.beside(site, pass).is_none() {
        return Some("with a network beside the layers, where there is no gate".into());
    }
    let (acts, parts) = match site.kind {
        SiteKind::Norm => (!method.norm(site, pass).is_none(), 0),
        SiteKind::Embedding => (!method.table(site, pass).is_keep(), 0),
        SiteKind::Linear => {
            let edits = method.linear(site, pass);
            (!edits.is_none(), edits.iter().count())
        }
        SiteKind::Attention => {
            let keys = method.attention(site, pass);
            if keys.is_gated() {
                return Some("where it has a gate already".into());
            }
            if keys.has_beside() {
                return Some("with a prompt that has a gate of its own".into());
            }
            // One for both, or one for keys and one for values.
            (!keys.is_none(), 2)
        }
        SiteKind::Sublayer => (!matches!(method.sublayer(site, pass), Insert::None), 1),
    };
    match (acts, count) {
        (false, _) => None,
        (true, 0) => Some("where there is no gate".into()),
        (true, _) if parts == 0 => Some("which a gate cannot scale".into()),
        // One gate for all parts, or one for each.
        (true, 1) => None,
        (true, _) if count == parts => None,
        (true, _) => Some(format!("where its parts are {parts} and its gates {count}")),
    }
}

impl Composite for Gated {
    fn members(&self) -> &[BoxedMethod] {
        &self.methods
    }
    fn members_mut(&mut self) -> &mut [BoxedMethod] {
        &mut self.methods
    }
    fn answer<'a, A: Answer>(
        &'a self,
        site: &Site,
        _pass: &Pass<'_>,
        of: impl Fn(&'a BoxedMethod) -> A,
    ) -> A {
        match self.at(site) {
            Some(gates) => of(&self.methods[0]).gated(gates),
            None => A::nothing(),
        }
    }
    fn through(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        // Where positions begin is no change that a gate could scale.
        self.methods[0].tokens(stage, site, tokens, pass)
    }
    fn exchange_own(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(gates) = self.gates.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let key = |name: &str| {
                Key::from(site.key(&format!("{}.{name}", self.kind.peft)))
                    .adapters(format!("{}.{}.{name}", site.path, self.kind.adapters))
            };
            file.param(key("weight"), &mut gates.weight, Layout::Transposed);
            file.param(key("bias"), &mut gates.bias, Layout::AsIs);
        }
    }
    fn own_obstacle(&self) -> Option<&'static str> {
        Some("its gates depend on the input")
    }
    fn reads_padding(&self) -> bool {
        true
    }
}
