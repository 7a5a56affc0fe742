//! ROUGE.

use std::collections::BTreeSet;

use super::ngrams::{matches, ngrams};

/// ROUGE (Lin 2004): F1 of what two texts have in common, from 0 to 1, as Google's `rouge_score`
/// counts it without stemming. Tokens are runs of the letters `a` to `z` and digits, in lower case.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rouge {
    /// Of tokens.
    pub rouge1: f64,
    /// Of pairs of tokens.
    pub rouge2: f64,
    /// Of the longest common subsequence.
    pub rouge_l: f64,
    /// Of the longest common subsequences of lines: each line of the reference against all lines
    /// of the hypothesis.
    pub rouge_l_sum: f64,
}

impl Rouge {
    /// The mean over examples. Of several references, each value is of the one that gives most.
    ///
    /// # Panics
    /// If the lengths differ, or an example has no reference.
    pub fn new<S: AsRef<str>>(hypotheses: &[S], references: &[Vec<S>]) -> Self {
        assert_eq!(hypotheses.len(), references.len(), "each hypothesis has references");
        let mut sum = Self::default();
        for (hypothesis, references) in hypotheses.iter().zip(references) {
            let hypothesis = Text::new(hypothesis.as_ref());
            let scores = references.iter().map(|r| hypothesis.rouge(&Text::new(r.as_ref())));
            let best = scores.reduce(|best, score| best.zip(score, f64::max));
            sum = sum.zip(best.expect("an example has a reference"), |sum, best| sum + best);
        }
        let count = hypotheses.len().max(1) as f64;
        sum.zip(sum, |sum, _| sum / count)
    }

    fn zip(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            rouge1: with(self.rouge1, other.rouge1),
            rouge2: with(self.rouge2, other.rouge2),
            rouge_l: with(self.rouge_l, other.rouge_l),
            rouge_l_sum: with(self.rouge_l_sum, other.rouge_l_sum),
        }
    }
}

/// The tokens of a text by line.
struct Text {
    lines: Vec<Vec<String>>,
}

impl Text {
    fn new(text: &str) -> Self {
        let lines = text.split('\n').map(|line| {
            let line = line.to_lowercase();
            let other = |c: char| !matches!(c, 'a'..='z' | '0'..='9');
            line.split(other).filter(|token| !token.is_empty()).map(String::from).collect()
        });
        Self { lines: lines.collect() }
    }

    fn tokens(&self) -> Vec<&str> {
        self.lines.iter().flatten().map(String::as_str).collect()
    }

    fn rouge(&self, reference: &Self) -> Rouge {
        let (tokens, wanted) = (self.tokens(), reference.tokens());
        let ngrams_f1 = |n| {
            let same = matches(&ngrams(&tokens, n), &ngrams(&wanted, n));
            f1(same, tokens.windows(n).len(), wanted.windows(n).len())
        };
        let in_order = common_lengths(&wanted, &tokens)[wanted.len()][tokens.len()];
        Rouge {
            rouge1: ngrams_f1(1),
            rouge2: ngrams_f1(2),
            rouge_l: f1(in_order, tokens.len(), wanted.len()),
            rouge_l_sum: f1(self.same_by_line(reference), tokens.len(), wanted.len()),
        }
    }

    /// The tokens of the reference that are in a longest common subsequence of their line and any
    /// line of this text, none more often than this text has it.
    fn same_by_line(&self, reference: &Self) -> usize {
        let mut common = Vec::new();
        for wanted in &reference.lines {
            let places: BTreeSet<usize> =
                self.lines.iter().flat_map(|line| common_places(wanted, line)).collect();
            common.extend(places.into_iter().map(|place| wanted[place].as_str()));
        }
        matches(&ngrams(&common, 1), &ngrams(&self.tokens(), 1))
    }
}

fn f1(same: usize, found: usize, wanted: usize) -> f64 {
    if same == 0 { 0.0 } else { 2.0 * same as f64 / (found + wanted) as f64 }
}

/// The lengths of the longest common subsequences of all starts of `a` and `b`,
/// `[a.len() + 1][b.len() + 1]`.
fn common_lengths<T: PartialEq>(a: &[T], b: &[T]) -> Vec<Vec<usize>> {
    let mut lengths = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..a.len() {
        for j in 0..b.len() {
            lengths[i + 1][j + 1] = if a[i] == b[j] {
                lengths[i][j] + 1
            } else {
                lengths[i][j + 1].max(lengths[i + 1][j])
            };
        }
    }
    lengths
}

/// The places in `a` of a longest common subsequence: of several, the one that `rouge_score` finds.
fn common_places<T: PartialEq>(a: &[T], b: &[T]) -> Vec<usize> {
    let lengths = common_lengths(a, b);
    let mut places = Vec::new();
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            (i, j) = (i - 1, j - 1);
            places.push(i);
        } else if lengths[i][j - 1] > lengths[i - 1][j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    places
}
