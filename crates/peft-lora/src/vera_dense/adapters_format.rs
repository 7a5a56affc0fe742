//! The configuration of VeRA as adapter-hub/adapters writes it.

use peft_core::{AdaptersLora, AdaptersModules, AttentionMatrices, Base, Error, Result};
use serde_json::{Map, Value, json};

use super::DenseVeraConfig;

/// What `config` says in that library's terms.
pub(super) fn write(config: &DenseVeraConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Error::no_format("vera-dense", "adapter-hub/adapters", reason);
    let sites = config.sites(base)?;
    let modules = AdaptersModules::of(&sites, base, "adapts", &AttentionMatrices::default())
        .map_err(|reason| refuse(&reason))?;
    AdaptersLora {
        r: config.rank,
        alpha: config.alpha,
        dropout: config.dropout,
        vera_d: Some(config.d_initial),
        vera_b: Some(config.b_initial),
        ..AdaptersLora::new(modules, "add", "vera")
    }
    .write()
}

/// What that library's `config` says in ours; `None` where it is not of VeRA.
pub(super) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<DenseVeraConfig>> {
    let defaults = json!({
        "selfattn_lora": true, "intermediate_lora": false, "output_lora": false, "leave_out": [],
        "r": 8, "alpha": 8, "attn_matrices": ["q", "v"], "composition_mode": "add",
    });
    let theirs = match AdaptersLora::read(config, "add", defaults)? {
        Ok(theirs) if theirs.vera_d.is_none() && theirs.vera_b.is_none() => return None,
        theirs => theirs,
    };
    Some(theirs.and_then(|theirs| into_ours(theirs, base)))
}

fn into_ours(theirs: AdaptersLora, base: &Base) -> Result<DenseVeraConfig> {
    for (field, is_set) in [("use_gating", theirs.use_gating), ("use_dora", theirs.use_dora)] {
        if is_set {
            return Err(AdaptersLora::unsupported(field, true));
        }
    }
    let (Some(d_initial), Some(b_initial)) = (theirs.vera_d, theirs.vera_b) else {
        return Err(AdaptersLora::unsupported(
            "vera_d",
            "null, beside vera_b, or the other way round",
        ));
    };
    let (targets, fused) = theirs.targets(base);
    if !fused.is_empty() {
        return Err(AdaptersLora::unsupported("attn_matrices", "of a fused projection"));
    }
    let (rank, alpha, dropout) = (theirs.r, theirs.alpha, theirs.dropout);
    Ok(DenseVeraConfig { rank, alpha, dropout, d_initial, b_initial, targets })
}
