//! What all layers of a stack are given beside the hidden states.

use std::cell::RefCell;

use burn::tensor::{Bool, Device, Int, Tensor};

use super::attention::MASKED;
use super::{Angles, RelativeBias};

/// What all layers of a stack are given beside the hidden states.
#[derive(Debug)]
pub struct Context<'a> {
    /// `[batch, tokens]`, true where there is a token; `None` where that is everywhere.
    pub mask: Option<Tensor<2, Bool>>,
    /// What a decoder's cross-attention looks at.
    pub encoded: Option<&'a EncodedText>,
    /// By how much queries and keys are turned, if they are.
    pub angles: Option<Angles>,
    /// Biases by distance, if there are any, and for each row (or for all in one) how many
    /// positions are taken before the first query.
    pub relative: Option<(&'a RelativeBias, Vec<usize>)>,
    /// Whether a token sees those before it only.
    pub causal: bool,
    /// The device of biases.
    pub device: Device,
    /// The last bias, and for how many positions it was, of which how many were filled up.
    computed: RefCell<Option<(usize, Vec<usize>, Tensor<4>)>>,
}

/// What an encoder returned.
#[derive(Debug)]
pub struct EncodedText {
    /// `[batch, positions, d]`.
    pub hidden: Tensor<3>,
    /// `[batch, positions]`, true where there is a token; `None` where that is everywhere.
    pub mask: Option<Tensor<2, Bool>>,
}

impl<'a> Context<'a> {
    /// Layers on `device`, whose tokens see each other.
    pub fn new(mask: Option<Tensor<2, Bool>>, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let computed = RefCell::new(None);
        Self { mask, encoded: None, angles: None, relative: None, causal: false, device, computed }
    }

    /// What scores of `tokens` queries and `positions` keys get for where they are,
    /// `[rows, heads or 1, tokens, positions]`; `None` where that is nothing. `filled` is that of the
    /// keys ([`KeyValue`](peft_core::KeyValue)). Layers ask for the same over and over, unless a
    /// method gives some of them more keys.
    pub(super) fn position_bias(
        &self,
        tokens: usize,
        positions: usize,
        filled: Vec<usize>,
    ) -> Option<Tensor<4>> {
        if let Some((known, known_filled, bias)) = &*self.computed.borrow()
            && (*known, known_filled) == (positions, &filled)
        {
            return Some(bias.clone());
        }
        let relative = self.relative.as_ref();
        let relative =
            relative.map(|(bias, taken)| bias.forward(taken, &filled, [tokens, positions]));
        let causal =
            (self.causal && tokens > 1).then(|| causal_bias(tokens, positions, &self.device));
        let bias = match (relative, causal) {
            (Some(relative), Some(causal)) => relative + causal,
            (relative, causal) => relative.or(causal)?,
        };
        *self.computed.borrow_mut() = Some((positions, filled, bias.clone()));
        Some(bias)
    }
}

/// `[1, 1, tokens, positions]`: [`MASKED`] at later tokens. The last query is at the last position;
/// positions that a method put before the text are seen by all.
fn causal_bias(tokens: usize, positions: usize, device: &Device) -> Tensor<4> {
    let range =
        |from: i64, length: usize| Tensor::<1, Int>::arange(from..from + length as i64, device);
    let queries = range((positions - tokens) as i64, tokens).reshape([tokens, 1]);
    let keys = range(0, positions).reshape([1, positions]);
    let later = keys.expand([tokens, positions]).greater(queries.expand([tokens, positions]));
    Tensor::<2>::zeros([tokens, positions], device)
        .mask_fill(later, MASKED)
        .reshape([1, 1, tokens, positions])
}
