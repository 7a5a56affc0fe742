//! Llama, Mistral and Qwen2: decoders with rotary positions, RMS norms before each sublayer, heads
//! that share keys, and gated feed-forward networks.

use std::fmt::Display;

use peft_core::{Activation, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Parts, decoder_head};
use crate::blocks::{
    AttentionSpec, Causality, Embeddings, FeedForwardSpec, FrozenEmbedding, FrozenNorm,
};
use crate::blocks::{FunctionSpec, Heads, LinearForm, NormForm, Place, ProjectionPaths};
use crate::blocks::{Rotary, RotaryScaling, Sublayer, SublayerStyle};
use crate::body::{Body, Transformer};
use crate::checkpoint::Loader;
use crate::config::{Architecture, share, switch};
use crate::head::NewHead;
use crate::{ModelConfig, Result, Task};

/// The fields of `config.json` that are these architectures' own; names and defaults as there.
#[derive(Debug, Clone, Deserialize)]
struct LlamaConfig {
    num_hidden_layers: usize,
    num_attention_heads: usize,
    /// `null`: as many as there are for queries.
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    /// `null`: the hidden size over the heads.
    #[serde(default)]
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "silu")]
    hidden_act: Activation,
    #[serde(default = "millionth")]
    rms_norm_eps: f64,
    #[serde(default = "ten_thousand")]
    rope_theta: f64,
    #[serde(default, deserialize_with = "switch")]
    attention_bias: bool,
    #[serde(default, deserialize_with = "switch")]
    mlp_bias: bool,
    #[serde(default, deserialize_with = "share")]
    attention_dropout: f64,
    #[serde(default)]
    classifier_dropout: Option<f64>,
    #[serde(default, deserialize_with = "switch")]
    tie_word_embeddings: bool,
    #[serde(default = "fiftieth")]
    initializer_range: f64,
}

fn silu() -> Activation {
    Activation::Silu
}
fn millionth() -> f64 {
    1e-6
}
fn ten_thousand() -> f64 {
    1e4
}
fn fiftieth() -> f64 {
    0.02
}

/// The kinds of layers, as `layer_types` calls them.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

impl LlamaConfig {
    fn new(config: &ModelConfig) -> Result<Self> {
        config.activation("hidden_act")?;
        config.only("partial_rotary_factor", &["1", "1.0"])?;
        let own: Self = config.read()?;
        if own.head_dim.is_none() {
            config.heads("num_attention_heads", own.num_attention_heads)?;
        }
        let heads = own.heads(config.hidden_size);
        config.sizes(&[("num_attention_heads", heads.count), ("head_dim", heads.size)])?;
        if heads.key_value == 0 || !heads.count.is_multiple_of(heads.key_value) {
            let supported = "a divisor of num_attention_heads";
            return Err(config.unsupported("num_key_value_heads", supported));
        }
        if !heads.size.is_multiple_of(2) {
            return Err(config.unsupported("head_dim", "an even number"));
        }
        own.check_window(config)?;
        // The base of angles, which has powers.
        if !(own.rope_theta > 0.0 && (own.rope_theta as f32).is_finite()) {
            return Err(config.unsupported("rope_theta", "a positive number"));
        }
        Ok(own)
    }

    /// Refuses layers that see less than all tokens before one.
    fn check_window(&self, config: &ModelConfig) -> Result<()> {
        let least = self.max_position_embeddings;
        let window = config.field("sliding_window");
        let is_long = |window: &Value| window.as_u64().is_some_and(|w| w >= least as u64);
        let fits = match config.model_type {
            Architecture::Mistral => {
                // With kinds of layers it is what transformers calls a Ministral.
                let kinds = config.field("layer_types").is_some();
                let slides = !kinds || self.slides(config, true)?;
                window.is_none_or(|window| is_long(window) || !slides && window.is_u64())
            }
            Architecture::Qwen2 => {
                let on = config.switched_on("use_sliding_window")?;
                match self.slides(config, on && window.is_some())? {
                    // What is switched off is ignored.
                    false => true,
                    true if on => window.is_some_and(is_long),
                    true => return Err(config.unsupported("layer_types", FULL)),
                }
            }
            // Its caches look for one, and else at its sign alone.
            _ if window.is_none() && self.has_sliding_layer(config) => {
                return Err(config.unsupported("layer_types", FULL));
            }
            _ => window.is_none_or(|window| window.as_u64().is_some()),
        };
        match fits {
            true => Ok(()),
            false => {
                let supported = format!("null, or at least max_position_embeddings ({least})");
                Err(config.unsupported("sliding_window", supported))
            }
        }
    }

    /// Whether `layer_types` names a layer with a window, or not every layer.
    fn has_sliding_layer(&self, config: &ModelConfig) -> bool {
        let kinds = config.field("layer_types").and_then(Value::as_array);
        let layers = self.num_hidden_layers;
        kinds.is_some_and(|kinds| kinds.len() < layers || kinds.iter().any(|kind| kind == SLIDING))
    }

    /// Whether any layer of a Qwen2 has a window, by `layer_types`, or else from a layer on.
    fn slides(&self, config: &ModelConfig, has_window: bool) -> Result<bool> {
        let layers = self.num_hidden_layers;
        let Some(found) = config.field("layer_types") else {
            let first = config.field("max_window_layers").and_then(Value::as_i64);
            let first = first.ok_or_else(|| config.unsupported("max_window_layers", "a number"))?;
            return Ok(has_window && layers as i64 > first);
        };
        let is_known = |kind: &Value| [FULL, SLIDING].iter().any(|known| kind == known);
        let kinds = found.as_array().filter(|kinds| kinds.iter().all(is_known));
        let kinds = kinds.filter(|kinds| kinds.len() == layers).ok_or_else(|| {
            let supported = format!("{layers} of {FULL:?} and {SLIDING:?}, one for each layer");
            config.unsupported("layer_types", supported)
        })?;
        Ok(kinds.iter().any(|kind| kind == SLIDING))
    }

    fn heads(&self, d: usize) -> Heads {
        let count = self.num_attention_heads;
        let key_value = self.num_key_value_heads.unwrap_or(count);
        Heads { count, key_value, size: self.head_dim.unwrap_or(d / count.max(1)) }
    }

    /// `rope_scaling`, or the `rope_parameters` of newer files, which hold the base too.
    fn rotary(&self, config: &ModelConfig) -> Result<Rotary> {
        let names = ["rope_scaling", "rope_parameters"];
        let found = names.into_iter().find_map(|name| Some((name, config.field(name)?)));
        let (mut theta, mut scaling) = (self.rope_theta, RotaryScaling::Default);
        if let Some((name, value)) = found {
            let mut value = value.clone();
            let is_new = name == "rope_parameters";
            let own = value.get("rope_theta").filter(|_| is_new).and_then(Value::as_f64);
            theta = own.unwrap_or(theta);
            let supported = |reason: &dyn Display| {
                let supported = format!("rope_type {} ({reason})", RotaryScaling::NAMES);
                config.unsupported(name, supported)
            };
            let fields = value.as_object_mut().ok_or_else(|| supported(&"it is no object"))?;
            // As older files call it; newer ones need not say that nothing is scaled.
            let unsaid = is_new.then(|| json!("default"));
            if let Some(older) = fields.get("type").cloned() {
                // The reference lets it come first, but for Mistral.
                if config.model_type != Architecture::Mistral || !fields.contains_key("rope_type") {
                    fields.insert("rope_type".into(), older);
                }
            } else if let Some(unsaid) = unsaid {
                fields.entry("rope_type").or_insert(unsaid);
            }
            scaling = serde_json::from_value(value).map_err(|error| supported(&error))?;
            if !scaling.has_positive_factor() {
                return Err(supported(&"its factor must be a positive number"));
            }
            // It divides by the base's logarithm.
            if theta == 1.0 && matches!(scaling, RotaryScaling::Yarn { .. }) {
                return Err(config.unsupported("rope_theta", "another number than 1 with yarn"));
            }
        }
        let head_size = self.heads(config.hidden_size).size;
        Ok(Rotary { head_size, theta, max_positions: self.max_position_embeddings, scaling })
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
    let fields = LlamaConfig::new(config)?;
    let rotary = fields.rotary(config)?;
    let d = config.hidden_size;
    // What adapter-hub/adapters calls the two in these models.
    loader.base().set_adapters_feed_forward([Role::FeedForwardDown, Role::FeedForwardUp]);
    let path = format!("{own}embed_tokens");
    let words = FrozenEmbedding::load(loader, &path, Role::WordEmbedding, [config.vocab_size, d])?;
    let (path, limit) = (format!("{own}embeddings"), fields.max_position_embeddings);
    let embeddings = Embeddings::new(loader, &path, Role::Embeddings, words, limit);
    let layers = loader.layers(fields.num_hidden_layers, |loader, index| {
        layer(loader, config, &fields, own, index)
    })?;
    loader.base().set_rotary();
    let norm = NormForm::Rms(fields.rms_norm_eps);
    let norm = FrozenNorm::load(loader, &format!("{own}norm"), Role::FinalNorm, None, d, norm)?;
    loader.complete()?;
    let new = new.with_std(fields.initializer_range);
    let tied = fields.tie_word_embeddings;
    let dropout = fields.classifier_dropout.unwrap_or(0.1);
    let head = decoder_head(loader, config, task, new, &embeddings, tied, ("score", dropout));
    let body = Body::Single(Transformer {
        norm: Some(norm),
        rotary: Some(rotary),
        causality: Causality::Tokens,
        ..Transformer::new(embeddings, layers)
    });
    Ok(Parts { body, head })
}

fn layer(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    fields: &LlamaConfig,
    own: &str,
    index: usize,
) -> Result<Vec<Sublayer>> {
    let path = |rest: &str| format!("{own}layers.{index}.{rest}");
    let d = config.hidden_size;
    let style = SublayerStyle {
        d,
        norm: NormForm::Rms(fields.rms_norm_eps),
        norm_first: true,
        dropout: 0.0,
    };
    let [form, output_form] = match config.model_type {
        Architecture::Llama => [LinearForm::with_bias(fields.attention_bias); 2],
        Architecture::Qwen2 => [LinearForm::Biased, LinearForm::Unbiased],
        _ => [LinearForm::Unbiased; 2],
    };
    let heads = fields.heads(d);
    let attention = FunctionSpec::Attention(AttentionSpec {
        path: &path("self_attn"),
        role: Role::SelfAttention,
        projections: ProjectionPaths::Apart([
            &path("self_attn.q_proj"),
            &path("self_attn.k_proj"),
            &path("self_attn.v_proj"),
        ]),
        form,
        output: &path("self_attn.o_proj"),
        output_form,
        d,
        heads,
        scale: heads.scale(),
        dropout: fields.attention_dropout,
    });
    let place = Place { path: &path("attention_adapters"), norm: &path("input_layernorm") };
    let attention = Sublayer::load(loader, index, &style, place, &attention)?;
    let feed_forward = FunctionSpec::FeedForward(FeedForwardSpec {
        gate: Some(&path("mlp.gate_proj")),
        up: &path("mlp.up_proj"),
        down: &path("mlp.down_proj"),
        form: match config.model_type {
            Architecture::Llama => LinearForm::with_bias(fields.mlp_bias),
            _ => LinearForm::Unbiased,
        },
        widths: [d, fields.intermediate_size],
        activation: fields.hidden_act,
        dropout: 0.0,
    });
    let place = Place { path: &path("output_adapters"), norm: &path("post_attention_layernorm") };
    let feed_forward = Sublayer::load(loader, index, &style, place, &feed_forward)?;
    Ok(vec![attention, feed_forward])
}
