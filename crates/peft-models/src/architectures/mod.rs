//! Architectures: thin files that turn a checkpoint's configuration into blocks, and its key names
//! into paths.

mod bart;
mod bert;
mod distilbert;
mod gpt2;
mod llama;
mod t5;

use burn::tensor::Tensor;
use peft_core::{Activation, Role};

use crate::blocks::{Causality, Embeddings, FrozenEmbedding, Unembedding};
use crate::body::Body;
use crate::checkpoint::Loader;
use crate::config::Architecture;
use crate::head::{Head, NewHead, ReadToken, SequenceHead};
use crate::{ModelConfig, Result, Task};

/// A model's body and head.
pub(crate) struct Parts {
    pub(crate) body: Body,
    pub(crate) head: Head,
}

/// Takes the parts of a model from a checkpoint; `own` is what the body is called in this model,
/// and a dot: `bert.`.
pub(crate) fn load(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
    task: Task,
    new: NewHead,
) -> Result<Parts> {
    let load = match config.model_type {
        Architecture::Bert | Architecture::Roberta | Architecture::XlmRoberta => bert::load,
        Architecture::DistilBert => distilbert::load,
        Architecture::Gpt2 => gpt2::load,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => llama::load,
        Architecture::T5 => t5::load,
        Architecture::Bart => bart::load,
    };
    load(loader, config, own, task, new)
}

/// One of the stacks of an encoder-decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Encoder,
    Decoder,
}

impl Side {
    /// What it is called in checkpoints.
    fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        }
    }

    /// The role of its embeddings.
    fn embeddings(self) -> Role {
        match self {
            Self::Encoder => Role::Embeddings,
            Self::Decoder => Role::DecoderEmbeddings,
        }
    }

    /// Which tokens a token sees.
    fn causality(self) -> Causality {
        match self {
            Self::Encoder => Causality::None,
            Self::Decoder => Causality::Tokens,
        }
    }

    /// The role of its self-attentions.
    fn attention(self) -> Role {
        match self {
            Self::Encoder => Role::EncoderAttention,
            Self::Decoder => Role::SelfAttention,
        }
    }
}

/// The table of words that encoder and decoder share.
fn shared_words(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
) -> Result<FrozenEmbedding> {
    let path = match loader.has(&format!("{own}shared.weight")) {
        true => format!("{own}shared"),
        false => format!("{own}encoder.embed_tokens"),
    };
    let shape = [config.vocab_size, config.hidden_size];
    FrozenEmbedding::load(loader, &path, Role::WordEmbedding, shape)
}

/// The head of a decoder without an encoder; `tokens` names that of token classification, with its
/// dropout.
fn decoder_head(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    task: Task,
    mut new: NewHead,
    embeddings: &Embeddings,
    tied: bool,
    tokens: (&str, f64),
) -> Head {
    let d = config.hidden_size;
    match task {
        Task::ClassifySequence { labels } => Head::Sequence(SequenceHead {
            token: ReadToken::Last { pad: config.pad_token_id },
            dense: None,
            labels: new.unbiased(loader, "score", [d, labels]).into(),
            dropout: [0.0; 2],
        }),
        Task::ClassifyTokens { labels } => {
            let (path, dropout) = tokens;
            Head::Tokens { labels: new.linear(loader, path, [d, labels]).into(), dropout }
        }
        Task::CausalLm => {
            let decoder = match tied {
                true => Unembedding::tied(loader, "lm_head", Some("lm_head"), embeddings, None),
                false => Unembedding::own(loader, &mut new, "lm_head", "lm_head", embeddings, None),
            };
            Head::LanguageModel { transform: None, decoder: decoder.into() }
        }
        _ => Head::None,
    }
}

/// The head of a decoder with an encoder. A language model's words are compared with the embeddings
/// where there are `tied` things to do: a factor on hidden states, and a bias.
fn encoder_decoder_head(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    task: Task,
    mut new: NewHead,
    embeddings: &Embeddings,
    tied: Option<(f64, Option<Tensor<1>>)>,
    dropout: f64,
) -> Result<Head> {
    let d = embeddings.site.d_out();
    Ok(match task {
        Task::ClassifySequence { labels } => {
            let expected = "the token that ends a text, which a classifier reads";
            let eos = config.eos_token_id();
            let eos = eos.ok_or_else(|| config.unsupported("eos_token_id", expected))? as usize;
            let dense = new.linear(loader, "classification_head.dense", [d, d]);
            let labels = new.linear(loader, "classification_head.out_proj", [d, labels]);
            Head::Sequence(SequenceHead {
                token: ReadToken::LastOf { eos },
                dense: Some(Box::new((dense, Activation::Tanh))),
                labels: labels.into(),
                dropout: [dropout; 2],
            })
        }
        Task::Seq2SeqLm => {
            let decoder = match tied {
                // A table of its own would lack the factor (T5), or have encoder and decoder with
                // tables of their own too (BART).
                Some((scale, bias)) => {
                    let head = Unembedding::tied(loader, "lm_head", None, embeddings, None);
                    head.with_scale(scale).with_buffer(bias)
                }
                None => Unembedding::own(loader, &mut new, "lm_head", "lm_head", embeddings, None),
            };
            Head::LanguageModel { transform: None, decoder: decoder.into() }
        }
        _ => Head::None,
    })
}
