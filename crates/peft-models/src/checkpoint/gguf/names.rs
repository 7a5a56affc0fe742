//! What Hugging Face calls the tensors of a GGUF file, and how it lays them out.

use std::collections::BTreeMap;

use peft_kernels::PackedTensor;

use super::Gguf;
use crate::{Error, Result};

/// The names of an architecture: pairs of GGUF's and Hugging Face's, both without `.weight` and
/// `.bias`.
pub(super) struct Naming {
    /// `general.architecture`, and `model_type` in `config.json`.
    pub architecture: &'static str,
    /// The class in transformers.
    pub class: &'static str,
    /// Tensors that the model has once.
    model: &'static [(&'static str, &'static str)],
    /// The name of the list of layers.
    layers: &'static str,
    /// Tensors of each layer.
    layer: &'static [(&'static str, &'static str)],
    /// What was done to tensors of a layer.
    changed: &'static [(&'static str, Changed)],
}

/// How a tensor in the file differs from Hugging Face's.
#[derive(Clone, Copy)]
enum Changed {
    /// Rows of queries are in the order of interleaved rotations.
    RotatedQueries,
    /// Rows of keys are.
    RotatedKeys,
    /// `[d_out, d_in]` where Hugging Face has a `Conv1D`, `[d_in, d_out]`.
    Transposed,
}

const LLAMA_MODEL: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const LLAMA_LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The architectures there are.
const NAMINGS: &[Naming] = &[
    Naming {
        architecture: "llama",
        class: "LlamaForCausalLM",
        model: LLAMA_MODEL,
        layers: "model.layers",
        layer: LLAMA_LAYER,
        changed: &[("attn_q", Changed::RotatedQueries), ("attn_k", Changed::RotatedKeys)],
    },
    Naming {
        architecture: "qwen2",
        class: "Qwen2ForCausalLM",
        model: LLAMA_MODEL,
        layers: "model.layers",
        layer: LLAMA_LAYER,
        changed: &[],
    },
    Naming {
        architecture: "gpt2",
        class: "GPT2LMHeadModel",
        model: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        layers: "transformer.h",
        layer: &[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ],
        changed: &[
            ("attn_qkv", Changed::Transposed),
            ("attn_output", Changed::Transposed),
            ("ffn_up", Changed::Transposed),
            ("ffn_down", Changed::Transposed),
        ],
    },
];

/// The rotations' frequencies, which the configuration says in other words.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

impl Naming {
    /// The names of a file's architecture.
    pub fn of(gguf: &Gguf) -> Result<&'static Self> {
        let architecture: &str = gguf.require("general.architecture")?;
        let known = NAMINGS.iter().find(|naming| naming.architecture == architecture);
        known.ok_or_else(|| {
            let known: Vec<&str> = NAMINGS.iter().map(|naming| naming.architecture).collect();
            gguf.unsupported("general.architecture", architecture, known.join(", "))
        })
    }

    /// Hugging Face's name, and what was done to the tensor.
    fn place(&self, name: &str) -> Option<(String, Option<Changed>)> {
        let (stem, kind) = name.rsplit_once('.')?;
        let other = |names: &[(&str, &'static str)], stem: &str| {
            names.iter().find(|(own, _)| *own == stem).map(|(_, other)| *other)
        };
        let Some((layer, stem)) = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
        else {
            return other(self.model, stem).map(|own| (format!("{own}.{kind}"), None));
        };
        let own = other(self.layer, stem)?;
        let changed = self.changed.iter().find(|(name, _)| *name == stem);
        // A `Conv1D`'s bias is a vector like any other.
        let changed = changed.map(|(_, changed)| *changed);
        let changed = changed.filter(|c| !matches!(c, Changed::Transposed) || kind == "weight");
        Some((format!("{}.{layer}.{own}.{kind}", self.layers), changed))
    }
}

/// All tensors of a file under Hugging Face's names, packed. A name that is not known stays as it
/// is, so that it is seen to be unused.
pub(crate) fn tensors(gguf: &mut Gguf) -> Result<BTreeMap<String, PackedTensor>> {
    let naming = Naming::of(gguf)?;
    let mut tensors = BTreeMap::new();
    let names: Vec<String> = gguf.tensors().keys().cloned().collect();
    for name in names.into_iter().filter(|name| name != ROPE_FREQS) {
        let tensor = gguf.read(&name)?;
        let Some((own, changed)) = naming.place(&name) else {
            tensors.insert(name, tensor);
            continue;
        };
        let tensor = match changed {
            None => tensor,
            Some(Changed::Transposed) => tensor.transposed(),
            Some(changed) => {
                let heads = heads(gguf, naming, changed)?;
                let shape = tensor.shape().to_vec();
                tensor.unrotated(heads).ok_or_else(|| {
                    let reason = format!("tensor {name}: {shape:?} is not {heads} heads of rows");
                    Error::file(gguf.path(), reason)
                })?
            }
        };
        tensors.insert(own, tensor);
    }
    Ok(tensors)
}

/// The shapes of the same tensors, from the header.
pub(crate) fn shapes(gguf: &Gguf) -> Result<BTreeMap<String, Vec<usize>>> {
    let naming = Naming::of(gguf)?;
    let tensors = gguf.tensors().iter().filter(|(name, _)| *name != ROPE_FREQS);
    let shapes = tensors.map(|(name, info)| {
        let (own, changed) = naming.place(name).unwrap_or((name.clone(), None));
        let mut shape = info.shape.clone();
        if let Some(Changed::Transposed) = changed {
            shape.reverse();
        }
        (own, shape)
    });
    Ok(shapes.collect())
}

fn heads(gguf: &Gguf, naming: &Naming, changed: Changed) -> Result<usize> {
    let queries = format!("{}.attention.head_count", naming.architecture);
    let keys = format!("{queries}_kv");
    match changed {
        Changed::RotatedKeys if gguf.metadata().contains_key(&keys) => gguf.require(&keys),
        _ => gguf.require(&queries),
    }
}
