//! Encoders that normalise after each sublayer.

use burn::tensor::{Bool, Tensor};
use peft_core::{Embedded, ResidualStates};

use crate::blocks::{Embeddings, FeedForward, Pass, SelfAttention, Sublayer};
use crate::{ModelInput, Result};

/// Embeddings and layers.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

/// Self-attention and a feed-forward network.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) attention: SelfAttention,
    pub(crate) after_attention: Sublayer,
    pub(crate) feed_forward: FeedForward,
    pub(crate) after_feed_forward: Sublayer,
    pub(crate) dropout: f64,
}

impl Encoder {
    pub(crate) fn new(embeddings: Embeddings, layers: Vec<Layer>) -> Self {
        Self { embeddings, layers }
    }

    /// The longest text, in tokens.
    pub(crate) fn max_tokens(&self) -> usize {
        self.embeddings.limit()
    }

    /// What the head is given, `[batch, tokens, d]`.
    pub(crate) fn forward(&self, input: &ModelInput, pass: Pass<'_>) -> Result<Tensor<3>> {
        let Embedded { hidden, mask, .. } = self.embeddings.forward(input, pass)?;
        let keep = pass.hooks.reads_hidden_states();
        let mut states = vec![hidden];
        for layer in &self.layers {
            let next = layer.forward(states[states.len() - 1].clone(), mask.as_ref(), pass);
            if !keep {
                states.clear();
            }
            states.push(next);
        }
        Ok(pass.hooks.head_input(&states))
    }
}

impl Layer {
    fn forward(
        &self,
        hidden: Tensor<3>,
        mask: Option<&Tensor<2, Bool>>,
        pass: Pass<'_>,
    ) -> Tensor<3> {
        let output = self.attention.forward(hidden.clone(), mask, pass);
        let output = pass.dropout(output, self.dropout);
        let states = ResidualStates { input: hidden.clone(), output, residual: hidden };
        let hidden = self.after_attention.forward(states, pass);
        let output = self.feed_forward.forward(hidden.clone(), pass);
        let output = pass.dropout(output, self.dropout);
        let states = ResidualStates { input: hidden.clone(), output, residual: hidden };
        self.after_feed_forward.forward(states, pass)
    }
}
