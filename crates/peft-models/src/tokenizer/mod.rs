//! Tokenizers from Hugging Face directories.

mod added;
mod letters;
mod stream;
mod words;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationParams};

pub use self::added::{ADDED_TOKENS, AddedTokens};
pub use self::stream::DecodeStream;
pub use self::words::EncodedWords;
use crate::checkpoint::gguf;
use crate::{Error, Gguf, Result, config_fields};

/// One text, or two that belong together, as token indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token indices, with the special tokens that the model expects.
    pub ids: Vec<u32>,
    /// Segment indices: 0 for the first text, 1 for the second.
    pub segments: Vec<u32>,
    /// Whether each token is one that the model expects beside the text's own.
    pub special: Vec<bool>,
    /// Whether tokens were cut off.
    pub truncated: bool,
}

impl From<&Encoding> for Encoded {
    fn from(encoding: &Encoding) -> Self {
        Self {
            ids: encoding.get_ids().to_vec(),
            segments: encoding.get_type_ids().to_vec(),
            special: encoding
                .get_special_tokens_mask()
                .iter()
                .map(|&special| special != 0)
                .collect(),
            truncated: !encoding.get_overflowing().is_empty(),
        }
    }
}

/// Turns texts into token indices.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// That of what the model writes, where it is another; both are of letters.
    target: Option<Tokenizer>,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, or else `vocab.txt` of a BERT model with its
    /// `tokenizer_config.json`, or else what a `.gguf` file says, or else the tables of letters
    /// (`grapheme_chars`, `phoneme_chars`) of a `config.json`; and the directory's
    /// `added_tokens.json`. Texts are cut to `max_tokens`, special tokens included.
    ///
    /// # Errors
    /// If none is there, one is broken, or `max_tokens` leaves no room for a text.
    pub fn load(directory: &Path, max_tokens: usize) -> Result<Self> {
        let path = directory.join("tokenizer.json");
        let vocab = directory.join("vocab.txt");
        let (inner, target) = if path.exists() {
            (Tokenizer::from_file(&path).map_err(|e| Error::file(&path, e))?, None)
        } else if vocab.exists() {
            (word_piece(&vocab, &directory.join("tokenizer_config.json"))?, None)
        } else if let Some(gguf) = Gguf::find(directory)? {
            (gguf::tokenizer(&gguf)?, None)
        } else if let Some([read, written]) = of_letters(directory)? {
            (read, Some(written))
        } else {
            let reason = "none of tokenizer.json, vocab.txt, *.gguf is there, and config.json has \
                          no tables of letters (grapheme_chars, phoneme_chars)";
            return Err(Error::file(directory, reason));
        };
        let mut tokenizer = Self { inner, target };
        for part in tokenizer.parts() {
            // A saved tokenizer may pad every text to a fixed length, which is ours to decide.
            part.with_padding(None);
            has_room(part, max_tokens, false)?;
            let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
            part.with_truncation(Some(truncation)).map_err(|e| Error::file(&path, e))?;
        }
        tokenizer.with_added(&AddedTokens::load(directory)?, usize::MAX)
    }

    /// With tokens beside its own, for a model whose embeddings have `vocab_size` rows. A letter
    /// that is read already keeps its index there.
    ///
    /// # Errors
    /// If one would get another index, or that of another token, or has no row.
    pub fn with_added(mut self, tokens: &AddedTokens, vocab_size: usize) -> Result<Self> {
        let is_of_letters = self.target.is_some();
        for (id, token) in tokens.by_index() {
            let wrong = |reason: String| Error::added_token(token, reason);
            if id as usize >= vocab_size {
                return Err(wrong(format!("has index {id}, and the embeddings {vocab_size} rows")));
            }
            for part in self.parts() {
                match part.id_to_token(id) {
                    Some(other) if other != token => {
                        return Err(wrong(format!("has index {id}, which is that of {other:?}")));
                    }
                    _ if is_of_letters && part.token_to_id(token).is_some() => continue,
                    _ if is_of_letters => {
                        letters::extend(part, token, id).map_err(wrong)?;
                    }
                    _ => {}
                }
                part.add_tokens(&[AddedToken::from(token, false)]);
            }
            let found = self.written().token_to_id(token);
            if found != Some(id) {
                let found = found.map_or("none".into(), |found| found.to_string());
                return Err(wrong(format!("has index {id}, and the tokenizer gives it {found}")));
            }
        }
        Ok(self)
    }

    /// The tokenizers of what is read and of what is written.
    fn parts(&mut self) -> impl Iterator<Item = &mut Tokenizer> {
        [&mut self.inner].into_iter().chain(self.target.as_mut())
    }

    /// The tokenizer of what is written.
    fn written(&self) -> &Tokenizer {
        self.target.as_ref().unwrap_or(&self.inner)
    }

    /// Whether a token is one of those that the model writes.
    fn writes(&self, token: &str) -> bool {
        self.written().token_to_id(token).is_some()
    }

    /// The index behind those that are taken.
    fn first_free(&self) -> usize {
        let ids = |tokenizer: &Tokenizer| tokenizer.get_vocab(true).into_values().max();
        let last = [Some(&self.inner), self.target.as_ref()].into_iter().flatten().filter_map(ids);
        last.max().map_or(0, |last| last as usize + 1)
    }

    /// The text of token indices that a model wrote, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.written().decode(ids, true).map_err(failed)
    }

    /// The token that hides another in masked language modelling, if there is one.
    pub fn mask_token(&self) -> Option<u32> {
        ["[MASK]", "<mask>"].iter().find_map(|token| self.inner.token_to_id(token))
    }

    /// The number of tokens there are.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Texts are cut to this many tokens.
    pub fn max_tokens(&self) -> usize {
        self.inner.get_truncation().map_or(usize::MAX, |truncation| truncation.max_length)
    }

    /// The token indices of texts without the special tokens that a model expects around a text,
    /// and however many there are: of what follows another text.
    ///
    /// # Errors
    /// If the tokenizer fails on a text.
    pub fn encode_plain(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let mut whole = self.inner.clone();
        whole.with_truncation(None).map_err(failed)?;
        let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = whole.encode_batch_fast(inputs, false).map_err(failed)?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The token indices of texts, or of pairs of texts.
    ///
    /// # Errors
    /// If the tokenizer fails on a text, or texts are cut where there is no room for a pair.
    pub fn encode(&self, texts: &[(String, Option<String>)]) -> Result<Vec<Encoded>> {
        if texts.iter().any(|(_, pair)| pair.is_some()) {
            has_room(&self.inner, self.max_tokens(), true)?;
        }
        let inputs: Vec<EncodeInput<'_>> = texts
            .iter()
            .map(|(text, pair)| match pair {
                Some(pair) => (text.as_str(), pair.as_str()).into(),
                None => text.as_str().into(),
            })
            .collect();
        let encodings = self.inner.encode_batch_fast(inputs, true).map_err(failed)?;
        Ok(encodings.iter().map(Encoded::from).collect())
    }

    /// The token indices of texts that a model should write.
    ///
    /// # Errors
    /// If the tokenizer fails on a text.
    pub fn encode_targets(&self, texts: &[String]) -> Result<Vec<Encoded>> {
        let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = self.written().encode_batch_fast(inputs, true).map_err(failed)?;
        Ok(encodings.iter().map(Encoded::from).collect())
    }

    /// What of texts that a model should write has no token, with how often it is there.
    ///
    /// # Errors
    /// If the tokenizer fails on a text.
    pub fn unwritable(&self, texts: &[String]) -> Result<BTreeMap<String, usize>> {
        let mut found = BTreeMap::new();
        let written = self.written();
        let unknown = ["<unk>", "[UNK]"].iter().find_map(|token| written.token_to_id(token));
        let Some(unknown) = unknown else { return Ok(found) };
        let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encodings = written.encode_batch(inputs, false).map_err(failed)?;
        for (text, encoding) in texts.iter().zip(&encodings) {
            let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
            for (_, &(from, to)) in tokens.filter(|(id, _)| **id == unknown) {
                let piece = text.get(from..to).filter(|piece| !piece.is_empty());
                *found.entry(piece.unwrap_or(text).to_string()).or_insert(0) += 1;
            }
        }
        Ok(found)
    }
}

/// The tokenizers of letters that a model's configuration describes.
fn of_letters(directory: &Path) -> Result<Option<[Tokenizer; 2]>> {
    let path = directory.join("config.json");
    match path.exists() {
        true => letters::tokenizers(&config_fields(directory)?, &path),
        false => Ok(None),
    }
}

/// Checks that texts are cut where there is room for a token of each beside the special ones: the
/// tokenizer subtracts these from `max_tokens` without a look.
fn has_room(tokenizer: &Tokenizer, max_tokens: usize, is_pair: bool) -> Result<()> {
    let special = tokenizer.get_post_processor().map_or(0, |around| around.added_tokens(is_pair));
    let (input, texts) = if is_pair { ("a pair", 2) } else { ("a text", 1) };
    match max_tokens < special + texts {
        true => Err(Error::MaxTokens { max_tokens, least: special + texts, special, input }),
        false => Ok(()),
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Input(format!("tokenizer: {error}"))
}

fn word_piece(vocab: &Path, config: &Path) -> Result<Tokenizer> {
    let broken = |e: &dyn std::fmt::Display| Error::file(vocab, e);
    let path = vocab.to_str().ok_or_else(|| broken(&"the path is not UTF-8"))?;
    let model =
        WordPiece::from_file(path).unk_token("[UNK]".into()).build().map_err(|e| broken(&e))?;
    let mut tokenizer = Tokenizer::new(model);
    let settings: Value = match std::fs::read_to_string(config) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| Error::file(config, e))?,
        Err(e) if e.kind() == ErrorKind::NotFound => Value::Null,
        Err(e) => return Err(Error::file(config, e)),
    };
    let setting = |name: &str| match settings.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(Error::file(config, format!("{name} = {other}: must be true or false"))),
    };
    let lower_case = setting("do_lower_case")?.unwrap_or(true);
    let chinese = setting("tokenize_chinese_chars")?.unwrap_or(true);
    let accents = setting("strip_accents")?;
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
