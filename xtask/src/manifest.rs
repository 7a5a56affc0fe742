//! What a `Cargo.toml` says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::{Table, Value};

/// A parsed `Cargo.toml`.
pub struct Manifest {
    path: PathBuf,
    table: Table,
}

/// One line of a table of dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The features that it asks for here.
    pub features: Vec<String>,
    /// Whether it lies in this workspace.
    pub is_path: bool,
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let table = text.parse().with_context(|| format!("{} is broken", path.display()))?;
        Ok(Self { path: path.into(), table })
    }

    /// The table under `keys`, empty where there is none.
    fn under(&self, keys: &[&str]) -> Result<Table> {
        let mut table = &self.table;
        for key in keys {
            match table.get(*key) {
                None => return Ok(Table::new()),
                Some(Value::Table(next)) => table = next,
                Some(_) => anyhow::bail!("{}: {key} is not a table", self.path.display()),
            }
        }
        Ok(table.clone())
    }

    /// The dependencies of one kind (`["dependencies"]`), by name.
    pub fn dependencies(&self, kind: &[&str]) -> Result<BTreeMap<String, Dependency>> {
        Ok(self.under(kind)?.into_iter().map(|(name, value)| (name, dependency(&value))).collect())
    }

    /// What users of the crate depend on with it, whatever their platform.
    pub fn normal_dependencies(&self) -> Result<BTreeMap<String, Dependency>> {
        let mut all = self.dependencies(&["dependencies"])?;
        for platform in self.under(&["target"])?.keys() {
            all.extend(self.dependencies(&["target", platform, "dependencies"])?);
        }
        Ok(all)
    }

    /// The names of the programs that are listed one by one.
    pub fn binaries(&self) -> Vec<String> {
        let listed = self.table.get("bin").and_then(Value::as_array);
        let name = |binary: &Value| Some(binary.get("name")?.as_str()?.to_string());
        listed.into_iter().flatten().filter_map(name).collect()
    }

    /// The names of the features.
    pub fn features(&self) -> Result<Vec<String>> {
        Ok(self.under(&["features"])?.keys().cloned().collect())
    }
}

fn dependency(value: &Value) -> Dependency {
    let features = value.get("features").and_then(Value::as_array);
    let features = features.into_iter().flatten().filter_map(Value::as_str);
    Dependency {
        features: features.map(str::to_string).collect(),
        is_path: value.get("path").is_some(),
    }
}
