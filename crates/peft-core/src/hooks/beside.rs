//! Networks beside the layers.

use std::fmt::Debug;

use burn::tensor::{Tensor, TensorData};

use crate::edit::{Answer, Gate};
use crate::{Hooks, MemoKey, Pass, Route};

/// A narrow copy of a stack of layers that runs beside it, reads what each of its layers returns, and
/// makes another output of that (ladder side-tuning, Sung et al. 2022, arXiv 2206.06522).
///
/// The model runs it with the code of its own layers, at [`AttentionHeads::narrowed`] heads: causal
/// masks, positions, caches and encoders are the model's. What its layers compute with is what its own
/// [hooks](Hooks::linear) say of the sites of the stack: a weight, a bias and a norm of the narrow
/// width `d'` in the place of each frozen one.
///
/// `z₀ = enter(embeddings)`, `z ← layer(mix(layer, z, h))` for each layer that it has, and behind the
/// stack's norm, which is another of the network's own, `leave(z, h)`. In a model with an encoder and a
/// decoder there is a network for each, and the layers of the second look at what the first returns.
///
/// [`AttentionHeads::narrowed`]: crate::AttentionHeads::narrowed
pub trait SideNetwork: Hooks {
    /// By how much it is narrower than the stack.
    fn reduction(&self) -> usize;

    /// What enters it, `[tokens, d']`, of what enters the stack's first layer, `[tokens, d]`.
    fn enter(&self, embedded: Tensor<2>) -> Tensor<2>;

    /// What enters its layer with this [number](crate::Site::layer), `[tokens, d']`, of its states so far and
    /// of what the stack's layer returns, `[tokens, d]`. `None` where it has no such layer.
    fn mix(&self, layer: usize, side: &Tensor<2>, states: &Tensor<2>) -> Option<Tensor<2>>;

    /// What the head is given, `[tokens, d]`, of its last states, `[tokens, d']`, and of what the head would
    /// be given without it. It is asked of the network of a decoder, or of the only stack.
    fn leave(&self, side: Tensor<2>, states: Tensor<2>) -> Tensor<2>;
}

/// What a method does beside the layers of a stack.
#[derive(Debug, Default)]
pub struct SideNetworks<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug)]
struct Part<'a> {
    network: Box<dyn SideNetwork + 'a>,
    weight: f64,
    /// The rows that it is for; all without one.
    slot: Option<usize>,
}

impl<'a> SideNetworks<'a> {
    /// A network.
    pub fn of(network: impl SideNetwork + 'a) -> Self {
        Self { parts: vec![Part { network: Box::new(network), weight: 1.0, slot: None }] }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.parts.is_empty()
    }

    /// The networks. Each runs over all rows.
    pub fn networks(&self) -> impl Iterator<Item = &(dyn SideNetwork + 'a)> {
        self.parts.iter().map(|part| &*part.network)
    }

    /// What the head is given, `[tokens, d]`: `h + Σ w (leave(z, h) - h)` of the last states of each
    /// network, in rows under the adapter that it is of; with one network for all rows, what that says.
    ///
    /// # Panics
    /// If there are not as many states as networks.
    pub fn leave(&self, sides: Vec<Tensor<2>>, states: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        assert_eq!(sides.len(), self.parts.len(), "the last states of each network");
        let mut left = self.parts.iter().zip(sides);
        if let [Part { weight: 1.0, slot: None, .. }] = &self.parts[..] {
            let (only, side) = left.next().expect("one network");
            return only.network.leave(side, states);
        }
        left.fold(states.clone(), |sum, (part, side)| {
            let change = part.network.leave(side, states.clone()) - states.clone();
            let change = match part.slot {
                Some(slot) => change * in_slot(slot, pass),
                None => change,
            };
            sum + change * part.weight
        })
    }
}

/// 1 at the tokens of rows in a slot and 0 at the others, `[tokens, 1]`.
fn in_slot(slot: usize, pass: &Pass<'_>) -> Tensor<2> {
    let of_rows = pass.slots.of_each(pass.rows.len()).iter();
    let values: Vec<f32> = of_rows.map(|own| if *own == Some(slot) { 1.0 } else { 0.0 }).collect();
    let data = TensorData::new(values, [pass.rows.len(), 1]);
    pass.rows.spread(Tensor::from_data(data, pass.rows.device()))
}

impl Answer for SideNetworks<'_> {
    fn nothing() -> Self {
        Self::default()
    }

    fn stacked(members: Vec<Self>) -> Self {
        Self { parts: members.into_iter().flat_map(|member| member.parts).collect() }
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        let weighted = members.into_iter().flat_map(|(share, member)| {
            member.parts.into_iter().map(move |part| Part { weight: part.weight * share, ..part })
        });
        Self { parts: weighted.collect() }
    }

    fn gated(self, _gates: Vec<Gate>) -> Self {
        assert!(self.is_none(), "a gated network is refused when methods are attached");
        self
    }

    fn routed(members: Vec<Self>, route: &Route, _key: MemoKey) -> Self {
        let is_any = members.iter().any(|member| !member.is_none());
        assert!(
            !is_any || *route == Route::Rows,
            "the tokens of a row see each other; refused before"
        );
        let of_slots = members.into_iter().enumerate().flat_map(|(slot, member)| {
            member.parts.into_iter().map(move |part| Part { slot: Some(slot), ..part })
        });
        Self { parts: of_slots.collect() }
    }
}
