//! What masked language modelling hides of a text.

use peft_models::{Encoded, TextTokenizer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{Error, Result, mix};

/// The share of a text's tokens that is hidden.
const HIDDEN: f64 = 0.15;

/// Of the hidden tokens, the share that becomes the mask token, and that which becomes a random one;
/// the rest stay as they are, so that the model cannot rely on being told where to look.
const MASKED: f64 = 0.8;
const RANDOM: f64 = 0.1;

/// Hides tokens of a text (Devlin et al. 2019, arXiv 1810.04805): each with a probability of 15 %,
/// special tokens never. Of these, 80 % become the mask token and 10 % a random one.
///
/// Unlike transformers' collator, at least one token of a text is hidden, so that no batch is
/// without a loss.
#[derive(Debug, Clone)]
pub(crate) struct Masking {
    mask: u32,
    vocabulary: u32,
}

/// A text with tokens hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Masked {
    /// The tokens as the model is given them.
    pub(crate) ids: Vec<u32>,
    /// Where tokens were hidden, and which.
    pub(crate) hidden: Vec<(usize, u32)>,
}

impl Masking {
    /// # Errors
    /// If the tokenizer has no mask token.
    pub(crate) fn new(tokenizer: &TextTokenizer) -> Result<Self> {
        let mask = tokenizer.mask_token().ok_or_else(|| {
            let expected = "the model's tokenizer has no mask token: it was not trained to fill in";
            Error::setting("task", "mlm", expected)
        })?;
        Ok(Self { mask, vocabulary: tokenizer.vocabulary() as u32 })
    }

    /// How many tokens of a text are hidden, on average.
    pub(crate) fn expected(&self, text: &Encoded) -> f64 {
        HIDDEN * text.special.iter().filter(|special| !**special).count() as f64
    }

    /// Hides tokens of a text; the same seed hides the same.
    pub(crate) fn hide(&self, text: &Encoded, seed: u64) -> Masked {
        let mut random = StdRng::seed_from_u64(mix(seed, text.ids.len() as u64));
        let words: Vec<usize> = (0..text.ids.len()).filter(|&i| !text.special[i]).collect();
        let mut chosen: Vec<usize> =
            words.iter().copied().filter(|_| random.random_bool(HIDDEN)).collect();
        if chosen.is_empty() && !words.is_empty() {
            chosen.push(words[random.random_range(0..words.len())]);
        }
        let mut ids = text.ids.clone();
        let hidden = chosen.iter().map(|&place| (place, text.ids[place])).collect();
        for place in chosen {
            let draw: f64 = random.random();
            if draw < MASKED {
                ids[place] = self.mask;
            } else if draw < MASKED + RANDOM {
                ids[place] = random.random_range(0..self.vocabulary);
            }
        }
        Masked { ids, hidden }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 1000;

    fn text(words: usize) -> Encoded {
        let ids: Vec<u32> = (0..words as u32 + 2).collect();
        let special = (0..ids.len()).map(|i| i == 0 || i == words + 1).collect();
        Encoded { segments: vec![0; ids.len()], ids, special, truncated: false }
    }

    fn masking() -> Masking {
        Masking { mask: MASK, vocabulary: 900 }
    }

    #[test]
    fn shares_are_as_in_the_paper() {
        let (text, words) = (text(400), 400.0f64);
        let (mut hidden, mut masked, mut same) = (0.0f64, 0.0, 0.0);
        for seed in 0..100 {
            let found = masking().hide(&text, seed);
            for (place, word) in found.hidden {
                hidden += 1.0;
                masked += f64::from(u8::from(found.ids[place] == MASK));
                same += f64::from(u8::from(found.ids[place] == word));
            }
        }
        assert!((hidden / (100.0 * words) - 0.15).abs() < 0.01, "{hidden}");
        assert!((hidden / (100.0 * masking().expected(&text)) - 1.0).abs() < 0.05, "{hidden}");
        assert!((masked / hidden - 0.8).abs() < 0.02, "{masked}");
        assert!((same / hidden - 0.1).abs() < 0.02, "{same}");
    }

    #[test]
    fn special_tokens_stay_and_something_is_always_hidden() {
        for seed in 0..200 {
            let found = masking().hide(&text(2), seed);
            assert!((1..=2).contains(&found.hidden.len()));
            assert_eq!([found.ids[0], found.ids[3]], [0, 3]);
            assert!(found.hidden.iter().all(|&(place, word)| word as usize == place));
        }
        assert!(masking().hide(&text(0), 3).hidden.is_empty());
    }

    #[test]
    fn the_same_seed_hides_the_same_and_another_does_not() {
        let text = text(40);
        assert_eq!(masking().hide(&text, 7), masking().hide(&text, 7));
        assert_ne!(masking().hide(&text, 7), masking().hide(&text, 8));
    }
}
