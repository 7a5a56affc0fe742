//! Words and n-grams, as the metrics of texts count them.

use std::collections::HashMap;
use std::hash::Hash;

/// Whether Python, in which the reference libraries are written, takes `c` for white space: as
/// Unicode does, and the four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words between white space.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// How often each n-gram occurs.
pub(super) type Counts<'a, T> = HashMap<&'a [T], usize>;

/// The n-grams of `items`.
pub(super) fn ngrams<T: Eq + Hash>(items: &[T], n: usize) -> Counts<'_, T> {
    let mut counts = Counts::new();
    for ngram in items.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// The n-grams that both sides have, each as often as the side that has fewer.
pub(super) fn matches<T: Eq + Hash>(a: &Counts<'_, T>, b: &Counts<'_, T>) -> usize {
    a.iter().map(|(ngram, &count)| count.min(b.get(ngram).copied().unwrap_or(0))).sum()
}
