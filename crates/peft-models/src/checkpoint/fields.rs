//! The configuration of a model's directory.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use super::gguf::{self, Gguf};
use crate::{Error, Result};

/// The fields of a directory's `config.json`; where it has none but a `.gguf` file, those that the
/// file's metadata amount to.
///
/// # Errors
/// If neither is there, or one is broken or asks for something not supported.
pub fn config_fields(directory: &Path) -> Result<Map<String, Value>> {
    let path = directory.join("config.json");
    if !is_there(&path)? {
        let gguf = Gguf::find(directory)?;
        let gguf = gguf.ok_or_else(|| Error::file(&path, "not there, and no .gguf file"))?;
        return gguf::config_fields(gguf);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("not a JSON object: {e}")))
}

/// Whether a file is there; one that cannot be looked at is an error.
pub(crate) fn is_there(path: &Path) -> Result<bool> {
    match path.try_exists() {
        Ok(there) => Ok(there),
        // A `.gguf` file in the place of a directory has no files.
        Err(e) if e.kind() == ErrorKind::NotADirectory => Ok(false),
        Err(e) => Err(Error::file(path, e)),
    }
}
