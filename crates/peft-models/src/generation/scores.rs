//! What becomes of a model's scores before a token is chosen.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;

use super::GenerationConfig;
use super::likeliest::Likeliest;
use crate::{Error, Result};

/// Where a text is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress<'a> {
    /// Its index in the batch.
    pub(super) text: usize,
    /// The tokens so far: the prompt's too, but for a decoder beside an encoder, whose start token
    /// is the first.
    pub(super) tokens: &'a [u32],
    /// How many of them were generated.
    pub(super) generated: usize,
    /// Whether the text is that of a decoder beside an encoder.
    pub(super) beside_encoder: bool,
}

impl Progress<'_> {
    /// The error that no token can follow.
    pub(super) fn stuck(self, reason: impl Into<String>) -> Error {
        Error::Generation { text: self.text, tokens: self.tokens.len(), reason: reason.into() }
    }
}

/// Why no token can follow where penalties and `no_repeat_ngram_size` leave none.
pub(super) const NONE_LEFT: &str = "every token is ruled out";

impl GenerationConfig {
    /// Penalties and forced tokens, in transformers' order.
    ///
    /// # Errors
    /// If a score is NaN or positive infinity, or all are negative infinity: no token follows from
    /// such scores.
    pub(super) fn adjust(&self, progress: Progress<'_>, scores: &mut [f32]) -> Result<()> {
        let broken = scores.iter().position(|score| score.is_nan() || *score == f32::INFINITY);
        if let Some(token) = broken {
            let score = scores[token];
            return Err(progress.stuck(format!("the model's score of token {token} is {score}")));
        }
        if scores.iter().all(|score| *score == f32::NEG_INFINITY) {
            return Err(progress.stuck("the model's scores of all tokens are -inf"));
        }
        if self.repetition_penalty != 1.0 {
            let penalty = self.repetition_penalty as f32;
            for &token in progress.tokens.iter().collect::<BTreeSet<_>>() {
                if let Some(score) = scores.get_mut(token as usize) {
                    *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
                }
            }
        }
        for token in self.repeating(progress.tokens) {
            scores[token as usize] = f32::NEG_INFINITY;
        }
        let forced = match progress.generated {
            0 if progress.beside_encoder => self.forced_bos_token_id,
            generated if generated + 1 == self.max_new_tokens => self.forced_eos_token_id,
            _ => None,
        };
        if let Some(token) = forced {
            scores.fill(f32::NEG_INFINITY);
            scores[token as usize] = 0.0;
        }
        Ok(())
    }

    /// The tokens that would make a sequence of `no_repeat_ngram_size` come again.
    fn repeating(&self, tokens: &[u32]) -> Vec<u32> {
        let size = self.no_repeat_ngram_size;
        if size == 0 || tokens.len() + 1 < size {
            return Vec::new();
        }
        let end = &tokens[tokens.len() + 1 - size..];
        tokens.windows(size).filter(|w| w[..size - 1] == *end).map(|w| w[size - 1]).collect()
    }

    /// The next token of one text; `None` where no score is finite.
    pub(super) fn choose(&self, scores: &[f32], random: &mut StdRng) -> Option<u32> {
        let token = if self.do_sample { self.draw(scores, random) } else { best(scores) };
        token.map(|token| token as u32)
    }

    fn draw(&self, scores: &[f32], random: &mut StdRng) -> Option<usize> {
        let mut order = Likeliest::new(scores, self.top_k);
        let top = f64::from(scores[order.get(0)?]);
        let weight = |i: usize| ((f64::from(scores[i]) - top) / self.temperature).exp();
        let mut sum: f64 = order.all().map(weight).sum();
        if self.top_p < 1.0 {
            // The likeliest whose probabilities come to `top_p`, the one that reaches it included.
            let (total, mut kept) = (sum, 0);
            sum = 0.0;
            while let Some(token) = order.get(kept)
                && (kept == 0 || sum < self.top_p * total)
            {
                sum += weight(token);
                kept += 1;
            }
            order.truncate(kept);
        }
        let mut left = random.random::<f64>() * sum;
        let (mut place, mut chosen) = (0, None);
        while let Some(token) = order.get(place) {
            chosen = Some(token);
            left -= weight(token);
            if left < 0.0 {
                break;
            }
            place += 1;
        }
        chosen
    }
}

/// The first of the largest finite ones.
fn best(scores: &[f32]) -> Option<usize> {
    let larger = |best: f32, score: &f32| {
        if score.is_finite() && *score > best { *score } else { best }
    };
    let top = scores.iter().fold(f32::NEG_INFINITY, larger);
    scores.iter().position(|score| *score == top && score.is_finite())
}

/// `x - log Σ exp(x)`.
pub(super) fn log_softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = scores.iter().map(|score| (score - top).exp()).sum();
    let log = top + sum.ln();
    scores.iter_mut().for_each(|score| *score -= log);
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// A text with four tokens.
    fn at(generated: usize) -> Progress<'static> {
        Progress { text: 7, tokens: &[1, 2, 3, 1], generated, beside_encoder: false }
    }

    #[test]
    fn penalties_and_forced_tokens() {
        let config = GenerationConfig {
            repetition_penalty: 2.0,
            no_repeat_ngram_size: 2,
            forced_eos_token_id: Some(0),
            max_new_tokens: 5,
            ..GenerationConfig::default()
        };
        let mut scores = [1.0, 3.0, 4.0, -1.0];
        config.adjust(at(2), &mut scores).unwrap();
        // After 1 came 2 before.
        assert_eq!(scores, [1.0, 1.5, f32::NEG_INFINITY, -2.0]);
        config.adjust(at(4), &mut scores).unwrap();
        assert_eq!((best(&scores), scores[0]), (Some(0), 0.0));
    }

    #[test]
    fn scores_that_are_no_numbers_are_errors_with_the_text_and_its_length() {
        let config = GenerationConfig { forced_eos_token_id: Some(0), ..Default::default() };
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for (scores, expected) in [
            ([1.0, nan, 2.0], "the model's score of token 1 is NaN"),
            ([nan; 3], "the model's score of token 0 is NaN"),
            ([1.0, 2.0, inf], "the model's score of token 2 is inf"),
            ([-inf; 3], "the model's scores of all tokens are -inf"),
        ] {
            // A token that is forced hides nothing.
            for generated in [2, config.max_new_tokens - 1] {
                let error = config.adjust(at(generated), &mut scores.clone()).unwrap_err();
                let expected =
                    format!("text 7 of the batch cannot be continued after 4 tokens: {expected}");
                assert_eq!(error.to_string(), expected);
            }
        }
    }

    #[test]
    fn nothing_that_is_not_finite_is_chosen() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for do_sample in [false, true] {
            let config = GenerationConfig { do_sample, top_k: 3, ..Default::default() };
            let choose = |scores: &[f32]| config.choose(scores, &mut StdRng::seed_from_u64(0));
            assert_eq!(choose(&[-inf, nan, inf, -3.0, nan]), Some(3));
            assert_eq!(choose(&[-inf; 4]), None);
            assert_eq!(choose(&[nan; 4]), None);
            assert_eq!(choose(&[]), None);
        }
    }

    #[test]
    fn draws_are_from_the_likeliest_and_as_often_as_they_should() {
        let scores = [0.2f32, 0.5, 0.1, 0.2].map(f32::ln);
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = |config: &GenerationConfig| {
            let mut counts = [0.0f64; 4];
            (0..4000).for_each(|_| counts[config.draw(&scores, &mut random).unwrap()] += 1.0);
            counts.map(|count| count / 4000.0)
        };
        let near = |found: [f64; 4], wanted: [f64; 4]| {
            let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f64::max) < 0.03, "{found:?} {wanted:?}");
        };
        let config = GenerationConfig { top_k: 0, ..GenerationConfig::default() };
        near(counts(&config), [0.2, 0.5, 0.1, 0.2]);
        near(
            counts(&GenerationConfig { top_k: 2, ..config.clone() }),
            [2.0 / 7.0, 5.0 / 7.0, 0.0, 0.0],
        );
        near(
            counts(&GenerationConfig { top_p: 0.6, ..config.clone() }),
            [2.0 / 7.0, 5.0 / 7.0, 0.0, 0.0],
        );
        near(counts(&GenerationConfig { top_p: 0.1, ..config.clone() }), [0.0, 1.0, 0.0, 0.0]);
        let cold = GenerationConfig { temperature: 0.5, ..config };
        near(counts(&cold), [4.0 / 34.0, 25.0 / 34.0, 1.0 / 34.0, 4.0 / 34.0]);
    }
}
