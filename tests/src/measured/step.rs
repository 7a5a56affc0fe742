//! Steps of training, by the trainer itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use burn::tensor::Device;
use peft::core::InitContext;
use peft::data::{Dataset, Example, Goal, Labels, Layout, Target, Text, TokenizedSet};
use peft::format::{Adapter, AdapterConfig};
use peft::models::{Model, ModelConfig, ModelTask, Task, TextTokenizer};
use peft::train::{Entry, Observer, RunDirectory, TaskFile, TrainData, TrainSettings, Trainer};
use serde_json::{Value, json};

use super::{Order, drawn};

/// Looks at the clock after each step.
#[derive(Clone, Default)]
struct Clock(Rc<RefCell<Readings>>);

#[derive(Default)]
struct Readings {
    instants: Vec<Instant>,
    /// Seconds since 1970 at the end of the first step.
    first_step_at: f64,
}

impl Observer for Clock {
    fn begin(&mut self, _done: usize, _total: usize) {
        self.0.borrow_mut().instants.push(Instant::now());
    }

    fn entry(&mut self, entry: &Entry) {
        if !matches!(entry, Entry::Step { .. }) {
            return;
        }
        let mut readings = self.0.borrow_mut();
        if readings.instants.len() == 1 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            readings.first_step_at = now.unwrap_or_default().as_secs_f64();
        }
        readings.instants.push(Instant::now());
    }
}

/// The seconds of each step, from one to the next; the first begins where training does.
pub fn measure(order: &Order) -> Result<Value> {
    let device = Device::default();
    let goal = match ModelConfig::load(&order.model)?.own_task() {
        Task::CausalLm => Goal::CausalLm,
        _ => Goal::Classify,
    };
    let names = match goal {
        Goal::Classify => vec!["0".to_string(), "1".to_string()],
        _ => Vec::new(),
    };
    let labels = Labels { goal, names };
    let task = ModelTask { task: labels.task(), seed: 0 };
    let (model, _) = Model::load_in(&order.model, Some(task), order.dtype, &device)?;
    let tokenizer = TextTokenizer::load(&order.model, order.tokens)?;
    let data = TokenizedSet::new(&texts(order, &labels), &tokenizer, model.config())?;

    let method = peft::registry().configure(&order.method, order.settings.clone())?;
    let mut config = AdapterConfig::new(method);
    if let Some(task) = model.task_type() {
        config = config.with_task(task, model.base());
    }
    let on = device.autodiff();
    let adapter = Adapter::init(config, &InitContext::new(model.base(), &on))?;
    let layout = Layout::default();
    let (max_length, load_in) = (order.tokens, order.dtype);
    let task = TaskFile { labels, layout, max_length, load_in };
    let directory = RunDirectory::new(&order.out);
    let trainer = Trainer::new(&model, adapter, task, settings(order)?, directory, 0)?;
    let clock = Clock::default();
    let data = TrainData { train: data, valid: None, test: None };
    let outcome = trainer.with_observer(clock.clone()).run(&data, false)?;

    let readings = clock.0.borrow();
    let seconds = readings.instants.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
    Ok(json!({
        "seconds": seconds.collect::<Vec<_>>(),
        "first_step_at": readings.first_step_at,
        "trainable": outcome.trainable,
    }))
}

/// As many texts as the steps need, all of them cut to the same length.
fn texts(order: &Order, labels: &Labels) -> Dataset {
    let example = |number: usize| Example {
        text: Text::One(drawn::text(2 * order.tokens, number)),
        target: (labels.goal == Goal::Classify).then_some(Target::Class(number % 2)),
    };
    let examples = (0..order.rows * order.steps).map(example).collect();
    Dataset { examples, labels: labels.clone() }
}

/// One epoch, and nothing within it but steps.
fn settings(order: &Order) -> Result<TrainSettings> {
    let common = json!({
        "epochs": 1,
        "batch_size": order.rows,
        "lr": 1e-3,
        "max_grad_norm": 1.0,
        "checkpoint_every": 1_000_000,
    });
    let mut fields = common.as_object().cloned().unwrap_or_default();
    fields.extend(order.train.clone());
    Ok(serde_json::from_value(Value::Object(fields))?)
}
