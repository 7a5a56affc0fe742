//! The rows of a batch: which tokens of a tensor `[tokens, d]` belong to which text.

mod index;
mod route;
mod segments;
mod slots;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use burn::tensor::{Bool, Device, Tensor, TensorData};

use index::Index;
pub(crate) use index::ints;
pub(crate) use route::Cut;
pub use route::Route;
pub(crate) use segments::Segments;
pub use slots::Slots;

/// The stretch of one text in a tensor `[tokens, d]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The position of each token in its text, virtual tokens counted; arbitrary at padding.
    pub positions: Vec<usize>,
    /// Whether each place holds a token; `None` where all do.
    pub mask: Option<Vec<bool>>,
    /// The place of each token of the text itself, among virtual ones.
    pub text: Vec<usize>,
    /// Tokens of the same text that came in earlier passes and are kept in a cache, with the
    /// virtual tokens before them.
    pub past: usize,
    /// Positions that a method counts before the first one without adding tokens.
    pub shift: usize,
    /// Which words the tokens of the text are.
    pub words: Words,
}

/// Which words a text consists of, by index in the vocabulary, as far as it has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Those of earlier passes, and behind them those of this one with the padding behind it; none
    /// where they are not known.
    pub indices: Arc<[usize]>,
    /// How many came in earlier passes.
    pub before: usize,
}

impl Words {
    /// Where the last `part` of the text begins, counted from its first token.
    pub fn last(&self, part: &[usize]) -> Option<usize> {
        self.indices.windows(part.len().max(1)).rposition(|words| words == part)
    }
}

impl Row {
    /// A text of `tokens` tokens from its beginning, without padding.
    pub fn new(tokens: usize) -> Self {
        let places: Vec<usize> = (0..tokens).collect();
        let words = Words::default();
        Self { positions: places.clone(), mask: None, text: places, past: 0, shift: 0, words }
    }

    /// Of each place, whether it holds a token of the text that is `from` or behind it, where the first
    /// one that was ever read is 0. A virtual token is none of them.
    pub fn has_text_from(&self, from: usize) -> Vec<bool> {
        let mut has = vec![false; self.len()];
        for (number, &place) in self.text.iter().enumerate() {
            has[place] = self.words.before + number >= from;
        }
        has
    }

    /// The places of the row, padding included.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Whether there is a token at a place.
    pub fn has(&self, place: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[place])
    }

    /// The tokens of the row, padding left out.
    pub fn tokens(&self) -> usize {
        self.mask.as_ref().map_or(self.len(), |mask| mask.iter().filter(|token| **token).count())
    }
}

/// Which tokens of a tensor `[tokens, d]` belong to which text, known on the host.
///
/// Rows lie one after another. They are *packed* (each as long as its text) or *padded* (each as
/// long as the longest, with a mask); what works token by token need not know which. Attention,
/// pooling and everything else that reads positions ask here.
#[derive(Debug, Clone)]
pub struct Rows {
    rows: Vec<Row>,
    /// Where each row begins, and behind them the number of tokens.
    starts: Vec<usize>,
    device: Device,
    index: OnceCell<Option<Index>>,
    segments: OnceCell<(Slots, Segments)>,
    /// As routes cut them.
    cuts: RefCell<Vec<Rc<Cut>>>,
}

impl Rows {
    /// Rows one after another; index tensors are made on `device`.
    pub fn new(rows: Vec<Row>, device: &Device) -> Self {
        let mut starts = vec![0];
        for row in &rows {
            starts.push(starts[starts.len() - 1] + row.len());
        }
        let device = device.clone().without_autodiff();
        Self {
            rows,
            starts,
            device,
            index: OnceCell::new(),
            segments: OnceCell::new(),
            cuts: RefCell::default(),
        }
    }

    /// Texts of these lengths, packed.
    pub fn packed(lengths: &[usize], device: &Device) -> Self {
        Self::new(lengths.iter().map(|&tokens| Row::new(tokens)).collect(), device)
    }

    /// Rows of one token each, which have nothing to do with each other: these of the tokens
    /// `[tokens, d]`, chosen for a head.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn single(&self, tokens: &[usize]) -> Self {
        let of = |&token: &usize| {
            let number = self.starts.partition_point(|start| *start <= token) - 1;
            let Row { text, words, .. } = &self.rows[number];
            let place = token - self.starts[number];
            // Of a virtual token no word is known.
            let words = match text.iter().position(|own| *own == place) {
                Some(number) => Words { before: words.before + number, ..words.clone() },
                None => Words::default(),
            };
            Row { words, ..Row::new(1) }
        };
        Self::new(tokens.iter().map(of).collect(), &self.device)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// Where a row begins in `[tokens, d]`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn start(&self, row: usize) -> usize {
        self.starts[row]
    }

    /// The tokens of all rows, padding included: the first dimension of their tensors.
    pub fn tokens(&self) -> usize {
        self.starts[self.rows.len()]
    }

    /// The length of the longest row.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(Row::len).max().unwrap_or(0)
    }

    /// Where index tensors are made: a device without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether every text continues tokens that are kept in a cache.
    pub fn continue_earlier(&self) -> bool {
        self.rows.iter().any(|row| row.past > 0)
    }

    /// The position of every token, shifts included.
    pub fn positions(&self) -> Vec<usize> {
        let of = |row: &Row| {
            let shift = row.shift;
            row.positions.iter().map(move |position| position + shift).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of).collect()
    }

    /// The row that each token belongs to.
    pub fn row_of_each(&self) -> Vec<usize> {
        let of = |(number, row): (usize, &Row)| std::iter::repeat_n(number, row.len());
        self.rows.iter().enumerate().flat_map(of).collect()
    }

    /// Some of the rows, in this order; one may be there several times. Their tensors are those of
    /// [`take`](Self::take).
    ///
    /// # Panics
    /// If there is no such row.
    pub fn subset(&self, rows: &[usize]) -> Self {
        Self::new(rows.iter().map(|&row| self.rows[row].clone()).collect(), &self.device)
    }

    /// The tokens of some rows, from `[tokens, d]` of all.
    ///
    /// # Panics
    /// If there is no such row, or none is asked for.
    pub fn take(&self, tensor: Tensor<2>, rows: &[usize]) -> Tensor<2> {
        let next_to_each_other = rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            panic!("of no rows there are no tokens");
        };
        if next_to_each_other {
            let (from, to) = (self.starts[*first], self.starts[last + 1]);
            return if to - from == self.tokens() {
                tensor
            } else {
                tensor.narrow(0, from, to - from)
            };
        }
        let places = rows.iter().flat_map(|&row| self.starts[row]..self.starts[row + 1]);
        tensor.select(0, ints(places, &self.device))
    }

    /// The tokens of these rows, `[tokens, d]`, from those of groups of them, which stand one after
    /// another in `order`.
    pub(crate) fn in_order(&self, groups: Vec<Tensor<2>>, order: &[usize]) -> Tensor<2> {
        let together = Tensor::cat(groups, 0);
        if order.is_sorted() {
            return together;
        }
        let (mut starts, mut next) = (vec![0; order.len()], 0);
        for &row in order {
            starts[row] = next;
            next += self.rows[row].len();
        }
        let places = starts.iter().zip(&self.rows).flat_map(|(&from, row)| from..from + row.len());
        together.select(0, ints(places, &self.device))
    }

    /// `[rows, longest, d]` from `[tokens, d]`. What lies behind a shorter row is arbitrary, and
    /// finite where the tensor is; see [`mask`](Self::mask).
    pub fn batched(&self, tensor: Tensor<2>) -> Tensor<3> {
        let d = tensor.dims()[1];
        let (rows, longest) = (self.len(), self.longest());
        match self.index() {
            None => tensor.reshape([rows, longest, d]),
            Some(index) => tensor.select(0, index.apart.clone()).reshape([rows, longest, d]),
        }
    }

    /// `[tokens, d]` from `[rows, longest, d]`.
    pub fn joined(&self, tensor: Tensor<3>) -> Tensor<2> {
        let [rows, longest, d] = tensor.dims();
        let tensor = tensor.reshape([rows * longest, d]);
        match self.index() {
            None => tensor,
            Some(index) => tensor.select(0, index.together.clone()),
        }
    }

    /// `[tokens, d]` from `[rows, d]`: a row's values for each of its tokens.
    pub fn spread(&self, tensor: Tensor<2>) -> Tensor<2> {
        let [rows, d] = tensor.dims();
        match self.index() {
            None => {
                let longest = self.longest();
                tensor.unsqueeze_dim::<3>(1).expand([rows, longest, d]).reshape([rows * longest, d])
            }
            Some(_) => tensor.select(0, ints(self.row_of_each(), &self.device)),
        }
    }

    /// `[rows, d]` from `[tokens, d]`: the mean over all places of a row, padding included.
    pub fn mean(&self, tensor: Tensor<2>) -> Tensor<2> {
        if self.index().is_none() {
            return self.batched(tensor).mean_dim(1).squeeze_dim(1);
        }
        let (rows, tokens) = (self.len(), self.tokens());
        let mut shares = vec![0.0f32; rows * tokens];
        for (number, row) in self.rows.iter().enumerate() {
            let from = number * tokens + self.starts[number];
            shares[from..from + row.len()].fill(1.0 / row.len() as f32);
        }
        let shares = TensorData::new(shares, [rows, tokens]);
        Tensor::<2>::from_data(shares, &self.device).matmul(tensor)
    }

    /// `[rows, longest]`, true where there is a token; `None` where that is everywhere.
    pub fn mask(&self) -> Option<Tensor<2, Bool>> {
        let longest = self.longest();
        let full = |row: &Row| row.len() == longest && row.mask.is_none();
        if self.rows.iter().all(full) {
            return None;
        }
        let has = |row: &Row| {
            (0..longest).map(|place| place < row.len() && row.has(place)).collect::<Vec<bool>>()
        };
        let mask: Vec<bool> = self.rows.iter().flat_map(has).collect();
        Some(Tensor::from_data(TensorData::new(mask, [self.len(), longest]), &self.device))
    }

    /// The rows where a route cuts them, made once; `None` where each is under one adapter as it is.
    pub(crate) fn cut(&self, route: &Route) -> Option<Rc<Cut>> {
        let Route::Spans(spans) = route else { return None };
        let known = self.cuts.borrow().iter().find(|cut| cut.spans == *spans).cloned();
        Some(known.unwrap_or_else(|| {
            let cut = Rc::new(Cut::new(self, spans));
            self.cuts.borrow_mut().push(cut.clone());
            cut
        }))
    }

    /// The tokens of each slot. Rows are always asked with the same slots.
    ///
    /// # Panics
    /// If they are not.
    pub(crate) fn segments(&self, slots: &Slots) -> &Segments {
        let (known, segments) =
            self.segments.get_or_init(|| (slots.clone(), Segments::new(self, slots)));
        assert!(known == slots, "the rows of a pass keep their slots");
        segments
    }

    /// How rows and batch relate; `None` where a batch is the same tensor in another shape.
    fn index(&self) -> Option<&Index> {
        let longest = self.longest();
        let make = || {
            let ragged = self.rows.iter().any(|row| row.len() != longest);
            ragged.then(|| Index::new(&self.starts, longest, &self.device))
        };
        self.index.get_or_init(make).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[tokens, 1]`: 0, 1, 2, ...
    fn numbered(rows: &Rows) -> Tensor<2> {
        let tokens = rows.tokens() as i64;
        let numbers = Tensor::arange(0..tokens, &Device::default()).float();
        numbers.reshape([tokens as usize, 1])
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect("floats")
    }

    #[test]
    fn groups_of_rows_are_put_in_order_again() {
        let rows = Rows::packed(&[3, 1, 2, 2], &Device::default());
        let x = numbered(&rows);
        for groups in [vec![vec![2, 0], vec![1, 3]], vec![vec![0, 1], vec![2, 3]]] {
            let parts = groups.iter().map(|group| rows.take(x.clone(), group)).collect();
            let order = groups.concat();
            assert_eq!(values(rows.in_order(parts, &order)), values(x.clone()), "{order:?}");
        }
    }

    #[test]
    fn the_tokens_of_a_slot_are_one_segment() {
        let rows = Rows::packed(&[3, 1, 2], &Device::default());
        let slots = Slots::new(vec![Some(1), None, Some(1)]);
        let segments = rows.segments(&slots);
        assert_eq!(segments.slots(), [Some(1), None]);
        let apart = segments.apart(numbered(&rows));
        assert_eq!(apart.dims(), [2, 5, 1]);
        let found = values(apart.clone());
        assert_eq!((&found[..5], found[5]), (&[0., 1., 2., 4., 5.][..], 3.0));
        assert_eq!(values(segments.together(apart)), values(numbered(&rows)));
    }

    #[test]
    fn even_segments_in_order_are_the_same_tensor() {
        let rows = Rows::packed(&[2, 1, 3], &Device::default());
        let segments = rows.segments(&Slots::new(vec![Some(4), Some(4), None])).clone();
        let apart = segments.apart(numbered(&rows));
        assert_eq!((apart.dims(), values(apart)), ([2, 3, 1], vec![0., 1., 2., 3., 4., 5.]));
    }
}
