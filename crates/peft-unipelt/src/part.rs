//! A part of a hybrid.

use peft_core::{GateKind, GateOn, MethodConfig, configure};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The gates of each part, with adapter-hub/adapters' names and start.
pub(crate) const PREFIX: GateKind = gate("prefix_gate", "prefix_tuning.prefix_gates.{}");
pub(crate) const ADAPTER: GateKind =
    GateKind { bias: Some(0.0), ..gate("adapter_gate", "adapters.{}.gate") };
pub(crate) const LORA: GateKind = gate("lora_gate", "loras.{}.gate");
pub(crate) const IA3: GateKind =
    GateKind { on: GateOn::Output, ..gate("ia3_gate", "loras.{}.gate") };

const fn gate(peft: &'static str, adapters: &'static str) -> GateKind {
    GateKind { peft, adapters, on: GateOn::Change, bias: None }
}

const GATING: &str = "use_gating";

/// A part of a hybrid: the configuration of a method, and whether it has gates. In a file it is the
/// method's fields, with `use_gating` among them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part<C> {
    /// The method's configuration.
    #[serde(flatten)]
    pub config: C,
    /// Whether it has gates; where it does not say, as the hybrid says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_gating: Option<bool>,
}

impl<C> From<C> for Part<C> {
    fn from(config: C) -> Self {
        Self { config, use_gating: None }
    }
}

/// A field that the method does not have is an error.
impl<'de, C: MethodConfig> Deserialize<'de> for Part<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let use_gating = match fields.remove(GATING) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(gated)) => Some(gated),
            Some(other) => {
                let message = format!("{GATING} = {other}: must be true or false");
                return Err(D::Error::custom(message));
            }
        };
        Ok(Self { config: configure(fields).map_err(D::Error::custom)?, use_gating })
    }
}

/// Parts of one kind: null, one, or a list.
pub(crate) mod any_number {
    use super::*;

    pub(crate) fn serialize<C: Serialize, S: Serializer>(
        parts: &[Part<C>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match parts {
            [] => serializer.serialize_none(),
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, C: MethodConfig, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Part<C>>, D::Error> {
        let parts = match Value::deserialize(deserializer)? {
            Value::Null => Vec::new(),
            Value::Array(parts) => parts,
            only => vec![only],
        };
        let parts = parts.into_iter().map(Part::<C>::deserialize);
        parts.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}
