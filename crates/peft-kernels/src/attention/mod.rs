//! Attention of the rows of a batch, each by itself: without padding, and without a matrix of
//! scores that outlives a block of queries.

#[cfg(feature = "flex")]
mod backward;
#[cfg(feature = "flex")]
mod forward;
#[cfg(feature = "flex")]
mod softmax;

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::Dropout;

/// One row of a batch: where its queries and keys are among those of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionRow {
    /// The first query.
    pub query: usize,
    /// How many there are.
    pub queries: usize,
    /// The first key.
    pub key: usize,
    /// How many there are.
    pub keys: usize,
    /// How many of the keys in front of the text this row has, the last ones.
    pub extra: usize,
    /// How many of its keys the first query sees, each later one a key more; all where `None`.
    /// Keys in front of the text are seen by all.
    pub sees: Option<usize>,
    /// How far its first query is behind its first key, one in front of the text if there is any.
    pub position: usize,
}

/// The buckets that distances from a query to a key are in, of which each has a bias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    /// That of each distance, from the farthest key before a query to the farthest behind it.
    pub of_distances: Arc<[usize]>,
    /// Where among them that of a key at its query is.
    pub zero: usize,
}

/// What attention is computed of: `softmax(s Q Kᵀ + bias) V` for each row and head, with dropout of its
/// weights.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    /// The rows.
    pub rows: Vec<AttentionRow>,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`.
    pub key_value_heads: usize,
    /// The width of a head.
    pub size: usize,
    /// `s`.
    pub scale: f64,
    /// Of the weights.
    pub dropout: Option<Dropout>,
    /// Of the biases, where there are any.
    pub buckets: Option<Buckets>,
}

/// Queries `[queries, heads · size]`, keys and values `[keys, key_value_heads · size]` of all rows,
/// and keys and values in front of each row's own, `[rows, key_value_heads, extra, size]`.
#[derive(Debug, Clone)]
pub struct AttentionInputs {
    /// `Q`.
    pub query: Tensor<2>,
    /// `K`.
    pub key: Tensor<2>,
    /// `V`.
    pub value: Tensor<2>,
    /// Keys and values of a method.
    pub extra: Option<[Tensor<4>; 2]>,
    /// A bias for each bucket and head, `[buckets, heads]`.
    pub bias: Option<Tensor<2>>,
}

/// Whether [`attention`] takes such tensors.
pub fn attends_by_row(states: &Tensor<2>) -> bool {
    #[cfg(feature = "flex")]
    return crate::fused::is_fast(states);
    #[cfg(not(feature = "flex"))]
    {
        let _ = states;
        false
    }
}

#[cfg(feature = "flex")]
pub(crate) use softmax::softmax;

/// `[queries, heads · size]`; `None` where this device has no such operation.
///
/// # Panics
/// If a row is outside the tensors, or has no key, or a distance no bucket.
pub fn attention(inputs: AttentionInputs, spec: AttentionSpec) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    return forward::attention(inputs, spec);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (inputs, spec);
        None
    }
}
