//! BERT and RoBERTa: encoders that normalise after each sublayer.

use std::path::Path;

use burn::tensor::{Bool, Device, Tensor};
use peft_core::{Base, Embedded, Hooks, HubModel, ResidualStates, Role, TaskType};

use crate::blocks::{Embeddings, FeedForward, Pass, Positions, SelfAttention, Sublayer};
use crate::checkpoint::{Checkpoint, LoadReport, Loader};
use crate::config::Architecture;
use crate::head::Head;
use crate::{EncoderConfig, EncoderInput, Result, Task};

/// A frozen encoder with a task head.
///
/// Its tensors are on a device without autodiff: what comes before the first adapted layer is
/// computed without a tape, and no gradient can reach the base. Gradients flow from the method's
/// own parameters on.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: EncoderConfig,
    task: Task,
    base: Base,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    head: Head,
}

#[derive(Debug, Clone)]
struct Layer {
    attention: SelfAttention,
    after_attention: Sublayer,
    feed_forward: FeedForward,
    after_feed_forward: Sublayer,
    dropout: f64,
}

/// What an encoder is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderTask {
    /// The task.
    pub task: Task,
    /// Seed of a head that the checkpoint lacks.
    pub seed: u64,
}

impl Encoder {
    /// Loads a Hugging Face directory (`config.json` and a checkpoint) for a task; without one,
    /// for that of the class that it was saved from.
    ///
    /// # Errors
    /// If a file is missing or broken, the configuration asks for something not supported, or the
    /// checkpoint lacks a tensor of the encoder. A head that is missing, or has another number of
    /// labels, is newly initialised and reported.
    pub fn load(
        directory: &Path,
        task: Option<EncoderTask>,
        device: &Device,
    ) -> Result<(Self, LoadReport)> {
        let config = EncoderConfig::load(&directory.join("config.json"))?;
        let mut checkpoint = Checkpoint::open(directory)?;
        let task = task.unwrap_or(EncoderTask { task: config.own_task(), seed: 0 });
        Self::from_checkpoint(config, &mut checkpoint, task, device)
    }

    /// Takes an encoder's tensors from a checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_checkpoint(
        config: EncoderConfig,
        checkpoint: &mut Checkpoint,
        EncoderTask { task, seed }: EncoderTask,
        device: &Device,
    ) -> Result<(Self, LoadReport)> {
        let prefix = format!("{}.", config.model_type.prefix());
        // A bare encoder's modules have no prefix, in the reference as here.
        let own = if task == Task::Encode { "" } else { &prefix };
        let mut loader = Loader::new(checkpoint, &prefix, own, device);
        let start = match config.model_type {
            Architecture::Bert => Positions::FromZero,
            Architecture::Roberta | Architecture::XlmRoberta => {
                Positions::After { pad: config.pad_token_id }
            }
        };
        let embeddings =
            Embeddings::load(&mut loader, &format!("{own}embeddings"), &config, start)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(&mut loader, own, index, &config))
            .collect::<Result<_>>()?;
        let head = Head::load(&mut loader, &config, task, seed)?;
        let (base, mut report) = loader.finish()?;
        let expected = |key: &str| {
            // A buffer of old versions, heads of pre-training, and a pooler that the task skips.
            key.ends_with("position_ids")
                || ["cls.", "lm_head."].iter().any(|head| key.starts_with(head))
                || key.contains("pooler.")
        };
        let (quiet, shown) = report.unused.iter().partition::<Vec<&String>, _>(|k| expected(k));
        tracing::debug!(?quiet, "keys of the checkpoint that this task does not use");
        if !shown.is_empty() {
            tracing::warn!(keys = ?shown, "unused keys in {}", checkpoint.path().display());
        }
        report.unused.sort();
        Ok((Self { config, task, base, embeddings, layers, head }, report))
    }

    /// Sites and frozen tensors, for methods.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The task as HF PEFT tags it.
    pub fn task_type(&self) -> TaskType {
        match self.task {
            Task::Encode => TaskType::FeatureExtraction,
            Task::ClassifySequence { .. } => TaskType::SequenceClassification,
            Task::ClassifyTokens { .. } => TaskType::TokenClassification,
        }
    }

    /// What adapter-hub/adapters notes about a model; `name` is its id or path.
    pub fn hub_model(&self, name: &str) -> HubModel {
        let config = &self.config;
        HubModel {
            model_class: config.class_name(self.task),
            model_name: name.into(),
            model_type: config.model_type.name().into(),
            hidden_size: config.hidden_size,
        }
    }

    /// The longest text, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.embeddings.limit()
    }

    /// The output under a method: hidden states `[batch, tokens, d]`, logits
    /// `[batch, 1, labels]` of a sequence, or `[batch, tokens, labels]` of tokens.
    ///
    /// # Errors
    /// If the input does not fit the model.
    pub fn forward(&self, input: &EncoderInput, pass: Pass<'_>) -> Result<Tensor<3>> {
        let Embedded { hidden, mask, .. } = self.embeddings.forward(input, pass)?;
        let keep = pass.hooks.reads_hidden_states();
        let mut states = vec![hidden];
        for layer in &self.layers {
            let next = layer.forward(states[states.len() - 1].clone(), mask.as_ref(), pass);
            if !keep {
                states.clear();
            }
            states.push(next);
        }
        Ok(self.head.forward(pass.hooks.head_input(&states), pass))
    }

    /// The output of the model under `hooks` without dropout; `&()` is the base model.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn infer(&self, input: &EncoderInput, hooks: &dyn Hooks) -> Result<Tensor<3>> {
        self.forward(input, Pass::inference(hooks))
    }
}

impl Layer {
    fn load(
        loader: &mut Loader<'_>,
        own: &str,
        index: usize,
        config: &EncoderConfig,
    ) -> Result<Self> {
        let path = format!("{own}encoder.layer.{index}");
        let (d, epsilon) = (config.hidden_size, config.layer_norm_eps);
        let attention = SelfAttention::load(
            loader,
            &format!("{path}.attention.self"),
            &format!("{path}.attention.output.dense"),
            index,
            d,
            config.num_attention_heads,
            config.attention_probs_dropout_prob,
        )?;
        let after_attention = Sublayer::load(
            loader,
            &format!("{path}.attention.output"),
            &format!("{path}.attention.output.LayerNorm"),
            [Role::AttentionSublayer, Role::AttentionNorm],
            index,
            d,
            epsilon,
        )?;
        let feed_forward = FeedForward::load(
            loader,
            [&format!("{path}.intermediate.dense"), &format!("{path}.output.dense")],
            index,
            [d, config.intermediate_size],
            config.hidden_act,
        )?;
        let after_feed_forward = Sublayer::load(
            loader,
            &format!("{path}.output"),
            &format!("{path}.output.LayerNorm"),
            [Role::FeedForwardSublayer, Role::FeedForwardNorm],
            index,
            d,
            epsilon,
        )?;
        let dropout = config.hidden_dropout_prob;
        Ok(Self { attention, after_attention, feed_forward, after_feed_forward, dropout })
    }

    fn forward(
        &self,
        hidden: Tensor<3>,
        mask: Option<&Tensor<2, Bool>>,
        pass: Pass<'_>,
    ) -> Tensor<3> {
        let output = self.attention.forward(hidden.clone(), mask, pass);
        let output = pass.dropout(output, self.dropout);
        let states = ResidualStates { input: hidden.clone(), output, residual: hidden };
        let hidden = self.after_attention.forward(states, pass);
        let output = self.feed_forward.forward(hidden.clone(), pass);
        let output = pass.dropout(output, self.dropout);
        let states = ResidualStates { input: hidden.clone(), output, residual: hidden };
        self.after_feed_forward.forward(states, pass)
    }
}
