//! The configuration of (IA)³ as adapter-hub/adapters writes it: a LoRA that scales.

use peft_core::{
    AdaptersModules, Base, Error, ModuleNames, Result, Site, Targets, with_adapters_defaults,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ia3Config;

const LIBRARY: &str = "adapter-hub/adapters";

/// Its `IA3Config`, as far as it means something here.
#[derive(Debug, Deserialize)]
struct AdaptersIa3 {
    #[serde(flatten)]
    modules: AdaptersModules,
    r: usize,
    alpha: f64,
    #[serde(default)]
    use_gating: bool,
}

/// What `config` says in that library's terms.
pub(crate) fn write(config: &Ia3Config, base: &Base) -> Result<Value> {
    let refuse = |reason: String| Err(Error::no_format("ia3", LIBRARY, reason));
    let layers = config.layers(base)?;
    if let Some((site, _)) = layers.iter().find(|(_, of_input)| *of_input) {
        return refuse(format!(
            "it scales outputs only, and the input of {} is scaled: train with \
             feedforward_modules = []",
            site.path
        ));
    }
    let sites: Vec<&Site> = layers.into_iter().map(|(site, _)| site).collect();
    let modules = match AdaptersModules::of(&sites, base, "scales", &config.attn_matrices) {
        Ok(modules) => modules,
        Err(reason) => return refuse(reason),
    };
    let alpha = match config.alpha.fract() == 0.0 && config.alpha.abs() < 1e15 {
        true => json!(config.alpha as i64),
        false => json!(config.alpha),
    };
    Ok(json!({
        "alpha": alpha,
        "architecture": "lora",
        "attn_matrices": modules.attn_matrices,
        "composition_mode": "scale",
        "dropout": 0.0,
        "dtype": null,
        "init_weights": "ia3",
        "init_weights_seed": null,
        "intermediate_lora": modules.intermediate_lora,
        "leave_out": modules.leave_out,
        "output_lora": modules.output_lora,
        "r": 1,
        "selfattn_lora": modules.selfattn_lora,
        "use_dora": false,
        "use_gating": false,
        "vera_b": null,
        "vera_d": null,
    }))
}

/// What that library's `config` says in ours; `None` where it is not of (IA)³.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<Ia3Config>> {
    let is = |field: &str, value: &str| config.get(field).and_then(Value::as_str) == Some(value);
    (is("architecture", "lora") && is("composition_mode", "scale")).then(|| {
        let defaults = json!({
            "selfattn_lora": true, "intermediate_lora": true, "output_lora": false,
            "leave_out": [], "r": 1, "alpha": 1, "attn_matrices": ["k", "v"],
        });
        let theirs: AdaptersIa3 = serde_json::from_value(with_adapters_defaults(config, defaults))
            .map_err(|error| Error::config("config", "IA3Config", error.to_string()))?;
        theirs.into_ours(base)
    })
}

impl AdaptersIa3 {
    fn into_ours(self, base: &Base) -> Result<Ia3Config> {
        let unsupported = |field: &str, value: String| {
            Err(Error::Unsupported { field: field.into(), value, origin: LIBRARY.into() })
        };
        if self.use_gating {
            return unsupported("use_gating", "true".into());
        }
        if self.r != 1 {
            return unsupported("r", self.r.to_string());
        }
        let attn_matrices = self.modules.fused(base);
        let target_modules = Some(self.modules.paths(base));
        let targets = Targets { target_modules, ..Targets::default() };
        let feedforward_modules = Some(ModuleNames::List(Vec::new()));
        let alpha = self.alpha;
        let config = Ia3Config { targets, feedforward_modules, alpha, ..Ia3Config::default() };
        Ok(Ia3Config { attn_matrices, ..config })
    }
}
