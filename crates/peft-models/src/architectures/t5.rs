//! T5 and Flan-T5: an encoder and a decoder with biases by distance, RMS norms before each sublayer,
//! and scores that are not scaled.

use peft_core::{Activation, Role};
use serde::Deserialize;
use serde_json::json;

use super::{Parts, Side, encoder_decoder_head, shared_words};
use crate::blocks::{AttentionSpec, Embeddings, FeedForwardSpec, FrozenEmbedding, FrozenNorm};
use crate::blocks::{FunctionSpec, Heads, LinearForm, NormForm, Place, ProjectionPaths};
use crate::blocks::{RelativeBias, Sublayer, SublayerStyle};
use crate::body::{Body, Transformer};
use crate::checkpoint::Loader;
use crate::config::switch;
use crate::head::{Head, NewHead};
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are this architecture's own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct T5Config {
    /// Of the encoder.
    num_layers: usize,
    /// `null`: as many as the encoder has.
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    d_kv: usize,
    d_ff: usize,
    /// `relu`, `gated-gelu`, ..
    feed_forward_proj: String,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    dropout_rate: f64,
    classifier_dropout: f64,
    #[serde(deserialize_with = "switch")]
    tie_word_embeddings: bool,
    /// The length of the texts that the model was trained on.
    n_positions: usize,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            d_kv: 64,
            d_ff: 2048,
            feed_forward_proj: "relu".into(),
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            dropout_rate: 0.1,
            classifier_dropout: 0.0,
            tie_word_embeddings: true,
            n_positions: 512,
        }
    }
}

impl T5Config {
    /// The activation, and whether there is a gate.
    fn activation(&self, config: &ModelConfig) -> Result<(Activation, bool)> {
        let field = "feed_forward_proj";
        let gated = self.feed_forward_proj.strip_prefix("gated-");
        let name = gated.unwrap_or(&self.feed_forward_proj);
        let unknown = || config.unsupported(field, "relu, gated-gelu, gated-silu, gelu, silu");
        if name.contains('-') {
            return Err(unknown());
        }
        // What the reference makes of it stands in files too, and comes before it there.
        let gates = match config.field("is_gated_act") {
            Some(_) => config.switched_on("is_gated_act")?,
            None => gated.is_some(),
        };
        if let Some(own) = config.fields().get("dense_act_fn") {
            config.activation("dense_act_fn")?;
            let activation = Activation::deserialize(own).map_err(|_| unknown())?;
            return Ok((activation, gates));
        }
        // As the reference reads it.
        let name = if gated == Some("gelu") { "gelu_new" } else { name };
        let activation = Activation::deserialize(json!(name)).map_err(|_| unknown())?;
        Ok((activation, gates))
    }

    /// # Errors
    /// If heads are too large, or distances have no buckets.
    fn check_sizes(&self, config: &ModelConfig) -> Result<()> {
        config.sizes(&[("num_heads", self.num_heads), ("d_kv", self.d_kv)])?;
        let (field, buckets) =
            ("relative_attention_num_buckets", self.relative_attention_num_buckets);
        if buckets < 4 {
            return Err(config.unsupported(field, "at least 4"));
        }
        // Half of a decoder's buckets are for one distance each.
        if self.relative_attention_max_distance <= buckets / 2 {
            let supported = format!("more than half of {field} ({buckets})");
            return Err(config.unsupported("relative_attention_max_distance", supported));
        }
        Ok(())
    }
}

/// Takes the parts of a model from a checkpoint.
pub(super) fn load(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
    task: Task,
    mut new: NewHead,
) -> Result<Parts> {
    let fields: T5Config = config.read()?;
    fields.activation(config)?;
    fields.check_sizes(config)?;
    let d = config.hidden_size;
    let words = shared_words(loader, config, own)?;
    let encoder = stack(loader, config, &fields, own, Side::Encoder, words.clone())?;
    loader.complete()?;
    if let Task::ClassifyTokens { labels } = task {
        // There is no decoder in such a model.
        let labels = new.linear(loader, "classifier", [d, labels]).into();
        let head = Head::Tokens { labels, dropout: fields.classifier_dropout };
        return Ok(Parts { body: Body::Single(encoder), head });
    }
    let decoder = stack(loader, config, &fields, own, Side::Decoder, words)?;
    loader.complete()?;
    let embeddings = &decoder.embeddings;
    // Tied embeddings are scaled on the way back.
    let scale = 1.0 / (d as f64).sqrt();
    let tied = fields.tie_word_embeddings.then_some((scale, None));
    let dropout = fields.classifier_dropout;
    let head = encoder_decoder_head(loader, config, task, new, embeddings, tied, dropout)?;
    let classifies = matches!(task, Task::ClassifySequence { .. });
    let start = config.decoder_start_token_id().filter(|_| classifies).map(|id| id as usize);
    Ok(Parts { body: Body::EncoderDecoder { encoder, decoder, start }, head })
}

fn stack(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &T5Config,
    own: &str,
    side: Side,
    words: FrozenEmbedding,
) -> Result<Transformer> {
    let (layers, first) = match side {
        Side::Encoder => (fields.num_layers, 0),
        Side::Decoder => {
            let layers = fields.num_decoder_layers.unwrap_or(fields.num_layers);
            (layers, fields.num_layers)
        }
    };
    let path = format!("{own}{}", side.name());
    let embeddings = Embeddings::new(loader, &path, side.embeddings(), words, fields.n_positions)
        .with_dropout(fields.dropout_rate);
    let table = format!("{path}.block.0.layer.0.SelfAttention.relative_attention_bias");
    let shape = [fields.relative_attention_num_buckets, fields.num_heads];
    let relative = RelativeBias {
        table: FrozenEmbedding::load(loader, &table, Role::RelativePosition, shape)?,
        max_distance: fields.relative_attention_max_distance,
        both_directions: side == Side::Encoder,
    };
    let layers = loader.layers(layers, |loader, block| {
        let path = format!("{path}.block.{block}");
        layer(loader, config, fields, &path, side, first + block)
    })?;
    let (form, path) =
        (NormForm::Rms(fields.layer_norm_epsilon), format!("{path}.final_layer_norm"));
    let norm = FrozenNorm::load(loader, &path, Role::FinalNorm, None, config.hidden_size, form)?;
    Ok(Transformer {
        norm: Some(norm),
        relative: Some(relative),
        causality: side.causality(),
        dropout: fields.dropout_rate,
        ..Transformer::new(embeddings, layers)
    })
}

fn layer(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &T5Config,
    block: &str,
    side: Side,
    index: usize,
) -> Result<Vec<Sublayer>> {
    let d = config.hidden_size;
    let style = SublayerStyle {
        d,
        norm: NormForm::Rms(fields.layer_norm_epsilon),
        norm_first: true,
        dropout: fields.dropout_rate,
    };
    let attention = |loader: &mut Loader<'_>, layer: usize, name: &str, role| {
        let path = format!("{block}.layer.{layer}");
        let part = |part: &str| format!("{path}.{name}.{part}");
        let spec = FunctionSpec::Attention(AttentionSpec {
            path: &format!("{path}.{name}"),
            role,
            projections: ProjectionPaths::Apart([&part("q"), &part("k"), &part("v")]),
            form: LinearForm::Unbiased,
            output: &part("o"),
            output_form: LinearForm::Unbiased,
            d,
            heads: Heads {
                count: fields.num_heads,
                key_value: fields.num_heads,
                size: fields.d_kv,
            },
            scale: 1.0,
            dropout: fields.dropout_rate,
        });
        let place = Place { path: &path, norm: &format!("{path}.layer_norm") };
        Sublayer::load(loader, index, &style, place, &spec)
    };
    let mut sublayers = vec![attention(loader, 0, "SelfAttention", side.attention())?];
    if side == Side::Decoder {
        sublayers.push(attention(loader, 1, "EncDecAttention", Role::CrossAttention)?);
    }
    let path = format!("{block}.layer.{}", sublayers.len());
    let part = |part: &str| format!("{path}.DenseReluDense.{part}");
    let (activation, gated) = fields.activation(config)?;
    let (gate, up) = (part("wi_0"), part(if gated { "wi_1" } else { "wi" }));
    let spec = FunctionSpec::FeedForward(FeedForwardSpec {
        gate: gated.then_some(&gate),
        up: &up,
        down: &part("wo"),
        form: LinearForm::Unbiased,
        widths: [d, fields.d_ff],
        activation,
        dropout: fields.dropout_rate,
    });
    let place = Place { path: &path, norm: &format!("{path}.layer_norm") };
    sublayers.push(Sublayer::load(loader, index, &style, place, &spec)?);
    Ok(sublayers)
}
