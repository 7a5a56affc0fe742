//! The method trait: what a method is beside its hooks.

use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::closed::open_and_closed;
use crate::{
    Base, BoxedMethod, Error, Exchange, Hooks, InitContext, LossContext, Result, Site, Size,
    StepContext,
};

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

impl Change {
    /// What several methods change together at a site. Upper bounds: two masks may choose different
    /// entries, two low ranks add up.
    pub(crate) fn together(site: &Site, changes: impl Iterator<Item = Self>) -> Self {
        let [d_in, d_out] = site.shape;
        changes.fold(Self::default(), |sum, change| Self {
            weight: (sum.weight + change.weight).min(d_in * d_out),
            bias: (sum.bias + change.bias).min(d_out),
            rank: (sum.rank + change.rank).min(d_in.min(d_out)),
        })
    }
}

open_and_closed! {
    /// A parameter-efficient fine-tuning method over one base model.
    ///
    /// It is a Burn [`Module`](burn::module::Module) that holds everything it trains (optimizers,
    /// records and devices traverse it as any other), with [`Hooks`] that say what it does. It never
    /// holds a trained copy of what it does not train.
    ///
    /// All of its state is in [`Param`](burn::module::Param)s, of whole numbers too: a checkpoint
    /// keeps the parameters and nothing else, and a run that is resumed from it does the same steps
    /// again.
    ///
    /// # Life cycle
    ///
    /// [`MethodConfig::init`] → for each step: forward, [`loss`](Self::loss) added to that of the
    /// task, optimizer, [`after_step`](Self::after_step) → [`finish`](Self::finish).
    trait Method: Hooks;
    /// [`Method`] without defaults, for composites and boxes.
    trait AllMethod;
    use self;

    /// Names each of the method's tensors with its key in the adapter file. The same call writes the
    /// file, reads it, and lists what it should hold; see [`Exchange`].
    fn exchange[&mut self](file: &mut Exchange<'_>, base: &Base) {}

    /// Why the method cannot be merged into the base's weights, beside what its edits of linear
    /// layers say: it acts on more than weights and biases. `None` where it can.
    fn merge_obstacle[&self]() -> Option<String> {
        None
    }

    /// A term `[1]` added to the training loss.
    ///
    /// # Errors
    /// If a second pass fails.
    fn loss[&self](context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        Ok(None)
    }

    /// Called after each optimizer step.
    fn after_step[&mut self](context: &StepContext<'_>) {}

    /// Takes adapters that are below it into itself, and gives back those that it leaves below, in a
    /// stack: a fusion takes all of them, most methods none. What a method does only where it is the
    /// first of a stack, it does no more when there is something below.
    fn adopt[&mut self](below: Vec<BoxedMethod>) -> Vec<BoxedMethod> {
        below
    }

    /// Called once, after the last step.
    fn finish[&mut self]() {}

    /// Positions that the method puts before every text; the model's own limit is on the sum.
    fn virtual_tokens[&self]() -> usize {
        0
    }

    /// Factors on the learning rate: a list of (regular expression for the end of a parameter's
    /// path, whole components; factor). Empty for one rate.
    fn lr_factors[&self]() -> Vec<(String, f64)> {
        Vec::new()
    }
}

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
