//! Beam search.

use super::scores::{NONE_LEFT, Progress, log_softmax};
use super::stream::Stream;
use super::{EarlyStopping, Generator};
use crate::Result;

/// Below any score: of beams that are not there.
const NONE: f32 = -1e9;

/// A text that is searched.
#[derive(Debug, Clone)]
struct Beam {
    tokens: Vec<u32>,
    /// The sum of the log probabilities of its new tokens.
    score: f32,
    /// The row of the batch that it was made from.
    row: usize,
    /// Whether it has come to its end.
    ends: bool,
}

/// The search for one prompt.
#[derive(Debug)]
struct Search {
    /// As many as are searched, the best first; none where no token can follow.
    running: Vec<Beam>,
    /// The best that ended, by their score over a power of their length.
    finished: Vec<(f32, Vec<u32>)>,
    /// Whether a running beam may still become better than the finished ones.
    open: bool,
    /// Tokens before the first new one.
    beginning: usize,
    /// The most new tokens.
    longest: usize,
}

/// What a score of so many tokens is divided by; neither 0 nor infinite, whatever the penalty.
fn divisor(length: usize, penalty: f64) -> f32 {
    (length as f32).powf(penalty as f32).clamp(f32::MIN_POSITIVE, f32::MAX)
}

impl Generator<'_> {
    /// As transformers searches: of each prompt's beams the best continuations are kept, twice as
    /// many as there are beams, so that enough go on where some end.
    pub(super) fn beams(&self, prompts: &[&[u32]]) -> Result<Vec<Vec<u32>>> {
        let (config, beams) = (self.config, self.config.num_beams);
        let room = self.room(prompts)?;
        let (stream, mut scores) = Stream::begin(*self, prompts)?;
        let mut searches: Vec<Search> = (prompts.iter().enumerate())
            .map(|(row, prompt)| {
                let tokens = stream.start().map_or(prompt.to_vec(), |start| vec![start]);
                let beginning = tokens.len();
                let first = Beam { tokens, score: 0.0, row, ends: false };
                let (running, longest) = (vec![first], config.max_new_tokens.min(room[row]));
                Search { running, finished: Vec::new(), open: true, beginning, longest }
            })
            .collect();
        let candidates = beams.saturating_mul((1 + config.eos_token_id.len()).max(2));
        for generated in 0..config.max_new_tokens {
            let mut any_goes_on = false;
            let mut rows = scores.into_iter();
            for (text, search) in searches.iter_mut().enumerate() {
                let Some(first) = search.running.first() else { continue };
                let progress = |tokens| {
                    let beside_encoder = stream.start().is_some();
                    Progress { text, tokens, generated, beside_encoder }
                };
                let mut scored: Vec<Vec<f32>> = rows.by_ref().take(search.running.len()).collect();
                for (beam, scores) in search.running.iter().zip(&mut scored) {
                    log_softmax(scores);
                    config.adjust(progress(&beam.tokens), scores)?;
                    scores.iter_mut().for_each(|score| *score += beam.score);
                }
                let best = search.continuations(&scored, candidates, |token| {
                    config.eos_token_id.contains(&token) || generated + 1 == search.longest
                });
                if best.is_empty() {
                    return Err(progress(&first.tokens).stuck(NONE_LEFT));
                }
                any_goes_on |= best.iter().any(|beam| !beam.ends);
                search.finish(&best, generated + 1, self);
                if generated + 1 == search.longest {
                    (search.running, search.open) = (Vec::new(), false);
                    continue;
                }
                search.go_on(best, beams);
                search.judge(generated + 1, self);
            }
            let all_finished = (searches.iter())
                .all(|search| search.finished.len() == beams || search.running.is_empty());
            let enough = all_finished && config.early_stopping == EarlyStopping::Finished;
            if enough || !any_goes_on || searches.iter().all(|search| !search.open) {
                break;
            }
            let running = searches.iter().flat_map(|search| &search.running);
            let next: Vec<(usize, u32)> =
                running.map(|beam| (beam.row, *beam.tokens.last().expect("a new token"))).collect();
            scores = stream.next(&next)?;
            let running = searches.iter_mut().flat_map(|search| &mut search.running);
            running.enumerate().for_each(|(row, beam)| beam.row = row);
        }
        let best = |search: Search| {
            let (_, mut tokens) = search.finished.into_iter().next().expect("a beam that ended");
            tokens.split_off(search.beginning)
        };
        let texts: Vec<Vec<u32>> = searches.into_iter().map(best).collect();
        self.warn_of_ends(&texts, &room);
        Ok(texts)
    }
}

impl Search {
    /// The best continuations of all running beams, by the sums of log probabilities; none that is
    /// ruled out.
    fn continuations(
        &self,
        scores: &[Vec<f32>],
        count: usize,
        ends: impl Fn(u32) -> bool,
    ) -> Vec<Beam> {
        let mut all: Vec<(f32, usize, usize)> = (scores.iter().enumerate())
            .flat_map(|(beam, scores)| {
                scores.iter().enumerate().map(move |(token, score)| (*score, beam, token))
            })
            .filter(|(score, ..)| score.is_finite())
            .collect();
        let best_first = |a: &(f32, usize, usize), b: &(f32, usize, usize)| {
            b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        if count < all.len() {
            all.select_nth_unstable_by(count - 1, best_first);
            all.truncate(count);
        }
        all.sort_unstable_by(best_first);
        let continued = all.into_iter().map(|(score, beam, token)| {
            let Beam { tokens, row, .. } = &self.running[beam];
            let tokens = [&tokens[..], &[token as u32]].concat();
            Beam { tokens, score, row: *row, ends: ends(token as u32) }
        });
        continued.collect()
    }

    /// Takes what ended among the best continuations, unless the search is over.
    fn finish(&mut self, best: &[Beam], length: usize, generator: &Generator<'_>) {
        let (config, beams) = (generator.config, generator.config.num_beams);
        let full = self.finished.len() == beams;
        if !self.open || (full && config.early_stopping == EarlyStopping::Finished) {
            return;
        }
        let divisor = divisor(length, config.length_penalty);
        let ended = best.iter().take(beams).filter(|beam| beam.ends);
        self.finished.extend(ended.map(|beam| (beam.score / divisor, beam.tokens.clone())));
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(beams);
    }

    /// Goes on with the best that did not end; where there are too few, with some that did, which
    /// count for nothing.
    fn go_on(&mut self, mut best: Vec<Beam>, beams: usize) {
        for beam in best.iter_mut().filter(|beam| beam.ends) {
            beam.score += NONE;
        }
        best.sort_by(|a, b| b.score.total_cmp(&a.score));
        best.truncate(beams);
        self.running = best;
    }

    /// Whether a running beam may still become better than the worst of the finished ones.
    fn judge(&mut self, length: usize, generator: &Generator<'_>) {
        let config = generator.config;
        let longest = config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0;
        let length = if longest { self.longest } else { length };
        let possible = self.running[0].score / divisor(length, config.length_penalty);
        let worst = match self.finished.len() == config.num_beams {
            true => self.finished.last().map_or(NONE, |(score, _)| *score),
            false => NONE,
        };
        self.open &= self.finished.is_empty() || possible > worst;
    }
}
