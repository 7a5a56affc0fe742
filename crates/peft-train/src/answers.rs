//! Answers to questions, from the start and the end that a model gives.

use peft_core::Memo;
use peft_data::metrics::Metrics;
use peft_data::{Goal, Target, TokenizedSet};
use peft_models::Model;

use crate::evaluate::{EVALUATION, Under};
use crate::loss::{by_text, loss};
use crate::{Error, Result};

/// The most tokens that an answer has.
const LONGEST_ANSWER: usize = 30;

/// The likeliest answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// A span of the text; empty where the text is.
    pub text: String,
    /// The byte of the text that it begins at.
    pub start: usize,
    /// The probability of its start times that of its end, among all tokens of its window.
    pub score: f32,
    /// The same of there being none, where it is least likely.
    pub none: f32,
    /// The sum of its two logits.
    odds: f32,
    /// The same of there being none, in the window where it is least.
    none_odds: f32,
}

impl Answered {
    /// Whether there being no answer is more likely.
    pub fn is_none(&self) -> bool {
        self.none_odds > self.odds
    }
}

/// The likeliest answer to each question, in the order of the data set.
///
/// # Errors
/// If an input does not fit the model, or the task is not question answering.
pub fn predict_answers(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Vec<Answered>> {
    Ok(answers(model, under, data, batch_size)?.0)
}

/// The metrics of answers. That there is none is an answer if some texts hold none.
pub(crate) fn evaluate_answers(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<Metrics> {
    let (found, loss) = answers(model, under, data, batch_size)?;
    let wanted = data.targets().iter().map(|target| match target {
        Some(Target::Answers(answers)) => answers.iter().map(|a| a.text.as_str()).collect(),
        _ => Vec::new(),
    });
    let wanted: Vec<Vec<&str>> = wanted.collect();
    let may_be_none = wanted.iter().any(Vec::is_empty);
    let shown = |found: &'_ Answered| may_be_none && found.is_none();
    let found: Vec<&str> =
        found.iter().map(|found| if shown(found) { "" } else { found.text.as_str() }).collect();
    Ok(Metrics::of_answers(&found, &wanted, loss))
}

/// As [`predict_answers`], with the mean loss of the windows whose answers are known.
fn answers(
    model: &Model,
    under: Under<'_>,
    data: &TokenizedSet,
    batch_size: usize,
) -> Result<(Vec<Answered>, f64)> {
    let mut found: Vec<Option<Answered>> = vec![None; data.targets().len()];
    let (mut windows, mut total) = (0, 0.0);
    let memo = Memo::new();
    for indices in data.sorted(batch_size).iter() {
        let batch = data.batch(indices, EVALUATION, model.base().device())?;
        let logits = under.logits(model, &batch, &memo)?;
        let (by_text, lengths) = by_text(logits.tensor(), &batch);
        let [_, longest, outputs] = by_text.dims();
        if outputs != 2 {
            let expected = "the head does not give the start and the end of an answer";
            return Err(Error::setting("task", "qa", expected));
        }
        let values: Vec<f32> =
            by_text.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        for ((&index, length), values) in
            indices.iter().zip(lengths).zip(values.chunks(longest * outputs))
        {
            let window = data.window(index).ok_or_else(|| {
                Error::setting("task", "qa", "the texts are not those of questions")
            })?;
            let logits: Vec<[f32; 2]> =
                values[..length * outputs].chunks(outputs).map(|pair| [pair[0], pair[1]]).collect();
            let here = likeliest(&logits, &window.tokens, &window.context);
            let best = &mut found[window.example];
            *best = Some(match best.take() {
                None => here,
                Some(other) => other.or(here),
            });
        }
        if !batch.targets.is_empty() {
            let mean = loss(Goal::QuestionAnswering, &logits, &batch).into_scalar::<f32>();
            total += f64::from(mean) * batch.targets.len() as f64;
            windows += batch.targets.len();
        }
    }
    let found = found.into_iter().map(|found| found.expect("a question has a window"));
    Ok((found.collect(), total / windows.max(1) as f64))
}

impl Answered {
    /// The likelier one of two windows.
    fn or(self, other: Self) -> Self {
        let (none, none_odds) = match other.none_odds < self.none_odds {
            true => (other.none, other.none_odds),
            false => (self.none, self.none_odds),
        };
        let best = if other.odds > self.odds { other } else { self };
        Self { none, none_odds, ..best }
    }
}

/// The likeliest answer in a window: logits of its start and end at each token.
fn likeliest(
    logits: &[[f32; 2]],
    tokens: &[Option<std::ops::Range<usize>>],
    context: &str,
) -> Answered {
    let sum = |side: usize| {
        let most = logits.iter().map(|pair| pair[side]).fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|pair| (pair[side] - most).exp()).sum();
        most + sum.ln()
    };
    let log_sums = sum(0) + sum(1);
    let score = |odds: f32| (odds - log_sums).exp();
    let none_odds = logits.first().map_or(f32::NEG_INFINITY, |[start, end]| start + end);
    let mut best: Option<(f32, usize, usize)> = None;
    for (first, bytes) in tokens.iter().enumerate() {
        let Some(begins) = bytes else { continue };
        let lasts = tokens.iter().enumerate().skip(first).take(LONGEST_ANSWER);
        for (last, ends) in lasts.map_while(|(last, bytes)| Some((last, bytes.as_ref()?))) {
            let odds = logits[first][0] + logits[last][1];
            if best.is_none_or(|(most, ..)| odds > most) {
                best = Some((odds, begins.start, ends.end));
            }
        }
    }
    let (odds, start, end) = best.unwrap_or((f32::NEG_INFINITY, 0, 0));
    let text = context.get(start..end).unwrap_or_default().to_string();
    Answered { text, start, score: score(odds), none: score(none_odds), odds, none_odds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_span_of_the_text_is_the_answer() {
        // A special token, a question's, a special one, three of "ab cd ef", a special one.
        let bytes = [0..2, 3..5, 6..8];
        let tokens = [None, None, None].into_iter().chain(bytes.map(Some)).chain([None]);
        let tokens: Vec<_> = tokens.collect();
        let mut logits = vec![[0.0; 2]; 7];
        // What is likeliest outside of the text, or ends before it begins, is none.
        logits[1] = [9.0, 9.0];
        logits[5][0] = 3.0;
        logits[3][1] = 4.0;
        logits[4][1] = 1.0;
        logits[3][0] = 2.5;
        let found = likeliest(&logits, &tokens, "ab cd ef");
        assert_eq!((found.text.as_str(), found.start), ("ab", 0));
        let sum = |side: usize| logits.iter().map(|pair| pair[side].exp()).sum::<f32>();
        let score = (6.5f32).exp() / (sum(0) * sum(1));
        assert!((found.score - score).abs() < 1e-6, "{} {score}", found.score);
        assert!(!found.is_none());
        logits[0] = [4.0, 3.0];
        let other = likeliest(&logits, &tokens, "ab cd ef");
        assert!(other.is_none() && other.text == "ab");
        // A window that is sure of an answer outweighs one without.
        assert!(!other.or(found).is_none());
    }

    #[test]
    fn an_answer_is_not_longer_than_it_may_be() {
        let tokens: Vec<_> = (0..60).map(|token| Some(token..token + 1)).collect();
        let mut logits = vec![[0.0; 2]; 60];
        logits[0][0] = 5.0;
        logits[LONGEST_ANSWER][1] = 5.0;
        let text = "x".repeat(60);
        let found = likeliest(&logits, &tokens, &text);
        assert!(found.text.len() <= LONGEST_ANSWER);
        logits[LONGEST_ANSWER - 1][1] = 4.0;
        assert_eq!(likeliest(&logits, &tokens, &text).text.len(), LONGEST_ANSWER);
    }
}
