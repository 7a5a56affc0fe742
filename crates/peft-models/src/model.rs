//! A frozen model with a task head.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use peft_core::{AdaptersModel, Base, Hooks, Memo, Pass, Row, Rows, Slots, TensorMap};
use peft_format::TaskType;
use peft_kernels::PackedMatrix;

use crate::architectures::{self, Parts};
use crate::body::{Body, Hidden, Reads, tokens_at};
use crate::checkpoint::{Checkpoint, LoadReport, Loader, Precision};
use crate::forward::Run;
use crate::head::{Head, NewHead};
use crate::input::Text;
use crate::{Error, Forward, LayerInput, Logits, ModelConfig, ModelInput, Result, Task};

/// A frozen model with a task head.
///
/// Its tensors are on a device without autodiff: what comes before the first adapted layer is
/// computed without a tape, and no gradient can reach the base. Gradients flow from the method's
/// own parameters on.
#[derive(Debug, Clone)]
pub struct Model {
    config: ModelConfig,
    task: Task,
    base: Base,
    body: Body,
    pub(crate) head: Head,
}

/// What a model is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelTask {
    /// The task.
    pub task: Task,
    /// Seed of a head that the checkpoint lacks.
    pub seed: u64,
}

/// A place in a batch: the text, and the token in it.
pub type Place = [usize; 2];

impl Model {
    /// Loads a Hugging Face directory (`config.json` and a checkpoint) for a task; without one,
    /// for that of the class that it was saved from.
    ///
    /// # Errors
    /// If a file is missing or broken, the configuration asks for something not supported, or the
    /// checkpoint lacks a tensor of the body. A head that is missing, or has another number of
    /// labels, is newly initialised and reported.
    pub fn load(
        directory: &Path,
        task: Option<ModelTask>,
        device: &Device,
    ) -> Result<(Self, LoadReport)> {
        Self::load_in(directory, task, Precision::Stored, device)
    }

    /// The same, with its weights in this precision.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if fewer than 32 bits are asked for on a device that cannot
    /// compute on them.
    pub fn load_in(
        directory: &Path,
        task: Option<ModelTask>,
        precision: Precision,
        device: &Device,
    ) -> Result<(Self, LoadReport)> {
        let config = ModelConfig::load(directory)?;
        let mut checkpoint = Checkpoint::open(directory)?.with_precision(precision);
        let own = || ModelTask { task: own_task(&config, &checkpoint), seed: 0 };
        let task = task.unwrap_or_else(own);
        Self::from_checkpoint(config, &mut checkpoint, task, device)
    }

    /// The same model with other tensors, as merging gives them.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn with_tensors(&self, tensors: TensorMap) -> Result<Self> {
        let config = self.config_for(&tensors);
        let mut checkpoint = Checkpoint::from_tensors("the merged model", tensors);
        let task = ModelTask { task: self.task, seed: 0 };
        let (model, report) =
            Self::from_checkpoint(config, &mut checkpoint, task, self.base.device())?;
        match report.initialized.is_empty() {
            true => Ok(model),
            false => Err(Error::MissingKeys {
                path: checkpoint.path().into(),
                keys: report.initialized.join(", "),
                found: "the others".into(),
            }),
        }
    }

    /// The configuration of the same model with other tensors, in which the head may have a table of
    /// its own.
    pub fn config_for(&self, tensors: &TensorMap) -> ModelConfig {
        if self.base.untied_in(tensors) { self.config.untied() } else { self.config.clone() }
    }

    /// Takes a model's tensors from a checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_checkpoint(
        config: ModelConfig,
        checkpoint: &mut Checkpoint,
        ModelTask { task, seed }: ModelTask,
        device: &Device,
    ) -> Result<(Self, LoadReport)> {
        config.check()?;
        config.check_task(task)?;
        let path = checkpoint.path().display();
        let can_pack = PackedMatrix::is_supported(device);
        match checkpoint.precision() {
            Precision::Stored if !can_pack => {
                let [packed, plain] = checkpoint.packed_bytes().map(|bytes| bytes as f64 / 1e6);
                if packed > 0.0 {
                    tracing::warn!(
                        "{path}: {packed:.0} MB packed are expanded to {plain:.0} MB of f32, as \
                         {device:?} does not compute on packed weights"
                    );
                }
            }
            precision @ (Precision::Half
            | Precision::Bf16
            | Precision::EightBit
            | Precision::FourBit)
                if !can_pack =>
            {
                return Err(Error::Input(format!(
                    "weights of {precision} on {device:?}: only the device flex computes on \
                     them"
                )));
            }
            _ => {}
        }
        let is_own = task == own_task(&config, checkpoint);
        let prefix = format!("{}.", config.model_type.prefix());
        let own = config.model_type.own_prefix(task);
        let mut loader = Loader::new(checkpoint, &prefix, &own, device);
        let new = NewHead::new(seed);
        let Parts { body, head } = architectures::load(&mut loader, &config, &own, task, new)?;
        if is_own {
            let says = if config.id2label.is_empty() { "num_labels" } else { "id2label" };
            if let Some((head, rows)) = loader.other_head() {
                let supported = format!("{rows} labels, as {head} has rows in the checkpoint");
                return Err(config.unsupported(says, supported));
            }
            if task == Task::QuestionAnswering && config.num_labels() != 2 {
                return Err(config.unsupported(says, "2 labels, where an answer begins and ends"));
            }
        }
        let (base, mut report) = loader.finish()?;
        let expected = |key: &str| {
            // Buffers of old versions, tables saved again where they are used, heads of
            // pre-training, and a pooler that the task skips.
            let ends = [
                "position_ids",
                ".attn.bias",
                ".attn.masked_bias",
                ".rotary_emb.inv_freq",
                ".embed_tokens.weight",
            ];
            let starts = ["cls.", "lm_head.", "vocab_", "final_logits_bias"];
            ends.iter().any(|end| key.ends_with(end))
                || starts.iter().any(|start| key.starts_with(start))
                || key.contains("pooler.")
        };
        let (quiet, shown) = report.unused.iter().partition::<Vec<&String>, _>(|k| expected(k));
        tracing::debug!(?quiet, "keys of the checkpoint that this task does not use");
        if !shown.is_empty() {
            tracing::warn!(keys = ?shown, "unused keys in {}", checkpoint.path().display());
        }
        report.unused.sort();
        tracing::debug!("frozen weights: {:.1} MB", base.num_bytes() as f64 / 1e6);
        Ok((Self { config, task, base, body, head }, report))
    }

    /// Everything before the head.
    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    /// Sites and frozen tensors, for methods.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The task as HF PEFT tags it, where it has a tag.
    pub fn task_type(&self) -> Option<TaskType> {
        match self.task {
            Task::Encode => Some(TaskType::FeatureExtraction),
            Task::ClassifySequence { .. } => Some(TaskType::SequenceClassification),
            Task::ClassifyTokens { .. } => Some(TaskType::TokenClassification),
            Task::QuestionAnswering => Some(TaskType::QuestionAnswering),
            Task::CausalLm => Some(TaskType::CausalLm),
            Task::Seq2SeqLm => Some(TaskType::Seq2SeqLm),
            Task::MaskedLm => None,
        }
    }

    /// What adapter-hub/adapters notes about a model; `name` is its id or path.
    pub fn adapters_model(&self, name: &str) -> AdaptersModel {
        let config = &self.config;
        AdaptersModel {
            model_class: config.class_name(self.task),
            model_name: name.into(),
            model_type: config.model_type.name().into(),
            hidden_size: config.hidden_size,
        }
    }

    /// The longest text, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.body.max_tokens()
    }

    /// The output under a method: hidden states `[batch, tokens, d]`, logits
    /// `[batch, 1, labels]` of a sequence, `[batch, tokens, labels]` of tokens (the two of an
    /// answer's start and end), or
    /// `[batch, tokens, words]` of a language model; where there is a decoder, of its tokens.
    /// Virtual tokens have outputs too. What stands at padding means nothing.
    ///
    /// # Errors
    /// If the input does not fit the model.
    pub fn forward(&self, input: &ModelInput, how: Forward<'_>) -> Result<Tensor<3>> {
        let mut shown = None;
        let reads = |rows: &Rows| self.head.reads(input.text(), rows);
        self.run(input, how, &reads, |hidden, run| {
            if let Some(output) = self.head.of_texts(&hidden, input.text(), run)? {
                shown = Some(output.unsqueeze_dim(1));
                return Ok(());
            }
            let rows = &hidden.rows;
            let output = self.head.of_tokens(hidden.states, run.over(rows)).tensor();
            let [batch, tokens] = input.output_shape();
            let added = rows.iter().map(|row| row.len() - row.text.len()).max().unwrap_or(0);
            let output = rows.batched(output);
            let [_, longest, outputs] = output.dims();
            // Padding that is longer than any text was left out.
            let missing = (tokens + added).saturating_sub(longest);
            let fill = Tensor::zeros([batch, missing, outputs], &output.device());
            shown = Some(if missing == 0 { output } else { Tensor::cat(vec![output, fill], 1) });
            Ok(())
        })?;
        Ok(shown.expect("a run ends in an output"))
    }

    /// The output at some tokens only, `[places, outputs]`, in their order: the head, which costs
    /// most in a language model, runs on nothing else.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// If a place is outside the batch, or the head is of a sequence.
    pub fn forward_at(
        &self,
        input: &ModelInput,
        places: &[Place],
        how: Forward<'_>,
    ) -> Result<Tensor<2>> {
        Ok(self.logits_at(input, places, how)?.tensor())
    }

    /// The same, where not all that is asked of the output needs the tensor.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// As [`forward_at`](Self::forward_at).
    pub fn logits_at(
        &self,
        input: &ModelInput,
        places: &[Place],
        how: Forward<'_>,
    ) -> Result<Logits> {
        let mut shown = None;
        self.run(input, how, &|_| Ok(None), |Hidden { states, rows, .. }, run| {
            let of_rows: Vec<&Row> = rows.iter().collect();
            let token = |&[row, token]: &Place| {
                let inside = row < of_rows.len() && token < of_rows[row].text.len();
                assert!(inside, "token {token} of text {row} is outside the batch");
                rows.start(row) + of_rows[row].text[token]
            };
            let tokens: Vec<usize> = places.iter().map(token).collect();
            // Each is a row of its own, under the adapter of its text.
            let single = rows.single(&tokens);
            let slots = run.pass.slots.select(places.iter().map(|[row, _]| *row));
            let run = Run { pass: run.pass.over(&single, &slots), ..run };
            shown = Some(self.head.of_tokens(tokens_at(states, &tokens), run));
            Ok(())
        })?;
        Ok(shown.expect("a run ends in an output"))
    }

    /// The body's output, for `head` to make something of, which looks at what it `reads`.
    fn run(
        &self,
        input: &ModelInput,
        how: Forward<'_>,
        reads: Reads<'_>,
        head: impl FnOnce(Hidden, Run<'_>) -> Result<()>,
    ) -> Result<()> {
        let Forward { hooks, mode, slots, memo, probe, cache, recompute, from, padded } = how;
        let (own_slots, own_memo) = (Slots::default(), Memo::new());
        let rows = Rows::new(Vec::new(), self.base.device());
        let slots = slots.unwrap_or(&own_slots);
        let [texts, _] = input.shape();
        if !slots.as_slice().is_empty() && slots.as_slice().len() != texts {
            let named = slots.as_slice().len();
            return Err(Error::Input(format!("{texts} texts, and slots for {named}")));
        }
        let pass = Pass { rows: &rows, slots, mode, memo: memo.unwrap_or(&own_memo), probe };
        if let Some(recompute) = recompute {
            if cache.is_some() {
                let reason = "what is computed again cannot go on from a cache";
                return Err(Error::Input(reason.into()));
            }
            recompute.begin(&pass);
        }
        if let Some(from) = from {
            check_from(from, texts, cache.is_some(), &self.body)?;
        }
        let run = Run { hooks, pass, cache, recompute, from };
        let behind =
            input.text().is_padded_behind() && input.decoder().is_none_or(Text::is_padded_behind);
        let packed = behind && !padded && !hooks.needs_padding();
        head(self.body.forward(input, packed, reads, run)?, run)
    }

    /// The output of the model under `hooks` without dropout; `&()` is the base model.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn infer(&self, input: &ModelInput, hooks: &dyn Hooks) -> Result<Tensor<3>> {
        self.forward(input, Forward::infer(hooks))
    }
}

/// Checks that a pass over so many texts can begin at a layer.
fn check_from(from: &LayerInput, texts: usize, caches: bool, body: &Body) -> Result<()> {
    let kept = from.rows.len();
    if kept != texts {
        return Err(Error::Input(format!("{texts} texts, and what enters a layer of {kept}")));
    }
    match body {
        Body::Single(stack) if !caches && from.layer <= stack.layers.len() => Ok(()),
        _ => Err(Error::Input("a pass cannot begin at this layer".into())),
    }
}

/// The task of a checkpoint's own head.
fn own_task(config: &ModelConfig, checkpoint: &Checkpoint) -> Task {
    config.own_task_among(&checkpoint.keys().collect::<Vec<_>>())
}
