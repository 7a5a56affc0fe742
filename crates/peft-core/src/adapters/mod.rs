//! What the files of adapter-hub/adapters say about a model and about its modules.

mod model;
mod modules;

pub use model::AdaptersModel;
pub use modules::AdaptersModules;

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
