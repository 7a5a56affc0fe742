//! Which keys a query sees, and biases by distance.

use burn::tensor::{Device, Tensor, TensorData};
use peft_core::{Row, Rows};

use super::RelativeBias;
use super::attention::MASKED;
use super::context::Causality;

/// Where the keys of an attention are in their texts, by row of the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPlaces {
    /// The place of each key among those of its row; `None` where there is nothing to see.
    rows: Vec<Vec<Option<usize>>>,
    /// How many of them a method put before the text.
    extra: Vec<usize>,
}

impl KeyPlaces {
    /// The keys of these rows, one for each token, behind `extra` that a method put before each:
    /// `counts` of them in each row, at the end.
    pub fn new(rows: &Rows, extra: usize, counts: &[usize]) -> Self {
        let places = |(number, row): (usize, &Row)| {
            let own = counts.get(number).copied().unwrap_or(0);
            let before = (0..extra).map(|place| (place + own).checked_sub(extra));
            before.chain(text(row, own, rows.longest())).collect()
        };
        let mut counts = counts.to_vec();
        counts.resize(rows.len(), 0);
        Self { rows: rows.iter().enumerate().map(places).collect(), extra: counts }
    }

    /// With the keys of these rows behind them, which go on from those that are there.
    pub fn extend(&mut self, rows: &Rows) {
        let longest = rows.longest();
        for ((places, extra), row) in self.rows.iter_mut().zip(&self.extra).zip(rows.iter()) {
            places.extend(text(row, *extra, longest));
        }
    }

    /// Those of some rows, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            rows: rows.iter().map(|&row| self.rows[row].clone()).collect(),
            extra: rows.iter().map(|&row| self.extra[row]).collect(),
        }
    }

    /// The number of keys in a row.
    fn keys(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// `[rows or 1, 1, 1, keys]`: 0 where there is a key, [`MASKED`] where not; `None` where there
    /// is one everywhere.
    pub(super) fn mask(&self, device: &Device) -> Option<Tensor<4>> {
        let keys = self.keys();
        if self.rows.iter().flatten().all(Option::is_some) {
            return None;
        }
        let value = |place: &Option<usize>| if place.is_some() { 0.0 } else { MASKED };
        let values: Vec<f32> = self.rows.iter().flatten().map(value).collect();
        let shape = [self.rows.len(), 1, 1, keys];
        Some(Tensor::from_data(TensorData::new(values, shape), device))
    }

    /// `[rows or 1, 1, queries, keys]`: [`MASKED`] at what comes after the query too; `None` where
    /// everything is seen.
    pub(super) fn causal(
        &self,
        queries: &Rows,
        causality: Causality,
        device: &Device,
    ) -> Option<Tensor<4>> {
        let (keys, longest) = (self.keys(), queries.longest());
        // A query that sees nothing attends to what is masked least.
        let later = if causality == Causality::Places { 2.0 * MASKED } else { MASKED };
        let patterns = self.patterns(queries);
        let rows: Vec<&Row> = queries.iter().collect();
        let mut values = Vec::with_capacity(patterns.len() * longest * keys);
        let mut sees_all = true;
        for &number in &patterns {
            let (row, places, extra) = (rows[number], &self.rows[number], self.extra[number]);
            for query in 0..longest {
                let own = extra + row.past + query;
                let is_query = query < row.len();
                // The last keys are those of these queries.
                let last = keys - longest + query;
                let value = |(key, place): (usize, &Option<usize>)| match place {
                    Some(place) if *place <= own => 0.0,
                    _ => {
                        sees_all &= !is_query;
                        if key > last { later } else { MASKED }
                    }
                };
                values.extend(places.iter().enumerate().map(value));
            }
        }
        (!sees_all).then(|| {
            let shape = [patterns.len(), 1, longest, keys];
            Tensor::from_data(TensorData::new(values, shape), device)
        })
    }

    /// `[rows or 1, heads, queries, keys]`, the biases by distance.
    pub(super) fn relative(&self, bias: &RelativeBias, queries: &Rows) -> Tensor<4> {
        let (keys, longest) = (self.keys(), queries.longest());
        let patterns = self.patterns(queries);
        let rows: Vec<&Row> = queries.iter().collect();
        let mut distances = Vec::with_capacity(patterns.len() * longest * keys);
        for &number in &patterns {
            let (row, places) = (rows[number], &self.rows[number]);
            for query in 0..longest {
                let own = (row.shift + row.past + query) as i64;
                // Whatever is not seen may have any bias.
                distances.extend(places.iter().map(|place| place.unwrap_or(0) as i64 - own));
            }
        }
        bias.forward(&distances, [patterns.len(), longest, keys])
    }

    /// The rows to look at: the longest alone where all others see as it does, as far as they have
    /// tokens; otherwise all.
    fn patterns(&self, queries: &Rows) -> Vec<usize> {
        let rows = self.rows.len();
        let longest = (0..rows).max_by_key(|&row| self.rows[row].iter().flatten().count());
        let lone: Vec<&Row> = queries.iter().collect();
        let Some(longest) = longest else { return Vec::new() };
        let alike = (0..rows).all(|row| {
            let same = lone[row].past == 0
                && lone[row].shift == lone[longest].shift
                && self.extra[row] == self.extra[longest];
            // What a shorter row lacks are last keys, which its own queries do not see; padding has
            // queries too, which do, and methods that read what becomes of them.
            let tokens = match lone[row].mask {
                Some(_) => self.keys(),
                None => self.rows[row].iter().rposition(Option::is_some).map_or(0, |last| last + 1),
            };
            same && self.rows[row][..tokens] == self.rows[longest][..tokens]
        });
        if alike { vec![longest] } else { (0..rows).collect() }
    }
}

/// The places of a row's tokens behind `extra` others, filled up to `longest`.
fn text(row: &Row, extra: usize, longest: usize) -> impl Iterator<Item = Option<usize>> + '_ {
    (0..longest).map(move |place| {
        let is_token = place < row.len() && row.has(place);
        is_token.then_some(extra + row.past + place)
    })
}
