//! A model with an adapter, from their directories.

use std::path::Path;

use burn::tensor::Device;
use peft_core::{Adapter, AdapterCheck, Registry, SavedTask, TaskType};
use peft_models::{Encoder, EncoderConfig, EncoderTask, Task};

use crate::data::{Columns, Goal, Labels};
use crate::{Result, TASK_FILE, TaskFile};

/// A frozen model, loaded for the task of an adapter, with that adapter.
#[derive(Debug, Clone)]
pub struct AdaptedModel {
    /// The model.
    pub model: Encoder,
    /// The adapter; `None` for the model alone.
    pub adapter: Option<Adapter>,
    /// What the outputs mean, where that is known: from the adapter's `task.json`, or from the
    /// model's own labels.
    pub task: Option<TaskFile>,
}

impl AdaptedModel {
    /// Loads the model in `directory`, for the task of the adapter in `adapter` if there is one.
    ///
    /// # Errors
    /// If either is broken, or the adapter is for another model.
    pub fn load(
        directory: &Path,
        adapter: Option<&Path>,
        registry: &Registry,
        device: &Device,
    ) -> Result<Self> {
        let Some(path) = adapter else {
            let (model, _) = Encoder::load(directory, None, device)?;
            let task = own_task(&model);
            return Ok(Self { model, adapter: None, task });
        };
        let model = model_for(directory, path, device)?;
        let adapter = Adapter::load(path, registry, model.base(), device)?;
        let task = match path.join(TASK_FILE).exists() {
            true => Some(TaskFile::load(path)?),
            false => own_task(&model),
        };
        Ok(Self { model, adapter: Some(adapter), task })
    }

    /// Checks an adapter against a model, key by key.
    ///
    /// # Errors
    /// If either is broken; problems with keys are returned.
    pub fn check(
        directory: &Path,
        adapter: &Path,
        registry: &Registry,
        device: &Device,
    ) -> Result<AdapterCheck> {
        let model = model_for(directory, adapter, device)?;
        Ok(Adapter::check(adapter, registry, model.base(), device)?)
    }
}

fn model_for(directory: &Path, adapter: &Path, device: &Device) -> Result<Encoder> {
    let saved = SavedTask::load(adapter)?;
    let own = EncoderConfig::load(&directory.join("config.json"))?.own_task();
    let own_labels = match own {
        Task::ClassifySequence { labels } | Task::ClassifyTokens { labels } => labels,
        Task::Encode => 2,
    };
    let labels = saved.labels.unwrap_or(own_labels);
    let task = match saved.task {
        Some(TaskType::SequenceClassification) => Task::ClassifySequence { labels },
        Some(TaskType::TokenClassification) => Task::ClassifyTokens { labels },
        Some(TaskType::FeatureExtraction) => Task::Encode,
        _ => own,
    };
    Ok(Encoder::load(directory, Some(EncoderTask { task, seed: 0 }), device)?.0)
}

/// The labels of a checkpoint with a head of its own.
fn own_task(model: &Encoder) -> Option<TaskFile> {
    let Task::ClassifySequence { labels } = model.task() else { return None };
    let goal = if labels == 1 { Goal::Regress } else { Goal::Classify };
    let names = if labels == 1 { Vec::new() } else { model.config().labels() };
    Some(TaskFile {
        labels: Labels { goal, names },
        columns: Columns::default(),
        max_length: model.max_tokens(),
    })
}
