//! Keys and values of the tokens that a decoder has seen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use burn::tensor::{Bool, Int, Tensor, TensorData};
use peft_core::{BoxedMethod, Hooks, KeyValue, Site};

/// Keys and values of the tokens that a decoder has seen, so that for the next ones nothing is
/// computed again.
///
/// The first pass with a cache fills it with a text, and with what methods put before it; each later
/// one is given the new tokens alone, and returns the output for them. A cache serves one batch,
/// under the method that filled it; rows that are selected keep what their method is. Of an
/// encoder-decoder it also keeps what the decoder needs of the encoder, which runs once.
///
/// ```no_run
/// # use peft_models::{Cache, Model, ModelInput, Pass};
/// # fn next(model: &Model, prompt: ModelInput, token: ModelInput) -> peft_models::Result<()> {
/// let cache = Cache::new();
/// let pass = Pass::inference(&()).with_cache(&cache);
/// let logits = model.forward(&prompt, pass)?;
/// let logits_of_the_next = model.forward(&token, pass)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Cache {
    /// By [`Site::index`] of the attention.
    states: RefCell<BTreeMap<usize, KeyValue>>,
    seen: Cell<usize>,
    /// By row of the batch, the position of the next token.
    next: RefCell<Vec<usize>>,
    /// By row, which one of the first pass it was; `None` where no others were selected.
    rows: RefCell<Option<Vec<usize>>>,
}

impl Cache {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Positions in each row, those of virtual tokens and padding included.
    pub fn len(&self) -> usize {
        self.seen.get()
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps these rows of the batch, in this order; one may be there several times.
    ///
    /// # Panics
    /// If a row is outside the batch, or a method repeated the batch.
    pub fn select(&self, rows: &[usize]) {
        let mut next = self.next.borrow_mut();
        let batch = next.len();
        *next = rows.iter().map(|row| next[*row]).collect();
        let first = self.rows.take();
        let of_first = |row: &usize| first.as_ref().map_or(*row, |first| first[*row]);
        self.rows.replace(Some(rows.iter().map(of_first).collect()));
        let indices: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        for states in self.states.borrow_mut().values_mut() {
            assert_eq!(states.key.dims()[0], batch, "a method repeated the batch");
            let device = states.key.device().without_autodiff();
            let data = TensorData::new(indices.clone(), [rows.len()]);
            let indices = Tensor::<1, Int>::from_data(data, &device);
            states.key = states.key.clone().select(0, indices.clone());
            states.value = states.value.clone().select(0, indices.clone());
            states.mask = states.mask.take().map(|mask| mask.int().select(0, indices).bool());
            if !states.filled.is_empty() {
                states.filled = rows.iter().map(|row| states.filled[*row]).collect();
            }
        }
    }

    /// The method for the rows that are here, where it is not `hooks` itself.
    pub(crate) fn method(&self, hooks: &dyn Hooks) -> Option<BoxedMethod> {
        hooks.for_rows(self.rows.borrow().as_ref()?)
    }

    /// By row, the position of the next token.
    pub(crate) fn next(&self) -> Vec<usize> {
        self.next.borrow().clone()
    }

    /// Notes that `tokens` more positions have been seen, and what is next.
    pub(crate) fn advance(&self, tokens: usize, next: Vec<usize>) {
        self.seen.set(self.seen.get() + tokens);
        self.next.replace(next);
    }

    /// What is kept for an attention.
    pub(crate) fn kept(&self, site: &Site) -> Option<KeyValue> {
        self.states.borrow().get(&site.index).cloned()
    }

    /// What is kept for an attention, with `new` behind it. Where there is nothing yet, `begin` says
    /// what goes before the text.
    pub(crate) fn extend(
        &self,
        site: &Site,
        new: KeyValue,
        begin: impl FnOnce(KeyValue) -> KeyValue,
    ) -> KeyValue {
        let states = match self.kept(site) {
            Some(kept) => joined(kept, new),
            None => begin(new),
        };
        self.states.borrow_mut().insert(site.index, states.clone());
        states
    }
}

fn joined(kept: KeyValue, new: KeyValue) -> KeyValue {
    let full = |states: &KeyValue| -> Tensor<2, Bool> {
        let [batch, _, positions, _] = states.key.dims();
        let all = || Tensor::ones([batch, positions], &states.key.device().without_autodiff());
        states.mask.clone().unwrap_or_else(all)
    };
    let mask = (kept.mask.is_some() || new.mask.is_some())
        .then(|| Tensor::cat(vec![full(&kept), full(&new)], 1));
    KeyValue {
        key: Tensor::cat(vec![kept.key, new.key], 2),
        value: Tensor::cat(vec![kept.value, new.value], 2),
        mask,
        filled: kept.filled,
    }
}
