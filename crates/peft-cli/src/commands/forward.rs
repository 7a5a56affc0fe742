//! `peft forward`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use burn::module::Module;
use burn::tensor::TensorData;
use clap::Args;
use peft::core::{Hooks, Slots, TensorMap};
use peft::format::{Adapter, Composition, merged_tensors, read_safetensors, write_safetensors};
use peft::models::{Forward as How, ModelInput, Task};
use serde_json::{Value, json};

use crate::options::{AdapterOptions, DeviceOptions, ModelOptions};
use crate::output::{print_json, shown, stdout};

/// Run a model on token indices from a safetensors file.
///
/// Reads `input_ids` and, if present, `attention_mask` and `token_type_ids`, each
/// `[batch, tokens]`, and `task_ids`, `[batch]`, of an adapter of several tasks or of adapters for one each; writes `logits` (`[batch, labels]`, or `[batch, tokens, labels]` of a token
/// classifier), or `last_hidden_state` of a bare encoder; for question answering, `start_logits` and
/// `end_logits` too (`[batch, tokens]`), which are the two outputs of `logits`.
#[derive(Args)]
pub struct Forward {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// The inputs
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Fold the adapter into the weights first
    #[arg(long, requires = "adapters")]
    merged: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Forward {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let device = self.device.device()?;
        let mut inputs = read_safetensors(&self.inputs)?;
        let Some(ids) = inputs.remove("input_ids") else {
            bail!("{}: no input_ids", self.inputs.display());
        };
        let mask = inputs.remove("attention_mask");
        let segments = inputs.remove("token_type_ids");
        let decoder_ids = inputs.remove("decoder_input_ids");
        let decoder_mask = inputs.remove("decoder_attention_mask");
        let tasks = inputs.remove("task_ids").map(tasks).transpose()?;
        let input = ModelInput::from_data(ids, mask, segments, &device)
            .and_then(|input| match decoder_ids {
                Some(ids) => {
                    input.with_decoder(ModelInput::from_data(ids, decoder_mask, None, &device)?)
                }
                None => Ok(input),
            })
            .with_context(|| self.inputs.display().to_string())?;
        let paths = self.adapters.paths()?;
        let (_, adapted) = self.model.load(&paths, &device)?;
        let mut model = adapted.model;
        let mut method = adapted.adapter.as_ref().map(|adapter| adapter.method.valid());
        if self.merged {
            let adapter = adapted.adapter.as_ref().context("an adapter was asked for")?;
            let merged = merged_tensors(adapter, model.base())?;
            model = model.with_tensors(merged)?;
            method = None;
        }
        let hooks: &dyn Hooks = method.as_ref().map_or(&(), |method| method);
        let ([texts, _], adapters) = (input.shape(), paths.adapters.len());
        let (input, slots) = match &paths.composition {
            Some(how) => {
                let input = match how {
                    // All texts under the first, then all under the second.
                    Composition::Parallel => input.repeated(adapters),
                    _ => input,
                };
                (input, how.slots(adapters, texts, tasks.as_deref())?)
            }
            None => (input, of_one(adapted.adapter.as_ref(), texts, tasks.as_deref())?),
        };
        let output = model.forward(&input, How::infer(hooks).with_slots(&slots))?;
        let [batch, _, width] = output.dims();
        let mut tensors = TensorMap::new();
        if model.task() == Task::QuestionAnswering {
            for (name, side) in [("start_logits", 0), ("end_logits", 1)] {
                let side = output.clone().narrow(2, side, 1).squeeze_dim::<2>(2);
                tensors.insert(name.into(), side.into_data());
            }
        }
        let (name, data) = match model.task() {
            Task::Encode => ("last_hidden_state", output.into_data()),
            Task::ClassifySequence { .. } => ("logits", output.reshape([batch, width]).into_data()),
            _ => ("logits", output.into_data()),
        };
        let shape = data.shape().to_vec();
        tensors.insert(name.into(), data);
        write_safetensors(&self.out, &tensors)?;
        if self.json {
            print_json(&json!({"out": shown(&self.out), "tensor": name, "shape": shape}))?;
        } else {
            writeln!(stdout(), "{}: {name} {shape:?}", self.out.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The task of each text, as indices.
fn tasks(data: TensorData) -> anyhow::Result<Vec<usize>> {
    let tasks: Vec<i64> = data.convert::<i64>().try_into_vec().map_err(|e| anyhow!("{e:?}"))?;
    let index = |task: &i64| usize::try_from(*task).context("task_ids must be at least 0");
    tasks.iter().map(index).collect()
}

/// The task of each row under one adapter, which may have several.
fn of_one(
    adapter: Option<&Adapter>,
    texts: usize,
    tasks: Option<&[usize]>,
) -> anyhow::Result<Slots> {
    let Some(tasks) = tasks else { return Ok(Slots::default()) };
    let fields = adapter.map(|adapter| adapter.config.method.to_fields()).unwrap_or_default();
    let count = fields.get("num_tasks").and_then(Value::as_u64).unwrap_or(1) as usize;
    if tasks.len() != texts {
        bail!("task_ids are of {} texts, and there are {texts}", tasks.len());
    }
    if let Some(task) = tasks.iter().find(|task| **task >= count) {
        bail!("task_ids has task {task}, and the adapter has {count}, counted from 0");
    }
    Ok(Slots::new(tasks.iter().copied().map(Some).collect()))
}
