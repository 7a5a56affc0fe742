//! Tokens that a tokenizer has beside its own: `added_tokens.json`.

use std::collections::BTreeMap;
use std::path::Path;

use peft_format::write_atomically;
use serde::{Deserialize, Serialize};

use super::TextTokenizer;
use crate::checkpoint::is_there;
use crate::{Error, Result};

/// The file, with Hugging Face's name: `{token: index}`.
pub const ADDED_TOKENS: &str = "added_tokens.json";

/// Tokens that were added to a tokenizer, with the rows of the embeddings that they take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddedTokens(BTreeMap<String, u32>);

impl AddedTokens {
    /// Gives `tokens` the indices behind those of `tokenizer`, in this order; one that it has
    /// already keeps its own. `vocab_size` is how many rows the model's embeddings have.
    ///
    /// # Errors
    /// If a token is empty, or more are new than rows are free.
    pub fn assign(tokens: &[String], tokenizer: &TextTokenizer, vocab_size: usize) -> Result<Self> {
        let first = tokenizer.first_free();
        let mut added = BTreeMap::new();
        for token in tokens {
            if token.is_empty() {
                return Err(Error::added_token(token, "is empty"));
            }
            if added.contains_key(token) || tokenizer.writes(token) {
                continue;
            }
            let id = first + added.len();
            if id >= vocab_size {
                let free = vocab_size.saturating_sub(first);
                let reason = format!(
                    "no index is free: the embeddings have {vocab_size} rows (vocab_size), of \
                     which the tokenizer leaves {free}; embeddings are not enlarged"
                );
                return Err(Error::added_token(token, reason));
            }
            added.insert(token.clone(), id as u32);
        }
        Ok(Self(added))
    }

    /// Reads the file from the directory of a model or of an adapter; without a file there are no
    /// added tokens.
    ///
    /// # Errors
    /// If it is broken.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(ADDED_TOKENS);
        if !is_there(&path)? {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
        serde_json::from_str(&text).map_err(|e| Error::file(&path, e))
    }

    /// Writes the file into a directory; no tokens are no file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let path = directory.join(ADDED_TOKENS);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, e))?;
        Ok(write_atomically(&path, |file| writeln!(file, "{text}"))?)
    }

    /// These and others.
    ///
    /// # Errors
    /// If a token has two indices, or an index two tokens.
    pub fn with(mut self, others: &Self) -> Result<Self> {
        for (token, &id) in &others.0 {
            let other = self.0.iter().find(|(known, known_id)| {
                (*known == token && **known_id != id) || (*known != token && **known_id == id)
            });
            if let Some((known, known_id)) = other {
                let reason = format!("has index {id}, but {known:?} has index {known_id}");
                return Err(Error::added_token(token, reason));
            }
            self.0.insert(token.clone(), id);
        }
        Ok(self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens with their indices, by index.
    pub fn by_index(&self) -> Vec<(u32, &str)> {
        let mut tokens: Vec<_> = self.0.iter().map(|(token, id)| (*id, token.as_str())).collect();
        tokens.sort_unstable();
        tokens
    }
}
