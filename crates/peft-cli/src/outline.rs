//! A model and a method over it, of which only the shapes are known.

use burn::tensor::Device;
use peft::core::InitContext;
use peft::format::{Adapter, AdapterConfig};
use peft::models::{Checkpoint, Model, ModelConfig, ModelTask, Task};

use crate::options::{ModelOptions, SettingOptions};

/// What is known without reading a weight.
pub struct Outline {
    /// The model's name, as an adapter would say it.
    pub name: String,
    pub checkpoint: Checkpoint,
    pub model: Model,
    pub adapter: Adapter,
}

impl Outline {
    /// Of a method with its settings, over a model with the head of a task.
    ///
    /// # Errors
    /// If the model is not there, or the method cannot be had or does not fit it.
    pub fn new(
        model: &ModelOptions,
        method: &str,
        settings: &SettingOptions,
        task: Task,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let registry = peft::registry();
        let fields = settings.fields(&registry, method)?;
        let config = AdapterConfig::configure(&registry, method, fields)?;
        let resolved = model.resolve([])?;
        // Values are not looked at, neither the model's nor those that the method starts from.
        let checkpoint = Checkpoint::outline(&resolved.directory)?;
        let mut checkpoint = checkpoint.with_precision(model.load_in.unwrap_or_default());
        let of_model = ModelConfig::load(&resolved.directory)?;
        let task = ModelTask { task, seed: 0 };
        let (model, _) = Model::from_checkpoint(of_model, &mut checkpoint, task, device)?;
        let config = match model.task_type() {
            Some(task) => config.with_task(task, model.base()),
            None => config,
        };
        let adapter = Adapter::init(config, &InitContext::new(model.base(), device).restored())?;
        Ok(Self { name: resolved.name, checkpoint, model, adapter })
    }
}
