//! How many tokens a model has positions for.

use burn::tensor::Tensor;
use peft_core::{Memo, Mode, Pass, Role, Rows, Site, Stage, Tokens};

use super::Generator;
use crate::{Error, Result, Task};

impl Generator<'_> {
    /// By prompt, how many tokens can follow it. A model that has a table of positions has no others;
    /// one that counts distances goes on for ever.
    ///
    /// # Errors
    /// If no token can follow a prompt.
    pub(super) fn room(&self, prompts: &[&[u32]]) -> Result<Vec<usize>> {
        let base = self.model.base();
        let at = |role| base.sites().find(|site| site.role == role);
        let beside_encoder = self.model.task() == Task::Seq2SeqLm;
        let embeddings = if beside_encoder { Role::DecoderEmbeddings } else { Role::Embeddings };
        let (Some(_), Some(site)) = (at(Role::PositionEmbedding), at(embeddings)) else {
            return Ok(vec![usize::MAX; prompts.len()]);
        };
        let limit = self.model.max_tokens();
        let texts = prompts.iter().zip(self.taken(site, prompts.len())).enumerate();
        let room = texts.map(|(text, (prompt, taken))| {
            let tokens = if beside_encoder { 1 } else { prompt.len() };
            // The last token is not read any more, and takes no position.
            match (limit + 1).saturating_sub(tokens + taken) {
                0 => {
                    let own = match taken {
                        0 => String::new(),
                        _ => format!(", and the method takes {taken}"),
                    };
                    let reason = format!("the model has {limit} positions{own}");
                    Err(Error::Generation { text, tokens, reason })
                }
                room => Ok(room),
            }
        });
        room.collect()
    }

    /// The longest prompt behind which there are positions for the new tokens, or half of the
    /// model's for them where they are more.
    pub fn longest_prompt(&self) -> usize {
        let limit = self.model.max_tokens();
        if self.model.task() == Task::Seq2SeqLm || limit == usize::MAX {
            return limit;
        }
        let base = self.model.base();
        let site = base.sites().find(|site| site.role == Role::Embeddings);
        let taken = site.map_or(0, |site| self.taken(site, 1)[0]);
        let limit = limit.saturating_sub(taken);
        // The last token takes no position.
        let new = self.config.max_new_tokens.saturating_sub(1).min(limit / 2);
        (limit - new).max(1)
    }

    /// By text, how many positions the method takes before it.
    fn taken(&self, site: &Site, texts: usize) -> Vec<usize> {
        // A text of one token shows what is put before any.
        let device = self.model.base().device();
        let rows = Rows::packed(&vec![1; texts], device);
        let tokens = Tokens::new(Tensor::zeros([texts, site.d_out()], device), rows.clone());
        let (slots, memo) = (self.slots.cloned().unwrap_or_default(), Memo::new());
        let (mode, probe) = (Mode::Infer, None);
        let pass = Pass { rows: &rows, slots: &slots, mode, memo: &memo, probe };
        let tokens = self.hooks.tokens(Stage::Embedded, site, tokens, &pass);
        tokens.rows.iter().map(|row| row.len() - 1 + row.shift).collect()
    }

    /// Says how many texts were ended by the model's last position.
    pub(super) fn warn_of_ends(&self, texts: &[Vec<u32>], room: &[usize]) {
        let config = self.config;
        let ended = texts.iter().zip(room).filter(|(text, room)| {
            let chosen = text.last().is_some_and(|token| config.eos_token_id.contains(token));
            text.len() == **room && **room < config.max_new_tokens && !chosen
        });
        let count = ended.count();
        if count > 0 {
            let limit = self.model.max_tokens();
            tracing::warn!("{count} texts end at the model's limit of {limit} positions");
        }
    }
}
