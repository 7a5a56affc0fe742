//! Outputs and metrics of a model under a method.

use burn::tensor::Tensor;
use peft_core::{AdapterPool, Hooks, Memo, Probe, Slots};
use peft_data::metrics::{Metrics, Output};
use peft_data::{Batch, Goal, Labels, Target, TokenizedSet};
use peft_kernels::cross_entropy;
use peft_models::{Forward, Logits, Model};

use crate::answers::evaluate_answers;
use crate::frozen_states::FrozenStates;
use crate::loss::loss;
use crate::{Error, Result};

/// What is random in data is the same in every evaluation.
pub(crate) const EVALUATION: u64 = 0;

/// The method, or the adapter of a pool, under which a model is evaluated.
#[derive(Clone, Copy)]
pub struct Under<'a> {
    hooks: &'a dyn Hooks,
    slot: Option<usize>,
    probe: Option<&'a Probe>,
    states: Option<&'a FrozenStates<'a>>,
}

impl<'a> Under<'a> {
    /// A method, which must be without autodiff (`method.valid()`); `&()` is the base model.
    pub fn method(hooks: &'a dyn Hooks) -> Self {
        Self { hooks, slot: None, probe: None, states: None }
    }

    /// One adapter of a pool, which must be without autodiff.
    pub fn slot(pool: &'a AdapterPool, slot: usize) -> Self {
        Self { hooks: pool, slot: Some(slot), probe: None, states: None }
    }

    /// With an eye on what methods decide.
    pub fn with_probe(self, probe: &'a Probe) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// With what frozen layers make of the texts, where that is known.
    pub(crate) fn with_states(self, states: Option<&'a FrozenStates<'a>>) -> Self {
        Self { states, ..self }
    }

    /// What the model gives for a batch, `[targets, outputs]`.
    pub(crate) fn logits(&self, model: &Model, batch: &Batch, memo: &Memo) -> Result<Logits> {
        let rows = batch.indices.len();
        let slots = self.slot.map_or(Slots::default(), |slot| Slots::all(Some(slot), rows));
        let states = self.states.map(|states| states.of(batch, self.hooks)).transpose()?;
        let mut how = Forward::infer(self.hooks).with_memo(memo).with_slots(&slots);
        how = self.probe.into_iter().fold(how, Forward::with_probe);
        how = states.iter().fold(how, Forward::from_layer);
        Ok(batch.logits(model, how)?)
    }
}

/// The outputs for every example, in the order of the data set.
///
/// # Errors
/// If an input does not fit the model, the task has no output for a text as a whole, or an output is
/// infinite or no number.
pub fn predict(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Vec<Output>> {
    let mut outputs = vec![Output { logits: Vec::new() }; data.len()];
    let memo = Memo::new();
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        if batch.places.is_some() {
            let expected = "an adapter for words has no output for a text as a whole";
            return Err(Error::setting("task", "of the adapter", expected));
        }
        let logits = under.logits(model, &batch, &memo)?;
        for (row, index) in rows(logits.tensor())?.into_iter().zip(indices) {
            outputs[*index].logits = row;
        }
    }
    Ok(outputs)
}

/// The metrics of a labelled data set.
///
/// # Errors
/// As [`predict`], if the labels are not those of the model's head, or if a metric is infinite or no
/// number.
pub fn evaluate(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    labels: &Labels,
    batch_size: usize,
) -> Result<Metrics> {
    labels.check(model.task())?;
    match labels.goal {
        Goal::Tag => return evaluate_tags(model, under, data, labels, batch_size),
        Goal::QuestionAnswering => return evaluate_answers(model, under, data, batch_size),
        goal if goal.is_language() => {
            return evaluate_language(model, under, data, batch_size);
        }
        _ => {}
    }
    let mut outputs = Vec::with_capacity(data.len());
    let mut targets: Vec<Target> = Vec::with_capacity(data.len());
    let mut total = 0.0;
    let memo = Memo::new();
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        let logits = under.logits(model, &batch, &memo)?;
        let mean = loss(labels.goal, &logits, &batch).into_scalar::<f32>();
        total += f64::from(mean) * indices.len() as f64;
        outputs.extend(rows(logits.tensor())?.into_iter().map(|logits| Output { logits }));
        targets.extend(batch.targets);
    }
    finite(Metrics::new(labels, &outputs, &targets, total / data.len().max(1) as f64))
}

/// The index of the most likely label of each word of each example, in the order of the data set;
/// `None` for a word that was cut off.
///
/// # Errors
/// If an input does not fit the model, the task is not over words, or an output is infinite or no
/// number.
pub fn predict_tags(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Vec<Vec<Option<usize>>>> {
    Ok(tags(model, under, data, batch_size)?.0)
}

/// As [`predict_tags`], with the mean loss of the words whose tags are known.
#[allow(clippy::type_complexity)]
fn tags(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<(Vec<Vec<Option<usize>>>, f64)> {
    let mut found = vec![Vec::new(); data.len()];
    let (mut words, mut total) = (0, 0.0);
    let memo = Memo::new();
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        if batch.asks_nothing() {
            continue;
        }
        let logits = under.logits(model, &batch, &memo)?;
        let values = logits.tensor();
        if !values.clone().is_finite().all().into_scalar::<bool>() {
            return Err(Error::NotFinite { quantity: "output".into() });
        }
        let labels = values.argmax(1).into_data().convert::<i64>();
        let mut labels = labels.iter::<i64>();
        for &index in indices {
            let found: &mut Vec<Option<usize>> = &mut found[index];
            for &word in data.words(index) {
                let label = labels.next().expect("a label for each word") as usize;
                found.resize(word, None);
                found.push(Some(label));
            }
        }
        if !batch.targets.is_empty() {
            let mean = loss(Goal::Tag, &logits, &batch).into_scalar::<f32>();
            total += f64::from(mean) * batch.targets.len() as f64;
            words += batch.targets.len();
        }
    }
    Ok((found, total / words.max(1) as f64))
}

/// The metrics of tags. A word that was cut off counts as one without an entity.
fn evaluate_tags(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    labels: &Labels,
    batch_size: usize,
) -> Result<Metrics> {
    let (found, loss) = tags(model, under, data, batch_size)?;
    let name = |label: usize| labels.names[label].as_str();
    let mut named = (Vec::new(), Vec::new());
    for (found, target) in found.iter().zip(data.targets()) {
        let Some(Target::Tags(wanted)) = target else { continue };
        let found = (0..wanted.len()).map(|i| found.get(i).copied().flatten().map_or("O", name));
        named.0.push(found.collect::<Vec<_>>());
        named.1.push(wanted.iter().map(|&label| name(label)).collect::<Vec<_>>());
    }
    finite(Metrics::of_tags(labels, &named.0, &named.1, loss))
}

/// The metrics of a language model over the tokens that it is asked for.
fn evaluate_language(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Metrics> {
    let (mut asked, mut right, mut total) = (0, 0, 0.0);
    let memo = Memo::new();
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        if batch.asks_nothing() {
            continue;
        }
        let logits = under.logits(model, &batch, &memo)?;
        let classes = batch.classes(model.base().device());
        let mut first = 0;
        for logits in logits.in_parts() {
            let [targets, _] = logits.dims();
            let wanted = classes.clone().narrow(0, first, targets);
            let found = logits.clone().argmax(1).squeeze_dim::<1>(1);
            right += found.equal(wanted.clone()).int().sum().into_scalar::<i64>() as usize;
            let mean = cross_entropy(logits, wanted).into_scalar::<f32>();
            total += f64::from(mean) * targets as f64;
            first += targets;
        }
        asked += first;
    }
    finite(Metrics::of_language(data.len(), asked, right, total / asked.max(1) as f64))
}

/// The rows of `[targets, labels]` logits, which must be numbers: of others any label could be the
/// likeliest.
fn rows(logits: Tensor<2>) -> Result<Vec<Vec<f32>>> {
    let [_, labels] = logits.dims();
    let values: Vec<f32> =
        logits.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values.chunks(labels).map(<[f32]>::to_vec).collect()),
        false => Err(Error::NotFinite { quantity: "output".into() }),
    }
}

/// Metrics of which each is a number.
fn finite(metrics: Metrics) -> Result<Metrics> {
    match metrics.as_map().iter().find(|(_, value)| value.is_null()) {
        Some((name, _)) => Err(Error::NotFinite { quantity: name.clone() }),
        None => Ok(metrics),
    }
}

/// The metrics that a data set with these labels has, of no examples.
pub(crate) fn metrics_of(labels: &Labels) -> Metrics {
    match labels.goal {
        Goal::Tag => Metrics::of_tags(labels, &[], &[], 0.0),
        goal if goal.is_language() => Metrics::of_language(0, 0, 0, 0.0),
        _ => Metrics::new(labels, &[], &[], 0.0),
    }
}
