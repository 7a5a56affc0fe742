//! The method trait: what a method is beside its hooks.

use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Base, Error, Exchange, Hooks, Result, Site};

/// How far a training run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: usize,
    /// Optimizer steps of the whole run.
    pub total: usize,
}

/// Calibration batches, for methods that look at the data before they train.
pub trait Calibration {
    /// The loss `[1]` of the next batch under `hooks`, on a device with autodiff; `None` after the
    /// last batch.
    fn next_loss(&mut self, hooks: &dyn Hooks) -> Option<Tensor<1>>;
}

/// How a method changes the values at one site, once merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries of the weight (or gain) that can differ from the base's.
    pub weight: usize,
    /// Entries of the bias that can differ.
    pub bias: usize,
    /// The largest rank that the change of the weight matrix can have. A vector has no rank.
    pub rank: usize,
}

/// A parameter-efficient fine-tuning method over one base model.
///
/// It is a Burn [`Module`] that holds everything it trains (optimizers, records and devices
/// traverse it as any other), with [`Hooks`] that apply it. It never holds a trained copy of what
/// it does not train.
///
/// # Life cycle
///
/// [`prepare`](Self::prepare) → for each step: forward, [`penalty`](Self::penalty) added to the
/// loss, optimizer, [`after_step`](Self::after_step) → [`finish`](Self::finish).
pub trait Method: Module + Hooks + 'static {
    /// Names each of the method's tensors with its key in the adapter file. The same call writes
    /// the file, reads it, and lists what it should hold; see [`Exchange`].
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base);

    /// What merging this method changes at a site.
    fn change(&self, site: &Site) -> Change;

    /// Why the method cannot be merged into the base's weights; `None` where it can.
    fn merge_obstacle(&self) -> Option<String> {
        None
    }

    /// Looks at calibration batches before training.
    fn prepare(&mut self, _batches: &mut dyn Calibration) {}

    /// A term `[1]` added to the training loss.
    fn penalty(&self) -> Option<Tensor<1>> {
        None
    }

    /// Called after each optimizer step.
    fn after_step(&mut self, _progress: Progress) {}

    /// Called once, after the last step.
    fn finish(&mut self) {}

    /// Factors on the learning rate: a list of (regular expression for the end of a parameter's
    /// path, whole components; factor). Empty for one rate.
    fn lr_factors(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// The configuration of a method: the fields that `adapter_config.json` holds for it.
///
/// Deserialising an empty object must give the defaults (`#[serde(default)]`), and field names are
/// those of the file (HF PEFT's where it has the method).
pub trait MethodConfig:
    Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// What the command line calls the method: `lora`.
    const NAME: &'static str;
    /// The tag in `adapter_config.json`: `LORA`.
    const PEFT_TYPE: &'static str;
    /// One line for `--help` and tables.
    const ABOUT: &'static str;
    /// The learning rate to start from, with AdamW.
    const LEARNING_RATE: f64;
    /// Other names of fields: `("rank", "r")`.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
    /// The method that it configures.
    type Method: Method;

    /// Checks the values of the fields.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field and what would be right.
    fn validate(&self) -> Result<()>;

    /// Parts of the configuration that select nothing in `base`, such as a misspelt target beside
    /// others that match.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    fn unmatched(&self, _base: &Base) -> Result<Vec<Error>> {
        Ok(Vec::new())
    }

    /// A freshly initialised method over `base`, its parameters on `device`.
    ///
    /// # Errors
    /// If the configuration is invalid or fits nothing in the base.
    fn init(&self, base: &Base, device: &Device) -> Result<Self::Method>;
}
