//! What a method does to the table of an embedding.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::{LowRank, Magnitude};
use crate::rows::ints;
use crate::{Change, FrozenWeight, Pass, Route, Site};

/// What a method does to a table `[entries, d]`: of an embedding, or of a language model's head, whose
/// weight is the table the other way round.
#[derive(Debug, Clone, Default)]
pub enum TableEdit {
    /// As it is.
    #[default]
    Keep,
    /// Another table, `[entries, d]`.
    Replaced(Tensor<2>),
    /// Other values in some rows.
    Rows(TableRows),
    /// `table + s A B`, with `A` of shape `[entries, r]` and `B` of shape `[r, d]`; without dropout.
    LowRank(Box<LowRank>),
    /// `table ⊙ (1 + s A B)`, of the same shapes; without dropout.
    Scaled(Box<LowRank>),
    /// `table ⊙ m / ‖table‖`: each of the `d` columns gets another norm. The norm that it has is a
    /// constant in the backward pass.
    Magnitude(Magnitude),
    /// One edit after another.
    Stack(Vec<TableEdit>),
    /// `Σ wₙ tableₙ`.
    Mean(Vec<(f64, TableEdit)>),
    /// Each for the tokens that a route sends there.
    Routed(Route, Vec<TableEdit>),
}

/// Other values in some rows of a table.
#[derive(Debug, Clone)]
pub struct TableRows {
    /// The rows, each once.
    pub indices: Arc<[usize]>,
    /// `[n, d]`.
    pub values: Tensor<2>,
}

impl TableEdit {
    /// Whether the table stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The rows with these indices, one for each token: `[tokens, d]`.
    pub fn lookup(&self, table: &FrozenWeight, ids: &[usize], pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Replaced(values) => values.clone().select(0, index(ids, pass)),
            _ => self.over(table.rows(index(ids, pass)), ids, &|| table.dense(), pass),
        }
    }

    /// The same, where `found` is what the table `below` has, which is made where all of it is needed.
    fn over(
        &self,
        found: Tensor<2>,
        ids: &[usize],
        below: &dyn Fn() -> Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        match self {
            Self::Keep => found,
            Self::Replaced(values) => values.clone().select(0, index(ids, pass)),
            Self::Rows(rows) => rows.over(found, ids, pass),
            Self::LowRank(factors) => {
                let LowRank { a, b, scale, .. } = &**factors;
                let inner = a.clone().select(0, index(ids, pass)) * *scale;
                found + inner.matmul(b.clone())
            }
            Self::Scaled(factors) => {
                let LowRank { a, b, scale, .. } = &**factors;
                let inner = a.clone().select(0, index(ids, pass)) * *scale;
                let change = found.clone() * inner.matmul(b.clone());
                found + change
            }
            Self::Magnitude(magnitude) => found * magnitude.share(below, pass),
            Self::Stack(edits) => edits.iter().enumerate().fold(found, |found, (number, edit)| {
                let below =
                    || edits[..number].iter().fold(below(), |table, edit| edit.dense(table));
                edit.over(found, ids, &below, pass)
            }),
            Self::Mean(members) => mean(members, |edit| edit.over(found.clone(), ids, below, pass)),
            Self::Routed(route, members) => pass.routed(route, |slot, part, sub| {
                let own: Vec<usize> = part.places().map(|token| ids[token]).collect();
                let found = part.take(&found);
                slot.map_or(&Self::Keep, |slot| &members[slot]).over(found, &own, below, sub)
            }),
        }
    }

    /// How like each row a state is: `x Tᵀ`, `[tokens, d]` to `[tokens, entries]`, where
    /// `transposed` is the frozen table the other way round.
    pub(super) fn compare(
        &self,
        transposed: &FrozenWeight,
        x: Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        match self {
            Self::Replaced(values) => x.matmul(values.clone().transpose()),
            Self::Routed(route, members) if self.is_of_values() => {
                pass.routed(route, |slot, part, sub| {
                    let x = part.take(&x);
                    slot.map_or(&Self::Keep, |slot| &members[slot]).compare(transposed, x, sub)
                })
            }
            // What depends on the values below is no sum over the states.
            _ if self.is_of_values() => {
                x.matmul(self.dense(transposed.transpose().dense()).transpose())
            }
            _ => self.compared(transposed.linear(x.clone(), None), x, pass),
        }
    }

    /// Whether what it does to a row depends on the values below.
    fn is_of_values(&self) -> bool {
        match self {
            Self::Scaled(_) | Self::Magnitude(_) => true,
            Self::Stack(edits) | Self::Routed(_, edits) => edits.iter().any(Self::is_of_values),
            Self::Mean(members) => members.iter().any(|(_, edit)| edit.is_of_values()),
            Self::Keep | Self::Replaced(_) | Self::Rows(_) | Self::LowRank(_) => false,
        }
    }

    /// The same, where `scores` are what the table below gives.
    fn compared(&self, scores: Tensor<2>, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Keep => scores,
            Self::Replaced(values) => x.matmul(values.clone().transpose()),
            Self::Rows(rows) => rows.compared(scores, x),
            Self::LowRank(factors) => {
                let LowRank { a, b, scale, .. } = &**factors;
                let inner = x.matmul(b.clone().transpose()) * *scale;
                scores + inner.matmul(a.clone().transpose())
            }
            Self::Scaled(_) | Self::Magnitude(_) => {
                unreachable!("it is compared as a whole table")
            }
            Self::Stack(edits) => {
                edits.iter().fold(scores, |scores, edit| edit.compared(scores, x.clone(), pass))
            }
            Self::Mean(members) => {
                mean(members, |edit| edit.compared(scores.clone(), x.clone(), pass))
            }
            Self::Routed(_, members) if members.iter().all(Self::is_keep) => scores,
            Self::Routed(route, members) => pass.routed(route, |slot, part, sub| {
                let [scores, x] = [&scores, &x].map(|all| part.take(all));
                slot.map_or(&Self::Keep, |slot| &members[slot]).compared(scores, x, sub)
            }),
        }
    }

    /// The whole table, `[entries, d]`.
    ///
    /// # Panics
    /// If rows of a batch have different ones.
    pub fn dense(&self, table: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Keep => table,
            Self::Replaced(values) => values.clone(),
            Self::Rows(rows) => rows.within(table),
            Self::LowRank(factors) => {
                let [_, d] = table.dims();
                table + factors.dense(d)
            }
            Self::Scaled(factors) => {
                let [_, d] = table.dims();
                let change = table.clone() * factors.dense(d);
                table + change
            }
            Self::Magnitude(magnitude) => table.clone() * magnitude.share_of(table),
            Self::Stack(edits) => edits.iter().fold(table, |table, edit| edit.dense(table)),
            Self::Mean(members) => mean(members, |edit| edit.dense(table.clone())),
            Self::Routed(..) => panic!("rows of a batch have different tables"),
        }
    }

    /// What merging this changes at a site.
    pub fn change(&self, site: &Site) -> Change {
        let [entries, d] = match site.is_unembedding {
            true => [site.d_out(), site.d_in()],
            false => site.shape,
        };
        match self {
            Self::Keep | Self::Routed(..) => Change::default(),
            Self::Replaced(_) => Change { weight: entries * d, bias: 0, rank: entries.min(d) },
            Self::LowRank(factors) => {
                let rank = factors.rank().min(entries).min(d);
                Change { weight: entries * d, bias: 0, rank }
            }
            Self::Scaled(_) | Self::Magnitude(_) => {
                Change { weight: entries * d, bias: 0, rank: entries.min(d) }
            }
            Self::Rows(rows) => {
                let count = rows.indices.len();
                Change { weight: count * d, bias: 0, rank: count.min(d) }
            }
            Self::Stack(edits) => Change::together(site, edits.iter().map(|e| e.change(site))),
            Self::Mean(members) => {
                Change::together(site, members.iter().map(|(_, edit)| edit.change(site)))
            }
        }
    }

    /// Why `above` cannot act over this edit.
    pub fn refuses(&self, above: &Self) -> Option<&'static str> {
        let own = |edit: &Self| match edit {
            Self::Rows(rows) => Some(rows.indices.clone()),
            _ => None,
        };
        match (self, above) {
            (Self::Keep, _)
            | (_, Self::Keep | Self::LowRank(_) | Self::Scaled(_) | Self::Magnitude(_)) => None,
            (_, Self::Stack(edits)) => edits.iter().find_map(|edit| self.refuses(edit)),
            (Self::Routed(_, members), _) => members.iter().find_map(|edit| edit.refuses(above)),
            (_, Self::Routed(_, members)) => members.iter().find_map(|edit| self.refuses(edit)),
            _ => match (own(self), own(above)) {
                (Some(below), Some(above)) if !above.iter().any(|row| below.contains(row)) => None,
                _ => Some("it puts other rows of embeddings in the place of those of the other"),
            },
        }
    }
}

/// `[n]`, the rows of a table that are meant.
fn index(ids: &[usize], pass: &Pass<'_>) -> Tensor<1, Int> {
    ints(ids.iter().copied(), pass.rows.device())
}

fn mean(members: &[(f64, TableEdit)], of: impl Fn(&TableEdit) -> Tensor<2>) -> Tensor<2> {
    let terms = members.iter().map(|(weight, edit)| of(edit) * *weight);
    terms.reduce(|sum, term| sum + term).expect("a mean has members")
}

impl TableRows {
    /// `found`, the rows that `ids` have in the table below, with these where they are meant.
    fn over(&self, found: Tensor<2>, ids: &[usize], pass: &Pass<'_>) -> Tensor<2> {
        let places: HashMap<usize, usize> =
            self.indices.iter().enumerate().map(|(place, index)| (*index, place)).collect();
        let [tokens, _] = found.dims();
        if !ids.iter().any(|id| places.contains_key(id)) {
            return found;
        }
        let index = ids.iter().enumerate().map(|(token, id)| match places.get(id) {
            Some(place) => tokens + place,
            None => token,
        });
        let index = ints(index, pass.rows.device());
        Tensor::cat(vec![found, self.values.clone()], 0).select(0, index)
    }

    /// `scores`, the comparison with the table below, with these rows where they are meant.
    fn compared(&self, scores: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let device = x.device().without_autodiff();
        let index = ints(self.indices.iter().copied(), &device);
        let old = scores.clone().select(1, index.clone());
        let new = x.matmul(self.values.clone().transpose());
        scores.select_assign(1, index, new - old, IndexingUpdateOp::Add)
    }

    /// A whole table with these rows.
    fn within(&self, table: Tensor<2>) -> Tensor<2> {
        let device = table.device().without_autodiff();
        let index = ints(self.indices.iter().copied(), &device);
        let old = table.clone().select(0, index.clone());
        // Minus the old value exactly, so that the new one is put there without rounding.
        let emptied = table.select_assign(0, index.clone(), old.neg(), IndexingUpdateOp::Add);
        emptied.select_assign(0, index, self.values.clone(), IndexingUpdateOp::Add)
    }
}
