//! Several adapters, and how they are composed, in one directory.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::adapters::read_object;
use crate::{Composition, Error, Result, write_atomically};

/// A directory with the directories of several adapters in it, and `adapter_setup.json`, which says how
/// they are composed: that of adapter-hub/adapters' `save_adapter_setup`.
///
/// The adapters may be in either layout; that library reads those in its own. A composition in a
/// composition is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSetup {
    /// How they are composed.
    pub composition: Composition,
    /// The names of their directories, in order.
    pub adapters: Vec<String>,
}

/// The file that says how.
const FILE: &str = "adapter_setup.json";

impl AdapterSetup {
    /// Whether a directory holds one.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(FILE).is_file()
    }

    /// The directory of the trained fusion, whose name is that of all adapters, as in the other library.
    pub fn fusion(&self) -> Option<String> {
        (self.composition == Composition::Fuse).then(|| self.adapters.join(","))
    }

    /// The one in a directory.
    ///
    /// # Errors
    /// If the file is broken, or says what is not supported.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let wrong = |reason: String| Error::file(&path, reason);
        let fields = read_object(&path)?;
        let Some(setup) = fields.get("adapter_setup").and_then(Value::as_object) else {
            return Err(wrong("adapter_setup must be an object".into()));
        };
        let children = setup.get("children").and_then(Value::as_array);
        let Some(children) = children.filter(|children| !children.is_empty()) else {
            return Err(wrong("adapter_setup.children must be a list of adapters".into()));
        };
        let adapters = children.iter().map(|child| {
            if child["type"] != "single" {
                let kind = &child["type"];
                return Err(wrong(format!("a {kind} in a composition is not supported")));
            }
            let name = child["children"][0].as_str().filter(|name| is_name(name));
            name.map(String::from).ok_or_else(|| {
                wrong(format!("{} must be the name of a directory beside it", child["children"]))
            })
        });
        let adapters = adapters.collect::<Result<Vec<_>>>()?;
        let none = Map::new();
        let numbers = setup.get("kwargs").and_then(Value::as_object).unwrap_or(&none);
        let kind = setup.get("type").and_then(Value::as_str).unwrap_or_default();
        let composition = match kind {
            "Stack" => Composition::Stack,
            "Parallel" => Composition::Parallel,
            "Fuse" => Composition::Fuse,
            "MultiTask" => Composition::MultiTask,
            "Average" => Composition::Average { weights: of(numbers, "weights").map_err(wrong)? },
            "Split" => Composition::Split { splits: of(numbers, "splits").map_err(wrong)? },
            "BatchSplit" => {
                Composition::BatchSplit { batch_sizes: of(numbers, "batch_sizes").map_err(wrong)? }
            }
            other => {
                return Err(wrong(format!(
                    "the composition {other:?} is not supported; Stack, Parallel, Fuse, Average, \
                     Split, BatchSplit and MultiTask are"
                )));
            }
        };
        Ok(Self { composition, adapters })
    }

    /// Writes the file; the directories of the adapters are there already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let single = |name: &String| json!({"type": "single", "children": [name]});
        let (kind, numbers) = match &self.composition {
            Composition::Stack => ("Stack", None),
            Composition::Parallel => ("Parallel", None),
            Composition::Fuse => ("Fuse", None),
            Composition::MultiTask => ("MultiTask", None),
            // There, one without weights has equal ones.
            Composition::Average { weights } if weights.is_empty() => {
                ("Average", Some(json!({"weights": vec![1.0; self.adapters.len()]})))
            }
            Composition::Average { weights } => ("Average", Some(json!({"weights": weights}))),
            Composition::Split { splits } => ("Split", Some(json!({"splits": splits}))),
            Composition::BatchSplit { batch_sizes } => {
                ("BatchSplit", Some(json!({"batch_sizes": batch_sizes})))
            }
        };
        let children: Vec<Value> = self.adapters.iter().map(single).collect();
        let mut setup = json!({"type": kind, "children": children});
        if let Some(numbers) = numbers {
            setup["kwargs"] = numbers;
        }
        let file = json!({
            "adapter_setup": setup,
            "head_setup": null,
            "version": concat!("peft.", env!("CARGO_PKG_VERSION")),
        });
        write_atomically(&directory.join(FILE), |out| {
            serde_json::to_writer_pretty(&mut *out, &file).map_err(std::io::Error::from)
        })
    }
}

/// Whether a name is that of a directory, and not a path out of it.
fn is_name(name: &str) -> bool {
    Path::new(name).file_name() == Some(OsStr::new(name))
}

/// A list of numbers.
fn of<T: serde::de::DeserializeOwned>(
    numbers: &Map<String, Value>,
    name: &str,
) -> std::result::Result<Vec<T>, String> {
    let value = numbers.get(name).cloned().unwrap_or_default();
    serde_json::from_value(value.clone())
        .map_err(|_| format!("kwargs.{name} must be a list of numbers, not {value}"))
}
