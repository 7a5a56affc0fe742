//! The cases that are known not to be supported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::case::Outcome;

/// The cases of other folders of fixtures that are known not to be supported, by name, each with
/// the reason.
#[derive(Debug, Clone, Default)]
pub struct Known {
    path: PathBuf,
    reasons: BTreeMap<String, String>,
}

impl Known {
    /// Reads a JSON object from reasons to lists of names. A reason is what the message says, or a
    /// part of it.
    ///
    /// # Errors
    /// If the file cannot be read, or lists a case twice.
    pub fn load(path: &Path) -> Result<Self, String> {
        let of = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| of(error.to_string()))?;
        let listed: BTreeMap<String, Vec<String>> =
            serde_json::from_str(&text).map_err(|error| of(error.to_string()))?;
        let mut reasons = BTreeMap::new();
        for (reason, names) in listed {
            for name in names {
                if let Some(other) = reasons.insert(name.clone(), reason.clone()) {
                    return Err(of(format!("{name} is listed twice: {other}; {reason}")));
                }
            }
        }
        Ok(Self { path: path.to_path_buf(), reasons })
    }

    /// What an outcome means for a case of this name: one that is not supported fails unless it is
    /// listed for this reason, and one that is listed fails when it passes.
    pub fn judge(&self, name: &str, outcome: Outcome) -> Outcome {
        let list = self.path.display();
        match (outcome, self.reasons.get(name)) {
            (Outcome::NotSupported(why), Some(reason)) if why.contains(reason.as_str()) => {
                Outcome::NotSupported(why)
            }
            (Outcome::NotSupported(why), Some(reason)) => Outcome::Failed(format!(
                "not supported for another reason than {list} gives ({reason}): {why}"
            )),
            (Outcome::NotSupported(why), None) if self.reasons.is_empty() => {
                Outcome::Failed(format!("not supported: {why}"))
            }
            (Outcome::NotSupported(why), None) => {
                Outcome::Failed(format!("not supported, and not listed in {list}: {why}"))
            }
            (Outcome::Passed(how), Some(reason)) => Outcome::Failed(format!(
                "passes ({how}); take it off {list}, where it is listed as not supported: {reason}"
            )),
            (outcome, _) => outcome,
        }
    }
}
