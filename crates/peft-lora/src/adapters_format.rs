//! The configuration of LoRA as adapter-hub/adapters writes it.

use peft_core::{AdaptersModules, Base, Error, Result, Targets, with_adapters_defaults};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{LoraBias, LoraConfig};

const LIBRARY: &str = "adapter-hub/adapters";

/// Its `LoRAConfig`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct AdaptersLora {
    architecture: String,
    #[serde(flatten)]
    modules: AdaptersModules,
    r: usize,
    alpha: f64,
    dropout: f64,
    composition_mode: String,
    init_weights: String,
    init_weights_seed: Option<u64>,
    use_gating: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    vera_d: Option<f64>,
    #[serde(default)]
    vera_b: Option<f64>,
    #[serde(default)]
    dtype: Option<String>,
}

/// What `config` says in that library's terms.
pub(crate) fn write(config: &LoraConfig, base: &Base) -> Result<Value> {
    let refuse = |reason: &str| Err(Error::no_format("lora", LIBRARY, reason));
    if config.bias != LoraBias::None {
        return refuse("it trains no biases with LoRA");
    }
    if config.use_rslora {
        return refuse("it has no rsLoRA; its scale is alpha / r");
    }
    if !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty() {
        return refuse("it has one rank and one alpha for all layers");
    }
    if config.init.keeps_start() {
        return refuse("it has neither PiSSA nor OLoRA");
    }
    if config.lora_bias {
        return refuse("its factors have no bias");
    }
    if config.use_dora {
        return refuse("its DoRA rescales the bias too, and leaves alpha / r out of the norm");
    }
    let sites = config.sites(base)?;
    let modules = match AdaptersModules::of(&sites, base, "adapts", &config.attn_matrices) {
        Ok(modules) => modules,
        Err(reason) => return refuse(&reason),
    };
    let theirs = AdaptersLora {
        architecture: "lora".into(),
        modules,
        r: config.rank,
        alpha: config.alpha,
        dropout: config.dropout,
        composition_mode: "add".into(),
        init_weights: "lora".into(),
        init_weights_seed: None,
        use_gating: false,
        use_dora: false,
        vera_d: None,
        vera_b: None,
        dtype: None,
    };
    let mut fields = serde_json::to_value(theirs)
        .map_err(|error| Error::no_format("lora", LIBRARY, error.to_string()))?;
    if config.alpha.fract() == 0.0 {
        fields["alpha"] = Value::from(config.alpha as i64);
    }
    Ok(fields)
}

/// What that library's `config` says in ours; `None` where it is not of LoRA.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<LoraConfig>> {
    let is = |field: &str, value: &str| config.get(field).and_then(Value::as_str) == Some(value);
    let adds = !config.contains_key("composition_mode") || is("composition_mode", "add");
    (is("architecture", "lora") && adds).then(|| {
        let defaults = json!({
            "selfattn_lora": true, "intermediate_lora": false, "output_lora": false,
            "leave_out": [], "r": 8, "alpha": 8, "dropout": 0.0, "attn_matrices": ["q", "v"],
            "composition_mode": "add", "init_weights": "lora", "use_gating": false,
        });
        let theirs: AdaptersLora = serde_json::from_value(with_adapters_defaults(config, defaults))
            .map_err(|e| Error::config("config", "LoRAConfig", e.to_string()))?;
        theirs.into_ours(base)
    })
}

impl AdaptersLora {
    fn into_ours(self, base: &Base) -> Result<LoraConfig> {
        let unsupported = |field: &str, value: String| {
            Err(Error::Unsupported { field: field.into(), value, origin: LIBRARY.into() })
        };
        if let Some(d) = self.vera_d.or(self.vera_b) {
            return unsupported("vera_d", d.to_string());
        }
        if self.use_gating {
            return unsupported("use_gating", "true outside of a union (UniPELT)".into());
        }
        // It rescales the bias too, and leaves alpha / r out of the norm.
        if self.use_dora {
            return unsupported("use_dora", "true".into());
        }
        let attn_matrices = self.modules.fused(base);
        let target_modules = Some(self.modules.paths(base));
        let targets = Targets { target_modules, ..Targets::default() };
        Ok(LoraConfig {
            rank: self.r,
            alpha: self.alpha,
            dropout: self.dropout,
            targets,
            attn_matrices,
            ..LoraConfig::default()
        })
    }
}
