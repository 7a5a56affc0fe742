//! adapter-hub/adapters' configuration of LoRA, and of (IA)³, which there is a LoRA that scales.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AdaptersModules, with_adapters_defaults};
use crate::{AttentionMatrices, Base, Error, Result, Targets};

const LIBRARY: &str = "adapter-hub/adapters";

/// Its `LoRAConfig`, with the fields of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AdaptersLora {
    pub architecture: String,
    #[serde(flatten)]
    pub modules: AdaptersModules,
    pub r: usize,
    #[serde(serialize_with = "super::whole_if_it_is")]
    pub alpha: f64,
    #[serde(default)]
    pub dropout: f64,
    pub composition_mode: String,
    #[serde(default)]
    pub init_weights: String,
    pub init_weights_seed: Option<u64>,
    #[serde(default)]
    pub use_gating: bool,
    #[serde(default)]
    pub use_dora: bool,
    pub vera_d: Option<f64>,
    pub vera_b: Option<f64>,
    pub dtype: Option<String>,
}

impl AdaptersLora {
    /// A configuration as the library writes it by default: `composition_mode` is what its factors do
    /// (`add`, `scale`), `init_weights` how they start (`lora`, `ia3`).
    pub fn new(modules: AdaptersModules, composition_mode: &str, init_weights: &str) -> Self {
        Self {
            architecture: "lora".into(),
            modules,
            r: 1,
            alpha: 1.0,
            dropout: 0.0,
            composition_mode: composition_mode.into(),
            init_weights: init_weights.into(),
            init_weights_seed: None,
            use_gating: false,
            use_dora: false,
            vera_d: None,
            vera_b: None,
            dtype: None,
        }
    }

    /// The configuration in a file, with `defaults` for fields that it lacks; `None` where it is of
    /// another method, or its factors do something else than `composition_mode`, which `defaults` have
    /// where a file need not say it.
    pub fn read(
        config: &Map<String, Value>,
        composition_mode: &str,
        defaults: Value,
    ) -> Option<Result<Self>> {
        let config = with_adapters_defaults(config, defaults);
        let is = |field: &str, value: &str| config[field] == *value;
        (is("architecture", "lora") && is("composition_mode", composition_mode)).then(|| {
            serde_json::from_value(config)
                .map_err(|error| Error::config("config", "LoRAConfig", error.to_string()))
        })
    }

    /// The configuration for a file.
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn write(&self) -> Result<Value> {
        serde_json::to_value(self)
            .map_err(|error| Error::no_format("lora", LIBRARY, error.to_string()))
    }

    /// The modules of `base` that it acts on, and of fused projections the parts.
    pub fn targets(&self, base: &Base) -> (Targets, AttentionMatrices) {
        let target_modules = Some(self.modules.paths(base));
        (Targets { target_modules, ..Targets::default() }, self.modules.fused(base))
    }

    /// The error that a field has this value.
    pub fn unsupported(field: &str, value: impl ToString) -> Error {
        Error::Unsupported { field: field.into(), value: value.to_string(), origin: LIBRARY.into() }
    }
}
