//! `peft train`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use peft::core::{InitContext, Method, Role, TokenIndices};
use peft::data::metrics::Metric;
use peft::data::{Columns, Goal, Template};
use peft::format::{Accounting, Adapter, Registry, write_atomically};
use peft::models::{AddedTokens, Model, Precision};
use peft::train::{
    AdapterPaths, CalibrationBatches, Outcome, RunDirectory, Schedule, TaskFile, Trainer,
};
use peft_kernels::profile::{self, ProfiledPart};
use serde_json::{Value, json};

use crate::builtin::write_builtin;
use crate::data::{LoadedData, Tokens, encode};
use crate::options::{
    AdapterOptions, ComposeName, DeviceOptions, SettingOptions, adapter_name, model_of, number,
};
use crate::output::{grouped, note, print_json, shown, stdout};
use crate::plot;
use crate::progress::Progress;
use crate::run_file::RunFile;
use crate::stop::Stop;

/// Train an adapter on labelled texts.
///
/// Without any flag but --out: a small model on the built-in data set (support messages by
/// intent). A run is described by its flags, by a run file (`peft train run.toml`), or by both,
/// flags winning; the resolved run file is saved in the run directory.
#[derive(Args)]
pub struct Train {
    /// A run file
    #[arg(value_name = "RUN.toml")]
    run_file: Option<PathBuf>,
    /// The run directory: adapter, log, plot, result
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Resume an interrupted run
    #[arg(long)]
    resume: bool,
    /// Print one JSON object at the end, and no progress
    #[arg(long)]
    json: bool,
    /// Print where the time of training went, by operation
    #[arg(long)]
    profile: bool,
    /// A directory, a Hugging Face id, or a short name [default: the base of the adapters
    /// below; without any, minilm]
    #[arg(long)]
    model: Option<String>,
    /// Download nothing
    #[arg(long)]
    offline: bool,
    /// Precision of the frozen weights: `f32`, `bf16` (computed in it, as autocast does), `f16`,
    /// `8bit`, `4bit` (QLoRA), or `stored`, the precision of the files [default: stored]
    #[arg(long, visible_alias = "dtype", value_name = "PRECISION")]
    load_in: Option<Precision>,
    #[command(flatten)]
    device: DeviceOptions,
    /// The method; `peft methods` lists them [default: lora]
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    settings: SettingOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Random seed [default: 0]
    #[arg(long)]
    seed: Option<u64>,

    /// Training data: .tsv, .csv, .jsonl, .txt (a text a line), .conll, .conllu [default: the
    /// built-in data set]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    train: Option<PathBuf>,
    /// Validation data, which chooses the best epoch
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    valid: Option<PathBuf>,
    /// Test data, measured once at the end
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    test: Option<PathBuf>,
    /// The task [default: classify]
    #[arg(long, help_heading = "Data")]
    task: Option<TaskName>,
    /// Text, pair and label by name or position from 1: `text,label`, `sentence1,sentence2,score`,
    /// `2,1`; for a file without a header, the names of its columns: `label,text`
    #[arg(long, help_heading = "Data")]
    columns: Option<Columns>,
    /// Template of a text, with columns in braces: `Meaning: {mr} Text:`; the label is then the
    /// last of --columns
    #[arg(long, value_name = "TEMPLATE", help_heading = "Data")]
    template: Option<Template>,
    /// The columns of the validation file, if they differ
    #[arg(long, value_name = "COLUMNS", help_heading = "Data")]
    valid_columns: Option<Columns>,
    /// The columns of the test file, if they differ
    #[arg(long, value_name = "COLUMNS", help_heading = "Data")]
    test_columns: Option<Columns>,
    /// Validate on this share of the training file, stratified and seeded
    #[arg(long, value_parser = number, value_name = "SHARE", conflicts_with = "valid", help_heading = "Data")]
    valid_split: Option<f64>,
    /// Test on this share of the training file, stratified and seeded
    #[arg(long, value_parser = number, value_name = "SHARE", conflicts_with = "test", help_heading = "Data")]
    test_split: Option<f64>,
    /// Cut texts to this many tokens [default: 128]
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    max_length: Option<usize>,
    /// Add tokens to the tokenizer and train their embeddings: `ː,ɒ`; `auto`: every symbol in the
    /// target texts that the tokenizer cannot encode
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', help_heading = "Data")]
    add_tokens: Vec<String>,
    /// Train on the first examples only
    #[arg(long, value_name = "EXAMPLES", help_heading = "Data")]
    limit: Option<usize>,

    /// Passes over the training data [default: 3]
    #[arg(long, help_heading = "Training")]
    epochs: Option<usize>,
    /// Examples in a batch [default: 32]
    #[arg(long, help_heading = "Training")]
    batch_size: Option<usize>,
    /// Whether batches hold texts of similar length: less variety in a batch, and faster where texts
    /// are padded [default: false]
    #[arg(long, value_name = "BOOL", help_heading = "Training")]
    group_by_length: Option<bool>,
    /// Batches in an optimizer step [default: 1]
    #[arg(long, value_name = "BATCHES", help_heading = "Training")]
    accumulate: Option<usize>,
    /// Learning rate [default: the method's own]
    #[arg(long, value_parser = number, help_heading = "Training")]
    lr: Option<f64>,
    /// Learning-rate schedule [default: linear]
    #[arg(long, help_heading = "Training")]
    schedule: Option<ScheduleName>,
    /// Fraction of the steps spent on warm-up [default: 0]
    #[arg(long, value_parser = number, value_name = "SHARE", help_heading = "Training")]
    warmup_ratio: Option<f64>,
    /// AdamW's weight decay [default: 0.01]
    #[arg(long, value_parser = number, help_heading = "Training")]
    weight_decay: Option<f64>,
    /// Clip the global norm of the gradient to this; 0: no clipping [default: 0]
    #[arg(long, value_parser = number, value_name = "NORM", help_heading = "Training")]
    max_grad_norm: Option<f64>,
    /// Keep what enters each sublayer, and run each again in the backward pass: less memory, more time
    #[arg(long, help_heading = "Training")]
    gradient_checkpointing: bool,
    /// Keep what the layers below the first trained one make of each text, in this many MiB of
    /// memory: they run over a text once, and without dropout, instead of in every epoch
    #[arg(long, value_name = "MIB", help_heading = "Training")]
    cache_frozen: Option<usize>,
    /// MiB of disk, in the run directory, for what --cache-frozen has no room for [default: 0]
    #[arg(long, value_name = "MIB", help_heading = "Training")]
    cache_frozen_disk: Option<usize>,
    /// Stop after this many epochs without a better metric
    #[arg(long, value_name = "EPOCHS", help_heading = "Training")]
    early_stopping: Option<usize>,
    /// Metric that chooses the best epoch: accuracy, f1, f1_macro, f1_micro, matthews, pearson, spearman,
    /// perplexity, ...
    #[arg(long, value_parser = parse_metric, help_heading = "Training")]
    metric: Option<Metric>,
    /// Optimizer steps between checkpoints [default: 50]
    #[arg(long, value_name = "STEPS", help_heading = "Training")]
    checkpoint_every: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TaskName {
    /// A label for each text
    Classify,
    /// Any number of labels for each text, separated by commas or bars, or a JSON list
    #[value(aliases = ["multi_label", "multilabel", "multi_label_classification"])]
    MultiLabel,
    /// A number for each text
    Regress,
    /// A label for each word: entities, parts of speech
    Tag,
    /// The span of a text that answers a question: SQuAD's JSON, or JSON Lines with question,
    /// context and answers
    #[value(aliases = ["question-answering", "question_answering"])]
    Qa,
    /// Masked language modelling: hidden words in the texts themselves
    Mlm,
    /// Causal language modelling: the texts themselves, or their continuations
    Clm,
    /// One text from another
    Seq2seq,
}

impl TaskName {
    /// What is learned.
    pub fn goal(self) -> Goal {
        match self {
            Self::Classify => Goal::Classify,
            Self::MultiLabel => Goal::MultiLabel,
            Self::Regress => Goal::Regress,
            Self::Tag => Goal::Tag,
            Self::Qa => Goal::QuestionAnswering,
            Self::Mlm => Goal::MaskedLm,
            Self::Clm => Goal::CausalLm,
            Self::Seq2seq => Goal::Seq2Seq,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ScheduleName {
    Linear,
    Cosine,
    Constant,
}

fn parse_metric(name: &str) -> Result<Metric, String> {
    serde_json::from_value(Value::String(name.into())).map_err(|e| e.to_string())
}

impl Train {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let registry = peft::registry();
        let mut directory = RunDirectory::new(&self.out);
        let saved = self.saved(&directory, &registry)?;
        let run = self.resolved(saved.as_ref(), &registry)?;
        let refuse_changes = || match &saved {
            Some(saved) => {
                let refused = run.refuse_changes(saved, &registry);
                refused.with_context(|| self.out.display().to_string())
            }
            None => Ok(()),
        };
        if self.resume
            && let Some(outcome) = directory.outcome()?
        {
            refuse_changes()?;
            // The process may have ended between the result and the plot, which is the last thing that
            // is written.
            if !plot::path(&directory).exists() {
                directory = directory.claim(true)?;
                directory.discard_checkpoint()?;
                let labels = TaskFile::load(&directory.adapter())?.labels;
                plot::write(&directory, run.train.judge(&labels))?;
            }
            self.report(&directory, &outcome)?;
            return Ok(ExitCode::SUCCESS);
        }
        // A new directory is claimed when there is something to write into it: what fails before
        // leaves nothing behind.
        if directory.is_used() {
            directory = directory.claim(self.resume)?;
        }
        refuse_changes()?;
        let device = self.device.device()?;
        let resolved = model_of(run.model.as_deref(), &run.adapters, self.offline)?;
        let rows_are_chosen = run.method_settings.contains_key(TokenIndices::FIELD);
        let (run, mut config) = run.complete(&registry, &resolved.name)?;
        let text = run.to_text()?;
        let data = LoadedData::new(&run)?;
        let (model, report) = data.model(&run, &resolved, &device)?;

        let below = AdapterPaths { adapters: run.adapters.clone(), ..AdapterPaths::default() };
        let known = below.added_tokens()?;
        let new = data.added_tokens(&run, &resolved, model.config(), &known)?;
        let added = known.with(&new)?;
        match model.task_type() {
            Some(task) => config = config.with_task(task, model.base()),
            // A language model has its head already; one that is new has to be learned.
            None => config.modules_to_save.extend(report.initialized),
        }
        if !rows_are_chosen {
            config.trainable_token_indices = rows_of(&new, &model, &config.modules_to_save);
        }
        config.base_model_name_or_path = Some(resolved.name.clone());
        let on = device.clone().autodiff();
        let tokens = |max_length| Tokens::load(&resolved.directory, max_length, &model, &added);
        let mut max_length = run.data.max_length.min(model.max_tokens());
        let mut tokenized = data.tokenized(&tokens(max_length)?)?;
        let encode = |text: &str| {
            let ids = encode(&resolved.directory, &model, &added, text);
            ids.map_err(|error| peft::core::Error::encode(text, error))
        };
        let context = InitContext::new(model.base(), &on).with_seed(run.seed);
        let context = context.with_tokenizer(&encode);
        let (goal, batch) = (data.goal(), run.train.batch_size);
        let batches = CalibrationBatches::new(&model, &tokenized.train, goal, batch, run.seed);
        let context = context.with_calibration(&batches);
        let context = match self.resume && directory.has_checkpoint() {
            // What the method would look for is in the checkpoint, but for what decides its shapes.
            true => context.restored(),
            false => context,
        };
        let mut adapter = Adapter::init(config, &context)?;
        if !run.adapters.is_empty() {
            adapter = adapter.over(below.load_methods(&model, &registry, &on)?, model.base())?;
        }
        // Virtual tokens take positions of the model too.
        let positions = model.max_tokens();
        let room = positions.saturating_sub(adapter.method.virtual_tokens());
        if room < max_length {
            max_length = room;
            let cut = tokens(max_length).and_then(|tokens| data.tokenized(&tokens));
            tokenized =
                cut.with_context(|| format!("the method leaves {room} of {positions} positions"))?;
        }
        if max_length < run.data.max_length {
            tracing::warn!(
                "max_length: there is room for {max_length} tokens, texts are cut there"
            );
        }
        let task = data.task(&run, max_length);
        let counts = Accounting::new(&adapter, model.base());
        if !self.json {
            note(format_args!(
                "{} on {}: {} of {} values trained ({:.2} %), {} changed after merging, rank {}",
                run.method,
                resolved.name,
                grouped(counts.trainable),
                grouped(counts.total),
                counts.trainable_percent,
                grouped(counts.changed),
                counts.rank,
            ));
        }
        let lr = run.train.lr.unwrap_or_default();
        if lr > HIGH_LR {
            tracing::warn!("lr = {lr}: methods learn with rates of 1e-5 to 1e-1");
        }
        let (settings, metric) = (run.train.clone(), run.train.judge(&task.labels));
        let stop = Stop::default();
        let trainer = Trainer::new(&model, adapter, task, settings, directory.clone(), run.seed)?
            .with_added_tokens(added);
        trainer.check(&tokenized, self.resume)?;
        let trainer = trainer.claim(self.resume)?;
        if run.data.train.is_none() {
            write_builtin(&directory.path().join("data"))?;
        }
        // What is there already is of the same meaning.
        if saved.is_none() {
            write_atomically(&directory.settings(), |file| file.write_all(text.as_bytes()))?;
        }
        stop.watch()?;
        let progress = Progress::new(metric, stop.clone()).quiet(self.json);
        if self.profile {
            profile::start();
        }
        let outcome = match trainer.with_observer(progress).run(&tokenized, self.resume) {
            Err(peft::train::Error::Stopped { step, total, .. }) => {
                note(format_args!(
                    "stopped after {step} of {total} steps; to go on: {}",
                    self.command_to_go_on()
                ));
                return Ok(ExitCode::from(stop.code()));
            }
            outcome => outcome?,
        };
        plot::write(&directory, metric)?;
        self.report(&directory, &outcome)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The run file of a run that is resumed, if it is there.
    fn saved(
        &self,
        directory: &RunDirectory,
        registry: &Registry,
    ) -> anyhow::Result<Option<RunFile>> {
        let path = directory.settings();
        if !self.resume {
            return Ok(None);
        }
        if path.try_exists().with_context(|| path.display().to_string())? {
            return RunFile::load(&path, registry).map(Some);
        }
        if self.run_file.is_none() && self.train.is_none() {
            bail!("{}: no run to resume: there is no run.toml", self.out.display());
        }
        Ok(None)
    }

    /// What resumes this run.
    fn command_to_go_on(&self) -> String {
        let mut command = format!("peft train --out {} --resume", quoted(&shown(&self.out)));
        if let Some(device) = &self.device.device {
            command += &format!(" --device {}", quoted(device));
        }
        command + if self.offline { " --offline" } else { "" }
    }

    /// The run file with flags over it; of a run that is resumed, its own.
    fn resolved(&self, saved: Option<&RunFile>, registry: &Registry) -> anyhow::Result<RunFile> {
        let mut run = match (&self.run_file, saved) {
            (Some(path), _) => RunFile::load(path, registry)?,
            (None, Some(saved)) => saved.clone(),
            (None, None) if self.train.is_none() => RunFile::built_in(),
            (None, None) => RunFile::default(),
        };
        macro_rules! over {
            ($($target:expr => $flag:expr;)*) => { $(if let Some(value) = $flag { $target = value; })* };
        }
        over! {
            run.model => self.model.clone().map(Some);
            run.load_in => self.load_in;
            run.seed => self.seed;
            run.data.task => self.task.map(TaskName::goal);
            run.data.columns => self.columns.clone();
            run.data.template => self.template.clone().map(Some);
            run.data.valid_columns => self.valid_columns.clone().map(Some);
            run.data.test_columns => self.test_columns.clone().map(Some);
            run.data.train => self.train.clone().map(Some);
            run.data.valid => self.valid.clone().map(Some);
            run.data.test => self.test.clone().map(Some);
            run.data.valid_split => self.valid_split.map(Some);
            run.data.test_split => self.test_split.map(Some);
            run.data.max_length => self.max_length;
            run.data.limit => self.limit.map(Some);
            run.data.add_tokens => (!self.add_tokens.is_empty()).then(|| self.add_tokens.clone());
            run.train.epochs => self.epochs;
            run.train.batch_size => self.batch_size;
            run.train.accumulate => self.accumulate;
            run.train.lr => self.lr.map(Some);
            run.train.schedule => self.schedule.map(|schedule| match schedule {
                ScheduleName::Linear => Schedule::Linear,
                ScheduleName::Cosine => Schedule::Cosine,
                ScheduleName::Constant => Schedule::Constant,
            });
            run.train.warmup_ratio => self.warmup_ratio;
            run.train.weight_decay => self.weight_decay;
            run.train.max_grad_norm => self.max_grad_norm;
            run.train.group_by_length => self.group_by_length;
            run.train.cache_frozen => self.cache_frozen.map(Some);
            run.train.cache_frozen_disk => self.cache_frozen_disk.map(Some);
            run.train.early_stopping => self.early_stopping.map(Some);
            run.train.metric => self.metric.map(Some);
            run.train.checkpoint_every => self.checkpoint_every;
        }
        if run.data.task == Goal::QuestionAnswering
            && (self.columns.is_some() || self.template.is_some())
        {
            bail!("--task qa has no columns: a question has the fields question, context, answers");
        }
        if !self.adapters.leave_out.is_empty() {
            bail!("--leave-out is for using an adapter; in training it is a setting of the method");
        }
        if !self.adapters.adapters.is_empty() {
            run.adapters = self.adapters.adapters.clone();
            run.compose = self.adapters.compose;
        }
        if self.adapters.fusion.is_some() {
            bail!("--fusion is for using a trained fusion; --compose fuse trains one");
        }
        let method = match run.compose {
            Some(
                ComposeName::Average
                | ComposeName::Parallel
                | ComposeName::Split
                | ComposeName::BatchSplit
                | ComposeName::MultiTask,
            ) => {
                bail!(
                    "adapters averaged, side by side or on parts of texts have nothing of their \
                     own to train"
                )
            }
            Some(ComposeName::Fuse) => self.method.clone().or(Some("fusion".into())),
            None | Some(ComposeName::Stack) => self.method.clone(),
        };
        if let Some(method) = method {
            if method != run.method {
                // Settings of one method mean nothing to another, nor does a rate chosen for it.
                run.method_settings.clear();
                if self.run_file.is_none() && !self.resume {
                    run.train.lr = self.lr;
                }
            }
            run.method = method;
        }
        if run.compose == Some(ComposeName::Fuse) {
            // For information, and for adapter-hub/adapters, which names a fusion by them.
            let names: Vec<String> = run.adapters.iter().map(|path| adapter_name(path)).collect();
            run.method_settings.entry("adapter_names").or_insert_with(|| json!(names));
        }
        run.method_settings.extend(self.settings.fields(registry, &run.method)?);
        run.adapters = run.adapters.into_iter().map(RunDirectory::adapter_in).collect();
        run.train.gradient_checkpointing |= self.gradient_checkpointing;
        run.train.validate()?;
        for (name, share) in
            [("valid_split", run.data.valid_split), ("test_split", run.data.test_split)]
        {
            if let Some(share) = share
                && !(share > 0.0 && share < 1.0)
            {
                bail!("{name} = {share}: must be a share between 0 and 1");
            }
        }
        Ok(run)
    }

    fn report(&self, directory: &RunDirectory, outcome: &Outcome) -> anyhow::Result<()> {
        if self.json {
            let mut result = json!(outcome);
            if let Some(fields) = result.as_object_mut() {
                fields.insert("adapter".into(), json!(shown(&directory.adapter())));
                if self.profile {
                    fields.insert("profile".into(), json!(profile::finish()));
                }
            }
            return print_json(&result);
        }
        if self.profile {
            profile_table(&profile::finish());
        }
        let mut out = stdout();
        for (name, metrics) in [("validation", &outcome.valid), ("test", &outcome.test)] {
            if let Some(metrics) = metrics {
                let values = metrics.as_map().iter().filter(|(name, _)| *name != "examples");
                let shown: Vec<String> = values
                    .map(|(name, value)| {
                        format!("{name} {:.4}", value.as_f64().unwrap_or(f64::NAN))
                    })
                    .collect();
                writeln!(out, "{name}: {}", shown.join(", "))?;
            }
        }
        writeln!(
            out,
            "{} steps in {:.1} s, {:.0} tokens/s; epoch {} kept",
            outcome.steps, outcome.train_seconds, outcome.tokens_per_second, outcome.best_epoch
        )?;
        writeln!(out, "adapter: {}", directory.adapter().display())?;
        writeln!(out, "plot:    {}", plot::path(directory).display())?;
        Ok(())
    }
}

/// Prints parts of the time, on the terminal's other stream.
fn profile_table(parts: &[ProfiledPart]) {
    let all: f64 = parts.iter().map(|part| part.seconds).sum();
    note(format_args!("{:<32} {:>9} {:>10} {:>6}", "operation", "calls", "seconds", "share"));
    for ProfiledPart { name, calls, seconds } in parts {
        let share = 100.0 * seconds / all.max(f64::MIN_POSITIVE);
        note(format_args!("{name:<32} {calls:>9} {seconds:>10.3} {share:>5.1}%"));
    }
}

/// A learning rate above which nothing has been seen to learn.
const HIGH_LR: f64 = 1.0;

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// The rows of tokens that are new, which the model has not learned; none where the embeddings are
/// trained as a whole.
fn rows_of(new: &AddedTokens, model: &Model, saved: &[String]) -> TokenIndices {
    let mut words = model.base().sites().filter(|site| site.role == Role::WordEmbedding);
    if words.any(|site| saved.iter().any(|name| site.path.ends_with(name.as_str()))) {
        return TokenIndices::default();
    }
    TokenIndices::Words(new.by_index().into_iter().map(|(id, _)| id as usize).collect())
}
