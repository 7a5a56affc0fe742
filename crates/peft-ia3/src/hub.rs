//! The configuration of (IA)³ as adapter-hub/adapters writes it: a LoRA that scales.

use peft_core::{Base, Error, ModuleNames, Result, Role, Site, Targets};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ia3Config;

const LIBRARY: &str = "adapter-hub/adapters";

/// Its `IA3Config`, as far as it means something here.
#[derive(Debug, Deserialize)]
struct HubIa3 {
    selfattn_lora: bool,
    intermediate_lora: bool,
    output_lora: bool,
    #[serde(default)]
    leave_out: Vec<usize>,
    r: usize,
    alpha: f64,
    attn_matrices: Vec<String>,
    #[serde(default)]
    use_gating: bool,
}

const MATRICES: [(&str, Role); 3] = [("q", Role::Query), ("k", Role::Key), ("v", Role::Value)];

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
    let has = |role: Role| sites.iter().any(|site| site.role == role);
    let scalable = |site: &Site| {
        matches!(site.role, Role::FeedForwardUp | Role::FeedForwardDown)
            || MATRICES.iter().any(|(_, role)| *role == site.role)
    };
    if let Some(other) = sites.iter().find(|site| !scalable(site)) {
        return refuse(format!("it scales no module like {}", other.path));
    }
    let mut leave_out: Vec<usize> = base.linears().filter_map(|site| site.layer).collect();
    leave_out.dedup();
    leave_out.retain(|layer| !sites.iter().any(|site| site.layer == Some(*layer)));
    let expected = base.linears().filter(|site| {
        has(site.role) && site.layer.is_some_and(|layer| !leave_out.contains(&layer))
    });
    if expected.count() != sites.len() {
        let reason = "it scales the same modules in every layer that it does not leave out";
        return refuse(reason.into());
    }
    let matrices = MATRICES.iter().filter(|(_, role)| has(*role)).map(|(name, _)| *name);
    let matrices: Vec<&str> = matrices.collect();
    Ok(json!({
        "alpha": 1,
        "architecture": "lora",
        "attn_matrices": matrices,
        "composition_mode": "scale",
        "dropout": 0.0,
        "dtype": null,
        "init_weights": "ia3",
        "init_weights_seed": null,
        "intermediate_lora": has(Role::FeedForwardUp),
        "leave_out": leave_out,
        "output_lora": has(Role::FeedForwardDown),
        "r": 1,
        "selfattn_lora": !matrices.is_empty(),
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
        let hub: HubIa3 = serde_json::from_value(Value::Object(config.clone()))
            .map_err(|error| Error::config("config", "IA3Config", error.to_string()))?;
        hub.into_ours(base)
    })
}

impl HubIa3 {
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
        // It multiplies the scale by alpha; here the scale is what the file holds.
        if self.alpha != 1.0 {
            return unsupported("alpha", self.alpha.to_string());
        }
        let scaled = |site: &Site| {
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
        let sites = base.linears().filter(|site| scaled(site));
        let targets = Targets {
            target_modules: Some(ModuleNames::list(sites.map(|site| site.path.clone()))),
            ..Targets::default()
        };
        let feedforward_modules = Some(ModuleNames::List(Vec::new()));
        Ok(Ia3Config { targets, feedforward_modules, ..Ia3Config::default() })
    }
}
