//! Rows by the adapter that they are under.

use burn::tensor::Tensor;

use super::Pass;

impl Pass<'_> {
    /// What `of` makes of the rows of each slot, `[tokens of these rows, n]`, put together in the
    /// order of the batch. It is given the slot, its rows, and the pass over them.
    ///
    /// # Panics
    /// If a row names no slot.
    pub(crate) fn by_slot(
        &self,
        mut of: impl FnMut(Option<usize>, &[usize], &Pass<'_>) -> Tensor<2>,
    ) -> Tensor<2> {
        let groups = self.slots.groups(self.rows.len());
        if let [group] = &groups[..] {
            return of(group.slot, &group.rows, self);
        }
        let parts = groups.iter().map(|group| {
            let rows = self.rows.subset(&group.rows);
            let slots = self.slots.select(group.rows.iter().copied());
            of(group.slot, &group.rows, &self.over(&rows, &slots))
        });
        let parts = parts.collect();
        let order: Vec<usize> = groups.into_iter().flat_map(|group| group.rows).collect();
        self.rows.in_order(parts, &order)
    }
}
