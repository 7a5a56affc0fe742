//! Tokens by the adapter that they are under.

use std::rc::Rc;

use burn::tensor::Tensor;

use super::Pass;
use crate::rows::Cut;
use crate::{Route, Rows, Slots};

/// The rows of a pass, or the parts that a route cuts them into, each under one adapter.
pub(crate) struct Parts<'p> {
    pass: Pass<'p>,
    cut: Option<Rc<Cut>>,
}

impl Parts<'_> {
    pub(crate) fn rows(&self) -> &Rows {
        self.cut.as_ref().map_or(self.pass.rows, |cut| &cut.rows)
    }

    /// Which adapter each is under.
    pub(crate) fn slots(&self) -> &Slots {
        self.cut.as_ref().map_or(self.pass.slots, |cut| &cut.slots)
    }

    /// The row that a part is of.
    fn row(&self, part: usize) -> usize {
        self.cut.as_ref().map_or(part, |cut| cut.of_rows[part])
    }
}

/// The tokens of a batch that are under one adapter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// The batch, in rows each of which is under one adapter.
    all: &'a Rows,
    /// Those of this adapter.
    rows: &'a [usize],
}

impl Part<'_> {
    /// Its tokens, from `[tokens, d]` of the batch.
    pub(crate) fn take(&self, tensor: &Tensor<2>) -> Tensor<2> {
        self.all.take(tensor.clone(), self.rows)
    }

    /// The places of its tokens in the batch.
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().flat_map(|&row| self.all.start(row)..self.all.start(row + 1))
    }
}

impl<'p> Pass<'p> {
    /// Its rows, as a route cuts them.
    pub(crate) fn parts(&self, route: &Route) -> Parts<'p> {
        Parts { pass: *self, cut: self.rows.cut(route) }
    }

    /// What `of` makes of the tokens under each adapter, `[tokens of this part, n]`, put together in
    /// the order of the batch. It is given the adapter's number, its tokens, and the pass over them.
    ///
    /// # Panics
    /// If a row names no slot.
    pub(crate) fn routed(
        &self,
        route: &Route,
        mut of: impl FnMut(Option<usize>, Part<'_>, &Pass<'_>) -> Tensor<2>,
    ) -> Tensor<2> {
        let parts = self.parts(route);
        let (all, slots) = (parts.rows(), parts.slots());
        let groups = slots.groups(all.len());
        if let [group] = &groups[..] {
            return of(group.slot, Part { all, rows: &group.rows }, self);
        }
        let made = groups.iter().map(|group| {
            let rows = all.subset(&group.rows);
            let slots = self.slots.select(group.rows.iter().map(|&part| parts.row(part)));
            of(group.slot, Part { all, rows: &group.rows }, &self.over(&rows, &slots))
        });
        let made = made.collect();
        let order: Vec<usize> = groups.into_iter().flat_map(|group| group.rows).collect();
        all.in_order(made, &order)
    }
}
