//! The configuration of LoRA as adapter-hub/adapters writes it.

use peft_core::{Base, Error, ModuleNames, Result, Role, Site, SiteKind, Targets};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::DEFAULT_ROLES;
use crate::{LoraBias, LoraConfig, LoraInit};

const LIBRARY: &str = "adapter-hub/adapters";

/// Its `LoRAConfig`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HubLora {
    architecture: String,
    selfattn_lora: bool,
    intermediate_lora: bool,
    output_lora: bool,
    leave_out: Vec<usize>,
    r: usize,
    alpha: f64,
    dropout: f64,
    attn_matrices: Vec<String>,
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

const MATRICES: [(&str, Role); 3] = [("q", Role::Query), ("k", Role::Key), ("v", Role::Value)];

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
    if config.init == LoraInit::Pissa {
        return refuse("it has no PiSSA");
    }
    if config.use_dora {
        return refuse("its DoRA rescales the bias too, and leaves alpha / r out of the norm");
    }
    let sites = config.targets.resolve(base, DEFAULT_ROLES)?;
    let has = |role: Role| sites.iter().any(|site| site.role == role);
    let adaptable = |site: &Site| {
        let roles = [Role::FeedForwardUp, Role::FeedForwardDown];
        MATRICES.iter().any(|(_, role)| *role == site.role) || roles.contains(&site.role)
    };
    if let Some(other) = sites.iter().find(|site| !adaptable(site)) {
        return refuse(&format!("it adapts no module like {}", other.path));
    }
    let layers = |site: &Site| site.layer.filter(|_| site.role == Role::Query);
    let leave_out: Vec<usize> = base
        .linears()
        .filter_map(|site| layers(site))
        .filter(|layer| !sites.iter().any(|site| site.layer == Some(*layer)))
        .collect();
    let expected = base.linears().filter(|site| {
        has(site.role) && site.layer.is_some_and(|layer| !leave_out.contains(&layer))
    });
    if expected.count() != sites.len() {
        return refuse("it adapts the same modules in every layer that it does not leave out");
    }
    let matrices = MATRICES.iter().filter(|(_, role)| has(*role));
    let hub = HubLora {
        architecture: "lora".into(),
        selfattn_lora: MATRICES.iter().any(|(_, role)| has(*role)),
        intermediate_lora: has(Role::FeedForwardUp),
        output_lora: has(Role::FeedForwardDown),
        leave_out,
        r: config.rank,
        alpha: config.alpha,
        dropout: config.dropout,
        attn_matrices: matrices.map(|(name, _)| name.to_string()).collect(),
        composition_mode: "add".into(),
        init_weights: "lora".into(),
        init_weights_seed: None,
        use_gating: false,
        use_dora: false,
        vera_d: None,
        vera_b: None,
        dtype: None,
    };
    let mut fields = serde_json::to_value(hub)
        .map_err(|error| Error::no_format("lora", LIBRARY, error.to_string()))?;
    if config.alpha.fract() == 0.0 {
        fields["alpha"] = Value::from(config.alpha as i64);
    }
    Ok(fields)
}

/// What that library's `config` says in ours; `None` where it is not of LoRA.
pub(crate) fn read(config: &Map<String, Value>, base: &Base) -> Option<Result<LoraConfig>> {
    let is = |field: &str, value: &str| config.get(field).and_then(Value::as_str) == Some(value);
    (is("architecture", "lora") && is("composition_mode", "add")).then(|| {
        let hub: HubLora = serde_json::from_value(Value::Object(config.clone()))
            .map_err(|e| Error::config("config", "LoRAConfig", e.to_string()))?;
        hub.into_ours(base)
    })
}

impl HubLora {
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
        let adapted = |site: &Site| {
            let in_attention = MATRICES.iter().any(|(name, role)| {
                *role == site.role && self.attn_matrices.iter().any(|matrix| matrix == name)
            });
            let chosen = match site.role {
                Role::FeedForwardUp => self.intermediate_lora,
                Role::FeedForwardDown => self.output_lora,
                _ => self.selfattn_lora && in_attention,
            };
            chosen && site.layer.is_some_and(|layer| !self.leave_out.contains(&layer))
        };
        // Whole paths: other names could mean other modules too (`output.dense`).
        let sites = base.sites().filter(|s| s.kind == SiteKind::Linear && adapted(s));
        let targets = Targets {
            target_modules: Some(ModuleNames::list(sites.map(|site| site.path.clone()))),
            ..Targets::default()
        };
        Ok(LoraConfig {
            rank: self.r,
            alpha: self.alpha,
            dropout: self.dropout,
            targets,
            ..LoraConfig::default()
        })
    }
}
