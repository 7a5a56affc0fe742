//! The index of a checkpoint that comes in several files.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::is_there;
use crate::{Error, Result};

/// The index of a checkpoint that comes in several files: `model.safetensors.index.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    path: PathBuf,
    /// The keys in each file.
    keys: BTreeMap<String, Vec<String>>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// If it is broken, or a file's name is a path: shards lie beside their index.
    pub fn load(path: &Path) -> Result<Self> {
        let broken = |reason: String| Error::file(path, reason);
        let text = std::fs::read_to_string(path).map_err(|e| broken(e.to_string()))?;
        let fields: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        let map = fields.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| broken("no weight_map: not an index of shards".into()))?;
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, file) in map {
            let name = file.as_str().filter(|name| is_file_name(name));
            let name = name.ok_or_else(|| {
                broken(format!("weight_map: {key} is in {file}, which must be a plain file name"))
            })?;
            keys.entry(name.into()).or_default().push(key.clone());
        }
        Ok(Self { path: path.into(), keys })
    }

    /// The names of the files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Whether every file is there, beside the index. One that cannot be looked at is not taken for
    /// missing: reading it says what is wrong.
    pub fn is_complete(&self) -> bool {
        self.files().all(|file| is_there(&self.path.with_file_name(file)).unwrap_or(true))
    }

    /// The tensors, or what else is known of each, with what reads those of one file.
    pub(super) fn tensors<T>(
        &self,
        read: impl Fn(&Path) -> Result<BTreeMap<String, T>>,
    ) -> Result<BTreeMap<String, T>> {
        let mut tensors = BTreeMap::new();
        for (file, keys) in &self.keys {
            let path = self.path.with_file_name(file);
            let mut shard = read(&path)?;
            for key in keys {
                let data = shard.remove(key);
                let data = data.ok_or_else(|| {
                    Error::file(&path, format!("lacks {key}, which the index says is here"))
                })?;
                tensors.insert(key.clone(), data);
            }
        }
        Ok(tensors)
    }
}

/// Whether a name leads to no other directory, on any system.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    is_one && !name.contains(['/', '\\', ':', '\0'])
}
