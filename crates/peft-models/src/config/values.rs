//! Values of `config.json` as transformers takes them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Reads fields into a type; an error names the field that it is about.
pub(crate) fn read<C: DeserializeOwned>(fields: &Map<String, Value>, path: &Path) -> Result<C> {
    let parsed = |fields: Map<String, Value>| {
        serde_json::from_value::<C>(Value::Object(fields)).map_err(|e| e.to_string())
    };
    let error = match parsed(fields.clone()) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // serde does not say which field a value is of: it is the one without which the error is
    // another.
    let is_wrong = |(field, _): &(&String, &Value)| {
        let rest = fields.iter().filter(|(other, _)| other != field);
        let rest = rest.map(|(other, value)| (other.clone(), value.clone()));
        parsed(rest.collect()).err().as_ref() != Some(&error)
    };
    match fields.iter().find(is_wrong).filter(|_| !error.starts_with("missing field")) {
        Some((field, value)) => {
            Err(Error::file(path, format!("{field} = {}: {error}", shown(value))))
        }
        None => Err(Error::file(path, error)),
    }
}

/// A value for a message, its beginning where it is long.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 120;
    let mut text = value.to_string();
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str("...");
    }
    text
}

/// The index of a token; old files have -1 where there is none.
pub(crate) fn id<T: TryFrom<i64>>(id: i64) -> std::result::Result<Option<T>, String> {
    match id {
        ..0 => Ok(None),
        _ => T::try_from(id).map(Some).map_err(|_| format!("{id} is no index of a token")),
    }
}

/// A field with the index of a token, if there is one.
pub(crate) fn token_id<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    let found: Option<i64> = Option::deserialize(deserializer)?;
    found.map_or(Ok(None), id).map_err(D::Error::custom)
}

/// A switch; 0 and `null` are off, as in Python.
pub(crate) fn switch<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(false),
        Value::Bool(on) => Ok(on),
        Value::Number(number) => Ok(number.as_f64() != Some(0.0)),
        other => Err(D::Error::custom(format!("{} is not true or false", shown(&other)))),
    }
}

/// A share of what is dropped, of which transformers takes `null` for none.
pub(crate) fn share<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(0.0))
}

/// Names of labels by index; a name may be a number, or missing. Indices are what Python's `int`
/// reads.
pub(super) fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    let found: Option<BTreeMap<String, Value>> = Option::deserialize(deserializer)?;
    let label = |(index, name): (String, Value)| {
        let index: i64 = index
            .trim()
            .parse()
            .map_err(|_| D::Error::custom(format!("{index:?} is no index of a label")))?;
        let name = match name {
            Value::String(name) => name,
            Value::Null => super::unnamed(index),
            other => other.to_string(),
        };
        Ok((index.to_string(), name))
    };
    found.into_iter().flatten().map(label).collect()
}
