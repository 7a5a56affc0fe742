//! Tokenizers from Hugging Face directories.

mod added;
mod letters;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationParams};

pub use self::added::{ADDED_TOKENS, AddedTokens};
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

/// A text that comes in words, as token indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWords {
    /// The text.
    pub text: Encoded,
    /// For each token, the index of its word; `None` for special tokens. A word that was cut off,
    /// or of which the tokenizer leaves nothing, is not among them.
    pub words: Vec<Option<usize>>,
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

    /// The token indices of texts that come in words.
    ///
    /// Where a byte-level tokenizer (GPT-2's, RoBERTa's) tells words by the space before them,
    /// each word, the first one too, counts as one after a space.
    ///
    /// # Errors
    /// If the tokenizer fails on a word.
    pub fn encode_words(&self, sentences: &[Vec<String>]) -> Result<Vec<EncodedWords>> {
        let inputs: Vec<EncodeInput<'_>> =
            sentences.iter().map(|words| words.as_slice().into()).collect();
        // `encode_batch_fast` does not say which word a token is of.
        let encodings = self.after_spaces().encode_batch(inputs, true).map_err(failed)?;
        let encoded = encodings.iter().map(|encoding| EncodedWords {
            text: Encoded::from(encoding),
            words: encoding.get_word_ids().iter().map(|word| word.map(|w| w as usize)).collect(),
        });
        Ok(encoded.collect())
    }

    /// The tokenizer, with a space put before each text if it is a byte-level one.
    fn after_spaces(&self) -> Cow<'_, Tokenizer> {
        match self.inner.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(bytes)) if !bytes.add_prefix_space => {
                let mut tokenizer = self.inner.clone();
                tokenizer.with_pre_tokenizer(Some(bytes.add_prefix_space(true)));
                Cow::Owned(tokenizer)
            }
            _ => Cow::Borrowed(&self.inner),
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(definition: Value, max_tokens: usize) -> TextTokenizer {
        let mut inner: Tokenizer = serde_json::from_value(definition).unwrap();
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        inner.with_truncation(Some(truncation)).unwrap();
        TextTokenizer { inner, target: None }
    }

    fn bert(max_tokens: usize) -> TextTokenizer {
        let vocab = json!({
            "[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "un": 3, "##want": 4, "##ed": 5, "run": 6, "-": 7
        });
        let definition = json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocab
            },
        });
        tokenizer(definition, max_tokens)
    }

    fn roberta() -> TextTokenizer {
        let vocab = json!({
            "<s>": 0, "</s>": 1, "a": 2, "b": 3, "Ġ": 4, "ab": 5, "Ġa": 6, "Ġab": 7, "!": 8
        });
        let definition = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
            "post_processor": {
                "type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0],
                "trim_offsets": true, "add_prefix_space": false
            },
            "model": { "type": "BPE", "vocab": vocab, "merges": ["Ġ a", "Ġa b", "a b"] },
        });
        tokenizer(definition, 16)
    }

    fn encode(tokenizer: &TextTokenizer, words: &[&str]) -> EncodedWords {
        let sentence = words.iter().map(|word| word.to_string()).collect();
        tokenizer.encode_words(&[sentence]).unwrap().remove(0)
    }

    #[test]
    fn each_token_knows_its_word() {
        let encoded = encode(&bert(16), &["Unwanted", "", "run-un", "zebra", "unwanted run"]);
        assert_eq!(encoded.text.ids, [1, 3, 4, 5, 6, 7, 3, 0, 3, 4, 5, 6, 2]);
        let words = [0, 0, 0, 2, 2, 2, 3, 4, 4, 4, 4].map(Some);
        assert_eq!(encoded.words[1..12], words);
        assert_eq!((encoded.words[0], encoded.words[12]), (None, None));
        assert_eq!(encoded.text.segments, [0; 13]);
        assert!(!encoded.text.truncated);

        let nothing = encode(&bert(16), &[]);
        assert_eq!((nothing.text.ids, nothing.words), (vec![1, 2], vec![None, None]));
    }

    #[test]
    fn words_are_cut_as_texts_are() {
        let encoded = encode(&bert(5), &["run", "unwanted", "run"]);
        assert_eq!(encoded.text.ids, [1, 6, 3, 4, 2]);
        assert_eq!(encoded.words, [None, Some(0), Some(1), Some(1), None]);
        assert!(encoded.text.truncated);
        let text = bert(5).encode(&[("run unwanted run".into(), None)]).unwrap().remove(0);
        assert_eq!(text, encoded.text);
    }

    // The tokens are those of RobertaTokenizerFast(add_prefix_space=True).
    #[test]
    fn words_of_a_byte_level_tokenizer_follow_a_space() {
        let encoded = encode(&roberta(), &["ab", "ab!", "b", " ab"]);
        assert_eq!(encoded.text.ids, [0, 7, 7, 8, 4, 3, 7, 1]);
        assert_eq!(encoded.words[1..7], [0, 1, 1, 2, 2, 3].map(Some));
        let text = roberta().encode(&[("ab ab".into(), None)]).unwrap().remove(0);
        assert_eq!(text.ids, [0, 5, 7, 1]);
    }
}
