//! The data of a training run.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use peft::data::{Columns, Dataset, Goal, Layout, TokenizedSet, split, subset};
use peft::models::{AddedTokens, LoadReport, Model, ModelConfig, ModelTask, TextTokenizer};
use peft::train::{TaskFile, TrainData};

use crate::builtin::write_builtin;
use crate::models::ResolvedModel;
use crate::run_file::RunFile;

/// The data before it is tokenized.
pub struct LoadedData {
    train: Dataset,
    valid: Option<Dataset>,
    test: Option<Dataset>,
}

impl LoadedData {
    /// The files of a run, read and split.
    pub fn new(run: &RunFile) -> anyhow::Result<Self> {
        let data = &run.data;
        // Nothing is written into the run directory before all is known to be right.
        let folder = match data.train {
            Some(_) => None,
            None => Some(tempfile::tempdir()?),
        };
        let built_in_file = |name: &str| folder.as_ref().map(|folder| folder.path().join(name));
        if let Some(folder) = &folder {
            write_builtin(folder.path())?;
        }
        let file = |given: &Option<PathBuf>, name| given.clone().or_else(|| built_in_file(name));
        let train = file(&data.train, "train.tsv").context("no training data")?;
        let all = Dataset::discover(&train, &data.layout(&None), data.task)?;
        let load = |path: Option<PathBuf>, columns: &Option<Columns>| {
            let layout = data.layout(columns);
            path.map(|path: PathBuf| Dataset::load(&path, &layout, &all.labels)).transpose()
        };
        let mut valid = load(file(&data.valid, "valid.tsv"), &data.valid_columns)?;
        let mut test = load(file(&data.test, "test.tsv"), &data.test_columns)?;
        let mut rest = all;
        let total = rest.examples.len() as f64;
        if let (Some(share), None) = (data.test_split, &data.test) {
            let (train, part) = split(rest, share, run.seed);
            (rest, test) = (train, Some(part));
        }
        if let (Some(share), None) = (data.valid_split, &data.valid) {
            // A share of the whole file, also where a part was taken for testing.
            let share = share * total / rest.examples.len().max(1) as f64;
            let (train, part) = split(rest, share.min(1.0), run.seed);
            (rest, valid) = (train, Some(part));
        }
        if let Some(limit) = data.limit {
            rest = subset(rest, limit);
        }
        if rest.examples.is_empty() {
            bail!("no training examples are left after splitting");
        }
        Ok(Self { train: rest, valid, test })
    }

    /// The model of a run, with a head for these labels, and which of its tensors are new.
    pub fn model(
        &self,
        run: &RunFile,
        resolved: &ResolvedModel,
        device: &burn::tensor::Device,
    ) -> anyhow::Result<(Model, LoadReport)> {
        let task = ModelTask { task: self.train.labels.task(), seed: run.seed };
        let (model, report) = Model::load_in(&resolved.directory, Some(task), run.load_in, device)?;
        tracing::info!(new = ?report.initialized, unused = ?report.unused, "loaded");
        let problem = model.config().problem_type()?;
        if self.goal() == Goal::Classify && problem == Goal::MultiLabel.problem_type() {
            tracing::warn!(
                "{}: problem_type is multi_label_classification, which --task multi-label trains; \
                 here a text has one label",
                resolved.name
            );
        }
        Ok((model, report))
    }

    /// The tokens that a run adds to the tokenizer and to those added `below` already.
    pub fn added_tokens(
        &self,
        run: &RunFile,
        resolved: &ResolvedModel,
        config: &ModelConfig,
        below: &AddedTokens,
    ) -> anyhow::Result<AddedTokens> {
        if run.data.add_tokens.is_empty() {
            return Ok(AddedTokens::default());
        }
        let tokenizer = TextTokenizer::load(&resolved.directory, usize::MAX)?;
        let tokenizer = tokenizer.with_added(below, config.vocab_size)?;
        let mut tokens = Vec::new();
        for token in &run.data.add_tokens {
            match token == AUTO {
                true => tokens.extend(self.train.unwritable(&tokenizer)?.into_keys()),
                false => tokens.push(token.clone()),
            }
        }
        let added = AddedTokens::assign(&tokens, &tokenizer, config.vocab_size)?;
        tracing::info!(tokens = ?added.by_index(), "added to the tokenizer");
        Ok(added)
    }

    /// The data for a model alone; `tokens` is its tokenizer.
    pub fn tokenized(&self, tokens: &Tokens) -> anyhow::Result<TrainData> {
        Ok(TrainData {
            train: tokens.of(&self.train)?,
            valid: self.valid.as_ref().map(|set| tokens.of(set)).transpose()?,
            test: self.test.as_ref().map(|set| tokens.of(set)).transpose()?,
        })
    }

    /// The task file of a model, for texts cut to this many tokens.
    pub fn task(&self, run: &RunFile, max_length: usize) -> TaskFile {
        let labels = self.train.labels.clone();
        TaskFile { labels, layout: run.data.layout(&None), max_length, load_in: run.load_in }
    }

    /// The task.
    pub fn goal(&self) -> Goal {
        self.train.labels.goal
    }
}

/// The layout of a file: as in training, except for given columns.
pub fn layout(columns: &Option<Columns>, task: &TaskFile) -> Layout {
    let columns = columns.as_ref().unwrap_or(&task.layout.columns).clone();
    Layout { columns, template: task.layout.template.clone() }
}

/// Stands for all tokens that the training data need.
pub const AUTO: &str = "auto";

/// All tokens of a text, as a model reads it.
pub fn encode(
    directory: &Path,
    model: &Model,
    added: &AddedTokens,
    text: &str,
) -> peft::models::Result<Vec<usize>> {
    let tokenizer = TextTokenizer::load(directory, usize::MAX)?;
    let tokenizer = tokenizer.with_added(added, model.config().vocab_size)?;
    let encoded = tokenizer.encode(&[(text.to_string(), None)])?;
    Ok(encoded.iter().flat_map(|text| &text.ids).map(|id| *id as usize).collect())
}

/// A tokenizer with the model that it is for.
pub struct Tokens {
    tokenizer: TextTokenizer,
    config: ModelConfig,
}

impl Tokens {
    /// The tokenizer of the model in `directory`, with tokens added to it.
    pub fn load(
        directory: &Path,
        max_length: usize,
        model: &Model,
        added: &AddedTokens,
    ) -> anyhow::Result<Self> {
        let config = model.config().clone();
        let tokenizer = TextTokenizer::load(directory, max_length)?;
        let tokenizer = tokenizer.with_added(added, config.vocab_size)?;
        Ok(Self { tokenizer, config })
    }

    /// A data set as token indices.
    pub fn of(&self, dataset: &Dataset) -> anyhow::Result<TokenizedSet> {
        let unwritable = dataset.unwritable(&self.tokenizer)?;
        if !unwritable.is_empty() {
            let shown: Vec<String> = unwritable
                .iter()
                .map(|(piece, times)| format!("{piece:?} {times} times"))
                .collect();
            tracing::warn!(
                "the tokenizer cannot encode symbols of the target texts: {}; --add-tokens \
                 adds tokens for them",
                shown.join(", ")
            );
        }
        Ok(TokenizedSet::new(dataset, &self.tokenizer, &self.config)?)
    }
}
