//! What all layers of a stack are given beside the hidden states.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};
use peft_core::Rows;

use super::{Angles, KeyPlaces, RelativeBias};

/// Which tokens of a text a token of it sees. Padding in front of a text sees none of them, and attends
/// to places alike, as in transformers; only what reads padding can tell to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Causality {
    /// All.
    None,
    /// Those before it. Padding in front attends to all places.
    Tokens,
    /// Those before it. Padding in front attends to the places before it, as in GPT-2.
    Places,
}

/// What all layers of a stack are given beside the hidden states.
#[derive(Debug)]
pub struct Context<'a> {
    /// What a decoder's cross-attention looks at.
    pub encoded: Option<&'a EncodedText>,
    /// By how much queries and keys are turned, if they are.
    pub angles: Option<Angles>,
    /// Biases by distance, if there are any.
    pub relative: Option<&'a RelativeBias>,
    /// Which tokens a token sees.
    pub causality: Causality,
    /// The device of biases.
    device: Device,
    /// The last bias of the attention to the text itself, and of that to an encoder, with the keys
    /// that it was for: layers ask for the same over and over, unless a method gives some of them
    /// more keys.
    computed: RefCell<[Option<Computed>; 2]>,
}

/// The keys that a bias was for, and the bias.
type Computed = (KeyPlaces, Option<Tensor<4>>);

/// What an encoder returned.
#[derive(Debug)]
pub struct EncodedText {
    /// `[tokens, d]`.
    pub hidden: Tensor<2>,
    /// Which tokens belong to which text.
    pub rows: Rows,
    /// What the networks beside it returned, for those beside the decoder.
    pub beside: Vec<EncodedText>,
}

impl<'a> Context<'a> {
    /// Layers on `device`, whose tokens see each other.
    pub fn new(device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let computed = RefCell::default();
        let causality = Causality::None;
        Self { encoded: None, angles: None, relative: None, causality, device, computed }
    }

    /// What is added to scores, `[rows or 1, heads or 1, queries or 1, keys]`; `None` where that is
    /// nothing. An attention that `crosses` looks at an encoder's text.
    pub(super) fn bias(
        &self,
        queries: &Rows,
        keys: &KeyPlaces,
        crosses: bool,
    ) -> Option<Tensor<4>> {
        let computed = &mut self.computed.borrow_mut()[usize::from(crosses)];
        if let Some((known, bias)) = computed
            && known == keys
        {
            return bias.clone();
        }
        let seen = match self.causality {
            Causality::None => keys.mask(&self.device),
            _ if crosses => keys.mask(&self.device),
            causality => keys.causal(queries, causality, &self.device),
        };
        let relative = self.relative.filter(|_| !crosses);
        let relative = relative.map(|relative| keys.relative(relative, queries));
        let bias = match (seen, relative) {
            (Some(seen), Some(relative)) => Some(relative + seen),
            (seen, relative) => seen.or(relative),
        };
        *computed = Some((keys.clone(), bias.clone()));
        bias
    }
}
