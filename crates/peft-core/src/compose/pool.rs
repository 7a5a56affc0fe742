//! Many adapters over one base.

use burn::module::{Module, ParamId};

use super::Composite;
use crate::edit::Answer;
use crate::{BoxedMethod, Hooks, MemoKey, Pass, Route, Site, Slots, Stage, Tokens};

/// Adapters of one base in slots. Each row of a batch is under the adapter of the slot that the
/// pass's [`Slots`](crate::Slots) name for it, or under none; adapters may be of any methods, and
/// have their heads with them.
///
/// In a mixed batch the product with a frozen weight runs once for all rows, and the low-rank parts
/// of all slots run as one segmented product beside it; what else a method does runs on its rows.
/// Where methods lengthen texts, each row gets longer by what its own adapter adds. An adapter that has
/// [several tasks](crate::Slots) is under the first of them here.
#[derive(Module, Debug)]
pub struct AdapterPool {
    slots: Vec<BoxedMethod>,
    /// Changes with every change of a slot: what was kept of earlier ones is not found again.
    #[module(skip)]
    generation: ParamId,
}

impl AdapterPool {
    /// A pool of these adapters; the first is in slot 0.
    pub fn new(adapters: Vec<BoxedMethod>) -> Self {
        Self { slots: adapters, generation: ParamId::new() }
    }

    /// The number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds an adapter, and returns its slot.
    pub fn insert(&mut self, adapter: BoxedMethod) -> usize {
        self.generation = ParamId::new();
        self.slots.push(adapter);
        self.slots.len() - 1
    }

    /// Puts another adapter in a slot, and returns the one that was there.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn replace(&mut self, slot: usize, adapter: BoxedMethod) -> BoxedMethod {
        self.generation = ParamId::new();
        std::mem::replace(&mut self.slots[slot], adapter)
    }
}

impl Composite for AdapterPool {
    fn members(&self) -> &[BoxedMethod] {
        &self.slots
    }
    fn members_mut(&mut self) -> &mut [BoxedMethod] {
        &mut self.slots
    }
    fn answer<'a, A: Answer>(
        &'a self,
        site: &Site,
        pass: &Pass<'_>,
        of: impl Fn(&'a BoxedMethod) -> A,
    ) -> A {
        // All rows under one adapter are a batch under that adapter.
        match pass.slots.only(pass.rows.len()) {
            Some(Some(slot)) => return of(&self.slots[slot]),
            Some(None) => return A::nothing(),
            None => {}
        }
        let key = MemoKey { of: self.generation, name: "slots", site: Some(site.index) };
        A::routed(self.slots.iter().map(of).collect(), &Route::Rows, key)
    }
    fn through(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        tokens.by_slot(pass, |slot, own, sub| match slot {
            Some(slot) => self.slots[slot].tokens(stage, site, own, &self.inside(sub)),
            None => own,
        })
    }
    /// A row is under one adapter, of which the slots say no more.
    fn inside<'p>(&self, pass: &Pass<'p>) -> Pass<'p> {
        pass.over(pass.rows, Slots::none())
    }
    fn own_obstacle(&self) -> Option<&'static str> {
        Some("rows of a batch have different adapters")
    }
}
