//! Tokens by the adapter that they are under.

use burn::tensor::Tensor;

use super::Pass;
use crate::{Route, Rows};

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

impl Pass<'_> {
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
        let cut = route.cut(self.rows);
        let (all, slots) = match &cut {
            Some(cut) => (&cut.rows, &cut.slots),
            None => (self.rows, self.slots),
        };
        let groups = slots.groups(all.len());
        if let [group] = &groups[..] {
            return of(group.slot, Part { all, rows: &group.rows }, self);
        }
        let row = |part: usize| cut.as_ref().map_or(part, |cut| cut.of_rows[part]);
        let parts = groups.iter().map(|group| {
            let rows = all.subset(&group.rows);
            let slots = self.slots.select(group.rows.iter().map(|&part| row(part)));
            of(group.slot, Part { all, rows: &group.rows }, &self.over(&rows, &slots))
        });
        let parts = parts.collect();
        let order: Vec<usize> = groups.into_iter().flat_map(|group| group.rows).collect();
        all.in_order(parts, &order)
    }
}
