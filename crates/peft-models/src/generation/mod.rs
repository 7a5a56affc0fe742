//! Text generation: the continuation of a prompt, or the output of a decoder.

mod beam;
mod config;
mod likeliest;
mod one;
mod room;
mod scores;
mod stream;

use peft_core::{Hooks, Slots};

use crate::{Error, Model, Result, Task};

pub use config::{EarlyStopping, GenerationConfig};

/// Generates texts with a model under a method.
#[derive(Debug, Clone, Copy)]
pub struct Generator<'m> {
    model: &'m Model,
    hooks: &'m dyn Hooks,
    config: &'m GenerationConfig,
    slots: Option<&'m Slots>,
    numbers: Option<&'m [usize]>,
}

/// Sees each token as it is chosen: the text that it is of, and the token. `true` ends that text.
pub type OnToken<'t> = &'t mut dyn FnMut(usize, u32) -> bool;

impl<'m> Generator<'m> {
    /// A generator; `hooks` must be without autodiff (`method.valid()`), `&()` is the base model.
    ///
    /// # Errors
    /// If the model is not a language model that reads from left to right, the settings make no
    /// sense, or one of their tokens is not of its vocabulary.
    pub fn new(
        model: &'m Model,
        hooks: &'m dyn Hooks,
        config: &'m GenerationConfig,
    ) -> Result<Self> {
        config.validate()?;
        if !matches!(model.task(), Task::CausalLm | Task::Seq2SeqLm) {
            let class = model.config().class_name(model.task());
            return Err(Error::Input(format!(
                "a {class} cannot generate: it is not a language model"
            )));
        }
        let pad = config.pad_token_id.map_or(model.config().pad_token_id(), |id| id as usize);
        let beside_encoder = model.task() == Task::Seq2SeqLm;
        config.check_tokens(pad, model.config().vocab_size, beside_encoder)?;
        Ok(Self { model, hooks, config, slots: None, numbers: None })
    }

    /// With each prompt under an adapter of a pool.
    pub fn with_slots(self, slots: &'m Slots) -> Self {
        Self { slots: Some(slots), ..self }
    }

    /// With a number for each prompt: by it and the seed it draws, whatever its place in a batch.
    pub fn with_numbers(self, numbers: &'m [usize]) -> Self {
        Self { numbers: Some(numbers), ..self }
    }

    /// The tokens that follow each prompt, or that the decoder makes of it; the end token is the
    /// last, where it was chosen. A row's tokens do not depend on the others in the batch. A text
    /// that takes all of the model's positions ends there, with a warning.
    ///
    /// # Errors
    /// If a prompt does not fit the model, or the model's scores are no numbers.
    pub fn generate(&self, prompts: &[&[u32]]) -> Result<Vec<Vec<u32>>> {
        self.generate_with(prompts, &mut |_, _| false)
    }

    /// The same; `on_token` sees each token as it is chosen, so that a text can be shown as it is
    /// written, or ended where it says so. With beams it sees nothing: which one is best is known
    /// at the end.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_with(
        &self,
        prompts: &[&[u32]],
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<u32>>> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let named = self.slots.map_or(0, |slots| slots.as_slice().len());
        if named > 0 && named != prompts.len() {
            let prompts = prompts.len();
            let reason = format!("{prompts} texts, and slots for {named}");
            return Err(Error::Input(reason));
        }
        let prompts = self.readable(prompts)?;
        match self.config.num_beams {
            1 => self.one_by_one(&prompts, on_token),
            _ => self.beams(&prompts),
        }
    }

    /// The prompts, with the token that begins a text in the place of none.
    ///
    /// # Errors
    /// If a prompt has no tokens where no token begins a text, or one that the model lacks.
    fn readable<'p>(&'p self, prompts: &[&'p [u32]]) -> Result<Vec<&'p [u32]>> {
        let words = self.model.config().vocab_size;
        let readable = |(text, prompt): (usize, &&'p [u32])| {
            let begun = match prompt.is_empty() {
                true => self.config.bos_token_id.as_slice(),
                false => prompt,
            };
            let reason = match begun.iter().find(|id| **id as usize >= words) {
                Some(id) => format!("token {id} is outside the vocabulary of {words}"),
                None if begun.is_empty() => "the model has no bos_token_id to begin with".into(),
                None => return Ok(begun),
            };
            Err(Error::Generation { text, tokens: prompt.len(), reason })
        };
        prompts.iter().enumerate().map(readable).collect()
    }
}
