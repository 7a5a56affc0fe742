//! Longer sequences of embeddings.

use burn::tensor::{Bool, Int, Tensor};
use peft_core::Embedded;

/// A part of a lengthened sequence.
// A sequence has a few parts, so their size costs nothing.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Piece {
    /// Rows `[added, d]`, the same for every text; every one is a token.
    Rows(Tensor<2>),
    /// The first token of the text.
    First,
    /// The text, less its first token where [`First`](Self::First) stands beside it.
    Text,
}

/// A sequence of `pieces`, in their order, with its mask; the text as it is where it goes on from an
/// earlier one.
pub(crate) fn assemble(embedded: Embedded, pieces: Vec<Piece>) -> Embedded {
    if embedded.continues {
        return embedded;
    }
    let Embedded { hidden, mask, segments, shift, continues } = embedded;
    let [batch, tokens, d] = hidden.dims();
    let apart = pieces.iter().any(|piece| matches!(piece, Piece::First));
    let start = if apart { 1 } else { 0 };
    let mut states = Vec::with_capacity(pieces.len());
    let mut masks: Vec<Tensor<2, Bool>> = Vec::with_capacity(pieces.len());
    let mut of_segments: Vec<Tensor<2, Int>> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (from, length) = match piece {
            Piece::Rows(rows) => {
                let added = rows.dims()[0];
                states.push(rows.unsqueeze::<3>().expand([batch, added, d]));
                masks.extend(mask.as_ref().map(|m| Tensor::ones([batch, added], &m.device())));
                // Virtual tokens are of the first text of a pair.
                let first = segments.as_ref().map(|s| Tensor::zeros([batch, added], &s.device()));
                of_segments.extend(first);
                continue;
            }
            Piece::First => (0, 1),
            // A text of one token has no rest.
            Piece::Text if tokens == start => continue,
            Piece::Text => (start, tokens - start),
        };
        states.push(hidden.clone().narrow(1, from, length));
        masks.extend(mask.as_ref().map(|mask| mask.clone().narrow(1, from, length)));
        of_segments.extend(segments.as_ref().map(|s| s.clone().narrow(1, from, length)));
    }
    let mask = mask.is_some().then(|| Tensor::cat(masks, 1));
    let segments = segments.is_some().then(|| Tensor::cat(of_segments, 1));
    Embedded { hidden: Tensor::cat(states, 1), mask, segments, shift, continues }
}
