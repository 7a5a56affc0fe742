//! Texts of any length to tokens, without more of a text than its tokens need.

use std::borrow::Cow;

use tokenizers::parallelism::MaybeParallelIterator;
use tokenizers::{EncodeInput, Encoding, Tokenizer};

use super::TextTokenizer;
use super::growth::LONGEST;
use super::guard::guarded;
use crate::{Error, Result};

/// How many bytes of a text are read at first for each token that is kept; few texts need more.
const BYTES: usize = 16;

/// Tokens behind those that are kept, by which the end of what was read does not tell.
const MARGIN: usize = 16;

/// What is encoded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'t> {
    Text(&'t str),
    Pair(&'t str, &'t str),
    Words(&'t [String]),
}

impl<'t> Input<'t> {
    /// The first `bytes` of each part, and whether that is all.
    fn begin(self, bytes: usize) -> (EncodeInput<'t>, bool) {
        let begin = |text: &'t str| &text[..end(text, bytes)];
        match self {
            Self::Text(text) => (begin(text).into(), text.len() <= bytes),
            Self::Pair(text, pair) => {
                let are_whole = text.len().max(pair.len()) <= bytes;
                ((begin(text), begin(pair)).into(), are_whole)
            }
            Self::Words(words) => {
                let mut left = bytes;
                let fits = |word: &&String| {
                    // An empty word takes memory too.
                    let rest = left.checked_sub(word.len().max(1));
                    left = rest.unwrap_or(0);
                    rest.is_some()
                };
                let count = words.iter().take_while(fits).count();
                match words {
                    [first, ..] if count == 0 => {
                        let first: Vec<Cow<'t, str>> = vec![begin(first).into()];
                        (first.into(), false)
                    }
                    _ => (words[..count].into(), count == words.len()),
                }
            }
        }
    }

    /// The beginning, for messages.
    fn shown(self) -> String {
        let text = match self {
            Self::Text(text) | Self::Pair(text, _) => text,
            Self::Words(words) => words.first().map_or("", String::as_str),
        };
        const SHOWN: usize = 40;
        match text.len() > SHOWN {
            true => format!("{:?}...", &text[..text.floor_char_boundary(SHOWN)]),
            false => format!("{text:?}"),
        }
    }
}

/// Where the first `bytes` of a text end: before a space, if there is one among them.
fn end(text: &str, bytes: usize) -> usize {
    if text.len() <= bytes {
        return text.len();
    }
    let end = text.floor_char_boundary(bytes);
    let space = text[..end].rfind(char::is_whitespace);
    space.filter(|space| *space > end / 2).unwrap_or(end)
}

impl TextTokenizer {
    /// The encodings of texts by one of the tokenizers, by what encodes one; only as much of each
    /// is read as its tokens need.
    ///
    /// # Errors
    /// If the tokenizer fails on a text, or one is too long; it is named.
    pub(super) fn encodings<'t>(
        &self,
        tokenizer: &Tokenizer,
        inputs: &[Input<'t>],
        encode: impl Fn(&Tokenizer, EncodeInput<'t>) -> tokenizers::Result<Encoding> + Send + Sync,
    ) -> Result<Vec<Encoding>> {
        let one = |number: usize| {
            let input = inputs[number];
            self.encoding(tokenizer, input, &encode).map_err(|reason| {
                let text = match inputs.len() {
                    1 => String::new(),
                    _ => format!(" {}", number + 1),
                };
                Error::Input(format!("text{text} ({}): tokenizer: {reason}", input.shown()))
            })
        };
        (0..inputs.len()).into_maybe_par_iter().map(one).collect()
    }

    fn encoding<'t>(
        &self,
        tokenizer: &Tokenizer,
        input: Input<'t>,
        encode: impl Fn(&Tokenizer, EncodeInput<'t>) -> tokenizers::Result<Encoding>,
    ) -> std::result::Result<Encoding, String> {
        let most = (LONGEST as f64 / self.growth) as usize;
        let kept = tokenizer.get_truncation().map_or(usize::MAX, |kept| kept.max_length);
        let mut bytes = kept.saturating_mul(BYTES).max(1 << 12);
        loop {
            let (begin, is_whole) = input.begin(bytes.min(most));
            let too_long = || format!("too long, at most {most} bytes can be encoded");
            if !is_whole && kept == usize::MAX {
                return Err(too_long());
            }
            let encoding = guarded(|| encode(tokenizer, begin)).map_err(|e| e.to_string())?;
            let behind: usize = encoding.get_overflowing().iter().map(Encoding::len).sum();
            if is_whole || behind >= MARGIN {
                // What stands around a text may hold it twice, which is not counted when it is cut.
                return match encoding.len() <= kept {
                    true => Ok(encoding),
                    false => Err(format!(
                        "its template makes {} tokens of a text that is cut to {kept}",
                        encoding.len()
                    )),
                };
            }
            if bytes >= most {
                return Err(too_long());
            }
            bytes = bytes.saturating_mul(4);
        }
    }
}
