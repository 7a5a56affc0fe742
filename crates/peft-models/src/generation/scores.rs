//! What becomes of a model's scores before a token is chosen.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;

use super::GenerationConfig;

/// Where a text is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress<'a> {
    /// The tokens so far: the prompt's too, but for a decoder beside an encoder, whose start token
    /// is the first.
    pub(super) tokens: &'a [u32],
    /// How many of them were generated.
    pub(super) generated: usize,
    /// Whether the text is that of a decoder beside an encoder.
    pub(super) beside_encoder: bool,
}

impl GenerationConfig {
    /// Penalties and forced tokens, in transformers' order.
    pub(super) fn adjust(&self, progress: Progress<'_>, scores: &mut [f32]) {
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

    /// The next token of one text.
    pub(super) fn choose(&self, scores: &[f32], random: &mut StdRng) -> u32 {
        if self.do_sample { self.draw(scores, random) } else { best(scores) as u32 }
    }

    fn draw(&self, scores: &[f32], random: &mut StdRng) -> u32 {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
        if self.top_k > 0 && self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k - 1, by_score);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(by_score);
        let top = f64::from(scores[order[0]]);
        let weight = |&i: &usize| ((f64::from(scores[i]) - top) / self.temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        // The likeliest whose probabilities come to `top_p`, the one that reaches it included.
        let (mut kept, mut sum) = (0, 0.0);
        while kept < weights.len() && (kept == 0 || sum < self.top_p * total) {
            sum += weights[kept];
            kept += 1;
        }
        let mut left = random.random::<f64>() * sum;
        let chosen = weights[..kept].iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        order[chosen.unwrap_or(kept - 1)] as u32
    }
}

/// The first of the largest.
pub(super) fn best(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
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

    #[test]
    fn penalties_and_forced_tokens() {
        let config = GenerationConfig {
            repetition_penalty: 2.0,
            no_repeat_ngram_size: 2,
            forced_eos_token_id: Some(0),
            max_new_tokens: 5,
            ..GenerationConfig::default()
        };
        let at = |generated| Progress { tokens: &[1, 2, 3, 1], generated, beside_encoder: false };
        let mut scores = [1.0, 3.0, 4.0, -1.0];
        config.adjust(at(2), &mut scores);
        // After 1 came 2 before.
        assert_eq!(scores, [1.0, 1.5, f32::NEG_INFINITY, -2.0]);
        config.adjust(at(4), &mut scores);
        assert_eq!((best(&scores), scores[0]), (0, 0.0));
    }

    #[test]
    fn draws_are_from_the_likeliest_and_as_often_as_they_should() {
        let scores = [0.2f32, 0.5, 0.1, 0.2].map(f32::ln);
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = |config: &GenerationConfig| {
            let mut counts = [0.0f64; 4];
            (0..4000).for_each(|_| counts[config.draw(&scores, &mut random) as usize] += 1.0);
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
