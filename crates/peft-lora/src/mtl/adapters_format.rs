//! The configuration of MTL-LoRA as adapter-hub/adapters writes it.

use peft_core::{
    AdaptersLora, AdaptersModules, AttentionMatrices, Base, Error, Result, with_adapters_defaults,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{MtlLoraConfig, TaskMatrix};

const ARCHITECTURE: &str = "mtl_lora";

/// What that library's configuration has beside that of LoRA.
#[derive(Serialize, Deserialize)]
struct Own {
    n_up_projection: usize,
    task_specific_matrix_type: TaskMatrix,
    weights_sharpness: f64,
}

/// What `config` says in that library's terms.
pub(super) fn write(config: &MtlLoraConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Error::no_format("mtl-lora", "adapter-hub/adapters", reason);
    let lacks = [
        (config.num_tasks != 1, "it has a file for each task, and shares their factors itself"),
        (
            config.task_specific_matrix_type == TaskMatrix::Linear,
            "it cannot make its own full matrices of a task",
        ),
    ];
    if let Some((_, reason)) = lacks.into_iter().find(|(is_asked, _)| *is_asked) {
        return Err(refuse(reason));
    }
    let sites = config.sites(base)?;
    let modules = AdaptersModules::of(&sites, base, "adapts", &AttentionMatrices::default())
        .map_err(|reason| refuse(&reason))?;
    let lora = AdaptersLora {
        architecture: ARCHITECTURE.into(),
        r: config.rank,
        alpha: config.alpha,
        dropout: config.dropout,
        ..AdaptersLora::new(modules, "add", "lora")
    };
    let own = Own {
        n_up_projection: config.n_up_projection,
        task_specific_matrix_type: config.task_specific_matrix_type,
        weights_sharpness: config.weights_sharpness,
    };
    let mut all = lora.write()?;
    let own = serde_json::to_value(own).map_err(|error| refuse(&error.to_string()))?;
    if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
        all.extend(own);
    }
    Ok(all)
}

/// What that library's `config` says in ours; `None` where it is not of MTL-LoRA.
pub(super) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<MtlLoraConfig>> {
    if config.get("architecture").and_then(Value::as_str) != Some(ARCHITECTURE) {
        return None;
    }
    let mut of_lora = config.clone();
    of_lora.insert("architecture".into(), "lora".into());
    let defaults = json!({
        "selfattn_lora": true, "intermediate_lora": false, "output_lora": false, "leave_out": [],
        "r": 8, "alpha": 8, "attn_matrices": ["q", "v"], "composition_mode": "add",
    });
    let theirs = AdaptersLora::read(&of_lora, "add", defaults)?;
    Some(theirs.and_then(|theirs| into_ours(theirs, config, base)))
}

fn into_ours(
    theirs: AdaptersLora,
    config: &Map<String, Value>,
    base: &Base,
) -> Result<MtlLoraConfig> {
    let defaults = json!({
        "n_up_projection": 1,
        "task_specific_matrix_type": "singular_values",
        "weights_sharpness": 0.05,
    });
    let own: Own = serde_json::from_value(with_adapters_defaults(config, defaults))
        .map_err(|error| Error::config("config", "MTLLoRAConfig", error.to_string()))?;
    if let Some(d) = theirs.vera_d.or(theirs.vera_b) {
        return Err(AdaptersLora::unsupported("vera_d", d));
    }
    for (field, is_set) in [("use_gating", theirs.use_gating), ("use_dora", theirs.use_dora)] {
        if is_set {
            return Err(AdaptersLora::unsupported(field, true));
        }
    }
    let (targets, fused) = theirs.targets(base);
    if !fused.is_empty() {
        return Err(AdaptersLora::unsupported("attn_matrices", "of a fused projection"));
    }
    Ok(MtlLoraConfig {
        rank: theirs.r,
        alpha: theirs.alpha,
        dropout: theirs.dropout,
        num_tasks: 1,
        n_up_projection: own.n_up_projection,
        task_specific_matrix_type: own.task_specific_matrix_type,
        weights_sharpness: own.weights_sharpness,
        targets,
    })
}
