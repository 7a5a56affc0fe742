//! Metrics.

mod bleu;
mod chrf;
mod entities;
mod exact_match;
mod ngrams;
#[cfg(test)]
mod recorded;
mod rouge;
mod several;
mod squad;

pub use bleu::Bleu;
pub use chrf::chrf;
pub use entities::{EntityCounts, EntityScores};
pub use exact_match::exact_match;
pub use rouge::Rouge;
pub use several::LabelCounts;
pub use squad::SquadScores;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Goal, Labels, TagScheme, Target, to_bio};

/// What a model gave for one example.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// A logit for each label, or the one number of a regression.
    pub logits: Vec<f32>,
}

impl Output {
    /// The index of the largest logit.
    pub fn class(&self) -> usize {
        let largest = self.logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        largest.map_or(0, |(index, _)| index)
    }

    /// The probabilities of the labels.
    pub fn probabilities(&self) -> Vec<f32> {
        let max = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = self.logits.iter().map(|l| (l - max).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.into_iter().map(|p| p / sum).collect()
    }

    /// The labels that are more likely than not, where a text may have any number of them.
    pub fn classes(&self) -> Vec<usize> {
        let likely = self.logits.iter().enumerate().filter(|(_, logit)| **logit > 0.0);
        likely.map(|(label, _)| label).collect()
    }

    /// The probability of each label by itself.
    pub fn probabilities_apart(&self) -> Vec<f32> {
        self.logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
    }
}

/// A metric that a run can be judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The share of right labels; of texts whose labels are all right, where there may be several.
    Accuracy,
    /// F1 of the second label, where there are two; of entities, where words are tagged; of the words
    /// of answers.
    F1,
    /// The share of found entities that are right.
    Precision,
    /// The share of entities that were found.
    Recall,
    /// F1 of all labels together, where a text may have several.
    F1Micro,
    /// The mean of every label's F1.
    F1Macro,
    /// Matthews' correlation coefficient.
    Matthews,
    /// Pearson's correlation coefficient.
    Pearson,
    /// Spearman's rank correlation coefficient.
    Spearman,
    /// The mean squared error; less is better.
    MeanSquaredError,
    /// The share of questions whose answer is right, word for word.
    ExactMatch,
    /// How many words a language model is in doubt between, `exp` of its loss; less is better.
    Perplexity,
    /// The loss; less is better.
    Loss,
}

impl Metric {
    /// The metric of a goal.
    pub fn of(labels: &Labels) -> Self {
        match labels.goal {
            Goal::Tag if labels.are_entities() => Self::F1,
            Goal::Tag => Self::Accuracy,
            Goal::Classify => Self::Accuracy,
            Goal::MultiLabel => Self::F1Micro,
            Goal::QuestionAnswering => Self::F1,
            Goal::Regress => Self::Spearman,
            Goal::MaskedLm | Goal::CausalLm | Goal::Seq2Seq => Self::Perplexity,
        }
    }

    /// Its name, as in run files and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1Micro => "f1_micro",
            Self::F1Macro => "f1_macro",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::MeanSquaredError => "mean_squared_error",
            Self::ExactMatch => "exact_match",
            Self::Perplexity => "perplexity",
            Self::Loss => "loss",
        }
    }

    /// Whether `new` is better than `old`.
    pub fn better(self, new: f64, old: f64) -> bool {
        match self {
            Self::MeanSquaredError | Self::Perplexity | Self::Loss => new < old,
            _ => new > old,
        }
    }
}

/// The metrics of a data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(Map<String, Value>);

impl Metrics {
    /// The metrics of outputs against what they should have been.
    ///
    /// Where a coefficient is undefined (a constant side), it is 0, as in the reference libraries.
    ///
    /// # Panics
    /// If the lengths differ, or targets are not of the labels' goal.
    pub fn new(labels: &Labels, outputs: &[Output], targets: &[Target], loss: f64) -> Self {
        assert_eq!(outputs.len(), targets.len(), "each output has a target");
        let mut map = Map::new();
        map.insert("examples".into(), json!(outputs.len()));
        map.insert("loss".into(), json!(loss));
        let mut put = |metric: Metric, value: f64| map.insert(metric.name().into(), json!(value));
        match labels.goal {
            Goal::Classify => {
                let found: Vec<usize> = outputs.iter().map(Output::class).collect();
                let wanted: Vec<usize> = targets.iter().map(class).collect();
                let counts = Confusion::new(&found, &wanted, labels.names.len());
                put(Metric::Accuracy, counts.accuracy());
                if labels.names.len() == 2 {
                    put(Metric::F1, counts.f1(1));
                }
                put(Metric::F1Macro, counts.f1_macro());
                put(Metric::Matthews, counts.matthews());
            }
            Goal::MultiLabel => {
                let found: Vec<Vec<usize>> = outputs.iter().map(Output::classes).collect();
                let wanted: Vec<Vec<usize>> = targets.iter().map(classes).collect();
                let counts = LabelCounts::new(labels.names.len(), &found, &wanted);
                put(Metric::Accuracy, counts.accuracy());
                put(Metric::F1Micro, counts.f1_micro());
                put(Metric::F1Macro, counts.f1_macro());
            }
            Goal::Regress => {
                let found: Vec<f64> = outputs.iter().map(|o| f64::from(o.logits[0])).collect();
                let wanted: Vec<f64> = targets.iter().map(value).collect();
                put(Metric::Pearson, pearson(&found, &wanted));
                put(Metric::Spearman, pearson(&ranks(&found), &ranks(&wanted)));
                let errors = found.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2));
                put(Metric::MeanSquaredError, errors.sum::<f64>() / found.len().max(1) as f64);
            }
            _ => panic!("this goal has metrics of words"),
        }
        Self(map)
    }

    /// The metrics of tags: of each sentence those found, and those that there should be.
    ///
    /// # Panics
    /// If the sentences differ in number or length.
    pub fn of_tags(labels: &Labels, found: &[Vec<&str>], wanted: &[Vec<&str>], loss: f64) -> Self {
        let is_like = found.iter().map(Vec::len).eq(wanted.iter().map(Vec::len));
        assert!(is_like, "each word has a tag on both sides");
        let mut map = Map::new();
        map.insert("examples".into(), json!(wanted.len()));
        map.insert("words".into(), json!(wanted.iter().map(Vec::len).sum::<usize>()));
        map.insert("loss".into(), json!(loss));
        let pairs = found.iter().flatten().zip(wanted.iter().flatten());
        let (mut right, mut words) = (0.0, 0.0);
        for (found, wanted) in pairs {
            right += f64::from(u8::from(found == wanted));
            words += 1.0;
        }
        let mut put = |metric: Metric, value: f64| map.insert(metric.name().into(), json!(value));
        put(Metric::Accuracy, ratio(right, words));
        if labels.are_entities() {
            let scores = match TagScheme::of(labels.names.iter().map(String::as_str)) {
                // seqeval reads these in its strict mode alone.
                scheme @ (TagScheme::Bilou | TagScheme::Bmewo) => {
                    EntityScores::strict(found, wanted, scheme)
                }
                // Types without a prefix are given one, or they would be misread.
                _ => EntityScores::new(&to_bio(found).tags, &to_bio(wanted).tags),
            };
            let scores = scores.all;
            put(Metric::Precision, scores.precision());
            put(Metric::Recall, scores.recall());
            put(Metric::F1, scores.f1());
        }
        Self(map)
    }

    /// The metrics of answers: of each question the one found, and the right ones, of which there
    /// may be none.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn of_answers(found: &[&str], wanted: &[Vec<&str>], loss: f64) -> Self {
        let scores = SquadScores::new(found, wanted);
        let mut map = Map::new();
        map.insert("examples".into(), json!(wanted.len()));
        map.insert("loss".into(), json!(loss));
        map.insert(Metric::ExactMatch.name().into(), json!(scores.exact_match));
        map.insert(Metric::F1.name().into(), json!(scores.f1));
        Self(map)
    }

    /// The metrics of a language model: over `examples` texts it was asked for `tokens` tokens, found
    /// `right` of them, with a mean loss (in nats) for each.
    pub fn of_language(examples: usize, tokens: usize, right: usize, loss: f64) -> Self {
        let mut map = Map::new();
        map.insert("examples".into(), json!(examples));
        map.insert("tokens".into(), json!(tokens));
        map.insert("loss".into(), json!(loss));
        map.insert(Metric::Perplexity.name().into(), json!(loss.exp()));
        map.insert(Metric::Accuracy.name().into(), json!(ratio(right as f64, tokens as f64)));
        Self(map)
    }

    /// The value of a metric, if these have it.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(metric.name())?.as_f64()
    }

    /// Whether a metric is there, but infinite or no number: JSON has no such values, and these
    /// have none either.
    pub fn is_not_finite(&self, metric: Metric) -> bool {
        self.0.get(metric.name()).is_some_and(Value::is_null)
    }

    /// Names and values.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

fn class(target: &Target) -> usize {
    match target {
        Target::Class(class) => *class,
        other => panic!("{other:?} where a label was expected"),
    }
}

fn classes(target: &Target) -> Vec<usize> {
    match target {
        Target::Classes(classes) => classes.clone(),
        other => panic!("{other:?} where labels were expected"),
    }
}

fn value(target: &Target) -> f64 {
    match target {
        Target::Value(value) => f64::from(*value),
        other => panic!("{other:?} where a number was expected"),
    }
}

/// How often each label was given for each.
struct Confusion {
    /// `counts[wanted][found]`.
    counts: Vec<Vec<f64>>,
}

impl Confusion {
    fn new(found: &[usize], wanted: &[usize], labels: usize) -> Self {
        let mut counts = vec![vec![0.0; labels]; labels];
        for (&found, &wanted) in found.iter().zip(wanted) {
            counts[wanted][found] += 1.0;
        }
        Self { counts }
    }

    fn right(&self) -> f64 {
        (0..self.counts.len()).map(|i| self.counts[i][i]).sum()
    }

    fn total(&self) -> f64 {
        self.counts.iter().flatten().sum()
    }

    fn wanted(&self, label: usize) -> f64 {
        self.counts[label].iter().sum()
    }

    fn found(&self, label: usize) -> f64 {
        self.counts.iter().map(|row| row[label]).sum()
    }

    fn accuracy(&self) -> f64 {
        ratio(self.right(), self.total())
    }

    fn f1(&self, label: usize) -> f64 {
        ratio(2.0 * self.counts[label][label], self.wanted(label) + self.found(label))
    }

    /// Over the labels that occur on either side, as scikit-learn counts.
    fn f1_macro(&self) -> f64 {
        let occur: Vec<usize> = (0..self.counts.len())
            .filter(|&label| self.wanted(label) + self.found(label) > 0.0)
            .collect();
        ratio(occur.iter().map(|&label| self.f1(label)).sum(), occur.len() as f64)
    }

    /// For any number of labels (Gorodkin 2004).
    fn matthews(&self) -> f64 {
        let labels = 0..self.counts.len();
        let n = self.total();
        let both: f64 = labels.clone().map(|l| self.wanted(l) * self.found(l)).sum();
        let found: f64 = labels.clone().map(|l| self.found(l).powi(2)).sum();
        let wanted: f64 = labels.map(|l| self.wanted(l).powi(2)).sum();
        ratio(self.right() * n - both, ((n * n - found) * (n * n - wanted)).sqrt())
    }
}

fn ratio(part: f64, of: f64) -> f64 {
    if of == 0.0 { 0.0 } else { part / of }
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().max(1) as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    ratio(ab, (aa * bb).sqrt())
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        let shared = (start + 1 + end) as f64 / 2.0;
        for &index in &order[start..end] {
            ranks[index] = shared;
        }
        start = end;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    // Expected values are scikit-learn's and SciPy's for the same data.
    #[test]
    fn three_labels_as_scikit_learn_counts_them() {
        let found = [0, 2, 1, 0, 0, 1, 2, 2];
        let wanted = [0, 1, 2, 0, 1, 2, 2, 0];
        let counts = Confusion::new(&found, &wanted, 4);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(counts.accuracy(), 0.375);
        near(counts.f1_macro(), (2.0 / 3.0 + 0.0 + 1.0 / 3.0) / 3.0);
        near(counts.matthews(), (3.0 * 8.0 - 22.0) / ((64.0f64 - 22.0) * (64.0 - 22.0)).sqrt());
    }

    #[test]
    fn what_is_not_finite_is_not_what_is_not_there() {
        for (loss, is_finite) in [(1.0, true), (800.0, false), (f64::INFINITY, false)] {
            let metrics = Metrics::of_language(1, 1, 0, loss);
            assert_eq!(metrics.get(Metric::Perplexity).is_some(), is_finite);
            assert_eq!(metrics.is_not_finite(Metric::Perplexity), !is_finite);
            assert_eq!(metrics.is_not_finite(Metric::Loss), !loss.is_finite());
            assert!(
                !metrics.is_not_finite(Metric::Pearson) && metrics.get(Metric::Pearson).is_none()
            );
        }
    }

    /// seqeval's default, and of BILOU its strict mode; BMEWO is BILOU in other letters.
    #[test]
    fn entities_of_every_scheme_are_counted_as_seqeval_counts_them() {
        let (wanted, found) =
            ("B-X I-X L-X U-X U-X O | U-Y B-Y L-Y", "B-X I-X I-X U-X U-X O | U-Y B-Y L-Y");
        let bio = "B-X I-X I-X B-X B-X O | B-Y B-Y I-Y";
        let iob1 = "I-X I-X I-X B-X B-X O | I-Y B-Y I-Y";
        let as_letters = |tags: &str, letters: [(&str, &str); 3]| {
            letters.iter().fold(tags.to_string(), |tags, (old, new)| tags.replace(old, new))
        };
        let bmewo = [("I-", "M-"), ("L-", "E-"), ("U-", "W-")];
        let bioes = [("I-", "I-"), ("L-", "E-"), ("U-", "S-")];
        for (wanted, found, f1) in [
            (wanted.to_string(), found.to_string(), 8.0 / 9.0),
            (as_letters(wanted, bmewo), as_letters(found, bmewo), 8.0 / 9.0),
            (as_letters(wanted, bioes), as_letters(found, bioes), 1.0),
            (bio.to_string(), bio.replace("I-Y", "O"), 0.8),
            (iob1.to_string(), iob1.replacen("B-X", "I-X", 1), 2.0 / 3.0),
        ] {
            fn sentences(tags: &str) -> Vec<Vec<&str>> {
                tags.split(" | ").map(|sentence| sentence.split(' ').collect()).collect()
            }
            let (wanted, found) = (sentences(&wanted), sentences(&found));
            let names: BTreeSet<&str> = wanted.iter().chain(&found).flatten().copied().collect();
            let names = names.into_iter().map(String::from).collect();
            let labels = Labels { goal: Goal::Tag, names };
            let metrics = Metrics::of_tags(&labels, &found, &wanted, 0.0);
            let score = metrics.get(Metric::F1).expect("entities");
            assert!((score - f1).abs() < 1e-12, "{score}, not {f1}: {wanted:?}");
        }
    }

    #[test]
    fn ties_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn correlations() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.5, 7.0], [2.0, 1.0, 5.0, 4.0, 30.0]);
        assert!((pearson(&ranks(&a), &ranks(&b)) - 0.8).abs() < 1e-12);
        assert!((pearson(&a, &b) - 0.875_362_8).abs() < 1e-6);
        assert_eq!(pearson(&[1.0, 1.0], &[0.0, 5.0]), 0.0);
    }
}
