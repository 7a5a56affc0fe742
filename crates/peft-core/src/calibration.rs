//! What a method may know of the data before it is trained.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

use crate::edit::{OutputMap, Replaced};
use crate::{Base, Edit, Edits, Error, Hooks, Pass, Result, Site};

/// Batches that a method may look at before it is trained (Fisher masks, EVA, LoRA-GA, SNIP).
pub trait Calibration {
    /// The number of batches.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The loss `[1]` of a batch under `hooks`, without dropout.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    fn loss(&self, batch: usize, hooks: &dyn Hooks) -> Result<Tensor<1>>;

    /// The number of examples, each of which is in one batch.
    fn num_examples(&self) -> usize;

    /// `-log p(y | x)`, `[1]`, of one example by itself under `hooks`, without dropout: the sum over
    /// all that is predicted of it, up to a factor that is the same for every example.
    ///
    /// # Errors
    /// If the example does not fit the model.
    fn example_loss(&self, example: usize, hooks: &dyn Hooks) -> Result<Tensor<1>>;
}

/// The gradient `[d_in, d_out]` of the frozen weight at each of some linear sites, averaged over
/// the first `batches` batches, by [`Site::index`].
///
/// # Errors
/// If there are no batches, or one does not fit the model.
pub fn base_gradients(
    calibration: &dyn Calibration,
    base: &Base,
    sites: &[&Site],
    batches: usize,
) -> Result<BTreeMap<usize, Tensor<2>>> {
    let count = at_least_one(calibration.len(), "batch", batches)?;
    mean(base, sites, count, |batch, hooks| calibration.loss(batch, hooks), |gradient| gradient)
}

/// The empirical Fisher information `[d_in, d_out]` of each entry of the frozen weight at each of some
/// linear sites, by [`Site::index`]: `F = (1/N) Σ (∂ log p(y|x) / ∂W)²` over the first `examples`
/// examples, each by itself (Sung et al. 2021, arXiv 2111.09839, equation 5). The square of a batch's
/// mean gradient would be something else.
///
/// # Errors
/// If there are no examples, or one does not fit the model.
pub fn fisher_diagonal(
    calibration: &dyn Calibration,
    base: &Base,
    sites: &[&Site],
    examples: usize,
) -> Result<BTreeMap<usize, Tensor<2>>> {
    let count = at_least_one(calibration.num_examples(), "example", examples)?;
    let loss = |example, hooks: &dyn Hooks| calibration.example_loss(example, hooks);
    mean(base, sites, count, loss, |gradient| gradient.square())
}

/// The mean, over `count` losses, of a function of the gradient at each site.
fn mean(
    base: &Base,
    sites: &[&Site],
    count: usize,
    loss: impl Fn(usize, &dyn Hooks) -> Result<Tensor<1>>,
    term: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Result<BTreeMap<usize, Tensor<2>>> {
    let device = base.device().clone().autodiff();
    let weights = sites.iter().map(|site| {
        let weight = base.weight(site).dense().into_data();
        (site.index, Tensor::from_data(weight, &device).require_grad())
    });
    let watched = Weights(weights.collect());
    let mut sums: BTreeMap<usize, Tensor<2>> = BTreeMap::new();
    for number in 0..count {
        let loss = loss(number, &watched)?;
        // That of what asks nothing of the model.
        if !loss.device().is_autodiff() {
            continue;
        }
        let gradients = loss.backward();
        for (&site, weight) in &watched.0 {
            // A weight that the loss does not depend on has none.
            let Some(gradient) = weight.grad(&gradients) else { continue };
            let share = term(gradient) / count as f64;
            let sum = match sums.remove(&site) {
                Some(sum) => sum + share,
                None => share,
            };
            sums.insert(site, sum);
        }
    }
    Ok(sums)
}

/// Gives `seen` the input `[tokens, d_in]` of each of some linear sites, for the first `batches`
/// batches, one site after another in the order of the model.
///
/// # Errors
/// If there are no batches, or one does not fit the model.
pub fn layer_inputs(
    calibration: &dyn Calibration,
    sites: &[&Site],
    batches: usize,
    mut seen: impl FnMut(usize, Tensor<2>),
) -> Result<()> {
    for batch in 0..at_least_one(calibration.len(), "batch", batches)? {
        let inputs = Inputs::default();
        let watched = Watched { sites: sites.iter().map(|s| s.index).collect(), inputs };
        calibration.loss(batch, &watched)?;
        let inputs = std::mem::take(&mut *watched.inputs.lock());
        inputs.into_iter().for_each(|(site, input)| seen(site, input));
    }
    Ok(())
}

fn at_least_one(available: usize, what: &str, wanted: usize) -> Result<usize> {
    match available.min(wanted) {
        0 => {
            let expected = format!("there must be at least one {what} to look at");
            Err(Error::config("calibration", 0, expected))
        }
        count => Ok(count),
    }
}

/// The base with weights whose gradients are asked for.
#[derive(Debug)]
struct Weights(BTreeMap<usize, Tensor<2>>);

impl Hooks for Weights {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        match self.0.get(&site.index) {
            Some(weight) => Edits::from(Edit::Weight(Arc::new(Replaced(weight.clone())))),
            None => Edits::none(),
        }
    }
}

/// The base, with an eye on what its layers are given.
#[derive(Debug)]
struct Watched {
    sites: Vec<usize>,
    inputs: Inputs,
}

#[derive(Debug, Clone, Default)]
struct Inputs(Arc<Mutex<Vec<(usize, Tensor<2>)>>>);

impl Inputs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(usize, Tensor<2>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Watch {
    site: usize,
    inputs: Inputs,
}

impl OutputMap for Watch {
    fn forward(&self, x: &Tensor<2>, y: Tensor<2>, _pass: &Pass<'_>) -> Tensor<2> {
        self.inputs.lock().push((self.site, x.clone()));
        y
    }

    fn obstacle(&self) -> &'static str {
        "it only looks at what a layer is given"
    }
}

impl Hooks for Watched {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        if !self.sites.contains(&site.index) {
            return Edits::none();
        }
        let watch = Watch { site: site.index, inputs: self.inputs.clone() };
        Edits::from(Edit::Output(Arc::new(watch)))
    }

    fn needs_every_token(&self) -> bool {
        true
    }
}
