//! A model with an adapter, from their directories.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use peft_core::{AdapterPool, BoxedMethod};
use peft_data::{Goal, Labels, Layout};
use peft_format::{
    Adapter, AdapterCheck, AdapterSetup, Composition, Registry, SavedTask, TaskType,
};
use peft_models::{
    AddedTokens, LoadReport, Model, ModelConfig, ModelTask, Precision, ProblemType, Task,
};

use crate::{Error, Result, TASK_FILE, TaskFile};

/// A frozen model, loaded for the task of an adapter, with that adapter.
#[derive(Debug, Clone)]
pub struct AdaptedModel {
    /// The model.
    pub model: Model,
    /// The adapter; `None` for the model alone.
    pub adapter: Option<Adapter>,
    /// What the outputs mean, where that is known: from the adapter's `task.json`, or from the
    /// model's own labels.
    pub task: Option<TaskFile>,
    /// The tokens that the adapters add to the tokenizer.
    pub added_tokens: AddedTokens,
    /// The modules of the head that neither the checkpoint nor an adapter has: they are drawn at
    /// random, and outputs mean nothing.
    pub drawn: Vec<String>,
}

impl AdaptedModel {
    /// Loads the model in `directory`, for the task of the adapters, if there are any, with its
    /// weights in this precision: by default the one that the adapter was trained over.
    ///
    /// # Errors
    /// If one is broken, an adapter is for another model, or the adapters do not go together.
    pub fn load(
        directory: &Path,
        adapters: &AdapterPaths,
        registry: &Registry,
        precision: Option<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let Some(last) = adapters.last() else {
            let precision = precision.unwrap_or_default();
            let (model, report) = Model::load_in(directory, None, precision, device)?;
            let drawn = drawn(&report, &SavedTask::default(), directory);
            let task = own_task(&model)?;
            let added_tokens = AddedTokens::default();
            return Ok(Self { model, adapter: None, task, added_tokens, drawn });
        };
        let Host { model, drawn } = Host::load(directory, adapters, last, precision, device)?;
        let adapter = adapters.load(&model, registry, device)?;
        let task = adapters.task(&model)?;
        let added_tokens = adapters.added_tokens()?;
        Ok(Self { model, adapter: Some(adapter), task, added_tokens, drawn })
    }

    /// Checks an adapter against a model, key by key.
    ///
    /// # Errors
    /// If either is broken, or its `task.json` is of another head; problems with keys are returned.
    pub fn check(
        directory: &Path,
        adapter: &Path,
        registry: &Registry,
        device: &Device,
    ) -> Result<AdapterCheck> {
        let paths = AdapterPaths::one(adapter);
        let Host { model, .. } =
            Host::load(directory, &paths, adapter, Some(Precision::Stored), device)?;
        paths.task(&model)?;
        Ok(Adapter::check(adapter, registry, model.base(), device)?)
    }
}

/// Which adapters, and how they become one.
#[derive(Debug, Clone, Default)]
pub struct AdapterPaths {
    /// Adapter directories; of a stack, the first is nearest to the base.
    pub adapters: Vec<PathBuf>,
    /// How they are composed; needed where there are several.
    pub composition: Option<Composition>,
    /// The directory of a trained fusion.
    pub fusion: Option<PathBuf>,
    /// Layers in which the adapter is not used, from 0.
    pub leave_out: Vec<usize>,
}

impl AdapterPaths {
    /// One adapter.
    pub fn one(adapter: impl Into<PathBuf>) -> Self {
        Self { adapters: vec![adapter.into()], ..Self::default() }
    }

    /// What a directory holds: one adapter, or several that are composed
    /// ([`AdapterSetup`]).
    ///
    /// # Errors
    /// If it says how they are composed, and that is broken.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        if !AdapterSetup::is_in(directory) {
            return Ok(Self::one(directory));
        }
        let setup = AdapterSetup::load(directory)?;
        let fusion = setup.fusion().map(|name| directory.join(name));
        let adapters = setup.adapters.iter().map(|name| directory.join(name)).collect();
        Ok(Self { adapters, composition: Some(setup.composition), fusion, leave_out: Vec::new() })
    }

    /// The adapter that the head is from.
    fn last(&self) -> Option<&PathBuf> {
        self.fusion.as_ref().or(self.adapters.last())
    }

    /// The task of `last`, and the head that it, or the adapter below it, has.
    fn saved(&self, last: &Path) -> Result<SavedTask> {
        let saved = SavedTask::load(last)?;
        match (&self.fusion, self.adapters.last()) {
            (Some(_), Some(below)) => Ok(saved.above(SavedTask::load(below)?)),
            _ => Ok(saved),
        }
    }

    /// What the outputs of `model` under the adapters mean, where that is known.
    ///
    /// # Errors
    /// If `task.json` is broken, or of another head.
    fn task(&self, model: &Model) -> Result<Option<TaskFile>> {
        match self.last().filter(|last| last.join(TASK_FILE).exists()) {
            Some(last) => Ok(Some(TaskFile::load_for(last, model.task())?)),
            None => own_task(model),
        }
    }

    /// The methods of the adapters over `model`, whose head need not be theirs.
    ///
    /// # Errors
    /// If one is broken, or for another model.
    pub fn load_methods(
        &self,
        model: &Model,
        registry: &Registry,
        device: &Device,
    ) -> Result<Vec<Adapter>> {
        let load = |path: &PathBuf| Ok(Adapter::load_method(path, registry, model.base(), device)?);
        self.adapters.iter().map(load).collect()
    }

    /// The tokens that the adapters add to the tokenizer, together.
    ///
    /// # Errors
    /// If a file is broken, or two do not agree.
    pub fn added_tokens(&self) -> Result<AddedTokens> {
        let mut directories = self.adapters.iter().chain(&self.fusion);
        Ok(directories.try_fold(AddedTokens::default(), |tokens, directory| {
            tokens.with(&AddedTokens::load(directory)?)
        })?)
    }

    /// The adapters, composed, over `model`.
    ///
    /// # Errors
    /// If one is broken, for another model, or they do not go together.
    pub fn load(&self, model: &Model, registry: &Registry, device: &Device) -> Result<Adapter> {
        let base = model.base();
        let whole = |path: &PathBuf| Adapter::load(path, registry, base, device);
        let fusion = self.fusion.as_ref().map(whole).transpose()?;
        // The head is the fusion's or the last adapter's; in slots, each has its own.
        let has_slots = self.composition.as_ref().is_some_and(Composition::has_slots);
        let has_head = fusion.as_ref().is_some_and(|fusion| fusion.parts().0.is_some());
        let mut adapters = Vec::new();
        for (number, path) in self.adapters.iter().enumerate() {
            let last = number + 1 == self.adapters.len();
            let own = has_slots || (last && !has_head);
            adapters.push(match own {
                true => whole(path)?,
                false => Adapter::load_method(path, registry, base, device)?,
            });
        }
        let adapter = match (&self.composition, adapters.len()) {
            (Some(composition), _) => composition.of(adapters, fusion, base)?,
            (None, 1) if fusion.is_none() => adapters.remove(0),
            (None, _) => {
                return Err(Error::setting(
                    "compose",
                    "nothing",
                    "several adapters must be composed: stack, parallel, average, fuse, split, batch-split or \
                     multi-task",
                ));
            }
        };
        let layers = base.sites().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        if let Some(layer) = self.leave_out.iter().find(|layer| **layer >= layers) {
            let expected = format!("the model has {layers} layers, counted from 0");
            return Err(Error::setting("leave_out", layer, expected));
        }
        Ok(match self.leave_out[..] {
            [] => adapter,
            _ => adapter.leave_out(&self.leave_out, base),
        })
    }
}

/// Adapters side by side over one model: each in a slot of a pool, with its own head.
#[derive(Debug, Clone)]
pub struct SideBySide {
    /// The model.
    pub model: Model,
    /// The adapters, without autodiff.
    pub pool: AdapterPool,
    /// The adapter in each slot.
    pub sides: Vec<Side>,
}

/// One of the adapters of [`SideBySide`].
#[derive(Debug, Clone)]
pub struct Side {
    /// Its number among the adapters that were asked for.
    pub number: usize,
    /// The meaning of its outputs, if known.
    pub task: Option<TaskFile>,
    /// The tokens that it adds to the tokenizer.
    pub added_tokens: AddedTokens,
    /// The modules of its head that are drawn at random, as in [`AdaptedModel`].
    pub drawn: Vec<String>,
}

impl SideBySide {
    /// Loads adapters, each on its own, over the model in `directory`, with its weights in this
    /// precision: by default the one that an adapter was trained over. Adapters for one task and
    /// precision share the model, which is loaded once for all of them; others are in another pool.
    ///
    /// # Errors
    /// If one is broken, or for another model.
    pub fn load(
        directory: &Path,
        adapters: &[AdapterPaths],
        registry: &Registry,
        precision: Option<Precision>,
        device: &Device,
    ) -> Result<Vec<Self>> {
        type Members = Vec<(usize, SavedTask)>;
        let mut groups: Vec<((ModelTask, Precision), Members)> = Vec::new();
        for (number, paths) in adapters.iter().enumerate() {
            let Some(last) = paths.last() else { continue };
            let saved = paths.saved(last)?;
            let base = (task_for(directory, last, &saved)?, precision_for(last, precision)?);
            match groups.iter_mut().find(|(known, _)| *known == base) {
                Some((_, members)) => members.push((number, saved)),
                None => groups.push((base, vec![(number, saved)])),
            }
        }
        let load = |((task, precision), members): ((ModelTask, Precision), Members)| {
            let (model, report) = Model::load_in(directory, Some(task), precision, device)?;
            let (mut methods, mut sides) = (Vec::new(), Vec::new());
            for (number, saved) in members {
                let paths = &adapters[number];
                let adapter = paths.load(&model, registry, device)?;
                methods.push(BoxedMethod::new(adapter.method.valid()));
                let task = paths.task(&model)?;
                let (added_tokens, drawn) =
                    (paths.added_tokens()?, drawn(&report, &saved, directory));
                sides.push(Side { number, task, added_tokens, drawn });
            }
            Ok(Self { model, pool: AdapterPool::new(methods), sides })
        };
        groups.into_iter().map(load).collect()
    }
}

/// The model of an adapter.
struct Host {
    model: Model,
    /// Of its head, what neither the checkpoint nor the adapter has.
    drawn: Vec<String>,
}

impl Host {
    /// Loads the model in `directory` for adapters, of which `last` has the head.
    fn load(
        directory: &Path,
        adapters: &AdapterPaths,
        last: &Path,
        precision: Option<Precision>,
        device: &Device,
    ) -> Result<Self> {
        let saved = adapters.saved(last)?;
        let task = task_for(directory, last, &saved)?;
        let precision = precision_for(last, precision)?;
        let (model, report) = Model::load_in(directory, Some(task), precision, device)?;
        Ok(Self { drawn: drawn(&report, &saved, directory), model })
    }
}

/// What of a head neither the checkpoint nor the adapter has, which is warned of.
fn drawn(report: &LoadReport, saved: &SavedTask, directory: &Path) -> Vec<String> {
    let drawn: Vec<String> =
        report.initialized.iter().filter(|module| !saved.has(module)).cloned().collect();
    if !drawn.is_empty() {
        let (modules, directory) = (drawn.join(", "), directory.display());
        tracing::warn!(
            "{directory}: the checkpoint has no {modules} of this size, nor has an adapter: drawn \
             at random, so that outputs mean nothing before training"
        );
    }
    drawn
}

/// The precision of the base: what was asked for, or what the adapter was trained over.
fn precision_for(adapter: &Path, asked: Option<Precision>) -> Result<Precision> {
    match asked {
        Some(precision) => Ok(precision),
        None if adapter.join(TASK_FILE).exists() => Ok(TaskFile::load(adapter)?.load_in),
        None => Ok(Precision::default()),
    }
}

/// What a model is loaded for to be under an adapter.
fn task_for(directory: &Path, adapter: &Path, saved: &SavedTask) -> Result<ModelTask> {
    let config = ModelConfig::load(directory)?;
    let (own, labels) = (config.own_task(), config.num_labels());
    let task = match saved.task {
        Some(TaskType::SequenceClassification) => Task::ClassifySequence { labels },
        Some(TaskType::TokenClassification) => Task::ClassifyTokens { labels },
        Some(TaskType::FeatureExtraction) => Task::Encode,
        Some(TaskType::QuestionAnswering) => Task::QuestionAnswering,
        Some(TaskType::CausalLm) => Task::CausalLm,
        Some(TaskType::Seq2SeqLm) => Task::Seq2SeqLm,
        // Masked language modelling has no tag.
        _ if adapter.join(TASK_FILE).exists() => TaskFile::load(adapter)?.labels.task(),
        _ => own,
    };
    // A saved head has the size that it has.
    let layer = config.model_type.output_layer(task);
    let outputs = layer.and_then(|layer| saved.outputs(layer));
    let task = outputs.map_or(task, |outputs| task.with_labels(outputs));
    Ok(ModelTask { task, seed: 0 })
}

/// What a model's outputs mean by its configuration. The names there are of the checkpoint's own
/// head: one of another size has labels without names.
fn own_task(model: &Model) -> Result<Option<TaskFile>> {
    let (config, task) = (model.config(), model.task());
    let is_own = task.labels() == Some(config.num_labels());
    let problem = if is_own { config.problem_type()? } else { None };
    let goal = match task {
        Task::ClassifySequence { labels } => match (problem, labels) {
            (Some(ProblemType::MultiLabelClassification), _) => Goal::MultiLabel,
            (Some(ProblemType::Regression), 1) | (None, 1) => Goal::Regress,
            // A number for each output is none of the goals.
            (Some(ProblemType::Regression), _) => return Ok(None),
            _ => Goal::Classify,
        },
        Task::MaskedLm => Goal::MaskedLm,
        Task::ClassifyTokens { .. } => Goal::Tag,
        Task::QuestionAnswering => Goal::QuestionAnswering,
        Task::CausalLm => Goal::CausalLm,
        Task::Seq2SeqLm => Goal::Seq2Seq,
        Task::Encode => return Ok(None),
    };
    let names = if is_own && goal.has_names() { config.labels() } else { Vec::new() };
    let labels = Labels { goal, names }.with_names_for(task);
    let (layout, max_length) = (Layout::default(), model.max_tokens());
    Ok(Some(TaskFile { labels, layout, max_length, load_in: Precision::default() }))
}
