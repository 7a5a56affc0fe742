//! How answers of several methods become one.

use super::{Edit, Edits, Gate, NormEdit, Routed, TableEdit, VectorEdit};
use crate::{MemoKey, Route};

/// What a hook answers, as a composite makes one answer of its members'.
///
/// A composite is one choice among these functions; see [`Composite`](crate::compose::Composite).
pub(crate) trait Answer: Sized {
    /// Nothing changes.
    fn nothing() -> Self;

    /// One after another, the first nearest to the base.
    fn stacked(members: Vec<Self>) -> Self;

    /// `Σ wₙ xₙ`.
    fn averaged(members: Vec<(f64, Self)>) -> Self;

    /// Under gates, one for each part of what a site's layer returns.
    fn gated(self, gates: Vec<Gate>) -> Self;

    /// Each for the tokens that a route sends there; what is made of all of them together may be
    /// kept under a key.
    fn routed(members: Vec<Self>, route: &Route, key: MemoKey) -> Self;
}

/// Those that do something one after another; a lone one is itself.
pub(crate) fn stack<A: Default>(
    mut members: Vec<A>,
    does_nothing: impl Fn(&A) -> bool,
    together: impl FnOnce(Vec<A>) -> A,
) -> A {
    members.retain(|member| !does_nothing(member));
    match members.len() {
        0 | 1 => members.pop().unwrap_or_default(),
        _ => together(members),
    }
}

impl Answer for Edits {
    fn nothing() -> Self {
        Self::none()
    }

    fn stacked(members: Vec<Self>) -> Self {
        members.into_iter().reduce(Self::followed_by).unwrap_or_default()
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        if members.iter().all(|(_, edits)| edits.is_none()) {
            return Self::none();
        }
        let no_inverse = members.iter().find_map(|(_, edits)| edits.no_inverse);
        Self { list: vec![Edit::Mean(members)], no_inverse }
    }

    fn gated(self, gates: Vec<Gate>) -> Self {
        if self.is_none() {
            return self;
        }
        // One gate for all that happens, or one for the change of each part of a fused projection.
        match gates.len() {
            1 => gates.into_iter().map(|gate| Edit::Gated(gate, self.clone())).collect(),
            count => {
                assert_eq!(count, self.list.len(), "a gate for each part");
                let parts = gates.into_iter().zip(self.list);
                parts.map(|(gate, edit)| Edit::Gated(gate, Self::from_iter([edit]))).collect()
            }
        }
    }

    fn routed(members: Vec<Self>, route: &Route, key: MemoKey) -> Self {
        match members.iter().all(Self::is_none) {
            true => Self::none(),
            false => [Edit::Routed(Routed::new(members, route.clone(), key))].into_iter().collect(),
        }
    }
}

impl Answer for VectorEdit {
    fn nothing() -> Self {
        Self::Keep
    }

    fn stacked(members: Vec<Self>) -> Self {
        stack(members, Self::is_keep, Self::Stack)
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        match members.iter().all(|(_, edit)| edit.is_keep()) {
            true => Self::Keep,
            false => Self::Mean(members),
        }
    }

    fn gated(self, _gates: Vec<Gate>) -> Self {
        assert!(self.is_keep(), "a gated norm is refused when methods are attached");
        self
    }

    fn routed(members: Vec<Self>, route: &Route, _key: MemoKey) -> Self {
        match members.iter().all(Self::is_keep) {
            true => Self::Keep,
            false => Self::Routed(route.clone(), members),
        }
    }
}

impl Answer for NormEdit {
    fn nothing() -> Self {
        Self::default()
    }

    fn stacked(members: Vec<Self>) -> Self {
        let (gain, bias) = members.into_iter().map(|edit| (edit.gain, edit.bias)).unzip();
        Self { gain: Answer::stacked(gain), bias: Answer::stacked(bias) }
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        let parts = members.into_iter().map(|(w, edit)| ((w, edit.gain), (w, edit.bias)));
        let (gain, bias) = parts.unzip();
        Self { gain: Answer::averaged(gain), bias: Answer::averaged(bias) }
    }

    fn gated(self, gates: Vec<Gate>) -> Self {
        Self { gain: self.gain.gated(gates.clone()), bias: self.bias.gated(gates) }
    }

    fn routed(members: Vec<Self>, route: &Route, key: MemoKey) -> Self {
        let (gain, bias) = members.into_iter().map(|edit| (edit.gain, edit.bias)).unzip();
        Self { gain: Answer::routed(gain, route, key), bias: Answer::routed(bias, route, key) }
    }
}

impl Answer for TableEdit {
    fn nothing() -> Self {
        Self::Keep
    }

    fn stacked(members: Vec<Self>) -> Self {
        stack(members, Self::is_keep, Self::Stack)
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        match members.iter().all(|(_, edit)| edit.is_keep()) {
            true => Self::Keep,
            false => Self::Mean(members),
        }
    }

    fn gated(self, _gates: Vec<Gate>) -> Self {
        assert!(self.is_keep(), "a gated table is refused when methods are attached");
        self
    }

    fn routed(members: Vec<Self>, route: &Route, _key: MemoKey) -> Self {
        match members.iter().all(Self::is_keep) {
            true => Self::Keep,
            false => Self::Routed(route.clone(), members),
        }
    }
}
