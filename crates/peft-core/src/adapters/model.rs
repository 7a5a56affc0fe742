//! What adapter-hub/adapters notes about a model, and what follows from its class.

use serde::{Deserialize, Serialize};

/// What adapter-hub/adapters notes about the model of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdaptersModel {
    /// The class in transformers: `BertForSequenceClassification`.
    #[serde(default)]
    pub model_class: String,
    /// The id on the hub, or a path.
    #[serde(default)]
    pub model_name: String,
    /// The architecture: `bert`.
    #[serde(default)]
    pub model_type: String,
    /// The width of the hidden states.
    #[serde(default)]
    pub hidden_size: usize,
}

/// How the names of the library's own classes end, now and in its first versions.
const FLEXIBLE: [&str; 2] = ["AdapterModel", "ModelWithHeads"];

/// How the names of transformers' language models end.
const OF_WORDS: [&str; 4] =
    ["ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForConditionalGeneration"];

/// The architectures that the library knows through its plugin interface only: they have no class
/// of its own.
const INTERFACE: [&str; 6] = ["qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "modernbert"];

impl AdaptersModel {
    /// Whether the class is the library's own, whose heads are saved as `heads.NAME.…`.
    pub fn has_flexible_heads(&self) -> bool {
        FLEXIBLE.iter().any(|end| self.model_class.ends_with(end))
    }

    /// Whether a language-model head is given the inverse of an invertible adapter: under the
    /// library's own classes and through its plugin interface, but not under transformers' classes.
    /// Where no class is noted, none says otherwise.
    pub fn inverts(&self) -> bool {
        self.model_class.is_empty()
            || self.has_flexible_heads()
            || INTERFACE.contains(&self.model_type.as_str())
    }

    /// The same model under a class that does, or does not, give a language-model head the inverse.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn with_inverse(&self, inverts: bool) -> Result<Self, String> {
        let body = OF_WORDS.iter().find_map(|end| self.model_class.strip_suffix(end));
        let class = &self.model_class;
        match (body, inverts) {
            _ if inverts == self.inverts() => Ok(self.clone()),
            // The inverse is before the head of a language model, or nowhere.
            (None, _) if !self.has_flexible_heads() => Ok(self.clone()),
            (Some(body), true) => {
                Ok(Self { model_class: format!("{body}{}", FLEXIBLE[0]), ..self.clone() })
            }
            _ => Err(format!(
                "a language-model head is given the inverse under {class}, and this adapter has \
                 inv_adapter_inverse = false"
            )),
        }
    }

    /// What keys begin with, where the class has the base model under a name that transformers'
    /// has not.
    pub fn key_prefix(&self) -> &'static str {
        let wraps = ["T5", "MT5"].iter().any(|name| self.model_class.starts_with(name));
        if wraps && self.has_flexible_heads() { "transformer." } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(model_class: &str, model_type: &str) -> AdaptersModel {
        let (model_class, model_type) = (model_class.into(), model_type.into());
        AdaptersModel { model_class, model_name: String::new(), model_type, hidden_size: 8 }
    }

    #[test]
    fn the_class_says_whether_the_head_is_given_the_inverse() {
        for (class, model_type, inverts) in [
            ("BertAdapterModel", "bert", true),
            ("BertModelWithHeads", "bert", true),
            ("BertForMaskedLM", "bert", false),
            ("GPT2LMHeadModel", "gpt2", false),
            ("T5ForConditionalGeneration", "t5", false),
            ("Qwen2ForCausalLM", "qwen2", true),
            ("", "", true),
        ] {
            assert_eq!(model(class, model_type).inverts(), inverts, "{class}");
        }
    }

    #[test]
    fn the_class_that_is_written_does_what_the_adapter_does() {
        let written = |class: &str, model_type: &str, inverts| {
            model(class, model_type).with_inverse(inverts).map(|model| model.model_class)
        };
        for (class, inverts, expected) in [
            ("BertForMaskedLM", true, "BertAdapterModel"),
            ("GPT2LMHeadModel", true, "GPT2AdapterModel"),
            ("BartForConditionalGeneration", true, "BartAdapterModel"),
            ("BertForMaskedLM", false, "BertForMaskedLM"),
            ("BertAdapterModel", true, "BertAdapterModel"),
            ("BertForSequenceClassification", true, "BertForSequenceClassification"),
            ("BertForSequenceClassification", false, "BertForSequenceClassification"),
        ] {
            assert_eq!(written(class, "", inverts), Ok(expected.to_string()));
        }
        assert_eq!(written("Qwen2ForCausalLM", "qwen2", true), Ok("Qwen2ForCausalLM".into()));
        for (class, model_type) in [("BertAdapterModel", "bert"), ("Qwen2ForCausalLM", "qwen2")] {
            let reason = written(class, model_type, false).expect_err("it inverts");
            assert!(reason.contains(class) && reason.contains("inv_adapter_inverse"), "{reason}");
        }
    }

    #[test]
    fn only_the_classes_that_wrap_the_base_model_have_a_prefix() {
        assert_eq!(model("T5AdapterModel", "t5").key_prefix(), "transformer.");
        assert_eq!(model("T5ForConditionalGeneration", "t5").key_prefix(), "");
        assert_eq!(model("BertAdapterModel", "bert").key_prefix(), "");
    }
}
