//! Sites: the places of a frozen model that a method can meet.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of module a [`Site`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteKind {
    /// `y = x W + b`, `W` of shape `[d_in, d_out]`.
    Linear,
    /// A table of shape `[entries, d]`.
    Embedding,
    /// A layer norm (or RMS norm) over the last axis.
    Norm,
    /// An attention: where keys and values can be extended.
    Attention,
    /// A residual sublayer: where functions can be composed.
    Sublayer,
}

/// The role of a [`Site`] in its transformer, independent of its name in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The query projection.
    Query,
    /// The key projection.
    Key,
    /// The value projection.
    Value,
    /// Query, key and value in one projection, side by side in its output.
    QueryKeyValue,
    /// The projection after attention.
    AttentionOutput,
    /// The first feed-forward projection, or the one that a gate multiplies.
    FeedForwardUp,
    /// The feed-forward projection that becomes a gate.
    FeedForwardGate,
    /// The second feed-forward projection.
    FeedForwardDown,
    /// The projection that summarises a sequence for its head.
    Pooler,
    /// A task head.
    Head,
    /// The token embedding.
    WordEmbedding,
    /// The position embedding.
    PositionEmbedding,
    /// The segment embedding.
    TokenTypeEmbedding,
    /// Biases of attention by the distance between two tokens.
    RelativePosition,
    /// The norm of the embeddings.
    EmbeddingNorm,
    /// The norm of an attention sublayer.
    AttentionNorm,
    /// The norm of a cross-attention sublayer.
    CrossAttentionNorm,
    /// The norm of a feed-forward sublayer.
    FeedForwardNorm,
    /// The norm after the last layer.
    FinalNorm,
    /// Self-attention, in a model with an encoder and a decoder the decoder's.
    SelfAttention,
    /// Self-attention of the encoder, in a model with an encoder and a decoder.
    EncoderAttention,
    /// A decoder's attention to what the encoder returns. Its projections have the roles of any
    /// attention's.
    CrossAttention,
    /// The sublayer around self-attention.
    AttentionSublayer,
    /// The sublayer around cross-attention.
    CrossAttentionSublayer,
    /// The sublayer around the feed-forward network.
    FeedForwardSublayer,
    /// The embeddings as a whole, in a model with an encoder and a decoder the encoder's.
    Embeddings,
    /// The embeddings of the decoder, in a model with an encoder and a decoder.
    DecoderEmbeddings,
    /// Anything else, in a module that is not a transformer.
    Other,
}

/// The heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionHeads {
    /// Of queries.
    pub count: usize,
    /// Of keys and values; a divisor of `count`.
    pub key_value: usize,
    /// The width of one.
    pub size: usize,
    /// Whether queries and keys are turned by their positions, channel `i` with `i + size / 2`.
    pub is_rotary: bool,
}

impl AttentionHeads {
    /// As many heads of a width that is smaller by a factor: rounded up, and even where two channels
    /// are turned together.
    pub fn narrowed(self, reduction: usize) -> Self {
        let unit = if self.is_rotary { 2 } else { 1 };
        Self { size: self.size.div_ceil(reduction * unit) * unit, ..self }
    }
}

/// One place of a frozen model: a linear layer, a norm, an embedding, an attention or a sublayer.
///
/// Target patterns match on [`path`](Self::path), the name that the Hugging Face checkpoint gives
/// the module (`bert.encoder.layer.0.attention.self.query`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Position in [`Base`](crate::Base); a method may index its own state with it.
    pub index: usize,
    /// Dotted path of the module in the checkpoint.
    pub path: String,
    /// The kind of module.
    pub kind: SiteKind,
    /// What it does.
    pub role: Role,
    /// The transformer layer it belongs to, if any; a decoder's are counted on from its encoder's.
    pub layer: Option<usize>,
    /// `[d_in, d_out]` of a linear layer, `[entries, d]` of an embedding, `[d, d]` of the others;
    /// of an attention `d` and the width of its keys, which several heads may share.
    pub shape: [usize; 2],
    /// Whether the module has a bias.
    pub has_bias: bool,
    /// Whether the weight of a linear layer is a table of words the other way round: that of a
    /// language model's head, which methods may edit as a [table](crate::Hooks::table).
    pub is_unembedding: bool,
    /// The [index](Self::index) of the embedding whose table the weight is, where it has none of its
    /// own.
    pub tied_to: Option<usize>,
    /// Whether the checkpoint holds the weight as `[d_in, d_out]` (`Conv1D`), not as PyTorch's
    /// `Linear` does.
    pub fan_in_fan_out: bool,
}

impl Site {
    /// Width of the input: `d_in`, or the number of entries of an embedding.
    pub fn d_in(&self) -> usize {
        self.shape[0]
    }

    /// Width of the output.
    pub fn d_out(&self) -> usize {
        self.shape[1]
    }

    /// The number of frozen values here: weights and biases; 0 for attentions and sublayers. A
    /// weight that is another site's counts there.
    pub fn num_params(&self) -> usize {
        let bias = if self.has_bias { self.d_out() } else { 0 };
        match self.kind {
            SiteKind::Linear if self.tied_to.is_some() => bias,
            SiteKind::Linear | SiteKind::Embedding => self.d_in() * self.d_out() + bias,
            SiteKind::Norm => self.d_out() + bias,
            SiteKind::Attention | SiteKind::Sublayer => 0,
        }
    }

    /// The last component of the path: `query`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.path, self.shape)
    }
}
