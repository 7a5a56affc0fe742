//! Run files: a training run in one TOML file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use peft::data::{Columns, Goal, Layout, Template};
use peft::format::Composition;
use peft::models::Precision;
use peft::train::TrainSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A training run. Flags of the same names win over it.
///
/// ```toml
/// model = "minilm"
/// method = "lora"
/// seed = 0
///
/// [method_settings]
/// r = 8
/// lora_alpha = 16
///
/// [data]
/// train = "train.tsv"
/// test = "test.tsv"
/// columns = ["text", "label"]
///
/// [train]
/// epochs = 3
/// lr = 1e-3
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunFile {
    /// The model; none: what the adapters below were made for, or else `minilm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Precision of its frozen weights: `f32`, `f16`, `8bit`, `4bit`, or `stored`.
    pub load_in: Precision,
    /// The method.
    pub method: String,
    /// The seed of everything that is random.
    pub seed: u64,
    /// Adapters under the one that is trained, which stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<PathBuf>,
    /// How they are composed with it: `stack` or `fuse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose: Option<Composition>,
    /// Settings of the method, as adapter_config.json has them; `"null"` for null, which TOML lacks.
    pub method_settings: Map<String, Value>,
    /// The data.
    pub data: DataSettings,
    /// How to train.
    pub train: TrainSettings,
}

impl Default for RunFile {
    fn default() -> Self {
        Self {
            model: None,
            load_in: Precision::Stored,
            method: "lora".into(),
            seed: 0,
            method_settings: Map::new(),
            adapters: Vec::new(),
            compose: None,
            data: DataSettings::default(),
            train: TrainSettings::default(),
        }
    }
}

/// The data of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Training data; none: the built-in data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// Validation data, which choose the best epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<PathBuf>,
    /// Test data, measured at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The task.
    pub task: Goal,
    /// The columns of the files.
    pub columns: Columns,
    /// The template of a text, if it is not a single column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// The columns of the validation file, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_columns: Option<Columns>,
    /// The columns of the test file, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_columns: Option<Columns>,
    /// The share of the training file to validate on, if no file is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_split: Option<f64>,
    /// The share of the training file to test on, if no file is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_split: Option<f64>,
    /// Texts are cut to this many tokens.
    pub max_length: usize,
    /// Tokens added to the tokenizer; `auto`: every symbol in the target texts that it cannot
    /// encode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_tokens: Vec<String>,
    /// Only the first examples of the training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            train: None,
            valid: None,
            test: None,
            task: Goal::Classify,
            columns: Columns::default(),
            template: None,
            valid_columns: None,
            test_columns: None,
            valid_split: None,
            test_split: None,
            max_length: 128,
            add_tokens: Vec::new(),
            limit: None,
        }
    }
}

impl DataSettings {
    /// The layout of a file with columns of its own; otherwise the same.
    pub fn layout(&self, own: &Option<Columns>) -> Layout {
        let columns = own.as_ref().unwrap_or(&self.columns).clone();
        Layout { columns, template: self.template.clone() }
    }
}

impl RunFile {
    /// The run on the built-in data set, with settings for its small size.
    pub fn built_in() -> Self {
        let train = TrainSettings {
            epochs: 10,
            batch_size: 16,
            lr: Some(5e-3),
            ..TrainSettings::default()
        };
        let mut method_settings = Map::new();
        method_settings.insert("lora_alpha".into(), 16.into());
        Self { method_settings, train, ..Self::default() }
    }

    /// Reads a run file; paths in it are relative to the working directory, as flags are.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut run: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let is_null = |value: &&mut Value| **value == NULL;
        run.method_settings.values_mut().filter(is_null).for_each(|value| *value = Value::Null);
        Ok(run)
    }

    /// The file's text.
    pub fn to_text(&self) -> anyhow::Result<String> {
        let mut run = self.clone();
        let nulls = run.method_settings.values_mut().filter(|value| value.is_null());
        nulls.for_each(|value| *value = NULL.into());
        Ok(toml::to_string_pretty(&run)?)
    }
}

/// TOML has no null.
const NULL: &str = "null";
