//! What decides which of several adapters a token is under.

use std::sync::Arc;

use super::{Row, Rows, Slots, Words};

/// What decides which of several adapters a token is under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Route {
    /// The slot of its row.
    #[default]
    Rows,
    /// Its position in the text: the first tokens are under the first adapter, as many as the first
    /// number says, the next under the second. What lies behind all spans is under the last.
    Spans(Arc<[usize]>),
}

/// Rows cut into parts, each of which is under one adapter.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(super) spans: Arc<[usize]>,
    pub(crate) rows: Rows,
    pub(crate) slots: Slots,
    /// The row that each part is of.
    pub(crate) of_rows: Vec<usize>,
}

impl Cut {
    /// Each row cut by spans.
    pub(super) fn new(rows: &Rows, spans: &Arc<[usize]>) -> Self {
        let (mut parts, mut slots, mut of_rows) = (Vec::new(), Vec::new(), Vec::new());
        for (number, row) in rows.iter().enumerate() {
            let of_places: Vec<usize> = row.positions.iter().map(|&at| span(spans, at)).collect();
            let mut from = 0;
            for part in of_places.chunk_by(|a, b| a == b) {
                let places = from..from + part.len();
                from = places.end;
                // Words of the text that lie before the part.
                let before = row.text.iter().filter(|place| **place < places.start).count();
                let before = row.words.before + before;
                parts.push(Row {
                    positions: row.positions[places.clone()].to_vec(),
                    mask: row.mask.as_ref().map(|mask| mask[places.clone()].to_vec()),
                    text: (0..part.len()).collect(),
                    past: row.past + places.start,
                    shift: row.shift,
                    words: Words { before, ..row.words.clone() },
                });
                slots.push(Some(part[0]));
                of_rows.push(number);
            }
        }
        let (rows, slots) = (Rows::new(parts, rows.device()), Slots::new(slots));
        Self { spans: spans.clone(), rows, slots, of_rows }
    }
}

/// The span in which a position lies; the last, if it is behind all.
fn span(spans: &[usize], position: usize) -> usize {
    let mut end = 0;
    let is_in = |span: &usize| {
        end += span;
        position < end
    };
    spans.iter().position(is_in).unwrap_or(spans.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use burn::tensor::Device;

    use super::*;

    #[test]
    fn spans_cut_each_text_by_position() {
        let mut rows: Vec<Row> = [5, 1].map(Row::new).into();
        rows.push(Row { positions: vec![4, 5], past: 4, ..Row::new(2) });
        let rows = Rows::new(rows, &Device::default());
        let spans = Route::Spans([2, 3].into());
        let cut = rows.cut(&spans).expect("by position");
        assert_eq!(cut.rows.iter().map(Row::len).collect::<Vec<_>>(), [2, 3, 1, 2]);
        assert_eq!(cut.slots.as_slice(), [0, 1, 0, 1].map(Some));
        assert_eq!(cut.of_rows, [0, 0, 1, 2]);
        let first = cut.rows.iter().map(|row| row.positions[0]);
        assert_eq!(first.collect::<Vec<_>>(), [0, 2, 0, 4]);
        assert!(rows.cut(&Route::Rows).is_none());
        // Made once, for each way to cut.
        assert!(Rc::ptr_eq(&cut, &rows.cut(&spans).expect("the same")));
        let other = rows.cut(&Route::Spans([1, 1].into())).expect("by position");
        assert_eq!(other.rows.iter().map(Row::len).collect::<Vec<_>>(), [1, 4, 1, 2]);
    }
}
