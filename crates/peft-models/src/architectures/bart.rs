//! BART: an encoder and a decoder that normalise after each sublayer.

use peft_core::{Activation, Role};
use serde::Deserialize;

use super::{Parts, Side, encoder_decoder_head, shared_words};
use crate::blocks::{AttentionSpec, Embeddings, FeedForwardSpec, FrozenEmbedding, FrozenNorm};
use crate::blocks::{FunctionSpec, Heads, LinearForm, NormForm, Place, Positions};
use crate::blocks::{ProjectionPaths, Sublayer, SublayerStyle};
use crate::body::{Body, Transformer};
use crate::checkpoint::Loader;
use crate::config::{share, switch};
use crate::head::NewHead;
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are this architecture's own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct BartConfig {
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    decoder_ffn_dim: usize,
    max_position_embeddings: usize,
    activation_function: Activation,
    #[serde(deserialize_with = "share")]
    dropout: f64,
    #[serde(deserialize_with = "share")]
    attention_dropout: f64,
    #[serde(deserialize_with = "share")]
    activation_dropout: f64,
    classifier_dropout: f64,
    init_std: f64,
    /// Whether embeddings of words are multiplied by the root of their width.
    #[serde(deserialize_with = "switch")]
    scale_embedding: bool,
}

impl Default for BartConfig {
    fn default() -> Self {
        Self {
            encoder_layers: 12,
            encoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            decoder_layers: 12,
            decoder_attention_heads: 16,
            decoder_ffn_dim: 4096,
            max_position_embeddings: 1024,
            activation_function: Activation::Gelu,
            dropout: 0.1,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            classifier_dropout: 0.0,
            init_std: 0.02,
            scale_embedding: false,
        }
    }
}

impl BartConfig {
    fn new(config: &ModelConfig) -> Result<Self> {
        // Of old files, for models that are other architectures now.
        config.only("normalize_before", &["false"])?;
        config.only("normalize_embedding", &["true"])?;
        config.only("add_final_layer_norm", &["false"])?;
        config.only("tie_word_embeddings", &["true"])?;
        config.activation("activation_function")?;
        let own: Self = config.read()?;
        config.heads("encoder_attention_heads", own.encoder_attention_heads)?;
        config.heads("decoder_attention_heads", own.decoder_attention_heads)?;
        Ok(own)
    }
}

/// Rows of the table of positions before that of position 0.
const FIRST_POSITION: usize = 2;

/// Takes the parts of a model from a checkpoint.
pub(super) fn load(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
    task: Task,
    new: NewHead,
) -> Result<Parts> {
    let fields = BartConfig::new(config)?;
    let words = shared_words(loader, config, own)?;
    let encoder = stack(loader, config, &fields, own, Side::Encoder, words.clone())?;
    let decoder = stack(loader, config, &fields, own, Side::Decoder, words)?;
    let bias = "final_logits_bias";
    let bias = match task == Task::Seq2SeqLm && loader.has(bias) {
        true => {
            let bias = loader.matrix(bias, [1, config.vocab_size])?;
            loader.base().buffer("final_logits_bias", &bias);
            Some(bias.squeeze_dim(0))
        }
        false => None,
    };
    loader.complete()?;
    let tied = Some((1.0, bias));
    let (new, dropout) = (new.with_std(fields.init_std), fields.classifier_dropout);
    let embeddings = &decoder.embeddings;
    let head = encoder_decoder_head(loader, config, task, new, embeddings, tied, dropout)?;
    let classifies = matches!(task, Task::ClassifySequence { .. });
    let start = config.decoder_start_token_id().filter(|_| classifies).map(|id| id as usize);
    Ok(Parts { body: Body::EncoderDecoder { encoder, decoder, start }, head })
}

fn stack(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &BartConfig,
    own: &str,
    side: Side,
    words: FrozenEmbedding,
) -> Result<Transformer> {
    let d = config.hidden_size;
    let (layers, first) = match side {
        Side::Encoder => (fields.encoder_layers, 0),
        Side::Decoder => (fields.decoder_layers, fields.encoder_layers),
    };
    let path = format!("{own}{}", side.name());
    let entries = fields.max_position_embeddings.saturating_add(FIRST_POSITION);
    let table_path = format!("{path}.embed_positions");
    let table = FrozenEmbedding::load(loader, &table_path, Role::PositionEmbedding, [entries, d])?;
    let norm_path = format!("{path}.layernorm_embedding");
    let form = NormForm::Layer(EPSILON);
    let norm = FrozenNorm::load(loader, &norm_path, Role::EmbeddingNorm, None, d, form)?;
    let scale = if fields.scale_embedding { (d as f64).sqrt() } else { 1.0 };
    let embeddings = Embeddings::new(loader, &path, side.embeddings(), words, usize::MAX)
        .with_positions(Positions::Learned { table, first: FIRST_POSITION })
        .with_scale(scale)
        .with_norm(norm)
        .with_dropout(fields.dropout);
    let layers = loader.layers(layers, |loader, index| {
        let path = format!("{path}.layers.{index}");
        layer(loader, d, fields, &path, side, first + index)
    })?;
    Ok(Transformer { causality: side.causality(), ..Transformer::new(embeddings, layers) })
}

/// PyTorch's, which the configuration does not name.
const EPSILON: f64 = 1e-5;

fn layer(
    loader: &mut Loader<'_>,
    d: usize,
    fields: &BartConfig,
    layer: &str,
    side: Side,
    index: usize,
) -> Result<Vec<Sublayer>> {
    let path = |rest: &str| format!("{layer}.{rest}");
    let norm = NormForm::Layer(EPSILON);
    let style = SublayerStyle { d, norm, norm_first: false, dropout: fields.dropout };
    let (heads, inner) = match side {
        Side::Encoder => (fields.encoder_attention_heads, fields.encoder_ffn_dim),
        Side::Decoder => (fields.decoder_attention_heads, fields.decoder_ffn_dim),
    };
    let heads = Heads::equal(heads, d);
    let attention = |loader: &mut Loader<'_>, name: &str, adapters: &str, role| {
        let part = |part: &str| path(&format!("{name}.{part}"));
        let spec = FunctionSpec::Attention(AttentionSpec {
            path: &path(name),
            role,
            projections: ProjectionPaths::Apart([
                &part("q_proj"),
                &part("k_proj"),
                &part("v_proj"),
            ]),
            form: LinearForm::Biased,
            output: &part("out_proj"),
            output_form: LinearForm::Biased,
            d,
            heads,
            scale: heads.scale(),
            dropout: fields.attention_dropout,
        });
        let norm = path(&format!("{name}_layer_norm"));
        let place = Place { path: &path(adapters), norm: &norm };
        Sublayer::load(loader, index, &style, place, &spec)
    };
    let mut sublayers =
        vec![attention(loader, "self_attn", "attention_adapters", side.attention())?];
    if side == Side::Decoder {
        let (name, adapters) = ("encoder_attn", "cross_attention_adapters");
        sublayers.push(attention(loader, name, adapters, Role::CrossAttention)?);
    }
    let spec = FunctionSpec::FeedForward(FeedForwardSpec {
        gate: None,
        up: &path("fc1"),
        down: &path("fc2"),
        form: LinearForm::Biased,
        widths: [d, inner],
        activation: fields.activation_function,
        dropout: fields.activation_dropout,
    });
    let place = Place { path: &path("output_adapters"), norm: &path("final_layer_norm") };
    sublayers.push(Sublayer::load(loader, index, &style, place, &spec)?);
    Ok(sublayers)
}
