//! The configuration of (IA)³ as adapter-hub/adapters writes it: a LoRA that scales.

use peft_core::{AdaptersLora, AdaptersModules, Base, Error, ModuleNames, Result, Site};
use serde_json::{Map, Value, json};

use crate::Ia3Config;

/// What `config` says in that library's terms.
pub(crate) fn write(config: &Ia3Config, base: &Base) -> Result<Value> {
    let refuse = |reason: String| Error::no_format("ia3", "adapter-hub/adapters", reason);
    let layers = config.layers(base)?;
    if let Some((site, _)) = layers.iter().find(|(_, of_input)| *of_input) {
        return Err(refuse(format!(
            "it scales outputs only, and the input of {} is scaled: train with \
             feedforward_modules = []",
            site.path
        )));
    }
    let sites: Vec<&Site> = layers.into_iter().map(|(site, _)| site).collect();
    let modules =
        AdaptersModules::of(&sites, base, "scales", &config.attn_matrices).map_err(refuse)?;
    AdaptersLora { alpha: config.alpha, ..AdaptersLora::new(modules, "scale", "ia3") }.write()
}

/// What that library's `config` says in ours; `None` where it is not of (IA)³.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<Ia3Config>> {
    let defaults = json!({
        "selfattn_lora": true, "intermediate_lora": true, "output_lora": false, "leave_out": [],
        "r": 1, "alpha": 1, "attn_matrices": ["k", "v"], "composition_mode": null,
    });
    Some(AdaptersLora::read(config, "scale", defaults)?.and_then(|theirs| into_ours(theirs, base)))
}

fn into_ours(theirs: AdaptersLora, base: &Base) -> Result<Ia3Config> {
    if theirs.use_gating {
        return Err(AdaptersLora::unsupported("use_gating", true));
    }
    if theirs.r != 1 {
        return Err(AdaptersLora::unsupported("r", theirs.r));
    }
    let (targets, attn_matrices) = theirs.targets(base);
    let feedforward_modules = Some(ModuleNames::List(Vec::new()));
    let alpha = theirs.alpha;
    Ok(Ia3Config { targets, feedforward_modules, alpha, attn_matrices, ..Ia3Config::default() })
}
