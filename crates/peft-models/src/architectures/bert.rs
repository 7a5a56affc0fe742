//! BERT and RoBERTa: encoders that normalise after each sublayer.

use peft_core::{Activation, Role};
use serde::Deserialize;

use super::Parts;
use crate::blocks::{Embeddings, FeedForward, FrozenLinear, Positions};
use crate::blocks::{SelfAttention, Sublayer, Unembedding};
use crate::checkpoint::Loader;
use crate::config::Architecture;
use crate::encoder::{Encoder, Layer};
use crate::head::{Head, NewHead, Transform};
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are these architectures' own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BertConfig {
    pub num_hidden_layers: usize,
    /// Each head is `d / heads` wide.
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// RoBERTa's first two are not for text.
    pub max_position_embeddings: usize,
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    #[serde(default)]
    pub hidden_act: Activation,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// `null`: as on hidden states.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// Standard deviation of a new head.
    #[serde(default = "fiftieth")]
    pub initializer_range: f64,
}

fn two() -> usize {
    2
}
fn layer_norm_eps() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}
fn fiftieth() -> f64 {
    0.02
}

impl BertConfig {
    /// # Errors
    /// If a field is missing or broken, or asks for something not supported.
    pub(crate) fn new(config: &ModelConfig) -> Result<Self> {
        config.only("position_embedding_type", &["absolute"])?;
        config.only("is_decoder", &["false"])?;
        config.activation("hidden_act")?;
        let own: Self = config.read()?;
        config.heads("num_attention_heads", own.num_attention_heads)?;
        Ok(own)
    }
}

/// Takes the parts of a model from a checkpoint.
pub(super) fn load(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
    task: Task,
    new: NewHead,
) -> Result<Parts> {
    let fields = BertConfig::new(config)?;
    let embeddings = embeddings(loader, config, &fields, own)?;
    let layers = (0..fields.num_hidden_layers)
        .map(|index| layer(loader, &fields, config.hidden_size, own, index))
        .collect::<Result<_>>()?;
    let head = head(loader, config, &fields, &embeddings, task, new)?;
    Ok(Parts { body: Encoder::new(embeddings, layers), head })
}

fn embeddings(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &BertConfig,
    own: &str,
) -> Result<Embeddings> {
    let start = match config.model_type {
        Architecture::Bert => Positions::FromZero,
        Architecture::Roberta | Architecture::XlmRoberta => {
            Positions::After { pad: config.pad_token_id() }
        }
    };
    Embeddings::load(loader, &format!("{own}embeddings"), config, fields, start)
}

fn layer(
    loader: &mut Loader<'_>,
    fields: &BertConfig,
    d: usize,
    own: &str,
    index: usize,
) -> Result<Layer> {
    let path = format!("{own}encoder.layer.{index}");
    let epsilon = fields.layer_norm_eps;
    let attention = SelfAttention::load(
        loader,
        &format!("{path}.attention.self"),
        &format!("{path}.attention.output.dense"),
        index,
        d,
        fields.num_attention_heads,
        fields.attention_probs_dropout_prob,
    )?;
    let after_attention = Sublayer::load(
        loader,
        &format!("{path}.attention.output"),
        &format!("{path}.attention.output.LayerNorm"),
        [Role::AttentionSublayer, Role::AttentionNorm],
        index,
        d,
        epsilon,
    )?;
    let feed_forward = FeedForward::load(
        loader,
        [&format!("{path}.intermediate.dense"), &format!("{path}.output.dense")],
        index,
        [d, fields.intermediate_size],
        fields.hidden_act,
    )?;
    let after_feed_forward = Sublayer::load(
        loader,
        &format!("{path}.output"),
        &format!("{path}.output.LayerNorm"),
        [Role::FeedForwardSublayer, Role::FeedForwardNorm],
        index,
        d,
        epsilon,
    )?;
    let dropout = fields.hidden_dropout_prob;
    Ok(Layer { attention, after_attention, feed_forward, after_feed_forward, dropout })
}

fn head(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &BertConfig,
    embeddings: &Embeddings,
    task: Task,
    new: NewHead,
) -> Result<Head> {
    let d = config.hidden_size;
    let dropout = fields.classifier_dropout.unwrap_or(fields.hidden_dropout_prob);
    let mut new = new.with_std(fields.initializer_range);
    let is_bert = config.model_type == Architecture::Bert;
    Ok(match task {
        Task::Encode => Head::None,
        Task::ClassifyTokens { labels } => {
            Head::Tokens { labels: new.linear(loader, "classifier", [d, labels]).into(), dropout }
        }
        Task::ClassifySequence { labels } if is_bert => Head::Sequence {
            // The pooler is the encoder's: a random frozen one would be of no use.
            dense: FrozenLinear::load(loader, "bert.pooler.dense", Role::Pooler, None, [d, d])?
                .into(),
            labels: new.linear(loader, "classifier", [d, labels]).into(),
            dropout,
            dropout_first: false,
        },
        Task::ClassifySequence { labels } => Head::Sequence {
            dense: new.linear(loader, "classifier.dense", [d, d]).into(),
            labels: new.linear(loader, "classifier.out_proj", [d, labels]).into(),
            dropout,
            dropout_first: true,
        },
        Task::MaskedLm => {
            config.only("tie_word_embeddings", &["true"])?;
            let own_act = fields.hidden_act;
            let (path, dense, norm, activation) = match is_bert {
                true => ("cls.predictions", "transform.dense", "transform.LayerNorm", own_act),
                false => ("lm_head", "dense", "layer_norm", Activation::Gelu),
            };
            let dense = new.linear(loader, &format!("{path}.{dense}"), [d, d]);
            let epsilon = fields.layer_norm_eps;
            let norm = new.norm(loader, &format!("{path}.{norm}"), d, epsilon);
            let transform = Some(Transform { dense, activation, norm }.into());
            let (words, site) = (embeddings.words(), embeddings.site());
            let decoder = Unembedding::load(loader, &mut new, path, words, site).into();
            Head::LanguageModel { transform, decoder }
        }
    })
}
