//! What a configuration must not ask for.

use peft_core::Activation;
use serde::Deserialize;
use serde_json::Value;

use super::values::shown;
use super::{Architecture, ModelConfig, Task};
use crate::{Error, Result};

/// The largest size of anything: two such sizes have a product.
const LARGEST: usize = 1 << 31;

/// Shares of what is dropped, under the names that the architectures have for them.
const DROPOUTS: &[&str] = &[
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "seq_classif_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "dropout_rate",
];

/// What norms add to a variance.
const EPSILONS: &[&str] = &["layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"];

/// Types of PyTorch, by the names that `dtype` has for them.
const TYPES: &[&str] = &[
    "float32",
    "float",
    "float16",
    "half",
    "bfloat16",
    "float64",
    "double",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
];

/// Indices of tokens that a model is given, or looks for.
const TOKENS: &[&str] = &["decoder_start_token_id", "eos_token_id", "bos_token_id"];

impl ModelConfig {
    /// Refuses what no model of any architecture can be asked for.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_quantization()?;
        self.check_class()?;
        self.numbers(DROPOUTS, "a probability, 0 to 1", |share| (0.0..=1.0).contains(&share))?;
        // Numbers are f32 where they are used.
        let is_added = |epsilon: f64| epsilon >= 0.0 && (epsilon as f32).is_finite();
        self.numbers(EPSILONS, "a number that is not negative", is_added)?;
        let deviations = &["initializer_range", "init_std"];
        self.numbers(deviations, "a number that is not negative", |deviation| deviation >= 0.0)?;
        self.numbers(TOKENS, "the index of a token", |id| id <= f64::from(u32::MAX))?;
        self.numbers(&["num_labels"], "a whole number", |labels| labels.fract() == 0.0)?;
        self.problem_type()?;
        if self.field("label2id").is_some_and(|labels| !labels.is_object()) {
            return Err(self.unsupported("label2id", "an object, index by label"));
        }
        if self.own_task().labels() == Some(0) {
            return Err(self.unsupported("num_labels", "1 or more"));
        }
        self.check_type()?;
        self.check_padding()?;
        self.check_pruned()
    }

    /// Refuses a token for padding that the table of words does not have; from -1 on, indices are
    /// counted from its end.
    fn check_padding(&self) -> Result<()> {
        let words = self.vocab_size as f64;
        let pads = !matches!(self.model_type, Architecture::Gpt2 | Architecture::T5);
        let outside = |pad: f64| !(-words..words).contains(&pad);
        if pads && self.field("pad_token_id").and_then(Value::as_f64).is_some_and(outside) {
            let supported = format!("below vocab_size ({})", self.vocab_size);
            return Err(self.unsupported("pad_token_id", supported));
        }
        // RoBERTa's positions are counted behind it.
        let counts = matches!(self.model_type, Architecture::Roberta | Architecture::XlmRoberta);
        if counts && self.field("pad_token_id").is_none() {
            return Err(self.unsupported("pad_token_id", "the index of the token"));
        }
        Ok(())
    }

    /// Refuses a type that PyTorch does not have; what the checkpoint's tensors are, they say
    /// themselves.
    fn check_type(&self) -> Result<()> {
        let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
        match self.field("dtype") {
            Some(found) if !known(found) => Err(self.unsupported("dtype", TYPES.join(", "))),
            _ => Ok(()),
        }
    }

    /// Refuses heads that are to be taken out after loading.
    fn check_pruned(&self) -> Result<()> {
        let has_heads = |heads: &Value| heads.as_array().is_none_or(|heads| !heads.is_empty());
        let layers = self.field("pruned_heads").and_then(Value::as_object);
        match layers.is_some_and(|layers| layers.values().any(has_heads)) {
            true => Err(self.unsupported("pruned_heads", "heads that are there as they are")),
            false => Ok(()),
        }
    }

    fn numbers(&self, fields: &[&str], expected: &str, fits: impl Fn(f64) -> bool) -> Result<()> {
        let wrong = fields.iter().find(|field| {
            let number = self.field(field).and_then(Value::as_f64);
            number.is_some_and(|number| !fits(number))
        });
        wrong.map_or(Ok(()), |field| Err(self.unsupported(field, expected)))
    }

    /// Refuses weights that another program has packed.
    fn check_quantization(&self) -> Result<()> {
        let Some(found) = self.field("quantization_config") else { return Ok(()) };
        let on = |field: &str| found.get(field).and_then(Value::as_bool).unwrap_or(false);
        let bits = on("load_in_4bit") || on("load_in_8bit");
        let method = match found.get("quant_method").and_then(Value::as_str) {
            // Said of weights that are as they were.
            None | Some("bitsandbytes") if found.get("load_in_4bit").is_some() && !bits => {
                return Ok(());
            }
            None if bits => "bitsandbytes".into(),
            Some(method) => method.to_string(),
            None => shown(found),
        };
        Err(Error::Unsupported {
            path: self.path.clone(),
            field: "quantization_config".into(),
            value: method,
            supported: "weights that are not packed, or a .gguf file".into(),
        })
    }

    /// Refuses a class of another architecture.
    fn check_class(&self) -> Result<()> {
        let Some(class) = self.saved_class() else { return Ok(()) };
        let is_own = |architecture: Architecture| {
            let own = architecture.class();
            class.get(..own.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(own))
        };
        let is_own = match self.model_type {
            // The same model.
            Architecture::Roberta | Architecture::XlmRoberta => {
                is_own(Architecture::Roberta) || is_own(Architecture::XlmRoberta)
            }
            architecture => is_own(architecture),
        };
        match is_own {
            true => Ok(()),
            false => {
                let own = self.model_type.class();
                Err(self.unsupported(
                    "architectures",
                    format!("{own}... beside model_type = {:?}", self.model_type.name()),
                ))
            }
        }
    }

    /// Refuses a task that models of this architecture do not have.
    pub(crate) fn check_task(&self, task: Task) -> Result<()> {
        let known = self.model_type.tasks(2);
        let same = |known: &Task| std::mem::discriminant(known) == std::mem::discriminant(&task);
        if known.iter().any(same) {
            return Ok(());
        }
        let classes: Vec<String> = known.into_iter().map(|known| self.class_name(known)).collect();
        Err(Error::Unsupported {
            path: self.path.clone(),
            field: "architectures".into(),
            value: self.class_name(task),
            supported: classes.join(", "),
        })
    }

    /// An error that names the field.
    pub(crate) fn unsupported(&self, field: &str, supported: impl Into<String>) -> Error {
        Error::Unsupported {
            path: self.path.clone(),
            field: field.into(),
            value: shown(self.all.get(field).unwrap_or(&Value::Null)),
            supported: supported.into(),
        }
    }

    /// Refuses a field that is there with another value than these; 0 is `false`, and 1 `true`.
    pub(crate) fn only(&self, field: &str, values: &[&str]) -> Result<()> {
        let is_switch = values.iter().any(|value| ["false", "true"].contains(value));
        let shown = |value: &Value| match (value.as_u64(), value.as_str()) {
            (Some(on @ (0 | 1)), _) if is_switch => (on == 1).to_string(),
            // Any text is true in Python.
            (_, Some(text)) if !is_switch => text.into(),
            _ => value.to_string(),
        };
        match self.all.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if values.contains(&shown(value).as_str()) => Ok(()),
            Some(_) => Err(self.unsupported(field, values.join(", "))),
        }
    }

    /// A switch; 0 and `null` are off.
    pub(crate) fn switched_on(&self, field: &str) -> Result<bool> {
        let Some(value) = self.field(field) else { return Ok(false) };
        super::switch(value).map_err(|_| self.unsupported(field, "true or false"))
    }

    /// Refuses an activation that is not known.
    pub(crate) fn activation(&self, field: &str) -> Result<()> {
        match self.all.get(field) {
            Some(value) if Activation::deserialize(value).is_err() => {
                Err(self.unsupported(field, "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses sizes that no model has.
    pub(crate) fn sizes(&self, sizes: &[(&str, usize)]) -> Result<()> {
        match sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            Some((field, _)) => Err(self.unsupported(field, format!("1 to {LARGEST}"))),
            None => Ok(()),
        }
    }

    /// Refuses a number of heads that does not divide the width.
    pub(crate) fn heads(&self, field: &str, heads: usize) -> Result<()> {
        match heads > 0 && self.hidden_size.is_multiple_of(heads) {
            true => Ok(()),
            false => Err(self.unsupported(field, "a divisor of hidden_size")),
        }
    }
}
