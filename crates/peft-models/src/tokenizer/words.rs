//! Texts that come in words.

use std::borrow::Cow;

use tokenizers::normalizers::{Prepend, Sequence as Normalizers};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType};
use tokenizers::{PreTokenizedString, PreTokenizer, Tokenizer};

use super::bounded::Input;
use super::guard::guarded;
use super::{Encoded, TextTokenizer, failed};
use crate::Result;

/// A text that comes in words, as token indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWords {
    /// The text.
    pub text: Encoded,
    /// For each token, the index of its word; `None` for special tokens. A word that was cut off,
    /// or of which the tokenizer leaves nothing, is not among them.
    pub words: Vec<Option<usize>>,
}

impl TextTokenizer {
    /// The token indices of texts that come in words.
    ///
    /// Where a tokenizer tells words by the space before them, be it byte-level (GPT-2's, RoBERTa's,
    /// Llama 3's, Qwen2's) or SentencePiece's (Llama 2's, Gemma's), each word, the first one too,
    /// counts as one after a space. In transformers `add_prefix_space` does so for the tokenizers
    /// of GPT-2 and RoBERTa, and nothing for the others.
    ///
    /// # Errors
    /// If the tokenizer fails on a word.
    pub fn encode_words(&self, sentences: &[Vec<String>]) -> Result<Vec<EncodedWords>> {
        let inputs: Vec<Input<'_>> = sentences.iter().map(|words| Input::Words(words)).collect();
        let tokenizer = guarded(|| after_spaces(&self.inner)).map_err(failed)?;
        // `encode_fast` does not say which word a token is of.
        let encodings =
            self.encodings(&tokenizer, &inputs, |tokenizer, input| tokenizer.encode(input, true))?;
        let encoded = encodings.iter().map(|encoding| EncodedWords {
            text: Encoded::from(encoding),
            words: encoding.get_word_ids().iter().map(|word| word.map(|w| w as usize)).collect(),
        });
        Ok(encoded.collect())
    }
}

/// The tokenizer, with a space put before each word if it tells words by that and does not see to it
/// itself.
fn after_spaces(tokenizer: &Tokenizer) -> tokenizers::Result<Cow<'_, Tokenizer>> {
    let (normalizer, pre_tokenizer) = (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer());
    let normalized = |text: &str| {
        let mut text = NormalizedString::from(text);
        normalizer.map_or(Ok(()), |normalizer| normalizer.normalize(&mut text))?;
        Ok::<_, tokenizers::Error>(text)
    };
    let first_piece = |text: &str| {
        let mut pieces = PreTokenizedString::from(normalized(text)?);
        pre_tokenizer.map_or(Ok(()), |splits| splits.pre_tokenize(&mut pieces))?;
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        Ok(pieces.first().map_or(String::new(), |(piece, ..)| piece.to_string()))
    };
    if marks_spaces(|text| Ok(normalized(text)?.get().to_string()))? {
        let before = Prepend::new(" ".into()).into();
        let all = [before].into_iter().chain(normalizer.cloned()).collect();
        let mut tokenizer = tokenizer.clone();
        tokenizer.with_normalizer(Some(Normalizers::new(all)));
        return Ok(Cow::Owned(tokenizer));
    }
    if marks_spaces(first_piece)? {
        // It puts a space before each piece that has none, and does nothing else.
        let before = Metaspace::new(' ', PrependScheme::Always, false).into();
        let all = [before].into_iter().chain(pre_tokenizer.cloned()).collect();
        let mut tokenizer = tokenizer.clone();
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(all)));
        return Ok(Cow::Owned(tokenizer));
    }
    Ok(Cow::Borrowed(tokenizer))
}

/// Whether a space before a word becomes a letter of it, which the word does not get by itself.
fn marks_spaces(written: impl Fn(&str) -> tokenizers::Result<String>) -> tokenizers::Result<bool> {
    let (bare, spaced) = (written("a")?, written(" a")?);
    let mark = spaced.strip_suffix(&bare).filter(|mark| !mark.contains(char::is_whitespace));
    Ok(mark.is_some_and(|mark| !mark.is_empty() && !bare.starts_with(mark)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokenizers::TruncationParams;

    use super::*;

    fn tokenizer(definition: Value, max_tokens: usize) -> TextTokenizer {
        let mut inner: Tokenizer = serde_json::from_value(definition).unwrap();
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        inner.with_truncation(Some(truncation)).unwrap();
        TextTokenizer { inner, target: None, growth: 1.0 }
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

    /// A tokenizer with `mark` before words, and these parts.
    fn marked(mark: &str, normalizer: Value, pre_tokenizer: Value) -> TextTokenizer {
        let tokens = ["a", "b", "ab", "!", "1", mark, " ", "?"].map(String::from);
        let words = ["a", "ab", "b", "!", "1"].map(|word| format!("{mark}{word}"));
        let tokens = tokens.into_iter().chain(words);
        let vocab: serde_json::Map<String, Value> =
            tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
        let merges = ["a", "ab", "b", "!", "1"].map(|word| format!("{mark} {word}"));
        let merges: Vec<String> = ["a b".to_string()].into_iter().chain(merges).collect();
        let definition = json!({
            "version": "1.0", "added_tokens": [{
                "id": 7, "content": "?", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            }],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "model": {"type": "BPE", "unk_token": "?", "vocab": vocab, "merges": merges},
        });
        tokenizer(definition, 32)
    }

    fn ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(&[(text.into(), None)]).unwrap().remove(0).ids
    }

    const WORDS: [&str; 7] = ["ab", "", "ab!", "b", "1a", "?", "ab"];

    #[test]
    fn words_are_encoded_as_in_a_text_whatever_marks_the_space_before_them() {
        let bytes = |regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                   "use_regex": regex})
        };
        let split = json!({"type": "Split", "pattern": {"Regex": " ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+"},
                           "behavior": "Isolated", "invert": false});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let sequence = |parts: Value| json!({"type": "Sequence", "pretokenizers": parts});
        let never = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never",
                           "split": true});
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let cut = json!({"type": "Split", "pattern": {"String": " "},
                         "behavior": "MergedWithPrevious", "invert": false});
        let nothing = Value::Null;
        for (name, tokenizer) in [
            ("gpt-2", marked("Ġ", nothing.clone(), bytes(true))),
            (
                "llama-3, qwen2",
                marked("Ġ", nothing.clone(), sequence(json!([split, bytes(false)]))),
            ),
            ("smollm2", marked("Ġ", nothing.clone(), sequence(json!([digits, bytes(true)])))),
            ("llama-2 without a prefix", marked("▁", nothing.clone(), never.clone())),
            ("the same in a sequence", marked("▁", nothing.clone(), sequence(json!([never])))),
            ("gemma", marked("▁", replace.clone(), cut)),
            ("sentencepiece as a normalizer", marked("▁", replace, nothing)),
        ] {
            let encoded = encode(&tokenizer, &WORDS);
            // A special token takes no space.
            let text = [ids(&tokenizer, " ab ab! b 1a"), vec![7], ids(&tokenizer, " ab")].concat();
            assert_eq!(encoded.text.ids, text, "{name}");
            assert_eq!(encoded.text.ids[0], 9, "{name}: a word after a space");
            let mut words: Vec<usize> = encoded.words.iter().flatten().copied().collect();
            assert!(words.is_sorted(), "{name}: {words:?}");
            words.dedup();
            assert_eq!(words, [0, 2, 3, 4, 5, 6], "{name}");
        }
    }

    #[test]
    fn a_space_is_put_before_no_word_that_has_its_mark_or_needs_none() {
        let scheme = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        let prepend = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        ]});
        let white = json!({"type": "WhitespaceSplit"});
        let both = json!({"type": "Sequence", "pretokenizers": [white, scheme("always")]});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
        let nothing = Value::Null;
        for (name, tokenizer, first) in [
            ("always", marked("▁", nothing.clone(), scheme("always")), 9),
            ("first", marked("▁", nothing.clone(), scheme("first")), 9),
            ("t5", marked("▁", nothing.clone(), both), 9),
            ("llama-2", marked("▁", prepend, nothing.clone()), 9),
            ("bytes with a prefix", marked("Ġ", nothing.clone(), bytes), 9),
            ("words alone", marked("▁", nothing.clone(), white), 2),
            ("letters", marked("▁", nothing.clone(), nothing), 2),
        ] {
            let encoded = encode(&tokenizer, &["ab", "ab"]);
            assert_eq!(encoded.text.ids, [first, first], "{name}");
        }
    }
}
