//! `adapter_config.json`.

use std::collections::BTreeSet;
use std::path::Path;

use peft_core::{AnyConfig, Base, ModulesToSave, Role, TokenIndices};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::adapters::read_object;
use crate::{Error, Registry, Result, write_atomically};

/// What a model is asked to do, as HF PEFT tags it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskType {
    /// One label (or number) for a sequence.
    #[serde(rename = "SEQ_CLS")]
    SequenceClassification,
    /// One label for each token.
    #[serde(rename = "TOKEN_CLS")]
    TokenClassification,
    /// Hidden states.
    #[serde(rename = "FEATURE_EXTRACTION")]
    FeatureExtraction,
    /// The next token.
    #[serde(rename = "CAUSAL_LM")]
    CausalLm,
    /// A sequence from a sequence.
    #[serde(rename = "SEQ_2_SEQ_LM")]
    Seq2SeqLm,
    /// A span of a text.
    #[serde(rename = "QUESTION_ANS")]
    QuestionAnswering,
}

/// `adapter_config.json`: the fields that every method has, and the method's own.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// The task, which decides the head.
    pub task_type: Option<TaskType>,
    /// The base: a hub id or a directory.
    pub base_model_name_or_path: Option<String>,
    /// The base's revision on the hub.
    pub revision: Option<String>,
    /// Modules trained as a whole and saved with the adapter.
    pub modules_to_save: Vec<String>,
    /// Rows of embeddings trained and saved with the adapter.
    pub trainable_token_indices: TokenIndices,
    /// Whether a head that is tied to an embedding stays so where either is trained as a whole.
    pub ensure_weight_tying: bool,
    /// The method's own configuration.
    pub method: Box<dyn AnyConfig>,
}

/// Fields of HF PEFT's that change nothing here while they have these values; `null`, `false` and
/// empty ones never do.
const INERT: &[(&str, &str)] = &[
    ("inference_mode", "*"),
    // How the method began, or where its weights were held in training.
    ("runtime_config", "*"),
    ("megatron_core", "\"megatron.core\""),
    ("qalora_group_size", "*"),
    ("num_layers", "*"),
    ("token_dim", "*"),
    ("peft_version", "*"),
    ("auto_mapping", "*"),
];

const MODULES: &str = "modules_to_save";
const TYING: &str = "ensure_weight_tying";

impl AdapterConfig {
    /// A configuration for a new adapter.
    pub fn new(method: Box<dyn AnyConfig>) -> Self {
        Self {
            task_type: None,
            base_model_name_or_path: None,
            revision: None,
            modules_to_save: Vec::new(),
            trainable_token_indices: TokenIndices::default(),
            ensure_weight_tying: false,
            method,
        }
    }

    /// A configuration from fields as a user sets them: those of the method `name`, and those that
    /// every adapter has (`modules_to_save`, `trainable_token_indices`, `ensure_weight_tying`).
    ///
    /// # Errors
    /// An unknown name, an unknown field, or a value that cannot be right.
    pub fn configure(
        registry: &Registry,
        name: &str,
        mut fields: Map<String, Value>,
    ) -> Result<Self> {
        let modules: Option<Vec<String>> = take(&mut fields, MODULES)?;
        let rows: Option<TokenIndices> = take(&mut fields, TokenIndices::FIELD)?;
        let tying = tying(&mut fields, &registry.fields_of(name)?)?;
        let mut config = Self::new(registry.configure(name, fields)?);
        config.modules_to_save = modules.unwrap_or_default();
        config.trainable_token_indices = rows.unwrap_or_default();
        config.ensure_weight_tying = tying;
        Ok(config)
    }

    /// With a task, and with the modules that are saved for it beside those that are already: that of
    /// question answering, or the head of a classifier, as HF PEFT calls it, or as `base` does where it has a head of another
    /// name.
    pub fn with_task(mut self, task: TaskType, base: &Base) -> Self {
        self.task_type = Some(task);
        let head = match task {
            TaskType::SequenceClassification | TaskType::TokenClassification => {
                classifier_names(base)
            }
            TaskType::QuestionAnswering => vec![ANSWERS.to_string()],
            _ => Vec::new(),
        };
        if !head.is_empty() {
            let own = std::mem::replace(&mut self.modules_to_save, head);
            let others = own.into_iter().filter(|name| !self.modules_to_save.contains(name));
            let others: Vec<String> = others.collect();
            self.modules_to_save.extend(others);
        }
        self
    }

    /// The names of `modules_to_save` that select nothing in `base`. HF PEFT has two for the head of
    /// a classifier, whatever the model calls it.
    pub(crate) fn unmatched_modules(&self, base: &Base) -> Vec<peft_core::Error> {
        let names = &self.modules_to_save;
        let of_any_model = CLASSIFIERS.iter().all(|name| names.iter().any(|other| other == name));
        let unmatched = ModulesToSave::unmatched(base, names).into_iter();
        let unmatched = unmatched.filter(|name| !(of_any_model && CLASSIFIERS.contains(name)));
        let mut available: Vec<&str> = base.sites().map(|site| site.name()).collect();
        available.sort_unstable();
        available.dedup();
        unmatched
            .map(|name| peft_core::Error::NoMatch {
                field: MODULES.into(),
                pattern: name.into(),
                what: "module".into(),
                available: available.join(", "),
            })
            .collect()
    }

    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// A file that is not JSON, a tag that no registered method has, a field that asks for
    /// something not supported.
    pub fn load(path: &Path, registry: &Registry) -> Result<Self> {
        Self::from_fields(read_object(path)?, registry, &path.display().to_string())
    }

    /// What the fields of the file that is called `origin` say.
    pub(crate) fn from_fields(
        mut fields: Map<String, Value>,
        registry: &Registry,
        origin: &str,
    ) -> Result<Self> {
        let Some(Value::String(peft_type)) = fields.remove("peft_type") else {
            return Err(Error::file(origin, "no peft_type: not the configuration of an adapter"));
        };
        let task_type = take(&mut fields, "task_type")?;
        let base_model_name_or_path = take(&mut fields, "base_model_name_or_path")?;
        let revision = take(&mut fields, "revision")?;
        let modules_to_save: Option<Vec<String>> = take(&mut fields, MODULES)?;
        let trainable_token_indices: Option<TokenIndices> = take(&mut fields, TokenIndices::FIELD)?;
        // What the method knows goes to it; the rest must ask for nothing.
        let known = registry.field_names(&peft_type)?;
        let ensure_weight_tying = tying(&mut fields, &known)?;
        let (own, rest): (Map<_, _>, Map<_, _>) =
            fields.into_iter().partition(|(field, _)| known.contains(field));
        for (field, value) in rest {
            if !is_inert(&field, &value) {
                let (value, origin) = (value.to_string(), origin.to_string());
                return Err(peft_core::Error::Unsupported { field, value, origin }.into());
            }
        }
        Ok(Self {
            task_type,
            base_model_name_or_path,
            revision,
            modules_to_save: modules_to_save.unwrap_or_default(),
            trainable_token_indices: trainable_token_indices.unwrap_or_default(),
            ensure_weight_tying,
            method: registry.configure_type(&peft_type, own)?,
        })
    }

    /// Without what is asked for tied tables. HF PEFT knows these by two names, and leaves those of other
    /// models apart: the files then have nothing of the head.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn not_tied(mut self, registry: &Registry) -> Result<Self> {
        self.ensure_weight_tying = false;
        let mut fields = self.method.to_fields();
        if fields.insert(TYING.into(), false.into()).is_some() {
            self.method = registry.configure_type(self.method.peft_type(), fields)?;
        }
        Ok(self)
    }

    /// The fields of the file, in alphabetical order as HF PEFT writes them.
    pub fn to_fields(&self) -> Map<String, Value> {
        let mut fields = self.method.to_fields();
        let modules = &self.modules_to_save;
        let common = [
            ("peft_type", Value::from(self.method.peft_type())),
            ("task_type", serde_json::to_value(self.task_type).unwrap_or_default()),
            ("base_model_name_or_path", self.base_model_name_or_path.clone().into()),
            ("revision", self.revision.clone().into()),
            ("inference_mode", Value::Bool(true)),
            ("auto_mapping", Value::Null),
            (
                "modules_to_save",
                if modules.is_empty() { Value::Null } else { modules.clone().into() },
            ),
        ];
        if !self.trainable_token_indices.is_empty() {
            let tokens = serde_json::to_value(&self.trainable_token_indices).unwrap_or_default();
            fields.insert(TokenIndices::FIELD.into(), tokens);
        }
        if self.ensure_weight_tying {
            fields.insert(TYING.into(), true.into());
        }
        fields.extend(common.map(|(field, value)| (field.to_string(), value)));
        let mut sorted: Vec<_> = fields.into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        sorted.into_iter().collect()
    }

    /// Writes `adapter_config.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_string_pretty(&self.to_fields()).map_err(|e| Error::file(path, e))?;
        write_atomically(path, |file| writeln!(file, "{text}"))
    }
}

/// What the head of a classifier is called in the reference, whatever the model; T5's and BART's has
/// another name, and there it stays as it was initialised.
const CLASSIFIERS: [&str; 2] = ["classifier", "score"];
/// And for that of question answering.
const ANSWERS: &str = "qa_outputs";

fn classifier_names(base: &Base) -> Vec<String> {
    let usual = CLASSIFIERS.map(String::from);
    let heads = || base.sites().filter(|site| site.role == Role::Head);
    if heads().next().is_none() || heads().any(|site| ModulesToSave::selects(site, &usual)) {
        return usual.into();
    }
    let names: BTreeSet<&str> = heads().filter_map(|site| site.path.split('.').next()).collect();
    names.into_iter().map(String::from).collect()
}

/// Whether what is tied stays so; the field is left to a method that has it too.
fn tying(fields: &mut Map<String, Value>, known: &[String]) -> Result<bool> {
    let field = fields.get(TYING).cloned();
    let tying = match field.as_ref().and_then(Value::as_f64) {
        // As Python has it.
        Some(on @ (0.0 | 1.0)) => Some(on == 1.0),
        _ => take(fields, TYING)?,
    };
    fields.remove(TYING);
    if let Some(field) = field.filter(|_| known.iter().any(|name| name == TYING)) {
        fields.insert(TYING.into(), field);
    }
    Ok(tying.unwrap_or_default())
}

fn take<T: for<'de> Deserialize<'de>>(
    fields: &mut Map<String, Value>,
    field: &str,
) -> Result<Option<T>> {
    let value = fields.remove(field).unwrap_or(Value::Null);
    let shown = value.to_string();
    Ok(serde_json::from_value(value)
        .map_err(|e| peft_core::Error::config(field, shown, e.to_string()))?)
}

fn is_inert(field: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) if values.is_empty() => true,
        Value::Object(fields) if fields.is_empty() => true,
        _ => {
            let shown = value.to_string();
            INERT.iter().any(|(name, inert)| *name == field && ["*", &shown].contains(inert))
        }
    }
}
