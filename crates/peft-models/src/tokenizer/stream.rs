//! The text of tokens that come one after another.

use super::TextTokenizer;
use crate::Result;

/// How many tokens are waited for until they are a letter.
const LETTER: usize = 16;

/// The text of tokens that a model writes, one after another: with each, only the last few are
/// decoded.
#[derive(Debug, Clone)]
pub struct DecodeStream<'t> {
    tokenizer: &'t TextTokenizer,
    text: String,
    /// The tokens of the end of the text, by which its decoder knows how to go on, and behind them
    /// those that are no whole letter yet.
    tail: Vec<u32>,
    /// How many of them are in the text.
    read: usize,
}

impl TextTokenizer {
    /// The text of tokens that are still to come.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, text: String::new(), tail: Vec::new(), read: 0 }
    }
}

impl DecodeStream<'_> {
    /// Adds a token, and returns the byte from which on the text is new. A letter is there when its
    /// last token is.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn push(&mut self, token: u32) -> Result<usize> {
        let end = self.tokenizer.decode(&self.tail[..self.read])?;
        self.tail.push(token);
        let longer = self.tokenizer.decode(&self.tail)?;
        let waits = self.tail.len() - self.read < LETTER;
        if waits && (longer == end || longer.ends_with(char::REPLACEMENT_CHARACTER)) {
            return Ok(self.text.len());
        }
        if longer == end {
            // They write nothing. What is first in a text loses its space, so the end stays there.
            self.tail.truncate(self.read);
            return Ok(self.text.len());
        }
        // Some decoders write an end otherwise once they know what follows.
        let same = end.bytes().zip(longer.bytes()).take_while(|(a, b)| a == b).count();
        let same = longer.floor_char_boundary(same);
        let new_from = self.text.len() - (end.len() - same);
        self.text.truncate(new_from);
        self.text.push_str(&longer[same..]);
        self.tail.drain(..self.read);
        self.read = self.tail.len();
        Ok(new_from)
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokenizers::Tokenizer;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    const TEXT: &str = " it's — naïve, 日本🦜!  do n't\n";

    fn special(id: u32, content: &str) -> Value {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    }

    fn tokenizer(vocab: Vec<String>, more: Value) -> TextTokenizer {
        let ids = vocab.iter().enumerate().map(|(id, token)| (token.clone(), json!(id)));
        let vocab = Value::Object(ids.collect());
        let mut definition = json!({"version": "1.0", "added_tokens": [special(0, "<s>")]});
        for (part, value) in more.as_object().expect("parts") {
            definition[part] = value.clone();
        }
        definition["model"]["vocab"] = vocab;
        let inner: Tokenizer = serde_json::from_value(definition).expect("a tokenizer");
        TextTokenizer { inner, target: None, growth: 1.0 }
    }

    /// Tokens of one byte each, and one of a space and a letter.
    fn bytes() -> TextTokenizer {
        let letters = ByteLevel::alphabet().into_iter().map(String::from);
        let mut letters: Vec<String> = letters.collect();
        letters.sort();
        let all = ["<s>".to_string()].into_iter().chain(letters).chain(["Ġd".to_string()]);
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
                                "trim_offsets": true, "use_regex": false});
        tokenizer(
            all.collect(),
            json!({"pre_tokenizer": byte_level, "decoder": byte_level,
                   "model": {"type": "BPE", "merges": ["Ġ d"]}}),
        )
    }

    /// Llama 2's, with few words: what has no token is written in bytes.
    fn sentence_piece() -> TextTokenizer {
        let words = ["<s>", "▁", "i", "t", "▁d", "d", "o", "n", "▁n"].map(String::from);
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        tokenizer(
            words.into_iter().chain(bytes).collect(),
            json!({
                "normalizer": {"type": "Sequence", "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
                "decoder": {"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
                "model": {"type": "BPE", "byte_fallback": true, "merges": ["▁ d", "▁ n"]},
            }),
        )
    }

    /// BERT's, which has no token for most of it.
    fn word_piece() -> TextTokenizer {
        let words = ["<s>", "[UNK]", "it", "'", "s", ",", "!", "do", "n", "##t", "t", "na"];
        tokenizer(
            words.map(String::from).into(),
            json!({
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
                "model": {"type": "WordPiece", "unk_token": "[UNK]",
                          "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
            }),
        )
    }

    fn ids(tokenizer: &TextTokenizer) -> Vec<u32> {
        let ids = tokenizer.encode_plain(&[TEXT.into()]).expect("a text").remove(0);
        // Special tokens write nothing, wherever they are.
        let with_special = |(place, id): (usize, u32)| match place % 5 {
            0 => vec![0, id],
            _ => vec![id],
        };
        ids.into_iter().enumerate().flat_map(with_special).collect()
    }

    #[test]
    fn the_text_is_that_of_all_tokens_whenever_its_letters_are_whole() {
        for (name, tokenizer) in
            [("bytes", bytes()), ("sentence piece", sentence_piece()), ("word piece", word_piece())]
        {
            let ids = ids(&tokenizer);
            let (mut stream, mut shown) = (tokenizer.decode_stream(), String::new());
            for count in 1..=ids.len() {
                let new_from = stream.push(ids[count - 1]).expect("a token");
                shown.truncate(new_from);
                shown.push_str(&stream.text()[new_from..]);
                assert_eq!(shown, stream.text(), "{name}: what is new");
                let whole = tokenizer.decode(&ids[..count]).expect("tokens");
                match whole.ends_with(char::REPLACEMENT_CHARACTER) {
                    // Llama 2 takes back letters before one that is not whole; here they stay.
                    true => {
                        let begun = whole.trim_end_matches(char::REPLACEMENT_CHARACTER);
                        assert!(shown.starts_with(begun), "{name}: {whole:?} {shown:?}");
                    }
                    false => assert_eq!(whole, shown, "{name}"),
                }
            }
            let is_whole = name != "word piece";
            assert_eq!(shown.trim_start() == TEXT.trim_start(), is_whole, "{name}: {shown:?}");
        }
    }

    #[test]
    fn few_tokens_are_decoded_whatever_a_model_writes() {
        let tokenizer = sentence_piece();
        let byte = |byte: u32| 9 + byte;
        // Words; nothing; letters that never end; nothing between words.
        let words = [4, 6, 8, 7];
        let far_apart = [&words[..], &[0; 100]].concat();
        for cycle in [&words[..], &[0], &[byte(0xF0)], &far_apart] {
            let mut stream = tokenizer.decode_stream();
            let tokens: Vec<u32> = cycle.iter().copied().cycle().take(500).chain(words).collect();
            for token in &tokens {
                stream.push(*token).expect("a token");
                assert!(stream.tail.len() <= 2 * LETTER, "{cycle:?}");
            }
            let whole = tokenizer.decode(&tokens).expect("tokens");
            assert_eq!(stream.text(), whole, "{cycle:?}");
        }
    }
}
