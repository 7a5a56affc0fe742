//! DistilBERT: an encoder that normalises after each sublayer, without segments.

use peft_core::{Activation, Role};
use serde::Deserialize;

use super::Parts;
use crate::blocks::{AttentionSpec, Embeddings, FeedForwardSpec, FrozenEmbedding, FrozenNorm};
use crate::blocks::{FunctionSpec, Heads, LinearForm, NormForm, Place, Positions};
use crate::blocks::{ProjectionPaths, Sublayer, SublayerStyle, Unembedding};
use crate::body::{Body, Transformer};
use crate::checkpoint::Loader;
use crate::config::switch;
use crate::head::{ANSWER_LAYER, Head, NewHead, ReadToken, SequenceHead, Transform};
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are this architecture's own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct DistilBertConfig {
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    activation: Activation,
    dropout: f64,
    attention_dropout: f64,
    seq_classif_dropout: f64,
    qa_dropout: f64,
    initializer_range: f64,
    #[serde(deserialize_with = "switch")]
    tie_word_embeddings: bool,
}

impl Default for DistilBertConfig {
    fn default() -> Self {
        Self {
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            max_position_embeddings: 512,
            activation: Activation::Gelu,
            dropout: 0.1,
            attention_dropout: 0.1,
            seq_classif_dropout: 0.2,
            qa_dropout: 0.1,
            initializer_range: 0.02,
            tie_word_embeddings: true,
        }
    }
}

/// That of every norm, which the configuration does not name.
const EPSILON: f64 = 1e-12;

/// Takes the parts of a model from a checkpoint.
pub(super) fn load(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
    task: Task,
    new: NewHead,
) -> Result<Parts> {
    config.activation("activation")?;
    let fields: DistilBertConfig = config.read()?;
    config.heads("n_heads", fields.n_heads)?;
    let d = config.hidden_size;
    // What adapter-hub/adapters calls it in this model.
    loader.base().set_adapters_self_prefix("self");
    let path = format!("{own}embeddings");
    let mut table = |name: &str, role, entries| {
        FrozenEmbedding::load(loader, &format!("{path}.{name}"), role, [entries, d])
    };
    let words = table("word_embeddings", Role::WordEmbedding, config.vocab_size)?;
    let positions =
        table("position_embeddings", Role::PositionEmbedding, fields.max_position_embeddings)?;
    let (norm_path, form) = (format!("{path}.LayerNorm"), NormForm::Layer(EPSILON));
    let norm = FrozenNorm::load(loader, &norm_path, Role::EmbeddingNorm, None, d, form)?;
    let embeddings = Embeddings::new(loader, &path, Role::Embeddings, words, usize::MAX)
        .with_positions(Positions::Learned { table: positions, first: 0 })
        .with_norm(norm)
        .with_dropout(fields.dropout);
    let layers =
        loader.layers(fields.n_layers, |loader, index| layer(loader, &fields, d, own, index))?;
    loader.complete()?;
    let mut new = new.with_std(fields.initializer_range);
    let head = match task {
        Task::ClassifySequence { labels } => {
            let dense = new.linear(loader, "pre_classifier", [d, d]);
            Head::Sequence(SequenceHead {
                token: ReadToken::First,
                dense: Some(Box::new((dense, Activation::Relu))),
                labels: new.linear(loader, "classifier", [d, labels]).into(),
                dropout: [0.0, fields.seq_classif_dropout],
            })
        }
        Task::ClassifyTokens { labels } => Head::Tokens {
            labels: new.linear(loader, "classifier", [d, labels]).into(),
            dropout: fields.dropout,
        },
        Task::QuestionAnswering => Head::Tokens {
            labels: new.linear(loader, ANSWER_LAYER, [d, 2]).into(),
            dropout: fields.qa_dropout,
        },
        Task::MaskedLm => {
            let dense = new.linear(loader, "vocab_transform", [d, d]);
            let norm = new.norm(loader, "vocab_layer_norm", d, EPSILON);
            let transform = Transform { dense, activation: fields.activation, norm };
            let bias = new.bias(loader, "vocab_projector", config.vocab_size);
            let (path, bias) = ("vocab_projector", Some(bias));
            let decoder = match fields.tie_word_embeddings {
                true => Unembedding::tied(loader, path, Some(path), &embeddings, bias),
                false => Unembedding::own(loader, &mut new, path, path, &embeddings, bias),
            };
            Head::LanguageModel { transform: Some(transform.into()), decoder: decoder.into() }
        }
        _ => Head::None,
    };
    Ok(Parts { body: Body::Single(Transformer::new(embeddings, layers)), head })
}

fn layer(
    loader: &mut Loader<'_>,
    fields: &DistilBertConfig,
    d: usize,
    own: &str,
    index: usize,
) -> Result<Vec<Sublayer>> {
    let path = |rest: &str| format!("{own}transformer.layer.{index}.{rest}");
    let norm = NormForm::Layer(EPSILON);
    // Only the feed-forward network has dropout on what it returns.
    let style = SublayerStyle { d, norm, norm_first: false, dropout: 0.0 };
    let heads = Heads::equal(fields.n_heads, d);
    let attention = FunctionSpec::Attention(AttentionSpec {
        path: &path("attention"),
        role: Role::SelfAttention,
        projections: ProjectionPaths::Apart([
            &path("attention.q_lin"),
            &path("attention.k_lin"),
            &path("attention.v_lin"),
        ]),
        form: LinearForm::Biased,
        output: &path("attention.out_lin"),
        output_form: LinearForm::Biased,
        d,
        heads,
        scale: heads.scale(),
        dropout: fields.attention_dropout,
    });
    let place = Place { path: &path("attention_adapters"), norm: &path("sa_layer_norm") };
    let attention = Sublayer::load(loader, index, &style, place, &attention)?;
    let feed_forward = FunctionSpec::FeedForward(FeedForwardSpec {
        gate: None,
        up: &path("ffn.lin1"),
        down: &path("ffn.lin2"),
        form: LinearForm::Biased,
        widths: [d, fields.hidden_dim],
        activation: fields.activation,
        dropout: 0.0,
    });
    let style = SublayerStyle { dropout: fields.dropout, ..style };
    let place = Place { path: &path("output_adapters"), norm: &path("output_layer_norm") };
    let feed_forward = Sublayer::load(loader, index, &style, place, &feed_forward)?;
    Ok(vec![attention, feed_forward])
}
