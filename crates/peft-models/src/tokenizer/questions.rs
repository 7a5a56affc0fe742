//! Questions about texts that may be longer than a model reads at once.

use std::ops::Range;

use tokenizers::{EncodeInput, Encoding};

use super::{Encoded, TextTokenizer, failed, has_room};
use crate::Result;

/// The tokens that a window shares with the one before, at most; half a window, if that is less.
const SHARED: usize = 128;

/// A question with a part of the text that it is about, as token indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextWindow {
    /// The question and the part of the text.
    pub text: Encoded,
    /// For each token of the text, the bytes that it is of; `None` for other tokens.
    pub context: Vec<Option<Range<usize>>>,
}

impl TextTokenizer {
    /// The token indices of questions, each with the text that holds its answer. A pair that is too
    /// long becomes several, each with the whole question and a part of the text that overlaps with
    /// the one before; a question that would fill more than half of the tokens is cut.
    ///
    /// # Errors
    /// If the tokenizer fails on a text, or texts are cut where there is no room for a pair.
    pub fn encode_questions(
        &self,
        questions: &[(String, String)],
    ) -> Result<Vec<Vec<ContextWindow>>> {
        let most = self.max_tokens();
        has_room(&self.inner, most, true)?;
        let mut whole = self.inner.clone();
        whole.with_truncation(None).map_err(failed)?;
        let inputs: Vec<EncodeInput<'_>> = questions
            .iter()
            .map(|(question, context)| (question.as_str(), context.as_str()).into())
            .collect();
        // `encode_batch_fast` does not say which bytes a token is of.
        let encodings = whole.encode_batch(inputs, true).map_err(failed)?;
        Ok(encodings.iter().map(|encoding| windows(encoding, most)).collect())
    }
}

/// The windows of a pair, each of at most `most` tokens.
fn windows(pair: &Encoding, most: usize) -> Vec<ContextWindow> {
    let sequences = pair.get_sequence_ids();
    let of = |sequence: usize| {
        let tokens = (0..sequences.len()).filter(|token| sequences[*token] == Some(sequence));
        tokens.collect::<Vec<_>>()
    };
    let (mut question, context) = (of(0), of(1));
    let special = sequences.len() - question.len() - context.len();
    let free = most.saturating_sub(special);
    let truncated = free < question.len() + context.len() && free / 2 < question.len();
    if truncated {
        question.truncate(free / 2);
    }
    let room = free.saturating_sub(question.len()).max(1);
    let shared = SHARED.min(room / 2);
    let mut windows = Vec::new();
    let mut from = 0;
    loop {
        let part = &context[from..context.len().min(from + room)];
        // In the order of the pair, special tokens where they are.
        let kept = |token: &usize| match sequences[*token] {
            None => true,
            Some(0) => question.binary_search(token).is_ok(),
            Some(_) => part.binary_search(token).is_ok(),
        };
        let tokens: Vec<usize> = (0..sequences.len()).filter(kept).collect();
        windows.push(window(pair, &tokens, truncated));
        if from + room >= context.len() {
            return windows;
        }
        from += room - shared;
    }
}

fn window(pair: &Encoding, tokens: &[usize], truncated: bool) -> ContextWindow {
    let sequences = pair.get_sequence_ids();
    let pick = |values: &[u32]| tokens.iter().map(|token| values[*token]).collect::<Vec<_>>();
    let special = pick(pair.get_special_tokens_mask()).into_iter().map(|special| special != 0);
    let context = tokens.iter().map(|&token| {
        let (from, to) = pair.get_offsets()[token];
        (sequences[token] == Some(1)).then_some(from..to)
    });
    ContextWindow {
        text: Encoded {
            ids: pick(pair.get_ids()),
            segments: pick(pair.get_type_ids()),
            special: special.collect(),
            truncated,
        },
        context: context.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BERT tokenizer with words of one letter.
    fn tokenizer(most: usize) -> (TextTokenizer, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let vocabulary = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n{}\n", letters.join("\n"));
        std::fs::write(folder.path().join("vocab.txt"), vocabulary).expect("written");
        (TextTokenizer::load(folder.path(), most).expect("a tokenizer"), folder)
    }

    fn encode(question: &str, context: &str, most: usize) -> Vec<ContextWindow> {
        let (tokenizer, _folder) = tokenizer(most);
        let pairs = [(question.to_string(), context.to_string())];
        tokenizer.encode_questions(&pairs).expect("encoded").remove(0)
    }

    #[test]
    fn a_pair_that_fits_is_one_window_as_it_is_encoded_otherwise() {
        let (tokenizer, _folder) = tokenizer(9);
        let pair = ("a b".to_string(), "é c d".to_string());
        let pairs = std::slice::from_ref(&pair);
        let windows = tokenizer.encode_questions(pairs).expect("encoded").remove(0);
        let [window] = &windows[..] else { panic!("{windows:?}") };
        let text = tokenizer.encode(&[(pair.0, Some(pair.1))]).expect("encoded").remove(0);
        assert_eq!(window.text, text);
        let context = [None, None, None, None, Some(0..2), Some(3..4), Some(5..6), None];
        assert_eq!(window.context, context);
    }

    #[test]
    fn windows_have_the_question_and_every_token_of_the_text() {
        let context: Vec<String> = ('a'..='z').map(String::from).collect();
        let context = context.join(" ");
        for most in 7..40 {
            let windows = encode("x y", &context, most);
            let mut seen = std::collections::BTreeSet::new();
            for window in &windows {
                assert!(window.text.ids.len() <= most, "{most}: {window:?}");
                assert_eq!(window.text.ids[..4], [2, 27, 28, 3]);
                assert_eq!(window.text.ids.last(), Some(&3));
                assert_eq!(window.context.len(), window.text.ids.len());
                for (id, bytes) in window.text.ids.iter().zip(&window.context) {
                    let Some(bytes) = bytes else { continue };
                    let letter = context[bytes.clone()].chars().next().expect("a letter");
                    assert_eq!(*id, 4 + letter as u32 - 'a' as u32);
                    seen.insert(bytes.start);
                }
            }
            assert_eq!(seen.len(), 26, "{most}");
            assert_eq!(windows.len() == 1, most >= 26 + 5, "{most}");
        }
    }

    #[test]
    fn a_question_that_leaves_no_room_is_cut_and_an_empty_text_is_none() {
        let windows = encode("a b c d e f g h", "x y z", 9);
        assert!(windows.iter().all(|window| window.text.truncated && window.text.ids.len() <= 9));
        assert_eq!(windows[0].text.ids, [2, 4, 5, 6, 3, 27, 28, 29, 3]);
        let [window] = &encode("a", "", 9)[..] else { panic!("one window") };
        assert_eq!(window.context, vec![None; 4]);
    }
}
