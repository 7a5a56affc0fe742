//! What is known of an adapter's task without the model.

use std::collections::BTreeMap;
use std::path::Path;

use peft_core::TensorMap;

use crate::adapters::Layout;
use crate::directory::weights_in;
use crate::files::read_tensors;
use crate::{Result, TaskType, keys};

/// The task of an adapter directory, in either layout, with the head that is saved there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedTask {
    /// The task, if it is known.
    pub task: Option<TaskType>,
    /// The shapes of tensors by key; those of a file of adapter-hub/adapters are the head's.
    shapes: BTreeMap<String, Vec<usize>>,
}

impl SavedTask {
    /// Reads what is known without the model.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub fn load(directory: &Path) -> Result<Self> {
        let fields = match Layout::open(directory)? {
            Layout::Adapters(theirs) => {
                return Ok(Self { task: theirs.task(), shapes: shapes(theirs.head_tensors()?) });
            }
            Layout::Peft(fields) => fields,
        };
        let task = fields.get("task_type").cloned().unwrap_or_default();
        let task = serde_json::from_value(task.clone())
            .map_err(|e| peft_core::Error::config("task_type", task, e.to_string()))?;
        Ok(Self { task, shapes: shapes(keys::unwrapped(read_tensors(&weights_in(directory))?)) })
    }

    /// The same with the modules of another adapter, where this one has none of the name.
    pub fn above(self, below: Self) -> Self {
        let mut shapes = below.shapes;
        shapes.extend(self.shapes);
        Self { task: self.task.or(below.task), shapes }
    }

    /// The number of outputs of a linear layer, if it is saved beside the method.
    pub fn outputs(&self, layer: &str) -> Option<usize> {
        // A shape without values may say anything.
        let shape = self.shape(layer, "weight").filter(|shape| !shape.contains(&0))?;
        shape.first().copied()
    }

    /// Whether a module is saved beside the method.
    pub fn has(&self, module: &str) -> bool {
        ["weight", "bias"].iter().any(|name| self.shape(module, name).is_some())
    }

    /// Whatever the prefix that a writer puts before the path.
    fn shape(&self, module: &str, name: &str) -> Option<&Vec<usize>> {
        let end = format!("{module}.{name}");
        let is_it = |key: &str| {
            let prefix = key.strip_suffix(&end);
            prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        };
        self.shapes.iter().find(|(key, _)| is_it(key)).map(|(_, shape)| shape)
    }
}

fn shapes(tensors: TensorMap) -> BTreeMap<String, Vec<usize>> {
    tensors.into_iter().map(|(key, data)| (key, data.shape().to_vec())).collect()
}
