//! Bodies: a stack of layers, or an encoder and a decoder.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::blocks::{Context, EmbeddedText, Embeddings, EncodedText, FrozenNorm, Pass};
use crate::blocks::{RelativeBias, Rotary, Sublayer};
use crate::input::Text;
use crate::{Cache, Error, ModelInput, Result};

/// Everything before the head.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Body {
    /// An encoder, or a decoder that looks at nothing else.
    Single(Transformer),
    /// An encoder, and a decoder that looks at what it returns.
    EncoderDecoder {
        encoder: Transformer,
        decoder: Transformer,
        /// The token that the decoder's text begins with where it is that of the encoder, moved by
        /// one: as classification heads read it.
        start: Option<usize>,
    },
}

/// What a body returns.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// `[batch, positions, d]`.
    pub(crate) states: Tensor<3>,
    /// `[batch, positions]`, true where there is a token; `None` where that is everywhere.
    pub(crate) mask: Option<Tensor<2, Bool>>,
}

/// Embeddings and layers.
#[derive(Debug, Clone)]
pub(crate) struct Transformer {
    pub(crate) embeddings: Embeddings,
    /// Each is the sublayers that it consists of.
    pub(crate) layers: Vec<Vec<Sublayer>>,
    /// After the last layer.
    pub(crate) norm: Option<FrozenNorm>,
    pub(crate) rotary: Option<Rotary>,
    pub(crate) relative: Option<RelativeBias>,
    /// Whether a token sees those before it only.
    pub(crate) causal: bool,
    /// After the norm.
    pub(crate) dropout: f64,
}

impl Body {
    /// The longest text, in tokens.
    pub(crate) fn max_tokens(&self) -> usize {
        match self {
            Self::Single(stack) => stack.embeddings.limit(),
            Self::EncoderDecoder { encoder, decoder, .. } => {
                encoder.embeddings.limit().min(decoder.embeddings.limit())
            }
        }
    }

    /// What the head is given, `[batch, tokens, d]`, and the mask, both of which methods may have
    /// lengthened.
    pub(crate) fn forward(&self, input: &ModelInput, pass: Pass<'_>) -> Result<Hidden> {
        match self {
            Self::Single(stack) if pass.cache.is_some() && !stack.causal => Err(Error::Input(
                "a model whose tokens see later ones cannot go on from a cache".into(),
            )),
            Self::Single(stack) => {
                let (states, mask) = stack.forward(input.text(), None, pass)?;
                Ok(Hidden { states: pass.hooks.head_input(&states), mask })
            }
            Self::EncoderDecoder { encoder, decoder, start } => {
                let moved;
                let text = match (input.decoder(), start) {
                    (Some(text), _) => text,
                    (None, Some(start)) => {
                        moved = input.text().moved(*start);
                        &moved
                    }
                    (None, None) => {
                        return Err(Error::Input(
                            "a model with a decoder needs the decoder's tokens too".into(),
                        ));
                    }
                };
                let continues = pass.cache.is_some_and(|cache| !cache.is_empty());
                let encoded = match continues {
                    // The decoder's attentions have kept what they need of it.
                    true => None,
                    false => {
                        let pass = Pass { cache: None, ..pass };
                        let (mut states, mask) = encoder.forward(input.text(), None, pass)?;
                        let hidden = states.pop().expect("a stack has at least one hidden state");
                        Some(EncodedText { hidden, mask })
                    }
                };
                let (states, mask) = decoder.forward(text, encoded.as_ref(), pass)?;
                Ok(Hidden { states: pass.hooks.head_input(&states), mask })
            }
        }
    }
}

impl Transformer {
    /// Tokens that see each other, and layers with nothing after them.
    pub(crate) fn new(embeddings: Embeddings, layers: Vec<Vec<Sublayer>>) -> Self {
        let (norm, rotary, relative) = (None, None, None);
        Self { embeddings, layers, norm, rotary, relative, causal: false, dropout: 0.0 }
    }

    /// The hidden states, `[batch, tokens, d]`, of which only the last is kept unless methods read
    /// the others; and the mask, which a method may have lengthened.
    fn forward(
        &self,
        text: &Text,
        encoded: Option<&EncodedText>,
        pass: Pass<'_>,
    ) -> Result<(Vec<Tensor<3>>, Option<Tensor<2, Bool>>)> {
        let EmbeddedText { hidden, mask, positions, taken, reach, next } =
            self.embeddings.forward(text, pass)?;
        let past = pass.cache.map_or(0, Cache::len);
        let length = hidden.dims()[1];
        let device = positions.device();
        let mut context = Context::new(mask.clone(), &device);
        context.encoded = encoded;
        context.causal = self.causal;
        let rotary = self.rotary.as_ref();
        context.angles = rotary.map(|rotary| rotary.angles(positions, reach, &device));
        let before = |taken: Vec<usize>| taken.into_iter().map(|taken| taken + past).collect();
        context.relative = self.relative.as_ref().map(|bias| (bias, before(taken)));
        let keep = pass.hooks.reads_hidden_states();
        let mut states = vec![hidden];
        for (index, layer) in self.layers.iter().enumerate() {
            let mut hidden = states[states.len() - 1].clone();
            for sublayer in layer {
                hidden = sublayer.forward(hidden, &context, pass);
            }
            if let (Some(norm), true) = (&self.norm, index + 1 == self.layers.len()) {
                hidden = pass.dropout(norm.forward(hidden, pass), self.dropout);
            }
            if !keep {
                states.clear();
            }
            states.push(hidden);
        }
        if let Some(cache) = pass.cache {
            cache.advance(length, next);
        }
        Ok((states, mask))
    }
}

/// The states at some places of a batch, each a row and a position in it: `[places, d]`.
pub(crate) fn tokens_at(states: Tensor<3>, places: impl Iterator<Item = [usize; 2]>) -> Tensor<2> {
    let [batch, positions, d] = states.dims();
    let indices: Vec<i64> = places.map(|[row, at]| (row * positions + at) as i64).collect();
    let device = states.device().without_autodiff();
    let count = indices.len();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &device);
    states.reshape([batch * positions, d]).select(0, indices)
}
