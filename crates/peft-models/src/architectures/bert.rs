//! BERT and RoBERTa: encoders that normalise after each sublayer.

use peft_core::{Activation, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Parts;
use crate::blocks::{AttentionSpec, Embeddings, FeedForwardSpec, FrozenEmbedding, FrozenLinear};
use crate::blocks::{FrozenNorm, FunctionSpec, Heads, LinearForm, NormForm, Place, Positions};
use crate::blocks::{ProjectionPaths, Sublayer, SublayerStyle, Unembedding};
use crate::body::{Body, Transformer};
use crate::checkpoint::Loader;
use crate::config::{Architecture, switch};
use crate::head::{ANSWER_LAYER, Head, NewHead, ReadToken, SequenceHead, Transform};
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are these architectures' own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
struct BertConfig {
    num_hidden_layers: usize,
    /// Each head is `d / heads` wide.
    num_attention_heads: usize,
    intermediate_size: usize,
    /// RoBERTa's first two are not for text.
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default)]
    hidden_act: Activation,
    #[serde(default = "layer_norm_eps")]
    layer_norm_eps: f64,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    attention_probs_dropout_prob: f64,
    /// `null`: as on hidden states.
    #[serde(default)]
    classifier_dropout: Option<f64>,
    /// Standard deviation of a new head.
    #[serde(default = "fiftieth")]
    initializer_range: f64,
    #[serde(default = "yes", deserialize_with = "switch")]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
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
    fn new(config: &ModelConfig) -> Result<Self> {
        config.only("position_embedding_type", &["absolute"])?;
        // Without a type, transformers adds no positions at all.
        if config.fields().get("position_embedding_type").is_some_and(Value::is_null) {
            return Err(config.unsupported("position_embedding_type", "absolute"));
        }
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
    let layers = loader.layers(fields.num_hidden_layers, |loader, index| {
        layer(loader, &fields, config.hidden_size, own, index)
    })?;
    loader.complete()?;
    let head = head(loader, config, &fields, &embeddings, task, new)?;
    Ok(Parts { body: Body::Single(Transformer::new(embeddings, layers)), head })
}

fn embeddings(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &BertConfig,
    own: &str,
) -> Result<Embeddings> {
    let (path, d) = (format!("{own}embeddings"), config.hidden_size);
    let mut table = |name: &str, role, entries| {
        FrozenEmbedding::load(loader, &format!("{path}.{name}"), role, [entries, d])
    };
    let words = table("word_embeddings", Role::WordEmbedding, config.vocab_size)?;
    let positions =
        table("position_embeddings", Role::PositionEmbedding, fields.max_position_embeddings)?;
    let segments =
        table("token_type_embeddings", Role::TokenTypeEmbedding, fields.type_vocab_size)?;
    let form = NormForm::Layer(fields.layer_norm_eps);
    let norm_path = format!("{path}.LayerNorm");
    let norm = FrozenNorm::load(loader, &norm_path, Role::EmbeddingNorm, None, d, form)?;
    let positions = match config.model_type {
        Architecture::Bert => Positions::Learned { table: positions, first: 0 },
        // Positions begin behind the padding token: here at 0, and no token is padding.
        _ if config.field("pad_token_id") == Some(&json!(-1)) => {
            Positions::Learned { table: positions, first: 0 }
        }
        _ => {
            let (pad, rows) = (config.pad_token_id(), fields.max_position_embeddings);
            if pad >= rows {
                let supported = format!("below max_position_embeddings ({rows})");
                return Err(config.unsupported("pad_token_id", supported));
            }
            Positions::After { table: positions, pad }
        }
    };
    Ok(Embeddings::new(loader, &path, Role::Embeddings, words, usize::MAX)
        .with_positions(positions)
        .with_segments(segments)
        .with_norm(norm)
        .with_dropout(fields.hidden_dropout_prob))
}

fn layer(
    loader: &mut Loader<'_>,
    fields: &BertConfig,
    d: usize,
    own: &str,
    index: usize,
) -> Result<Vec<Sublayer>> {
    let path = |rest: &str| format!("{own}encoder.layer.{index}.{rest}");
    let style = SublayerStyle {
        d,
        norm: NormForm::Layer(fields.layer_norm_eps),
        norm_first: false,
        dropout: fields.hidden_dropout_prob,
    };
    let heads = Heads::equal(fields.num_attention_heads, d);
    let attention = FunctionSpec::Attention(AttentionSpec {
        path: &path("attention.self"),
        role: Role::SelfAttention,
        projections: ProjectionPaths::Apart([
            &path("attention.self.query"),
            &path("attention.self.key"),
            &path("attention.self.value"),
        ]),
        form: LinearForm::Biased,
        output: &path("attention.output.dense"),
        output_form: LinearForm::Biased,
        d,
        heads,
        scale: heads.scale(),
        dropout: fields.attention_probs_dropout_prob,
    });
    let place =
        Place { path: &path("attention.output"), norm: &path("attention.output.LayerNorm") };
    let attention = Sublayer::load(loader, index, &style, place, &attention)?;
    let feed_forward = FunctionSpec::FeedForward(FeedForwardSpec {
        gate: None,
        up: &path("intermediate.dense"),
        down: &path("output.dense"),
        form: LinearForm::Biased,
        widths: [d, fields.intermediate_size],
        activation: fields.hidden_act,
        dropout: 0.0,
    });
    let place = Place { path: &path("output"), norm: &path("output.LayerNorm") };
    let feed_forward = Sublayer::load(loader, index, &style, place, &feed_forward)?;
    Ok(vec![attention, feed_forward])
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
        Task::ClassifyTokens { labels } => {
            Head::Tokens { labels: new.linear(loader, "classifier", [d, labels]).into(), dropout }
        }
        Task::ClassifySequence { labels } => {
            let (dense, labels) = if is_bert {
                // The pooler is the encoder's: a random frozen one would be of no use.
                let (role, form) = (Role::Pooler, LinearForm::Biased);
                let dense =
                    FrozenLinear::load(loader, "bert.pooler.dense", role, None, [d, d], form)?;
                (dense, new.linear(loader, "classifier", [d, labels]))
            } else {
                let dense = new.linear(loader, "classifier.dense", [d, d]);
                (dense, new.linear(loader, "classifier.out_proj", [d, labels]))
            };
            Head::Sequence(SequenceHead {
                token: ReadToken::First,
                dense: Some(Box::new((dense, Activation::Tanh))),
                labels: labels.into(),
                dropout: [if is_bert { 0.0 } else { dropout }, dropout],
            })
        }
        Task::QuestionAnswering => {
            let labels = new.linear(loader, ANSWER_LAYER, [d, 2]).into();
            Head::Tokens { labels, dropout: 0.0 }
        }
        Task::MaskedLm => {
            let own_act = fields.hidden_act;
            let (path, dense, norm, activation) = match is_bert {
                true => ("cls.predictions", "transform.dense", "transform.LayerNorm", own_act),
                false => ("lm_head", "dense", "layer_norm", Activation::Gelu),
            };
            let dense = new.linear(loader, &format!("{path}.{dense}"), [d, d]);
            let epsilon = fields.layer_norm_eps;
            let norm = new.norm(loader, &format!("{path}.{norm}"), d, epsilon);
            let transform = Some(Transform { dense, activation, norm }.into());
            let bias = new.bias(loader, path, embeddings.words.len());
            let table = format!("{path}.decoder");
            let decoder = match fields.tie_word_embeddings {
                true => Unembedding::tied(loader, path, Some(&table), embeddings, Some(bias)),
                false => Unembedding::own(loader, &mut new, path, &table, embeddings, Some(bias)),
            };
            Head::LanguageModel { transform, decoder: decoder.into() }
        }
        _ => Head::None,
    })
}
