//! Tokenizers from Hugging Face directories.

use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{EncodeInput, Tokenizer, TruncationParams};

use crate::checkpoint::gguf;
use crate::{Error, Gguf, Result};

/// One text, or two that belong together, as token indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token indices, with the special tokens that the model expects.
    pub ids: Vec<u32>,
    /// Segment indices: 0 for the first text, 1 for the second.
    pub segments: Vec<u32>,
    /// Whether tokens were cut off.
    pub truncated: bool,
}

/// Turns texts into token indices.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, or else `vocab.txt` of a BERT model with its
    /// `tokenizer_config.json`, or else what a `.gguf` file says. Texts are cut to `max_tokens`,
    /// special tokens included.
    ///
    /// # Errors
    /// If none is there, or one is broken.
    pub fn load(directory: &Path, max_tokens: usize) -> Result<Self> {
        let path = directory.join("tokenizer.json");
        let vocab = directory.join("vocab.txt");
        let mut inner = if path.exists() {
            Tokenizer::from_file(&path).map_err(|e| Error::file(&path, e))?
        } else if vocab.exists() {
            word_piece(&vocab, &directory.join("tokenizer_config.json"))?
        } else if let Some(gguf) = Gguf::find(directory)? {
            gguf::tokenizer(&gguf)?
        } else {
            let reason = "none of tokenizer.json, vocab.txt, *.gguf is there";
            return Err(Error::file(directory, reason));
        };
        // A saved tokenizer may pad every text to a fixed length, which is ours to decide.
        inner.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        inner.with_truncation(Some(truncation)).map_err(|e| Error::file(&path, e))?;
        Ok(Self { inner })
    }

    /// The token indices of texts, or of pairs of texts.
    ///
    /// # Errors
    /// If the tokenizer fails on a text.
    pub fn encode(&self, texts: &[(String, Option<String>)]) -> Result<Vec<Encoded>> {
        let inputs: Vec<EncodeInput<'_>> = texts
            .iter()
            .map(|(text, pair)| match pair {
                Some(pair) => (text.as_str(), pair.as_str()).into(),
                None => text.as_str().into(),
            })
            .collect();
        let encodings = self.inner.encode_batch_fast(inputs, true);
        let encodings = encodings.map_err(|e| Error::Input(format!("tokenizer: {e}")))?;
        let encoded = encodings.into_iter().map(|encoding| Encoded {
            ids: encoding.get_ids().to_vec(),
            segments: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        });
        Ok(encoded.collect())
    }
}

fn word_piece(vocab: &Path, config: &Path) -> Result<Tokenizer> {
    let broken = |e: &dyn std::fmt::Display| Error::file(vocab, e);
    let path = vocab.to_str().ok_or_else(|| broken(&"the path is not UTF-8"))?;
    let model =
        WordPiece::from_file(path).unk_token("[UNK]".into()).build().map_err(|e| broken(&e))?;
    let mut tokenizer = Tokenizer::new(model);
    let settings: Value = match std::fs::read_to_string(config) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| Error::file(config, e))?,
        Err(_) => Value::Null,
    };
    let setting = |name: &str| settings.get(name).and_then(Value::as_bool);
    let lower_case = setting("do_lower_case").unwrap_or(true);
    let chinese = setting("tokenize_chinese_chars").unwrap_or(true);
    let accents = setting("strip_accents");
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese, accents, lower_case)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = |token: &str| {
        let id = tokenizer.token_to_id(token);
        id.map(|id| (token.to_string(), id)).ok_or_else(|| broken(&format!("no {token}")))
    };
    let processing = BertProcessing::new(special("[SEP]")?, special("[CLS]")?);
    tokenizer.with_post_processor(Some(processing));
    Ok(tokenizer)
}
