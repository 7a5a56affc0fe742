//! The configuration of LoRA as adapter-hub/adapters writes it.

use peft_core::{AdaptersLora, AdaptersModules, Base, Error, MethodConfig, Result};
use serde_json::{Map, Value, json};

use super::{LoraConfig, LoraInit};
use crate::LoraBias;

/// What `config` says in that library's terms.
pub(crate) fn write(config: &LoraConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Error::no_format("lora", "adapter-hub/adapters", reason);
    let patterns = !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty();
    let lacks = [
        (config.bias != LoraBias::None, "it trains no biases with LoRA"),
        (config.use_rslora, "it has no rsLoRA; its scale is alpha / r"),
        (patterns, "it has one rank and one alpha for all layers"),
        (
            config.init.keeps_start() || config.init == LoraInit::Loftq,
            "it has no start that changes the weight below",
        ),
        (config.lora_bias, "its factors have no bias"),
        (
            config.use_dora && !config.adapters_dora,
            "its DoRA rescales the bias too, and leaves alpha / r out of the norm (adapters_dora)",
        ),
        (config.alora_invocation_tokens.is_some(), "its factors act on every token"),
    ];
    if let Some((_, reason)) = lacks.into_iter().find(|(is_asked, _)| *is_asked) {
        return Err(refuse(reason));
    }
    let sites = config.sites(base)?;
    let modules = AdaptersModules::of(&sites, base, "adapts", &config.attn_matrices)
        .map_err(|reason| refuse(&reason))?;
    let (r, alpha, dropout) = (config.rank, config.alpha, config.dropout);
    let use_dora = config.use_dora;
    AdaptersLora { r, alpha, dropout, use_dora, ..AdaptersLora::new(modules, "add", "lora") }
        .write()
}

/// What that library's `config` says in ours; `None` where it is not of LoRA.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<LoraConfig>> {
    let defaults = json!({
        "selfattn_lora": true, "intermediate_lora": false, "output_lora": false, "leave_out": [],
        "r": 8, "alpha": 8, "attn_matrices": ["q", "v"], "composition_mode": "add",
    });
    let theirs = AdaptersLora::read(config, "add", defaults)?;
    // Those of VeRA are another method's.
    let is_vera = |theirs: &AdaptersLora| theirs.vera_d.is_some() || theirs.vera_b.is_some();
    let theirs = theirs.map(|theirs| Some(theirs).filter(|theirs| !is_vera(theirs)));
    Some(theirs.transpose()?.and_then(|theirs| into_ours(theirs, base)))
}

fn into_ours(theirs: AdaptersLora, base: &Base) -> Result<LoraConfig> {
    if theirs.use_gating {
        return Err(AdaptersLora::unsupported("use_gating", "true outside of a union (UniPELT)"));
    }
    let (targets, attn_matrices) = theirs.targets(base);
    let (rank, alpha, dropout) = (theirs.r, theirs.alpha, theirs.dropout);
    let (use_dora, adapters_dora) = (theirs.use_dora, theirs.use_dora);
    let config =
        LoraConfig { rank, alpha, dropout, targets, attn_matrices, ..LoraConfig::default() };
    let config = LoraConfig { use_dora, adapters_dora, ..config };
    config.validate()?;
    Ok(config)
}
