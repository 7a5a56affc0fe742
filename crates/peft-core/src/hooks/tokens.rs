//! Embeddings on their way into a model.

use burn::tensor::Tensor;

use crate::rows::ints;
use crate::{Pass, Row, Rows};

/// Where tokens are on their way through a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Embeddings of the words, before positions are added. A method may lengthen the text.
    Embedded,
    /// What the first layer is given: positions and the embeddings' norm are in it. A method may
    /// lengthen the text.
    Input,
    /// What a language-model head compares with the words: changes of the embeddings are undone,
    /// the last one first.
    Output,
}

/// Embeddings of a batch.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[tokens, d]`.
    pub hidden: Tensor<2>,
    /// Which tokens belong to which text.
    pub rows: Rows,
    /// Which text of a pair each token is of; `None` where all are of the first.
    pub segments: Option<Vec<usize>>,
}

/// A part of a lengthened text.
// A text has a few parts, so their size costs nothing.
#[expect(clippy::large_enum_variant, reason = "a text has a few parts")]
#[derive(Debug, Clone)]
pub enum Piece {
    /// Virtual tokens `[added, d]`, the same for every text, of the first segment.
    Virtual(Tensor<2>),
    /// The first token of the text.
    First,
    /// The text, less its first token where [`First`](Self::First) stands beside it.
    Text,
}

impl Tokens {
    /// Embeddings `[tokens, d]` of texts without segments.
    pub fn new(hidden: Tensor<2>, rows: Rows) -> Self {
        Self { hidden, rows, segments: None }
    }

    /// With `positions` more counted before the first token of every row.
    pub fn shifted(self, positions: usize) -> Self {
        let more = |row: &Row| Row { shift: row.shift + positions, ..row.clone() };
        let rows = Rows::new(self.rows.iter().map(more).collect(), self.rows.device());
        Self { rows, ..self }
    }

    /// Every text as these pieces, in their order, virtual tokens next to tokens even where there is
    /// padding. Positions go on through all of them. A text that goes on from kept tokens stays as
    /// it is: nothing goes before its middle.
    pub fn assembled(self, pieces: &[Piece]) -> Self {
        if self.rows.continue_earlier() {
            return self;
        }
        let Self { hidden, rows, segments } = self;
        // Virtual tokens stand behind all others until they are put in order.
        let mut tables = vec![hidden];
        let mut next = rows.tokens();
        let mut virtual_tokens = Vec::new();
        for piece in pieces {
            if let Piece::Virtual(table) = piece {
                let count = table.dims()[0];
                virtual_tokens.push(next..next + count);
                next += count;
                tables.push(table.clone());
            }
        }
        let mut order = Vec::new();
        let mut of_segments = Vec::new();
        let longer = rows.iter().enumerate().map(|(number, row)| {
            let start = rows.start(number);
            let segments = segments.as_ref().map(|all| &all[start..start + row.len()]);
            let mut longer = Longer::new(row, start, segments);
            longer.assemble(pieces, &virtual_tokens);
            order.append(&mut longer.order);
            of_segments.append(&mut longer.segments);
            longer.into_row()
        });
        let rows = Rows::new(longer.collect(), rows.device());
        let hidden = Tensor::cat(tables, 0).select(0, ints(order, rows.device()));
        Self { hidden, rows, segments: segments.map(|_| of_segments) }
    }
}

impl Tokens {
    /// What `of` makes of the rows of each slot, put together in the order of the batch. It is given the
    /// slot, the tokens of its rows, and the pass over them.
    ///
    /// # Panics
    /// If the slots do not name every row.
    pub fn by_slot(
        self,
        pass: &Pass<'_>,
        mut of: impl FnMut(Option<usize>, Self, &Pass<'_>) -> Self,
    ) -> Self {
        let Self { hidden, rows, segments } = self;
        let count = rows.len();
        let mut made = vec![None; count];
        let mut of_segments = vec![Vec::new(); count];
        let groups = pass.slots.groups(count);
        let mut parts = Vec::new();
        for group in &groups {
            let own_rows = rows.subset(&group.rows);
            let own_slots = pass.slots.select(group.rows.iter().copied());
            let own_segments = segments.as_ref().map(|segments| {
                let own = group.rows.iter().flat_map(|&row| rows.start(row)..rows.start(row + 1));
                own.map(|token| segments[token]).collect()
            });
            let own = Self {
                hidden: rows.take(hidden.clone(), &group.rows),
                rows: own_rows.clone(),
                segments: own_segments,
            };
            let part = of(group.slot, own, &pass.over(&own_rows, &own_slots));
            for (place, (&row, new)) in group.rows.iter().zip(part.rows.iter()).enumerate() {
                made[row] = Some(new.clone());
                if let Some(segments) = &part.segments {
                    let (from, to) = (part.rows.start(place), part.rows.start(place + 1));
                    of_segments[row] = segments[from..to].to_vec();
                }
            }
            parts.push(part.hidden);
        }
        let made: Vec<_> = made.into_iter().map(|row| row.expect("a row of a group")).collect();
        let new = Rows::new(made, rows.device());
        let order: Vec<usize> = groups.into_iter().flat_map(|group| group.rows).collect();
        let hidden = new.in_order(parts, &order);
        let segments = segments.map(|_| of_segments.concat());
        Self { hidden, rows: new, segments }
    }
}

/// A row as it gets longer.
struct Longer<'r> {
    row: &'r Row,
    /// Where it begins among all tokens.
    start: usize,
    of_segments: Option<&'r [usize]>,
    /// Where each of its tokens lies among all tokens.
    order: Vec<usize>,
    segments: Vec<usize>,
    positions: Vec<usize>,
    mask: Vec<bool>,
    /// The new place of each old one.
    places: Vec<usize>,
    added: usize,
}

impl<'r> Longer<'r> {
    fn new(row: &'r Row, start: usize, of_segments: Option<&'r [usize]>) -> Self {
        let (order, segments, positions, mask) = Default::default();
        let places = vec![0; row.len()];
        Self { row, start, of_segments, order, segments, positions, mask, places, added: 0 }
    }

    fn assemble(&mut self, pieces: &[Piece], virtual_tokens: &[std::ops::Range<usize>]) {
        let mut virtual_tokens = virtual_tokens.iter();
        let first = (0..self.row.len()).find(|&place| self.row.has(place)).unwrap_or(0);
        let last = (0..self.row.len()).rfind(|&place| self.row.has(place)).unwrap_or(0);
        let apart = pieces.iter().any(|piece| matches!(piece, Piece::First));
        let rest = if apart { first + 1 } else { first };
        self.keep(0..first);
        for piece in pieces {
            match piece {
                Piece::First => self.keep(first..first + 1),
                Piece::Text => self.keep(rest..last + 1),
                Piece::Virtual(_) => {
                    self.add(virtual_tokens.next().expect("a range for each").clone(), first);
                }
            }
        }
        self.keep(last + 1..self.row.len());
    }

    fn keep(&mut self, places: std::ops::Range<usize>) {
        for place in places {
            self.places[place] = self.order.len();
            self.order.push(self.start + place);
            self.segments.push(self.of_segments.map_or(0, |segments| segments[place]));
            // The position of padding does not matter.
            self.positions.push(self.row.positions[place] + self.added);
            self.mask.push(self.row.has(place));
        }
    }

    fn add(&mut self, tokens: std::ops::Range<usize>, first: usize) {
        let before = self.positions.iter().zip(&self.mask).rev().find(|(_, token)| **token);
        let begin = self.row.positions.get(first).copied().unwrap_or(0);
        let from = before.map_or(begin, |(position, _)| position + 1);
        for (number, token) in tokens.enumerate() {
            self.order.push(token);
            self.segments.push(0);
            self.positions.push(from + number);
            self.mask.push(true);
            self.added += 1;
        }
    }

    fn into_row(self) -> Row {
        let text = self.row.text.iter().map(|&place| self.places[place]).collect();
        let mask = self.mask.contains(&false).then_some(self.mask);
        Row { positions: self.positions, mask, text, ..self.row.clone() }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Texts of these tokens, numbered, of which the second is padded in front.
    fn tokens(device: &Device) -> Tokens {
        let mut padded = Row::new(4);
        padded.mask = Some(vec![false, false, true, true]);
        let rows = Rows::new(vec![Row::new(3), padded], device);
        let hidden = Tensor::<1>::from_data([0f32, 1., 2., 10., 11., 12., 13.], device);
        Tokens {
            segments: Some(vec![0, 1, 1, 0, 0, 1, 1]),
            ..Tokens::new(hidden.reshape([7, 1]), rows)
        }
    }

    fn values(tokens: &Tokens) -> Vec<f32> {
        tokens.hidden.clone().into_data().try_into_vec().expect("floats")
    }

    #[test]
    fn virtual_tokens_stand_next_to_tokens() {
        let device = Device::default();
        let added = Tensor::<2>::from_data([[100f32], [101.]], &device);
        let front = tokens(&device).assembled(&[Piece::Virtual(added.clone()), Piece::Text]);
        assert_eq!(values(&front), [100., 101., 0., 1., 2., 10., 11., 100., 101., 12., 13.]);
        let rows: Vec<&Row> = front.rows.iter().collect();
        assert_eq!(rows[0].positions, [0, 1, 2, 3, 4]);
        assert_eq!(rows[0].text, [2, 3, 4]);
        assert_eq!(rows[1].positions, [0, 1, 2, 3, 4, 5]);
        assert_eq!(rows[1].text, [0, 1, 4, 5]);
        assert_eq!(front.segments, Some(vec![0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]));

        let pieces = [Piece::First, Piece::Virtual(added.clone()), Piece::Text];
        let behind_first = tokens(&device).assembled(&pieces);
        assert_eq!(values(&behind_first), [0., 100., 101., 1., 2., 10., 11., 12., 100., 101., 13.]);
        assert_eq!(behind_first.rows.positions(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]);

        let pieces = [Piece::Text, Piece::Virtual(added)];
        let behind = tokens(&device).assembled(&pieces);
        assert_eq!(values(&behind), [0., 1., 2., 100., 101., 10., 11., 12., 13., 100., 101.]);
    }

    #[test]
    fn nothing_goes_before_a_text_that_goes_on() {
        let device = Device::default();
        let mut later = tokens(&device);
        let row = Row { past: 3, ..Row::new(1) };
        later.rows = Rows::new(vec![row], &device);
        later.hidden = later.hidden.narrow(0, 0, 1);
        let added = Tensor::<2>::ones([2, 1], &device);
        assert_eq!(values(&later.assembled(&[Piece::Virtual(added), Piece::Text])), [0.]);
    }
}
