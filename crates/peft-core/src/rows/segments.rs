//! The tokens of each slot as one segment.

use burn::tensor::{Int, Tensor};

use super::index::ints;
use super::{Rows, Slots};

/// The tokens of each slot as one segment, for batched products.
#[derive(Debug, Clone)]
pub(crate) struct Segments {
    slots: Vec<Option<usize>>,
    longest: usize,
    /// `[segments * longest]`, the token at each place, and `[tokens]`, the place of each; `None`
    /// where segments lie one after another and are of one length.
    index: Option<[Tensor<1, Int>; 2]>,
}

impl Segments {
    pub(super) fn new(rows: &Rows, slots: &Slots) -> Self {
        let groups = slots.groups(rows.len());
        let segments: Vec<Vec<usize>> = groups
            .iter()
            .map(|group| {
                let tokens = group.rows.iter().flat_map(|&r| rows.start(r)..rows.start(r + 1));
                tokens.collect()
            })
            .collect();
        let slots = groups.iter().map(|group| group.slot).collect();
        let longest = segments.iter().map(Vec::len).max().unwrap_or(0);
        let even = segments.iter().all(|tokens| tokens.len() == longest);
        if even && segments.iter().flatten().copied().eq(0..rows.tokens()) {
            return Self { slots, longest, index: None };
        }
        let mut together = vec![0; rows.tokens()];
        let mut apart = Vec::with_capacity(segments.len() * longest);
        for (number, tokens) in segments.iter().enumerate() {
            for (place, &token) in tokens.iter().enumerate() {
                together[token] = number * longest + place;
            }
            apart.extend(tokens);
            // Nothing reads what lies behind.
            apart.resize((number + 1) * longest, 0);
        }
        let index = [ints(apart, rows.device()), ints(together, rows.device())];
        Self { slots, longest, index: Some(index) }
    }

    /// The slot of each segment.
    pub(crate) fn slots(&self) -> &[Option<usize>] {
        &self.slots
    }

    /// `[segments, longest, d]` from `[tokens, d]`.
    pub(crate) fn apart(&self, tensor: Tensor<2>) -> Tensor<3> {
        let d = tensor.dims()[1];
        let tensor = match &self.index {
            None => tensor,
            Some([apart, _]) => tensor.select(0, apart.clone()),
        };
        tensor.reshape([self.slots.len(), self.longest, d])
    }

    /// `[tokens, d]` from `[segments, longest, d]`.
    pub(crate) fn together(&self, tensor: Tensor<3>) -> Tensor<2> {
        let [count, longest, d] = tensor.dims();
        let tensor = tensor.reshape([count * longest, d]);
        match &self.index {
            None => tensor,
            Some([_, together]) => tensor.select(0, together.clone()),
        }
    }
}
