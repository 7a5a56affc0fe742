//! Rows that are objects: JSON Lines, an array of JSON, Parquet.

use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{LabelColumn, Labelling, Layout, Record, extension};
use crate::{Error, Result, lines};

/// A file whose rows are objects, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objects {
    /// An object on each line, or one array of objects.
    Json,
    /// Parquet.
    Parquet,
}

/// The fields of a row, by name.
pub(crate) type Object = Map<String, Value>;

impl Objects {
    /// What a file holds, by its extension; `None` if it is not of this kind.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match extension(path).as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Makes something of each row, which is given with its line or number. Fields that are not
    /// `wanted` may be null.
    pub(crate) fn each<T>(
        self,
        path: &Path,
        wanted: &dyn Fn(&str) -> bool,
        mut make: impl FnMut(u64, Object) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut made = Vec::new();
        let mut add = |line: u64, object: Object| {
            made.push(make(line, object)?);
            Ok(())
        };
        match self {
            Self::Json => json(path, &mut add)?,
            #[cfg(feature = "parquet")]
            Self::Parquet => super::parquet::rows(path, wanted, &mut add)?,
            #[cfg(not(feature = "parquet"))]
            Self::Parquet => {
                let _ = wanted;
                return Err(Error::file(path, "Parquet, which this program was built without"));
            }
        }
        Ok(made)
    }

    /// The rows of a file as records.
    pub(super) fn records(
        self,
        path: &Path,
        layout: &Layout,
        label: LabelColumn,
        labelling: Labelling,
    ) -> Result<Vec<Record>> {
        let mut wanted = Vec::new();
        let places = layout.places(label, |_, name| {
            wanted.push(name.to_string());
            Ok(name.to_string())
        })?;
        let is_wanted = |name: &str| wanted.iter().any(|column| column == name);
        self.each(path, &is_wanted, |line, object| {
            let is_read =
                |key: &&String| label == LabelColumn::Required || object.contains_key(*key);
            let key = places.label.as_ref().filter(is_read);
            places.record(layout, line, key, |name| match object.get(name) {
                Some(list @ Value::Array(_))
                    if labelling == Labelling::Several && places.label.as_ref() == Some(name) =>
                {
                    Ok(list.to_string())
                }
                _ => text(path, line, &object, name),
            })
        })
    }
}

/// A field that is a text, or is written as one.
fn text(path: &Path, line: u64, object: &Object, name: &str) -> Result<String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(other) => {
            Err(Error::row(path, line, format!("{name:?} is {other}, not a text or number")))
        }
        None => Err(missing(path, line, object, name)),
    }
}

/// That an object lacks a field; those that it has are named.
pub(crate) fn missing(path: &Path, line: u64, object: &Object, name: &str) -> Error {
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    let reason =
        format!("no field {name:?}; there are: {}; --columns says which to use", keys.join(", "));
    Error::row(path, line, reason)
}

/// The objects of JSON Lines, or of one array.
fn json(path: &Path, add: &mut dyn FnMut(u64, Object) -> Result<()>) -> Result<()> {
    let bytes = lines::read(path)?;
    let lines = lines::lines(path, &bytes)?;
    let first = lines.iter().find_map(|line| line.trim_start().chars().next());
    if first == Some('[') {
        return array(path, &bytes, add);
    }
    for (text, line) in lines.into_iter().zip(1..) {
        if !text.trim().is_empty() {
            add(line, object(path, line, text)?)?;
        }
    }
    Ok(())
}

/// The objects of an array.
fn array(path: &Path, bytes: &[u8], add: &mut dyn FnMut(u64, Object) -> Result<()>) -> Result<()> {
    let items: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|e| {
        Error::row(path, e.line() as u64, format!("not an array of JSON objects: {e}"))
    })?;
    let (mut line, mut counted) = (1, 0);
    for item in items {
        // An item is a part of the bytes.
        let start = item.get().as_ptr().addr() - bytes.as_ptr().addr();
        let ended = bytes[counted..start].iter().filter(|&&byte| byte == b'\n');
        (line, counted) = (line + ended.count() as u64, start);
        add(line, object(path, line, item.get())?)?;
    }
    Ok(())
}

fn object(path: &Path, line: u64, text: &str) -> Result<Object> {
    serde_json::from_str(text).map_err(|e| {
        let mut reason = format!("not a JSON object: {e}");
        if e.is_eof() {
            reason += "; an object stands on one line, or the file is one array of objects";
        }
        Error::row(path, line, reason)
    })
}
