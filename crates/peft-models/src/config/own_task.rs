//! The task of a checkpoint's own head.

use super::{Architecture, ModelConfig, Task};

impl ModelConfig {
    /// The task of the checkpoint's own head, by the class that saved it; where the configuration
    /// names none, that of a language model, or of none for an encoder.
    pub fn own_task(&self) -> Task {
        let Some(class) = self.saved_class() else {
            return match self.model_type {
                Architecture::Gpt2
                | Architecture::Llama
                | Architecture::Mistral
                | Architecture::Qwen2 => Task::CausalLm,
                Architecture::T5 | Architecture::Bart => Task::Seq2SeqLm,
                _ => Task::Encode,
            };
        };
        let mut tasks = self.model_type.tasks(self.num_labels()).into_iter();
        tasks
            .find(|task| class.ends_with(task.class_suffix(self.model_type)))
            .unwrap_or(Task::Encode)
    }

    /// The same; where no class is named, the keys of the checkpoint's tensors tell.
    pub(crate) fn own_task_among(&self, keys: &[&str]) -> Task {
        if self.saved_class().is_some() {
            return self.own_task();
        }
        let labels = self.num_labels();
        let (sequence, tokens) =
            (Task::ClassifySequence { labels }, Task::ClassifyTokens { labels });
        let has = |begin: &str| keys.iter().any(|key| key.starts_with(begin));
        if self.model_type.tasks(labels).contains(&Task::QuestionAnswering) && has("qa_outputs.") {
            return Task::QuestionAnswering;
        }
        // Each with tensors that only such a model has, the most telling first.
        let heads: &[(&str, Task)] = match self.model_type {
            Architecture::Bert if has("bert.pooler.") => &[("classifier.", sequence)],
            Architecture::Bert => &[("classifier.", tokens), ("cls.", Task::MaskedLm)],
            Architecture::Roberta | Architecture::XlmRoberta => &[
                ("classifier.out_proj.", sequence),
                ("classifier.", tokens),
                ("lm_head.", Task::MaskedLm),
            ],
            Architecture::DistilBert => &[
                ("pre_classifier.", sequence),
                ("classifier.", tokens),
                ("vocab_", Task::MaskedLm),
            ],
            Architecture::Gpt2
            | Architecture::Llama
            | Architecture::Mistral
            | Architecture::Qwen2 => {
                &[("score.bias", tokens), ("score.", sequence), ("classifier.", tokens)]
            }
            Architecture::T5 => &[("classification_head.", sequence), ("classifier.", tokens)],
            Architecture::Bart => &[("classification_head.", sequence)],
        };
        let head = heads.iter().find(|(begin, _)| has(begin));
        head.map_or_else(|| self.own_task(), |(_, task)| *task)
    }
}
