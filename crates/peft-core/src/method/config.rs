//! The configuration of a method.

use std::fmt::Debug;

use burn::module::Module;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Method, Size};
use crate::{Base, Error, InitContext, Result};

/// How an adaptation composes with the network (Ruder et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputationFunction {
    /// It changes weights and biases: `f(x; θ ∘ φ)`.
    Parameter,
    /// It extends or changes inputs: `f(x ∘ φ; θ)`.
    Input,
    /// It adds functions: `f(x; θ) ∘ g(x; φ)`.
    Function,
}

/// What a table of methods says about one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MethodCard {
    /// How it composes with the network.
    pub functions: &'static [ComputationFunction],
    /// The sites at which it acts by default.
    pub sites: &'static str,
    /// How many values it trains: `d` is the hidden size, `L` the number of layers, `r` the rank
    /// or bottleneck.
    pub trainable: &'static str,
    /// Whether it can be merged, and with what loss.
    pub merges: &'static str,
    /// The libraries whose files carry it: `peft`, `adapters`.
    pub formats: &'static str,
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
    /// What a table of methods says about it.
    const CARD: MethodCard =
        MethodCard { functions: &[], sites: "", trainable: "", merges: "", formats: "" };
    /// Whether HF PEFT counts it as prompt learning, and leaves `model.` out of its files' keys.
    const PROMPT_LEARNING: bool = false;
    /// Other names of fields: `("rank", "r")`.
    const ALIASES: &'static [(&'static str, &'static str)] = &[];
    /// The method that it configures.
    type Method: Method + Module + 'static;

    /// What a table of methods says about it with these fields.
    fn card(&self) -> MethodCard {
        Self::CARD
    }

    /// The learning rate to start from with these fields.
    fn learning_rate(&self) -> f64 {
        Self::LEARNING_RATE
    }

    /// The configuration for HF PEFT's file, over `base`: what that library would fill in or read
    /// otherwise is written out.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    fn for_file(&self, _base: &Base) -> Result<Self> {
        Ok(self.clone())
    }

    /// The configuration as adapter-hub/adapters writes it, over `base`.
    ///
    /// # Errors
    /// If that library does not have the method, or not with these fields.
    fn to_adapters(&self, _base: &Base) -> Result<Value> {
        Err(Error::no_format(Self::NAME, "adapter-hub/adapters", "it does not have the method"))
    }

    /// The configuration in a file of adapter-hub/adapters; `None` where the file is of another
    /// method.
    fn from_adapters(_config: &Map<String, Value>, _base: &Base) -> Option<Result<Self>> {
        None
    }

    /// The configuration of a new method over `base` with what its start decided: ranks that the data
    /// gave. It is what is saved.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    fn settled(&self, _method: &Self::Method, _base: &Base) -> Result<Self> {
        Ok(self.clone())
    }

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

    /// The fields that say how large the method is over `base`, checked before anything so large is
    /// made.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    fn sizes(&self, _base: &Base) -> Result<Vec<Size>> {
        Ok(Vec::new())
    }

    /// A freshly initialised method, its parameters on the context's device.
    ///
    /// # Errors
    /// If the configuration is invalid or fits nothing in the base.
    fn init(&self, context: &InitContext<'_>) -> Result<Self::Method>;
}
