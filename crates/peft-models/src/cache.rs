//! Keys and values of the tokens that a decoder has seen.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use peft_core::{Rows, Site, Words};

use crate::blocks::KeyPlaces;

/// Keys and values of the tokens that a decoder has seen, so that for the next ones nothing is
/// computed again.
///
/// The first pass with a cache fills it with a text, and with what methods put before it; each later
/// one is given the new tokens alone, and returns the output for them. A cache serves one batch,
/// under the method that filled it, each row under the adapter that it had. Of an encoder-decoder it
/// also keeps what the decoder needs of the encoder, which runs once.
///
/// A token is written in its place: room is made ahead, so that nothing is copied for it.
///
/// ```no_run
/// # use peft_models::{Cache, Forward, Model, ModelInput};
/// # fn next(model: &Model, prompt: ModelInput, token: ModelInput) -> peft_models::Result<()> {
/// let cache = Cache::new();
/// let run = Forward::infer(&()).with_cache(&cache);
/// let logits = model.forward(&prompt, run)?;
/// let logits_of_the_next = model.forward(&token, run)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Cache {
    /// By [`Site::index`] of the attention.
    states: RefCell<BTreeMap<usize, Kept>>,
    /// By row of the batch.
    rows: RefCell<Vec<Seen>>,
    /// Of a network beside the layers; that of a second one is in the first one's.
    beside: OnceCell<Box<Cache>>,
}

/// How far a row is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Tokens that are kept, virtual ones included.
    pub(crate) tokens: usize,
    /// The position of the next one, without what methods shift.
    pub(crate) next: usize,
    /// The words of its text, and how many of them have been read.
    pub(crate) words: Words,
}

/// The keys and values of an attention, `[rows, heads, keys, d_head]`.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) key: Tensor<4>,
    pub(crate) value: Tensor<4>,
    pub(crate) places: KeyPlaces,
}

/// The same with room for more.
#[derive(Debug)]
struct Kept {
    /// `[rows, heads, room, d_head]`; taken out while it is written to, so that nobody else holds it.
    key: Option<Tensor<4>>,
    value: Option<Tensor<4>>,
    used: usize,
    places: KeyPlaces,
}

/// The least room that is made ahead.
const ROOM: usize = 64;

impl Kept {
    fn new(Keys { key, value, places }: Keys) -> Self {
        let used = key.dims()[2];
        Self { key: Some(key), value: Some(value), used, places }
    }

    fn keys(&self) -> Keys {
        let used = |states: &Option<Tensor<4>>| {
            states.clone().expect("it is there between two writes").narrow(2, 0, self.used)
        };
        Keys { key: used(&self.key), value: used(&self.value), places: self.places.clone() }
    }

    fn push(&mut self, [key, value]: [Tensor<4>; 2], rows: &Rows) {
        self.key = self.key.take().map(|states| written(states, self.used, key));
        let added = value.dims()[2];
        self.value = self.value.take().map(|states| written(states, self.used, value));
        self.used += added;
        self.places.extend(rows);
    }

    fn select(&mut self, rows: &[usize]) {
        let indices: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let select = |states: Tensor<4>| {
            let data = TensorData::new(indices.clone(), [rows.len()]);
            let device = states.device().without_autodiff();
            states.select(0, Tensor::<1, Int>::from_data(data, &device))
        };
        self.key = self.key.take().map(select);
        self.value = self.value.take().map(select);
        self.places = self.places.select(rows);
    }
}

/// `states` with `new` behind the first `used` places, in the same memory where there is room.
fn written(states: Tensor<4>, used: usize, new: Tensor<4>) -> Tensor<4> {
    let [rows, heads, room, size] = states.dims();
    let end = used + new.dims()[2];
    let states = match end > room {
        false => states,
        true => {
            let more = (end - room).max(room).max(ROOM);
            let free = Tensor::zeros([rows, heads, more, size], &states.device());
            Tensor::cat(vec![states, free], 2)
        }
    };
    states.slice_assign([0..rows, 0..heads, used..end, 0..size], new)
}

impl Cache {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens that are kept of the longest row, virtual ones included.
    pub fn len(&self) -> usize {
        self.rows.borrow().iter().map(|row| row.tokens).max().unwrap_or(0)
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps these rows of the batch, in this order; one may be there several times.
    ///
    /// # Panics
    /// If a row is outside the batch.
    pub fn select(&self, rows: &[usize]) {
        let mut seen = self.rows.borrow_mut();
        if rows.iter().copied().eq(0..seen.len()) {
            return;
        }
        *seen = rows.iter().map(|row| seen[*row].clone()).collect();
        self.select_states(rows);
    }

    fn select_states(&self, rows: &[usize]) {
        self.states.borrow_mut().values_mut().for_each(|kept| kept.select(rows));
        if let Some(beside) = self.beside.get() {
            beside.select_states(rows);
        }
    }

    /// The keys and values of the next network beside the layers.
    pub(crate) fn beside(&self) -> &Self {
        self.beside.get_or_init(Box::default)
    }

    /// How far each row is.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.rows.borrow().clone()
    }

    /// Notes how far each row is now.
    pub(crate) fn advance(&self, rows: Vec<Seen>) {
        self.rows.replace(rows);
    }

    /// Whether something is kept for an attention.
    pub(crate) fn knows(&self, site: &Site) -> bool {
        self.states.borrow().contains_key(&site.index)
    }

    /// What is kept for an attention.
    pub(crate) fn kept(&self, site: &Site) -> Option<Keys> {
        self.states.borrow().get(&site.index).map(Kept::keys)
    }

    /// What is kept for an attention, with the keys and values of `rows` behind it. Where there is
    /// nothing yet, `begin` says what goes before the text.
    pub(crate) fn extend(
        &self,
        site: &Site,
        text: [Tensor<4>; 2],
        rows: &Rows,
        begin: impl FnOnce([Tensor<4>; 2]) -> Keys,
    ) -> Keys {
        if !self.knows(site) {
            let keys = begin(text);
            self.states.borrow_mut().insert(site.index, Kept::new(keys.clone()));
            return keys;
        }
        let mut states = self.states.borrow_mut();
        let kept = states.get_mut(&site.index).expect("it is known");
        kept.push(text, rows);
        kept.keys()
    }
}
