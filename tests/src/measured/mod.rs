//! What `cargo xtask bench compare` measures of this library, each in a process of its own: the
//! program `bench-ours`, which is told what to do by a JSON object and prints what it took.

mod burn;
mod drawn;
mod generate;
mod infer;
mod products;
mod step;
mod switch;

use std::path::PathBuf;

use anyhow::Result;
use peft::models::Precision;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is to be measured. What a measurement does not need it does not look at.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// Which measurement.
    pub what: What,
    /// The model's directory.
    pub model: PathBuf,
    /// The method's name, and its settings as `adapter_config.json` has them.
    pub method: String,
    /// Its settings.
    pub settings: Map<String, Value>,
    /// Adapters in slots, each for rows of its own; 1: one method for all rows.
    pub adapters: usize,
    /// Texts in a batch.
    pub rows: usize,
    /// Tokens of each text.
    pub tokens: usize,
    /// Tokens that are generated.
    pub new_tokens: usize,
    /// Training steps, rounds of inference.
    pub steps: usize,
    /// What linear layers are computed in: `f32` or `bf16`.
    pub dtype: Precision,
    /// Settings of training, over those of a comparison.
    pub train: Map<String, Value>,
    /// A directory that is written to.
    pub out: PathBuf,
    /// Matrices, `[tokens, d_in, d_out]`.
    pub shapes: Vec<[usize; 3]>,
    /// Of an encoder of Burn's: layers, width, inner width, heads.
    pub sizes: [usize; 4],
}

impl Default for Order {
    fn default() -> Self {
        Self {
            what: What::Step,
            model: PathBuf::new(),
            method: "lora".into(),
            settings: Map::new(),
            adapters: 1,
            rows: 32,
            tokens: 128,
            new_tokens: 128,
            steps: 7,
            dtype: Precision::Full,
            train: Map::new(),
            out: PathBuf::new(),
            shapes: Vec::new(),
            sizes: [0; 4],
        }
    }
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Steps of training.
    Step,
    /// The same forward pass under different methods.
    Infer,
    /// A prompt, and the tokens that follow it.
    Generate,
    /// Loading another adapter beside loading the model.
    Switch,
    /// Matrix products.
    Products,
    /// Steps of training with what Burn itself has.
    Burn,
}

/// Measures what is ordered.
///
/// # Errors
/// If the model or the method cannot be had, or the order makes no sense.
pub fn measure(order: &Order) -> Result<Value> {
    match order.what {
        What::Step => step::measure(order),
        What::Infer => infer::measure(order),
        What::Generate => generate::measure(order),
        What::Switch => switch::measure(order),
        What::Products => products::measure(order),
        What::Burn => burn::measure(order),
    }
}
