//! Each token under the edits of its adapter, with one product of the base.

use burn::tensor::Tensor;
use peft_kernels::Segment;

use super::apply::{Chain, forward, inputs, over};
use super::{Edit, Edits, LinearLayer, LowRank};
use crate::{MemoKey, Pass, Route};

/// Each token under the edits of its adapter. The product with the frozen weight runs once for all
/// tokens; low-rank parts of all adapters run as one segmented product beside it.
#[derive(Debug, Clone)]
pub struct Routed {
    /// By adapter.
    members: Vec<Edits>,
    /// Which tokens are whose.
    route: Route,
    /// Under which the factors of all slots, side by side, are kept.
    key: MemoKey,
}

impl Routed {
    /// The edits of each adapter; what is made of all of them together is kept under `key`.
    pub fn new(members: Vec<Edits>, route: Route, key: MemoKey) -> Self {
        Self { members, route, key }
    }

    /// By slot.
    pub(super) fn members(&self) -> &[Edits] {
        &self.members
    }

    /// The edits of a slot; none for the base.
    ///
    /// # Panics
    /// If there is no such slot.
    fn of(&self, slot: Option<usize>) -> impl Iterator<Item = &Edit> {
        slot.into_iter().flat_map(|slot| self.members[slot].iter())
    }

    pub(super) fn is_additive(&self) -> bool {
        self.members.iter().all(Edits::is_additive)
    }

    pub(super) fn input(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        if self.is_additive() {
            return x;
        }
        pass.routed(&self.route, |slot, part, sub| {
            let edits: Vec<&Edit> = self.of(slot).collect();
            inputs(&edits, part.take(&x), sub).pop().expect("an input for the product")
        })
    }

    /// What is added to the output, where that is all that any slot does.
    pub(super) fn added(
        &self,
        layer: &LinearLayer<'_>,
        x: &Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        if let Some(added) = self.segmented(layer, x, pass) {
            return added;
        }
        pass.routed(&self.route, |slot, part, sub| {
            let x = part.take(x);
            let added = slot.and_then(|slot| self.members[slot].added(layer, &x, sub));
            added.unwrap_or_else(|| Tensor::zeros([x.dims()[0], layer.site.d_out()], &x.device()))
        })
    }

    /// The output with what is added, where that is all that any slot does.
    pub(super) fn over_output(
        &self,
        layer: &LinearLayer<'_>,
        x: &Tensor<2>,
        y: Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        if let Some(factors) = self.factors(layer, pass) {
            let count = factors.a.dims()[0];
            let parts = pass.parts(&self.route);
            let (rows, slots) = (parts.rows(), parts.slots());
            let slots = slots.of_each(rows.len()).iter().enumerate();
            let segments = slots.map(|(row, slot)| Segment {
                rows: rows.start(row)..rows.start(row + 1),
                factors: slot.filter(|slot| slot + 1 < count),
            });
            let segments: Vec<Segment> = segments.collect();
            let sum = peft_kernels::segmented(&y, x, [&factors.a, &factors.b], &segments);
            if let Some(sum) = sum {
                return sum;
            }
        }
        y + self.added(layer, x, pass)
    }

    pub(super) fn output(
        &self,
        below: &Chain<'_>,
        layer: &LinearLayer<'_>,
        x: Tensor<2>,
        y: Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        pass.routed(&self.route, |slot, part, sub| {
            let edits: Vec<&Edit> = self.of(slot).collect();
            let x = part.take(&x);
            let chain = over(below, edits.iter().copied());
            if edits.iter().any(|edit| matches!(edit, Edit::Weight(_))) {
                // Another weight is another product.
                return forward(&chain, layer, x, sub);
            }
            let mut inputs = inputs(&edits, x, sub);
            inputs.pop();
            let mut y = part.take(&y);
            for (number, edit) in edits.iter().enumerate() {
                let x = inputs.pop().expect("an input for each edit");
                y = edit.output(&chain[..below.len() + number], layer, x, y, sub);
            }
            y
        })
    }

    /// The factors of all slots; `None` where a slot does anything else.
    fn factors(&self, layer: &LinearLayer<'_>, pass: &Pass<'_>) -> Option<Factors> {
        let factors = self.members.iter().map(only_factors).collect::<Option<Vec<_>>>()?;
        let dropped = factors.iter().flatten().any(|factors| factors.dropout > 0.0);
        let rank = factors.iter().flatten().map(|factors| factors.rank()).max()?;
        if pass.mode.is_training() && dropped {
            return None;
        }
        let stacked = || Factors::stacked(&factors, layer.site.shape, rank);
        Some(pass.memo.get(self.key, stacked))
    }

    /// `s (x A) B` of every row with the factors of its slot as two batched products; `None` where a
    /// slot does anything else.
    fn segmented(
        &self,
        layer: &LinearLayer<'_>,
        x: &Tensor<2>,
        pass: &Pass<'_>,
    ) -> Option<Tensor<2>> {
        let factors = self.factors(layer, pass)?;
        let parts = pass.parts(&self.route);
        let segments = parts.rows().segments(parts.slots());
        let Factors { a, b } = factors.of(segments.slots());
        let inner = segments.apart(x.clone()).matmul(a);
        Some(segments.together(inner.matmul(b)))
    }
}

/// The factors, where a slot does nothing else at a site; `None` in it where it does nothing.
fn only_factors(edits: &Edits) -> Option<Option<&LowRank>> {
    match &edits.list[..] {
        [] => Some(None),
        [Edit::LowRank(factors)] if factors.columns.is_none() && factors.bias.is_none() => {
            Some(Some(factors))
        }
        _ => None,
    }
}

/// The factors of all slots, and behind them zeros for rows under none.
#[derive(Debug, Clone)]
struct Factors {
    /// `[slots + 1, d_in, r]`, the scale in it; smaller ranks are filled up.
    a: Tensor<3>,
    /// `[slots + 1, r, d_out]`.
    b: Tensor<3>,
}

impl Factors {
    fn stacked(factors: &[Option<&LowRank>], [d_in, d_out]: [usize; 2], rank: usize) -> Self {
        let device = factors.iter().flatten().next().expect("a slot has factors").a.device();
        let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &device);
        let filled = |factor: Tensor<2>, axis: usize, mut shape: [usize; 2]| {
            shape[axis] -= factor.dims()[axis];
            match shape[axis] {
                0 => factor,
                _ => Tensor::cat(vec![factor, zeros(shape)], axis),
            }
        };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for factors in factors.iter().copied().chain([None]) {
            let [one, other] = match factors {
                Some(f) => [f.a.clone() * f.scale, f.b.clone()],
                None => [zeros([d_in, rank]), zeros([rank, d_out])],
            };
            a.push(filled(one, 1, [d_in, rank]));
            b.push(filled(other, 0, [rank, d_out]));
        }
        Self { a: Tensor::stack(a, 0), b: Tensor::stack(b, 0) }
    }

    /// Those of some slots, in this order.
    fn of(self, slots: &[Option<usize>]) -> Self {
        let [count, ..] = self.a.dims();
        let wanted: Vec<usize> = slots.iter().map(|slot| slot.unwrap_or(count - 1)).collect();
        if wanted.iter().copied().eq(0..count) {
            return self;
        }
        if wanted.iter().copied().eq(0..wanted.len()) {
            let n = wanted.len();
            return Self { a: self.a.narrow(0, 0, n), b: self.b.narrow(0, 0, n) };
        }
        let index = crate::rows::ints(wanted, &self.a.device().without_autodiff());
        Self { a: self.a.select(0, index.clone()), b: self.b.select(0, index) }
    }
}
