//! Run files: a training run in one TOML file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use peft::data::{Columns, Goal, Layout, Template};
use peft::format::{AdapterConfig, Registry};
use peft::models::Precision;
use peft::train::TrainSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::models::hub_name;
use crate::options::{ComposeName, DEFAULT_MODEL, canonical};
use crate::prompt;

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
    /// Precision of its frozen weights: `f32`, `bf16`, `f16`, `8bit`, `4bit`, or `stored`.
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
    pub compose: Option<ComposeName>,
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
    pub fn load(path: &Path, registry: &Registry) -> anyhow::Result<Self> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(shown)?;
        let mut run: Self = toml::from_str(&text).with_context(shown)?;
        for (key, value) in &mut run.method_settings {
            if !is_finite(value) {
                bail!("{}: method_settings.{key}: must be finite", shown());
            }
            named_nulls(value);
        }
        run.method_settings =
            canonical(registry, &run.method, run.method_settings).with_context(shown)?;
        Ok(run)
    }

    /// The file's text.
    pub fn to_text(&self) -> anyhow::Result<String> {
        let data = &self.data;
        let paths = [&data.train, &data.valid, &data.test].into_iter().flatten();
        if let Some(path) = paths.chain(&self.adapters).find(|path| path.to_str().is_none()) {
            bail!("{}: the path is not UTF-8, and a run file cannot name it", path.display());
        }
        let mut run = self.clone();
        run.method_settings.values_mut().for_each(nulls_by_name);
        Ok(toml::to_string_pretty(&run)?)
    }

    /// The run over the model of this name with everything that the method has by default, and the
    /// configuration of its adapter: what was run can be read and gone on with, whatever becomes of
    /// the defaults.
    pub fn complete(
        &self,
        registry: &Registry,
        model: &str,
    ) -> anyhow::Result<(Self, AdapterConfig)> {
        let mut run = Self { model: Some(model.into()), ..self.clone() };
        prompt::start(&run.method, &mut run.method_settings, run.data.task, model);
        let config = AdapterConfig::configure(registry, &run.method, run.method_settings.clone())?;
        for (field, value) in config.method.to_fields() {
            if !value.is_null() {
                run.method_settings.entry(field).or_insert(value);
            }
        }
        run.train.lr.get_or_insert(config.method.learning_rate());
        Ok((run, config))
    }

    /// Refuses to go on with the run that `saved` describes under other settings.
    pub fn refuse_changes(&self, saved: &Self, registry: &Registry) -> anyhow::Result<()> {
        let of_saved = saved.model.as_deref().unwrap_or(DEFAULT_MODEL);
        let all = |run: &Self| -> anyhow::Result<Value> {
            let model = hub_name(run.model.as_deref().unwrap_or(of_saved));
            let (run, config) = run.complete(registry, model)?;
            // Whether it is written out or not.
            let method_settings = config.method.to_fields();
            Ok(serde_json::to_value(Self { method_settings, ..run })?)
        };
        let mut changes = Vec::new();
        differences("", &all(saved)?, &all(self)?, &mut changes);
        match changes.is_empty() {
            true => Ok(()),
            false => bail!(
                "the run was started with other settings: {}; resume with the same, or start in \
                 another directory",
                changes.join(", ")
            ),
        }
    }
}

/// The fields of two objects that differ, with both values.
fn differences(name: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let value = |fields: &Map<String, Value>| fields.get(key).cloned();
                let [old, new] = [value(old), value(new)].map(Option::unwrap_or_default);
                differences(&name, &old, &new, found);
            }
        }
        _ if old == new || is_same_path(old, new) => {}
        _ => found.push(format!("{name} = {new}, which was {old}")),
    }
}

/// Whether two values are paths to the same file.
fn is_same_path(a: &Value, b: &Value) -> bool {
    let whole = |path: &Value| std::fs::canonicalize(path.as_str()?).ok();
    whole(a).is_some() && whole(a) == whole(b)
}

/// TOML has no null.
const NULL: &str = "null";

/// Whether a value of a TOML file is a number, if it is one: `nan` and `inf` are read as null, which
/// TOML has not.
fn is_finite(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().all(is_finite),
        Value::Object(fields) => fields.values().all(is_finite),
        _ => true,
    }
}

fn named_nulls(value: &mut Value) {
    each_value(value, &|value| {
        if *value == NULL {
            *value = Value::Null;
        }
    });
}

fn nulls_by_name(value: &mut Value) {
    each_value(value, &|value| {
        if value.is_null() {
            *value = NULL.into();
        }
    });
}

/// Changes every value within one.
fn each_value(value: &mut Value, change: &impl Fn(&mut Value)) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| each_value(value, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| each_value(value, change)),
        _ => change(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_run_file_of_any_method_is_read_back_as_the_same_run() {
        let registry = peft::registry();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.toml");
        for entry in registry.methods() {
            let model = Some("model".into());
            let run = RunFile { model, method: entry.name.into(), ..RunFile::default() };
            let (whole, config) = run.complete(&registry, "model").expect(entry.name);
            assert_eq!(whole.train.lr, Some(config.method.learning_rate()), "{}", entry.name);
            let set = |(_, value): &(String, Value)| !value.is_null();
            for (field, value) in config.method.to_fields().into_iter().filter(set) {
                assert_eq!(whole.method_settings.get(&field), Some(&value), "{}", entry.name);
            }
            std::fs::write(&path, whole.to_text().expect(entry.name)).expect("written");
            let read = RunFile::load(&path, &registry).expect(entry.name);
            let (again, of_read) = read.complete(&registry, "model").expect(entry.name);
            assert_eq!(again, whole, "{}", entry.name);
            assert_eq!(of_read.to_fields(), config.to_fields(), "{}", entry.name);
            run.refuse_changes(&read, &registry).expect(entry.name);
            read.refuse_changes(&run, &registry).expect(entry.name);
        }
    }

    #[test]
    fn every_setting_that_differs_is_named_with_both_values() {
        let registry = peft::registry();
        let saved = RunFile::default();
        let changed = |change: &dyn Fn(&mut RunFile), shown: &str| {
            let mut run = saved.clone();
            change(&mut run);
            let error = run.refuse_changes(&saved, &registry).expect_err(shown).to_string();
            assert!(error.contains("other settings") && error.contains(shown), "{error}");
        };
        changed(&|run| run.train.epochs = 7, "train.epochs = 7, which was 3");
        changed(&|run| run.train.lr = Some(0.5), "train.lr = 0.5, which was 0.001");
        changed(&|run| run.method = "ia3".into(), "method = \"ia3\", which was \"lora\"");
        changed(
            &|run| run.data.train = Some("a.tsv".into()),
            "data.train = \"a.tsv\", which was null",
        );
        changed(&|run| run.load_in = Precision::Half, "load_in = ");
        changed(&|run| run.model = Some("other".into()), "model = \"other\"");
        let rank = |run: &mut RunFile| drop(run.method_settings.insert("r".into(), 3.into()));
        changed(&rank, "method_settings.r = 3, which was 8");
        // What is as by default, or under its short name, is the same.
        let mut run = saved.clone();
        run.method_settings.insert("r".into(), 8.into());
        run.model = Some(DEFAULT_MODEL.into());
        run.train.lr = Some(1e-3);
        run.refuse_changes(&saved, &registry).expect("the same");
    }

    #[test]
    fn what_is_not_finite_or_set_twice_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.toml");
        let cases = [
            ("lora_alpha = nan", "lora_alpha"),
            ("lora_dropout = -inf", "lora_dropout"),
            ("rank_pattern = { query = inf }", "rank_pattern"),
            ("r = 4\nrank = 8", "r is set to 4 already"),
        ];
        for (settings, shown) in cases {
            std::fs::write(&path, format!("[method_settings]\n{settings}\n")).expect("written");
            let error = RunFile::load(&path, &peft::registry()).expect_err(settings);
            assert!(format!("{error:#}").contains(shown), "{error:#}");
        }
    }

    /// Values that a setting may be given by mistake.
    const VALUES: [&str; 16] = [
        "0",
        "-1",
        "1e308",
        "9223372036854775807",
        "0.5",
        "true",
        "\"\"",
        "\"null\"",
        "\"all\"",
        "[]",
        "[1, \"a\"]",
        "{}",
        "{ a = 1 }",
        "\"\\u0000\"",
        "1979-05-27",
        "nan",
    ];

    /// The run file of a method, whole, with some lines given another value, lost or doubled, and cut
    /// off at a byte.
    fn edited(method: usize, edits: &[(usize, usize)], cut: Option<usize>) -> Vec<u8> {
        let registry = peft::registry();
        let methods: Vec<&str> = registry.methods().map(|entry| entry.name).collect();
        let method = methods[method % methods.len()].to_string();
        let run = RunFile { method, ..RunFile::default() };
        let (whole, _) = run.complete(&registry, "model").expect("the defaults");
        let text = whole.to_text().expect("it can be written");
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        for &(line, what) in edits {
            let line = line % lines.len();
            let Some((name, _)) = lines[line].split_once(" = ") else { continue };
            match VALUES.get(what % (VALUES.len() + 2)) {
                Some(value) => lines[line] = format!("{name} = {value}"),
                None if what % 2 == 0 => drop(lines.remove(line)),
                None => lines.insert(line, lines[line].clone()),
            }
        }
        let mut bytes = lines.join("\n").into_bytes();
        bytes.truncate(cut.map_or(bytes.len(), |at| at % (bytes.len() + 1)));
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever stands in a run file, it is an error, or a run that is written and read as it is.
        #[test]
        fn an_edited_run_file_is_refused_or_means_one_run(
            method in 0usize..1000,
            edits in prop::collection::vec((0usize..1000, 0usize..1000), 0..4),
            cut in prop::option::weighted(0.2, 0usize..10_000),
        ) {
            let registry = peft::registry();
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("run.toml");
            std::fs::write(&path, edited(method, &edits, cut)).expect("written");
            let Ok(run) = RunFile::load(&path, &registry) else { return Ok(()) };
            prop_assume!(run.train.validate().is_ok());
            let Ok((whole, config)) = run.complete(&registry, "model") else { return Ok(()) };
            std::fs::write(&path, whole.to_text().expect("it can be written")).expect("written");
            let read = RunFile::load(&path, &registry).expect("it was written");
            prop_assert_eq!(&read, &whole);
            let (_, of_read) = read.complete(&registry, "model").expect("it was complete");
            prop_assert_eq!(of_read.to_fields(), config.to_fields());
        }
    }
}
