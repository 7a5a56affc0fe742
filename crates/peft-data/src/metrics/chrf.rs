//! chrF and chrF++.

use std::hash::Hash;

use super::ngrams::{is_space, matches, ngrams, words};

/// The longest n-grams of characters that are counted.
const CHARACTERS: usize = 6;

/// Recall counts as much as `BETA * BETA` times precision.
const BETA: f64 = 2.0;

/// chrF of a corpus (Popović 2015), from 0 to 100, as sacreBLEU 2 counts it by default: n-grams of
/// 1 to 6 characters without white space, `beta = 2`, case kept. `word_order = 2` is chrF++
/// (Popović 2017), which adds n-grams of 1 and 2 words; 0 is chrF.
///
/// Precision and recall are means over the orders of n-grams that occur on both sides. Of several
/// references, each example's best counts.
///
/// # Panics
/// If the lengths differ, or an example has no reference.
pub fn chrf<S: AsRef<str>>(hypotheses: &[S], references: &[Vec<S>], word_order: usize) -> f64 {
    assert_eq!(hypotheses.len(), references.len(), "each hypothesis has references");
    let mut sums = vec![Overlap::default(); CHARACTERS + word_order];
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let hypothesis = Units::new(hypothesis.as_ref());
        let best = references
            .iter()
            .map(|reference| hypothesis.overlaps(&Units::new(reference.as_ref()), word_order))
            // `max_by` gives the last of equals, where the first is wanted.
            .rev()
            .max_by(|a, b| f_score(a).total_cmp(&f_score(b)))
            .expect("an example has a reference");
        for (sum, overlap) in sums.iter_mut().zip(best) {
            sum.add(overlap);
        }
    }
    f_score(&sums)
}

/// What n-grams of a text are made of.
struct Units<'a> {
    characters: Vec<char>,
    words: Vec<&'a str>,
}

impl<'a> Units<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            characters: text.chars().filter(|&c| !is_space(c)).collect(),
            words: words(text).flat_map(without_punctuation).collect(),
        }
    }

    /// The overlaps by order, characters first.
    fn overlaps(&self, reference: &Self, word_order: usize) -> Vec<Overlap> {
        let characters =
            (1..=CHARACTERS).map(|n| Overlap::new(&self.characters, &reference.characters, n));
        let words = (1..=word_order).map(|n| Overlap::new(&self.words, &reference.words, n));
        characters.chain(words).collect()
    }
}

/// A word and the punctuation at its end or else at its start.
fn without_punctuation(word: &str) -> impl Iterator<Item = &str> {
    let punctuation = |c: char| c.is_ascii_punctuation();
    let at = if word.ends_with(punctuation) {
        word.len() - 1
    } else if word.starts_with(punctuation) {
        1
    } else {
        0
    };
    let (start, end) = word.split_at(at);
    [start, end].into_iter().filter(|part| !part.is_empty())
}

/// How many n-grams of one order a hypothesis and a reference have, and how many are the same.
#[derive(Debug, Clone, Copy, Default)]
struct Overlap {
    hypothesis: usize,
    reference: usize,
    same: usize,
}

impl Overlap {
    fn new<T: Eq + Hash>(hypothesis: &[T], reference: &[T], n: usize) -> Self {
        let count = reference.windows(n).len();
        Self {
            // Without such n-grams in the reference, those of the hypothesis are no mistake.
            hypothesis: if count == 0 { 0 } else { hypothesis.windows(n).len() },
            reference: count,
            same: matches(&ngrams(hypothesis, n), &ngrams(reference, n)),
        }
    }

    fn add(&mut self, other: Self) {
        self.hypothesis += other.hypothesis;
        self.reference += other.reference;
        self.same += other.same;
    }
}

/// F-beta of the mean precision and the mean recall of orders, from 0 to 100.
fn f_score(orders: &[Overlap]) -> f64 {
    let (mut precision, mut recall, mut count) = (0.0, 0.0, 0.0);
    for order in orders.iter().filter(|order| order.hypothesis > 0 && order.reference > 0) {
        precision += order.same as f64 / order.hypothesis as f64;
        recall += order.same as f64 / order.reference as f64;
        count += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / count, recall / count);
    let factor = BETA * BETA;
    100.0 * ((1.0 + factor) * precision * recall / (factor * precision + recall))
}
