//! What the files of adapter-hub/adapters say about a model and about its modules.

mod lora;
mod model;
mod modules;

pub use lora::AdaptersLora;
pub use model::AdaptersModel;
pub use modules::AdaptersModules;

use serde::Serializer;
use serde_json::{Map, Value};

/// A configuration of that library with `defaults`, an object, for the fields that it lacks: files of
/// older versions have not all of them.
pub fn with_adapters_defaults(config: &Map<String, Value>, defaults: Value) -> Value {
    let mut all = match defaults {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    all.extend(config.clone());
    Value::Object(all)
}

/// Writes a number as Python does, for `serialize_with`: a whole one without a fraction.
///
/// # Errors
/// Those of the serializer.
pub fn whole_if_it_is<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => serializer.serialize_i64(*value as i64),
        false => serializer.serialize_f64(*value),
    }
}
