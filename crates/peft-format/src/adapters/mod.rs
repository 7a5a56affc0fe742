//! The directory of adapter-hub/adapters.

mod head;

use std::path::{Path, PathBuf};

use head::{AdaptersHead, HEAD_CONFIG, HEAD_WEIGHTS};
use peft_core::{
    AdaptersModel, Base, BoxedMethod, Dialect, Exchange, Method, ModulesToSave, Role, SiteKind,
    TensorMap,
};
use serde_json::{Map, Value, json};

use crate::files::read_tensors;
use crate::{
    ADAPTER_CONFIG, Adapter, AdapterConfig, Error, Registry, Result, TaskType, write_atomically,
    write_safetensors,
};

const WEIGHTS: [&str; 2] = ["adapter.safetensors", "pytorch_adapter.bin"];
/// Where the fused adapters are, which the library's own configuration does not say: a field that
/// is added when a fusion is read.
const FUSION_PATHS: &str = "paths";
/// Whether the inverse of an invertible adapter acts, which a method's configuration says for its
/// file where there is such an adapter.
const INVERSE: &str = "inv_adapter_inverse";
const FUSION_CONFIG: &str = "adapter_fusion_config.json";
const FUSION_WEIGHTS: [&str; 2] =
    ["model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"];

impl Adapter {
    /// The model that the adapter in `directory` names as its base, in either layout: a Hugging Face
    /// id, with its revision where one is noted, or a path.
    ///
    /// # Errors
    /// If its configuration is missing or broken.
    pub fn made_for(directory: &Path) -> Result<Option<String>> {
        let fusion = directory.join(FUSION_CONFIG);
        let path = if fusion.exists() { fusion } else { directory.join(ADAPTER_CONFIG) };
        let fields = read_object(&path)?;
        let text = |field: &str| match fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(peft_core::Error::config(field, other, "must be a string")),
        };
        let base = match text("base_model_name_or_path")? {
            Some(base) => Some(base),
            None => text("model_name")?,
        };
        let revision = text("revision")?.filter(|revision| *revision != "main");
        Ok(base.map(|base| match revision {
            Some(revision) if !Path::new(base).exists() => format!("{base}@{revision}"),
            _ => base.to_string(),
        }))
    }
}

/// A directory in `adapters`' layout.
pub(crate) struct AdaptersDirectory {
    path: PathBuf,
    /// The adapter's name, or the names of the adapters that are fused.
    name: String,
    /// The method's own part of the configuration.
    config: Map<String, Value>,
    model: AdaptersModel,
    weights: PathBuf,
    head: Option<AdaptersHead>,
}

/// The configuration in a directory, by whose layout that has.
pub(crate) enum Layout {
    Adapters(Box<AdaptersDirectory>),
    /// HF PEFT's: what `adapter_config.json` holds.
    Peft(Map<String, Value>),
}

impl Layout {
    /// Opens `directory`.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let fusion = directory.join(FUSION_CONFIG);
        let is_fusion = fusion.exists();
        let path = if is_fusion { fusion } else { directory.join(ADAPTER_CONFIG) };
        let fields = read_object(&path)?;
        if fields.contains_key("peft_type") || !fields.contains_key("config") {
            return match is_fusion {
                true => read_object(&directory.join(ADAPTER_CONFIG)).map(Self::Peft),
                false => Ok(Self::Peft(fields)),
            };
        }
        let of = |e: serde_json::Error| Error::file(&path, e);
        let model: AdaptersModel =
            serde_json::from_value(Value::Object(fields.clone())).map_err(of)?;
        let mut config: Map<String, Value> =
            serde_json::from_value(fields["config"].clone()).map_err(of)?;
        let weights = if is_fusion { FUSION_WEIGHTS } else { WEIGHTS };
        if is_fusion {
            config.insert("architecture".into(), "fusion".into());
            let names = fields.get("adapter_names").cloned().unwrap_or_default();
            config.insert("adapter_names".into(), names);
        }
        let name = fields.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::file(&path, "no name of an adapter"))?.to_string();
        let weights = existing(directory, weights).ok_or_else(|| {
            Error::file(directory, format!("no weights: neither {}", weights.join(" nor ")))
        })?;
        if is_fusion {
            // The configuration does not say where the fused adapters are; the keys do.
            let tensors = read_tensors(&weights)?;
            let paths = tensors.keys().filter_map(|key| key.split_once(".adapter_fusion_layer."));
            let paths: Vec<Value> = paths.map(|(path, _)| path.into()).collect();
            config.insert(FUSION_PATHS.into(), Value::Array(paths));
        }
        note_model(&mut config, &model);
        let head = AdaptersHead::open(directory, &model.model_type)?;
        let theirs = AdaptersDirectory { path, name, config, model, weights, head };
        Ok(Self::Adapters(Box::new(theirs)))
    }
}

impl AdaptersDirectory {
    pub(crate) fn task(&self) -> Option<TaskType> {
        // The library's own classes have heads of every kind.
        if self.model.has_flexible_heads() {
            return self.head.as_ref().and_then(AdaptersHead::task);
        }
        let class = &self.model.model_class;
        let tasks = [
            ("ForSequenceClassification", TaskType::SequenceClassification),
            ("ForTokenClassification", TaskType::TokenClassification),
            ("ForQuestionAnswering", TaskType::QuestionAnswering),
            ("ForCausalLM", TaskType::CausalLm),
            ("LMHeadModel", TaskType::CausalLm),
            ("ForConditionalGeneration", TaskType::Seq2SeqLm),
            ("Model", TaskType::FeatureExtraction),
        ];
        tasks.into_iter().find(|(end, _)| class.ends_with(end)).map(|(_, task)| task)
    }

    /// The configuration in our terms.
    pub(crate) fn config(&self, registry: &Registry, base: &Base) -> Result<AdapterConfig> {
        let method = registry.configure_adapters(&self.config, base)?.ok_or_else(|| {
            let architecture = self.config.get("architecture").unwrap_or(&Value::Null);
            peft_core::Error::Unsupported {
                field: "architecture".into(),
                value: architecture.to_string(),
                origin: self.path.display().to_string(),
            }
        })?;
        let mut config = AdapterConfig::new(method);
        config.base_model_name_or_path =
            Some(self.model.model_name.clone()).filter(|n| !n.is_empty());
        match (&self.head, self.task()) {
            (Some(head), Some(task)) if !head.is_flexible() => {
                config.modules_to_save = head.of_body().collect();
                config = config.with_task(task, base)
            }
            (Some(_), None) => {}
            (_, task) => config.task_type = task,
        }
        Ok(config)
    }

    /// How keys are written here.
    pub(crate) fn dialect(&self) -> Dialect {
        Dialect::Adapters { adapter: self.name.clone(), prefix: self.model.key_prefix().into() }
    }

    /// Refuses a head that the model does not have.
    pub(crate) fn check_head(&self, base: &Base) -> Result<()> {
        self.head.as_ref().map_or(Ok(()), |head| head.check(base))
    }

    /// The tensors, the head's included, but not that of a language model: it is the base's own,
    /// which the library writes beside every adapter.
    pub(crate) fn tensors(&self) -> Result<TensorMap> {
        let mut tensors = read_tensors(&self.weights)?;
        let class = &self.model.model_class;
        let of_words = class.ends_with("ForMaskedLM")
            || matches!(self.task(), Some(TaskType::CausalLm | TaskType::Seq2SeqLm));
        if let Some(head) = self.head.as_ref().filter(|head| !of_words && !head.is_flexible()) {
            tensors.extend(head.tensors()?);
        }
        Ok(tensors)
    }

    /// The tensors of the head, if there is one.
    pub(crate) fn head_tensors(&self) -> Result<TensorMap> {
        self.head.as_ref().map_or_else(|| Ok(TensorMap::new()), AdaptersHead::tensors)
    }

    /// The file with the method's tensors, for messages.
    pub(crate) fn weights(&self) -> &Path {
        &self.weights
    }
}

impl Adapter {
    /// Writes the adapter as adapter-hub/adapters lays it out: the method under `name`, and the
    /// head in files of its own.
    ///
    /// # Errors
    /// If that library does not have the method, or a file cannot be written.
    pub fn save_as_adapters(
        &self,
        directory: &Path,
        name: &str,
        model: &AdaptersModel,
        base: &Base,
    ) -> Result<()> {
        let name_of_method = self.config.method.name();
        let refuse = |reason: String| {
            peft_core::Error::no_format(name_of_method, "adapter-hub/adapters", reason)
        };
        let (saved, method) = self.finished().parts();
        let embeds = saved.as_ref().and_then(|saved| saved.downcast_ref::<ModulesToSave>());
        if embeds.is_some_and(ModulesToSave::has_embeddings) {
            let reason = "it has no embeddings trained beside a method";
            return Err(refuse(reason.into()).into());
        }
        let mut config = self.config.method.to_adapters(base)?;
        let model = &match take_inverse(&mut config) {
            Some(inverts) => model.with_inverse(inverts).map_err(refuse)?,
            None => model.clone(),
        };
        let is_fusion = config.get("architecture") == Some(&Value::from("fusion"));
        // A fusion is called by what it fuses.
        let fused: Option<Vec<String>> = config
            .get("adapter_names")
            .and_then(|names| serde_json::from_value(names.clone()).ok())
            .filter(|names: &Vec<String>| is_fusion && !names.is_empty());
        let name = &fused.map_or(name.to_string(), |names| names.join(","));
        let written = |mut method: BoxedMethod| {
            let mut tensors = TensorMap::new();
            let dialect =
                Dialect::Adapters { adapter: name.clone(), prefix: model.key_prefix().into() };
            method.exchange(&mut Exchange::write(&mut tensors).in_dialect(dialect), base);
            tensors
        };
        let (head, own) = (saved.map_or_else(TensorMap::new, written), written(method));
        if !head.is_empty() {
            let labels = self.labels(base);
            let names: Map<String, Value> =
                (0..labels.unwrap_or(0)).map(|i| (format!("LABEL_{i}"), Value::from(i))).collect();
            write_safetensors(&directory.join(HEAD_WEIGHTS[0]), &head)?;
            let mut fields = described(model, Value::Null, None);
            fields.insert("label2id".into(), Value::Object(names));
            fields.insert("num_labels".into(), labels.into());
            write_object(&directory.join(HEAD_CONFIG), &fields)?;
        }
        let (weights, path) = if is_fusion {
            (FUSION_WEIGHTS[0], FUSION_CONFIG)
        } else {
            (WEIGHTS[0], ADAPTER_CONFIG)
        };
        write_safetensors(&directory.join(weights), &own)?;
        let names = match config.as_object_mut() {
            Some(fields) if is_fusion => {
                fields.remove("architecture");
                fields.remove("adapter_names")
            }
            _ => None,
        };
        let mut fields = described(model, config, Some(name));
        if let Some(names) = names {
            fields.insert("adapter_names".into(), names);
        }
        write_object(&directory.join(path), &fields)
    }

    /// The number of labels of a classifier: the outputs of its head's last layer.
    fn labels(&self, base: &Base) -> Option<usize> {
        use TaskType::{QuestionAnswering, SequenceClassification, TokenClassification};
        self.config.task_type.filter(|task| {
            matches!(task, SequenceClassification | TokenClassification | QuestionAnswering)
        })?;
        let layers = base.sites().filter(|site| site.kind == SiteKind::Linear);
        layers.filter(|site| site.role == Role::Head).last().map(|site| site.d_out())
    }
}

/// Adds what is known of the model to a method's configuration, and to those of a union: some of
/// what a method does depends on the class.
fn note_model(config: &mut Map<String, Value>, model: &AdaptersModel) {
    config.insert("model_class".into(), model.model_class.as_str().into());
    config.insert("model_type".into(), model.model_type.as_str().into());
    if let Some(Value::Array(parts)) = config.get_mut("configs") {
        parts.iter_mut().filter_map(Value::as_object_mut).for_each(|part| note_model(part, model));
    }
}

/// Takes out what a configuration, or a part of a union, says of the inverse of an invertible
/// adapter, which the library has no field for: the class says it.
fn take_inverse(config: &mut Value) -> Option<bool> {
    let fields = config.as_object_mut()?;
    let own = fields.remove(INVERSE).and_then(|inverts| inverts.as_bool());
    let parts = fields.get_mut("configs").and_then(Value::as_array_mut);
    let of_parts = parts.into_iter().flatten().filter_map(take_inverse);
    own.into_iter().chain(of_parts).reduce(|one, other| one && other)
}

fn described(model: &AdaptersModel, config: Value, name: Option<&str>) -> Map<String, Value> {
    let fields = json!({
        "config": config,
        "hidden_size": model.hidden_size,
        "model_class": model.model_class,
        "model_name": model.model_name,
        "model_type": model.model_type,
        "name": name,
        "version": "adapters.1.3.0",
    });
    match fields {
        Value::Object(fields) => fields,
        _ => unreachable!("an object"),
    }
}

pub(crate) fn existing(directory: &Path, names: [&str; 2]) -> Option<PathBuf> {
    names.map(|name| directory.join(name)).into_iter().find(|path| path.exists())
}

pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    match serde_json::from_str(&text).map_err(|e| Error::file(path, format!("not JSON: {e}")))? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::file(path, "not a JSON object")),
    }
}

fn write_object(path: &Path, fields: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(fields).map_err(|e| Error::file(path, e))?;
    write_atomically(path, |file| writeln!(file, "{text}"))
}
