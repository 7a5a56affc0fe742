//! What is computed once.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use burn::module::ParamId;

/// What a value in a [`Memo`] is a function of: a parameter, and which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoKey {
    /// The parameter, or one of several that always go together.
    pub of: ParamId,
    /// Which function of it, and of frozen tensors.
    pub name: &'static str,
    /// Where the value differs by site, its index.
    pub site: Option<usize>,
}

/// What is computed once from a method's parameters and asked for at many sites: a prefix table, a
/// shared rule, DoRA's norms.
///
/// It is good for as long as no parameter changes: for one step in training, for a whole generation
/// or evaluation otherwise. What depends on the tokens does not belong here.
#[derive(Debug, Default)]
pub struct Memo {
    values: RefCell<HashMap<MemoKey, Box<dyn Any>>>,
    /// How many random draws there were before each value was first computed.
    began: Rc<RefCell<HashMap<MemoKey, u64>>>,
    draws: Rc<Cell<u64>>,
}

impl Memo {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value under a key, computed where it is not there yet.
    ///
    /// # Panics
    /// If a value of another type was kept under the key.
    pub fn get<T: Clone + 'static>(&self, key: MemoKey, compute: impl FnOnce() -> T) -> T {
        if let Some(known) = self.values.borrow().get(&key) {
            return known.downcast_ref::<T>().expect("one type under one key").clone();
        }
        // One that is computed again, in a memo of another part, draws what it drew before.
        let here = self.draws.get();
        let began = *self.began.borrow_mut().entry(key).or_insert(here);
        self.draws.set(began);
        // Not while the map is borrowed: a value may be computed from another one.
        let value = compute();
        if began < here {
            self.draws.set(here);
        }
        self.values.borrow_mut().insert(key, Box::new(value.clone()));
        value
    }

    /// A memo for another part of the same pass: it goes on with the random draws of this one, and
    /// shares no value with it, whose tape may be used up by then.
    pub fn apart(&self) -> Self {
        let (began, draws) = (self.began.clone(), self.draws.clone());
        Self { values: RefCell::default(), began, draws }
    }

    /// A memo for a part of the pass that is computed again, which began after so many random
    /// [draws](Self::draws).
    pub fn again(&self, draws: u64) -> Self {
        Self { draws: Rc::new(Cell::new(draws)), ..self.apart() }
    }

    /// The number of random draws so far.
    pub fn draws(&self) -> u64 {
        self.draws.get()
    }

    /// The number of the next random draw.
    pub(super) fn next_draw(&self) -> u64 {
        self.draws.replace(self.draws.get() + 1)
    }
}
