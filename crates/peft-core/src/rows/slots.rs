//! Which adapter each row is under.

/// Which adapter of an [`AdapterPool`](crate::AdapterPool), or none, each row of a batch is under.
///
/// A model under one method needs none: the default names no row, and says nothing. To a method that has
/// several tasks, outside of a pool, they say which of them a row is of; where they say nothing, each is
/// of the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(Vec<Option<usize>>);

/// Rows under the same adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The adapter; `None` for the base.
    pub(crate) slot: Option<usize>,
    /// Its rows, in their order.
    pub(crate) rows: Vec<usize>,
}

/// Those that say nothing.
static NONE: Slots = Slots(Vec::new());

impl Slots {
    /// Those that say nothing, to be lent.
    pub(crate) fn none() -> &'static Self {
        &NONE
    }

    /// `rows[i]` is the slot of row `i`; `None` for the base model.
    pub fn new(rows: Vec<Option<usize>>) -> Self {
        Self(rows)
    }

    /// Every one of `rows` rows under the same slot.
    pub fn all(slot: Option<usize>, rows: usize) -> Self {
        Self(vec![slot; rows])
    }

    /// The slots of some rows, in this order.
    ///
    /// # Panics
    /// If slots are named and there is no such row.
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        match self.0.is_empty() {
            true => Self::default(),
            false => Self(rows.into_iter().map(|row| self.0[row]).collect()),
        }
    }

    /// By row; empty where no row is named.
    pub fn as_slice(&self) -> &[Option<usize>] {
        &self.0
    }

    /// Whether rows are under different ones.
    pub(crate) fn are_several(&self) -> bool {
        self.0.windows(2).any(|pair| pair[0] != pair[1])
    }

    /// The slot of all of `rows` rows, where they are under the same; `None` where they are not, or
    /// not as many are named.
    pub(crate) fn only(&self, rows: usize) -> Option<Option<usize>> {
        let first = self.0.first()?;
        (self.0.len() == rows && self.0.iter().all(|slot| slot == first)).then_some(*first)
    }

    /// The slot of each of `rows` rows.
    ///
    /// # Panics
    /// If there are not `rows` rows.
    pub(crate) fn of_each(&self, rows: usize) -> &[Option<usize>] {
        let named = self.0.len();
        assert_eq!(named, rows, "a batch of {rows} rows, and slots for {named}");
        &self.0
    }

    /// The rows of each slot that has any, in the order of their first rows.
    ///
    /// # Panics
    /// If there are not `rows` rows.
    pub(crate) fn groups(&self, rows: usize) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (row, &slot) in self.of_each(rows).iter().enumerate() {
            match groups.iter_mut().find(|group| group.slot == slot) {
                Some(group) => group.rows.push(row),
                None => groups.push(Group { slot, rows: vec![row] }),
            }
        }
        groups
    }
}
