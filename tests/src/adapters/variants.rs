//! The configurations that adapters are written with.

use peft_core::Role;
use peft_models::{Architecture, Model, Task};
use serde::Serialize;
use serde_json::{Value, json};

/// The library that is to load an adapter, and whose layout it is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Library {
    /// Hugging Face PEFT.
    Peft,
    /// adapter-hub/adapters.
    Adapters,
}

/// A configuration to write an adapter with.
pub struct Variant {
    /// `houlsby`, as it is called in the adapter's own name.
    pub name: &'static str,
    /// Who loads it.
    pub library: Library,
    /// The method, as the registry has it.
    pub method: &'static str,
    /// The method's fields.
    pub fields: Value,
    /// Over the encoder alone, whatever the base was saved as.
    pub bare: bool,
    /// The method of the two adapters below a fusion.
    pub fused: Option<&'static str>,
    /// A new head with so many outputs, in the place of the base's own.
    pub outputs: Option<usize>,
    /// Whether it is compared unmerged alone: the library's own merging gives another function, or fails.
    pub unmerged: bool,
}

impl Variant {
    fn over_encoder(self) -> Self {
        Self { bare: true, ..self }
    }

    fn only_unmerged(self) -> Self {
        Self { unmerged: true, ..self }
    }

    fn over(self, fused: &'static str) -> Self {
        Self { fused: Some(fused), ..self }
    }
}

/// Every configuration for a base, those of one library together; none where it is of a kind that
/// other bases stand for.
pub fn variants(model: &Model) -> Vec<Variant> {
    use Architecture::{Bert, Roberta, XlmRoberta};
    let mut all = heads(model.task());
    all.extend(match (model.config().model_type, model.task()) {
        (_, Task::MaskedLm) => Vec::new(),
        (Bert | Roberta | XlmRoberta, _) => {
            let mut all = lora_for_peft();
            all.extend(kin_of_lora());
            all.extend(others_for_peft());
            all.extend(bottlenecks_for_adapters());
            all.extend(others_for_adapters());
            all
        }
        (_, Task::CausalLm | Task::Seq2SeqLm) => of_language_models(model),
        _ => Vec::new(),
    });
    all
}

/// Heads of every size for a base that has one of the kind.
fn heads(task: Task) -> Vec<Variant> {
    if !matches!(task, Task::ClassifySequence { .. } | Task::ClassifyTokens { .. }) {
        return Vec::new();
    }
    let sizes = [("1-output", 1), ("2-outputs", 2), ("3-outputs", 3), ("5-outputs", 5)];
    let with =
        |(name, outputs)| Variant { outputs: Some(outputs), ..peft(name, "lora", json!({})) };
    sizes.map(with).into()
}

/// For a decoder, or an encoder with a decoder, whatever its modules are called.
fn of_language_models(model: &Model) -> Vec<Variant> {
    let projected =
        json!({"num_virtual_tokens": 2, "prefix_projection": true, "encoder_hidden_size": 12});
    let everywhere = json!({
        "num_virtual_tokens": 2,
        "shift_positions": false,
        "encoder_prefix": true,
        "cross_prefix": true,
    });
    let fused = model.base().linears().any(|site| site.role == Role::QueryKeyValue);
    let matrices = if fused { json!({"attn_matrices": ["q", "v"]}) } else { json!({}) };
    let mut all = vec![
        peft("lora", "lora", json!({})),
        peft("all-linear", "lora", json!({"target_modules": "all-linear", "r": 3})),
        peft("dora", "dora", json!({"target_modules": "all-linear", "r": 4})),
        peft("lora-tokens", "lora", json!({"trainable_token_indices": [7, 3]})),
        peft("ia3", "ia3", json!({})),
        peft("ln-tuning", "ln-tuning", json!({})),
        peft("tokens", "trainable-tokens", json!({"token_indices": [7, 3]})),
        peft("prefix", "prefix", json!({"num_virtual_tokens": 2})),
        peft("prefix-projection", "prefix", projected),
        peft("prompt", "prompt", json!({"num_virtual_tokens": 2})),
        adapters("houlsby", "houlsby", json!({"reduction_factor": 4})),
        adapters("pfeiffer", "pfeiffer", json!({"reduction_factor": 4})),
        adapters("parallel", "parallel", json!({})),
        adapters("loreft", "loreft", json!({"r": 2, "suffix_positions": 1})),
        adapters("prefix", "prefix", everywhere),
        adapters("lora", "lora", matrices),
    ];
    let short = json!({
        "num_virtual_tokens": 2,
        "shift_positions": false,
        "encoder_prefix": true,
        "cross_prefix": true,
    });
    let scaled = |alpha: f64, more: Value| {
        let mut fields = json!({"feedforward_modules": [], "ia3_alpha": alpha});
        if fused {
            fields["attn_matrices"] = json!(["k", "v"]);
        }
        let targets = model
            .base()
            .linears()
            .filter(|site| matches!(site.role, Role::Key | Role::Value | Role::QueryKeyValue));
        fields["target_modules"] = targets.map(|site| site.path.clone()).collect();
        let more = more.as_object().cloned().unwrap_or_default();
        fields.as_object_mut().expect("an object").extend(more);
        fields
    };
    let gated = json!({
        "prefix": short,
        "adapter": {"reduction_factor": 4},
        "lora": if fused { json!({"attn_matrices": ["q", "v"]}) } else { json!({}) },
        "shared_gating": false,
    });
    let ia3 = |gated: bool| {
        json!({
            "prefix": null,
            "adapter": {"reduction_factor": 4, "use_gating": !gated},
            "lora": null,
            "ia3": scaled(1.5, json!({"use_gating": gated})),
        })
    };
    all.extend([
        adapters("ia3-alpha", "ia3", scaled(0.5, json!({}))),
        adapters("unipelt-two-gates", "unipelt", gated),
        adapters("unipelt-ia3", "unipelt", ia3(true)),
        adapters("unipelt-ia3-apart", "unipelt", ia3(false)),
    ]);
    use Architecture::{Gpt2, Llama};
    if matches!(model.config().model_type, Llama | Gpt2) {
        let invoked = json!({"alora_invocation_tokens": [42, 84], "r": 4, "lora_alpha": 6});
        all.extend([
            peft("alora", "lora", invoked),
            peft("llama-adapter", "llama-adapter", json!({"adapter_len": 3, "adapter_layers": 1})),
        ]);
    }
    // The library's GPT-2 has no room for so long a prefix before these bases' 12 positions.
    if !fused {
        all.extend([adapters("mam", "mam", json!({})), adapters("unipelt", "unipelt", json!({}))]);
    }
    all
}

fn peft(name: &'static str, method: &'static str, fields: Value) -> Variant {
    Variant {
        name,
        library: Library::Peft,
        method,
        fields,
        bare: false,
        fused: None,
        outputs: None,
        unmerged: false,
    }
}

fn adapters(name: &'static str, method: &'static str, fields: Value) -> Variant {
    Variant { library: Library::Adapters, ..peft(name, method, fields) }
}

fn lora_for_peft() -> Vec<Variant> {
    let query_value = json!(["query", "value"]);
    vec![
        peft("lora", "lora", json!({"target_modules": query_value, "r": 4, "lora_alpha": 8})),
        peft("all-linear", "lora", json!({"target_modules": "all-linear", "r": 3})),
        peft("rslora", "rslora", json!({"target_modules": query_value, "r": 4, "lora_alpha": 3})),
        peft("dora", "dora", json!({"target_modules": "all-linear", "r": 4})),
        peft("pissa", "pissa", json!({"target_modules": "all-linear", "r": 4, "lora_alpha": 6})),
        peft("bias-lora-only", "lora", json!({"target_modules": query_value, "bias": "lora_only"})),
        peft("bias-all", "lora", json!({"target_modules": query_value, "bias": "all"})),
        peft(
            "patterns",
            "lora",
            json!({
                "target_modules": ["query", "key", "value", "dense"],
                "layers_to_transform": [1],
                "layers_pattern": "layer",
                "r": 4,
                "lora_alpha": 6,
                "rank_pattern": {"query": 2},
                "alpha_pattern": {"key": 20},
            }),
        ),
        peft("encoder", "lora", json!({"target_modules": query_value})).over_encoder(),
    ]
}

fn kin_of_lora() -> Vec<Variant> {
    let on = |fields: Value| {
        let mut all = json!({"target_modules": ["query", "value", "output.dense"], "r": 4});
        let fields = fields.as_object().cloned().unwrap_or_default();
        all.as_object_mut().expect("an object").extend(fields);
        all
    };
    let table = json!({"target_modules": ["query", "word_embeddings"]});
    let chosen = on(json!({
        "num_vectors": 12,
        "vector_length": 8,
        "topk": 3,
        "save_only_topk_weights": true,
    }));
    vec![
        peft("adalora", "adalora", on(json!({"init_r": 4, "target_r": 2}))),
        peft("vera", "vera", on(json!({}))),
        peft("vera-seed", "vera", on(json!({"save_projection": false, "projection_prng_key": 5}))),
        peft("vera-biases", "vera", on(json!({"bias": "vera_only"}))),
        peft("loha", "loha", on(json!({"rank_pattern": {"query": 2}}))),
        peft("lokr", "lokr", on(json!({}))),
        peft("lokr-both", "lokr", on(json!({"r": 1, "decompose_both": true}))),
        peft("lokr-factor", "lokr", on(json!({"decompose_factor": 2, "init_weights": "lycoris"}))),
        peft("miss", "miss", on(json!({"r": 7}))),
        peft("miss-bat", "miss", on(json!({"init_weights": "bat"}))),
        peft("miss-mini", "miss", on(json!({"init_weights": "mini", "mini_r": 2}))),
        peft("hira", "hira", on(json!({}))),
        peft("hira-embeddings", "hira", on(table)),
        peft("delora", "delora", on(json!({"lambda_pattern": {"value": 3}}))),
        peft("gralora", "gralora", on(json!({}))),
        peft("gralora-hybrid", "gralora", on(json!({"gralora_k": 4, "hybrid_r": 2}))),
        peft("vb-lora", "vb-lora", on(json!({"num_vectors": 12, "vector_length": 8}))),
        peft("vb-lora-chosen", "vb-lora", chosen),
        peft("dora-embeddings", "dora", json!({"target_modules": ["query", "word_embeddings"]})),
        peft("randlora", "randlora", on(json!({}))),
        peft("randlora-sparse", "randlora", on(json!({"save_projection": false, "sparse": true}))),
    ]
}

fn others_for_peft() -> Vec<Variant> {
    let prompt = json!({"num_virtual_tokens": 4});
    let encoded = |kind| {
        json!({
            "num_virtual_tokens": 4,
            "encoder_hidden_size": 12,
            "encoder_reparameterization_type": kind,
        })
    };
    let projected =
        json!({"num_virtual_tokens": 5, "prefix_projection": true, "encoder_hidden_size": 12});
    let exact =
        json!({"use_cayley_neumann": false, "r": 4, "oft_block_size": 0, "block_share": true});
    let unsaved = json!({"save_precomputed_indices": false, "select_top": false});
    // The names stand for the attention's output too.
    let scaled = json!({
        "target_modules": ["key", "value", "output.dense"],
        "feedforward_modules": ["output.dense"],
    });
    vec![
        peft("ia3", "ia3", json!({})),
        peft("ia3-names", "ia3", scaled),
        peft("ia3-layers", "ia3", json!({"target_modules": ["key"], "layers_to_transform": [1]})),
        peft("ln-tuning", "ln-tuning", json!({})),
        peft("trainable-tokens", "trainable-tokens", json!({"token_indices": [7, 3]})),
        peft("ln-tuning-names", "ln-tuning", json!({"target_modules": ["output.LayerNorm"]})),
        peft("ln-tuning-layers", "ln-tuning", json!({"layers_to_transform": [1]})),
        peft(
            "oft",
            "oft",
            json!({"target_modules": ["query", "output.dense"], "oft_block_size": 8}),
        ),
        peft("oft-exact", "oft", exact),
        peft("oft-constrained", "oft", json!({"coft": true, "eps": 0.1, "oft_block_size": 4})),
        peft("boft", "boft", json!({"bias": "boft_only"})),
        peft("hra", "hra", json!({"r": 4})),
        peft("hra-orthogonal", "hra", json!({"r": 3, "apply_GS": true, "bias": "all"})),
        peft("road", "road", json!({"group_size": 8})),
        peft("road-4", "road", json!({"group_size": 4, "variant": "road_4"})),
        peft("shira", "shira", json!({"r": 2, "layers_to_transform": [1]})),
        peft("super-tuning", "super-tuning", json!({"sparsity": 0.9, "r": 3})),
        peft("super-tuning-unsaved", "super-tuning", unsaved),
        peft("c3a", "c3a", json!({"block_size": 8, "block_size_pattern": {"query": 4}})),
        peft("fourierft", "fourierft", json!({"n_frequency": 40, "scaling": 20.0})),
        peft("prefix", "prefix", json!({"num_virtual_tokens": 5})),
        peft("prefix-projection", "prefix", projected),
        peft("prompt", "prompt", prompt.clone()),
        peft("p-tuning-mlp", "p-tuning", encoded("MLP")),
        peft("p-tuning-lstm", "p-tuning", encoded("LSTM")),
        peft("encoder-ia3", "ia3", json!({})).over_encoder(),
        peft("encoder-ln-tuning", "ln-tuning", json!({})).over_encoder(),
        peft("encoder-prefix", "prefix", json!({"num_virtual_tokens": 5})).over_encoder(),
        peft("encoder-prompt", "prompt", prompt).over_encoder(),
    ]
}

fn bottlenecks_for_adapters() -> Vec<Variant> {
    // `phm_dim` has to divide the bottleneck, which these bases' width makes narrow.
    let wide = json!({"reduction_factor": 4});
    let parallel = |scaling: Value| json!({"is_parallel": true, "original_ln_before": false, "scaling": scaling});
    let norms = json!({"ln_after": true, "residual_before_ln": "post_add"});
    let rule = json!({"reduction_factor": 4, "factorized_phm_rule": true, "shared_W_phm": true});
    vec![
        adapters("houlsby", "houlsby", json!({})),
        adapters("pfeiffer", "pfeiffer", json!({})),
        adapters("loreft", "loreft", json!({})),
        adapters("loreft-last", "loreft", json!({"r": 3, "suffix_positions": 2, "layers": [1]})),
        adapters(
            "noreft",
            "noreft",
            json!({"r": 2, "tied_weights": true, "non_linearity": "relu"}),
        ),
        adapters("adapterdrop", "pfeiffer", json!({"leave_out": [0]})),
        adapters("factors", "pfeiffer", json!({"reduction_factor": {"0": 4, "default": 8}})),
        adapters("bottleneck-size", "pfeiffer", json!({"bottleneck_size": 5})),
        adapters("norms", "pfeiffer", norms),
        adapters("parallel", "parallel", json!({})),
        adapters("scaled-parallel", "scaled-parallel", json!({})),
        adapters("learned-scale", "pfeiffer", parallel("learned".into())),
        adapters("channel-scale", "pfeiffer", parallel("channel".into())),
        adapters("phm", "phm", wide.clone()),
        adapters("compacter", "compacter", wide.clone()),
        adapters("compacter++", "compacter++", wide),
        adapters("compacter-shared", "compacter", rule),
        adapters("pfeiffer-inv", "pfeiffer-inv", json!({})),
        adapters("houlsby-inv", "houlsby-inv", json!({})),
        adapters("encoder-pfeiffer-inv", "pfeiffer-inv", json!({})).over_encoder(),
        adapters("encoder-compacter", "compacter", json!({"reduction_factor": 4})).over_encoder(),
        adapters("fusion", "fusion", json!({})).over("pfeiffer"),
        adapters("fusion-houlsby", "fusion", json!({"mh_adapter": true})).over("houlsby"),
        adapters("encoder-fusion", "fusion", json!({})).over("pfeiffer").over_encoder(),
    ]
}

fn others_for_adapters() -> Vec<Variant> {
    let query_value = json!(["query", "value"]);
    let prefix = json!({"num_virtual_tokens": 5, "shift_positions": false});
    let projected = json!({
        "num_virtual_tokens": 5,
        "prefix_projection": true,
        "encoder_hidden_size": 12,
        "shift_positions": false,
    });
    let prompt = json!({"num_virtual_tokens": 4, "after_embeddings": true});
    let after_first =
        json!({"num_virtual_tokens": 4, "after_embeddings": true, "combine": "prefix_after_bos"});
    // It scales outputs only.
    let outputs = json!({
        "target_modules": ["key", "value", "intermediate.dense"],
        "feedforward_modules": [],
    });
    let two_gates = json!({
        "prefix": prefix,
        "adapter": {"use_gating": false},
        "shared_gating": false,
    });
    let two_adapters = json!({
        "prefix": null,
        "lora": null,
        "adapter": [
            {"mh_adapter": true, "output_adapter": false, "use_gating": false},
            {"ln_after": true, "residual_before_ln": "post_add", "inv_adapter": "nice"},
        ],
    });
    let gated_ia3 = json!({"prefix": null, "adapter": null, "lora": null, "ia3": outputs});
    let gated_adapter = json!({
        "prefix": null,
        "lora": null,
        "adapter": {"residual_before_ln": false, "scaling": "channel", "mh_adapter": true},
    });
    vec![
        adapters("prefix", "prefix", prefix.clone()),
        adapters("prefix-projection", "prefix", projected),
        adapters("prompt", "prompt", prompt.clone()),
        adapters("prompt-after-bos", "prompt", after_first),
        adapters("ia3", "ia3", outputs),
        adapters("lora", "lora", json!({"target_modules": query_value, "r": 4, "lora_alpha": 8})),
        // It merges with neither the scale nor the bias that it runs with.
        adapters("dora", "dora", json!({"adapters_dora": true, "r": 4, "lora_alpha": 6}))
            .only_unmerged(),
        adapters("vera", "vera-dense", json!({"r": 4})),
        // It cannot merge it.
        adapters("mtl-lora", "mtl-lora", json!({"r": 4, "n_up_projection": 3})).only_unmerged(),
        adapters("mam", "mam", json!({})),
        adapters("unipelt", "unipelt", json!({})),
        adapters("unipelt-two-gates", "unipelt", two_gates),
        adapters("unipelt-two-adapters", "unipelt", two_adapters),
        adapters("gated-ia3", "unipelt", gated_ia3),
        adapters("gated-adapter", "unipelt", gated_adapter),
        adapters("encoder-prefix", "prefix", prefix).over_encoder(),
        adapters("encoder-prompt", "prompt", prompt).over_encoder(),
        adapters("encoder-unipelt", "unipelt", json!({})).over_encoder(),
    ]
}
