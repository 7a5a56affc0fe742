//! The configuration of LoRA as adapter-hub/adapters writes it.

use peft_core::{AdaptersLora, AdaptersModules, Base, Error, Result};
use serde_json::{Map, Value, json};

use super::LoraConfig;
use crate::LoraBias;

/// What `config` says in that library's terms.
pub(crate) fn write(config: &LoraConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Error::no_format("lora", "adapter-hub/adapters", reason);
    let patterns = !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty();
    let lacks = [
        (config.bias != LoraBias::None, "it trains no biases with LoRA"),
        (config.use_rslora, "it has no rsLoRA; its scale is alpha / r"),
        (patterns, "it has one rank and one alpha for all layers"),
        (config.init.keeps_start(), "it has neither PiSSA nor OLoRA"),
        (config.lora_bias, "its factors have no bias"),
        (config.use_dora, "its DoRA rescales the bias too, and leaves alpha / r out of the norm"),
    ];
    if let Some((_, reason)) = lacks.into_iter().find(|(is_asked, _)| *is_asked) {
        return Err(refuse(reason));
    }
    let sites = config.sites(base)?;
    let modules = AdaptersModules::of(&sites, base, "adapts", &config.attn_matrices)
        .map_err(|reason| refuse(&reason))?;
    let (r, alpha, dropout) = (config.rank, config.alpha, config.dropout);
    AdaptersLora { r, alpha, dropout, ..AdaptersLora::new(modules, "add", "lora") }.write()
}

/// What that library's `config` says in ours; `None` where it is not of LoRA.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<LoraConfig>> {
    let defaults = json!({
        "selfattn_lora": true, "intermediate_lora": false, "output_lora": false, "leave_out": [],
        "r": 8, "alpha": 8, "attn_matrices": ["q", "v"], "composition_mode": "add",
    });
    Some(AdaptersLora::read(config, "add", defaults)?.and_then(|theirs| into_ours(theirs, base)))
}

fn into_ours(theirs: AdaptersLora, base: &Base) -> Result<LoraConfig> {
    if let Some(d) = theirs.vera_d.or(theirs.vera_b) {
        return Err(AdaptersLora::unsupported("vera_d", d));
    }
    if theirs.use_gating {
        return Err(AdaptersLora::unsupported("use_gating", "true outside of a union (UniPELT)"));
    }
    // It rescales the bias too, and leaves alpha / r out of the norm.
    if theirs.use_dora {
        return Err(AdaptersLora::unsupported("use_dora", true));
    }
    let (targets, attn_matrices) = theirs.targets(base);
    let (rank, alpha, dropout) = (theirs.r, theirs.alpha, theirs.dropout);
    Ok(LoraConfig { rank, alpha, dropout, targets, attn_matrices, ..LoraConfig::default() })
}
