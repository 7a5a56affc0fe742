//! GPT-2: a decoder that normalises before each sublayer, its query, key and value one projection.

use peft_core::{Activation, Role};
use serde::Deserialize;

use super::{Parts, decoder_head};
use crate::blocks::{
    AttentionSpec, Causality, Embeddings, FeedForwardSpec, FrozenEmbedding, FrozenNorm,
};
use crate::blocks::{FunctionSpec, Heads, LinearForm, NormForm, Place, Positions};
use crate::blocks::{ProjectionPaths, Sublayer, SublayerStyle};
use crate::body::{Body, Transformer};
use crate::checkpoint::Loader;
use crate::config::switch;
use crate::head::NewHead;
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are this architecture's own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Gpt2Config {
    n_layer: usize,
    n_head: usize,
    /// `null`: four times the hidden size.
    n_inner: Option<usize>,
    n_positions: usize,
    activation_function: Activation,
    layer_norm_epsilon: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    resid_pdrop: f64,
    classifier_dropout: Option<f64>,
    #[serde(deserialize_with = "switch")]
    scale_attn_weights: bool,
    #[serde(deserialize_with = "switch")]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(deserialize_with = "switch")]
    tie_word_embeddings: bool,
    initializer_range: f64,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            n_positions: 1024,
            activation_function: Activation::GeluTanh,
            layer_norm_epsilon: 1e-5,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            resid_pdrop: 0.1,
            classifier_dropout: None,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            initializer_range: 0.02,
        }
    }
}

impl Gpt2Config {
    fn new(config: &ModelConfig) -> Result<Self> {
        config.only("add_cross_attention", &["false"])?;
        config.activation("activation_function")?;
        let own: Self = config.read()?;
        config.heads("n_head", own.n_head)?;
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
    let fields = Gpt2Config::new(config)?;
    let d = config.hidden_size;
    let mut table = |name: &str, role, entries| {
        FrozenEmbedding::load(loader, &format!("{own}{name}"), role, [entries, d])
    };
    let words = table("wte", Role::WordEmbedding, config.vocab_size)?;
    let positions = table("wpe", Role::PositionEmbedding, fields.n_positions)?;
    let path = format!("{own}embeddings");
    let embeddings = Embeddings::new(loader, &path, Role::Embeddings, words, usize::MAX)
        .with_positions(Positions::Learned { table: positions, first: 0 })
        .with_dropout(fields.embd_pdrop);
    let layers =
        loader.layers(fields.n_layer, |loader, index| layer(loader, &fields, d, own, index))?;
    let norm = NormForm::Layer(fields.layer_norm_epsilon);
    let path = format!("{own}ln_f");
    let norm = FrozenNorm::load(loader, &path, Role::FinalNorm, None, d, norm)?;
    loader.complete()?;
    let new = new.with_std(fields.initializer_range);
    let tied = fields.tie_word_embeddings;
    let dropout = fields.classifier_dropout.unwrap_or(0.1);
    let head = decoder_head(loader, config, task, new, &embeddings, tied, ("classifier", dropout));
    let body = Body::Single(Transformer {
        norm: Some(norm),
        causality: Causality::Places,
        ..Transformer::new(embeddings, layers)
    });
    Ok(Parts { body, head })
}

fn layer(
    loader: &mut Loader<'_>,
    fields: &Gpt2Config,
    d: usize,
    own: &str,
    index: usize,
) -> Result<Vec<Sublayer>> {
    let path = |rest: &str| format!("{own}h.{index}.{rest}");
    let style = SublayerStyle {
        d,
        norm: NormForm::Layer(fields.layer_norm_epsilon),
        norm_first: true,
        dropout: fields.resid_pdrop,
    };
    let heads = Heads::equal(fields.n_head, d);
    let mut scale = if fields.scale_attn_weights { heads.scale() } else { 1.0 };
    if fields.scale_attn_by_inverse_layer_idx {
        scale /= (index + 1) as f64;
    }
    let attention = FunctionSpec::Attention(AttentionSpec {
        path: &path("attn"),
        role: Role::SelfAttention,
        projections: ProjectionPaths::Fused(&path("attn.c_attn")),
        form: LinearForm::Conv1d,
        output: &path("attn.c_proj"),
        output_form: LinearForm::Conv1d,
        d,
        heads,
        scale,
        dropout: fields.attn_pdrop,
    });
    let place = Place { path: &path("attention_adapters"), norm: &path("ln_1") };
    let attention = Sublayer::load(loader, index, &style, place, &attention)?;
    let feed_forward = FunctionSpec::FeedForward(FeedForwardSpec {
        gate: None,
        up: &path("mlp.c_fc"),
        down: &path("mlp.c_proj"),
        form: LinearForm::Conv1d,
        widths: [d, fields.n_inner.unwrap_or(4 * d)],
        activation: fields.activation_function,
        dropout: 0.0,
    });
    let place = Place { path: &path("output_adapters"), norm: &path("ln_2") };
    let feed_forward = Sublayer::load(loader, index, &style, place, &feed_forward)?;
    Ok(vec![attention, feed_forward])
}
