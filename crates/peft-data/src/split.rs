//! Splits made from one file.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::{Dataset, Example, Target};

/// Divides a data set in two, the second part with `fraction` of it. Each label keeps its share in
/// both (numbers are shuffled as one). The same seed gives the same parts.
pub fn split(dataset: Dataset, fraction: f64, seed: u64) -> (Dataset, Dataset) {
    let mut groups: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (index, example) in dataset.examples.iter().enumerate() {
        let class = match example.target {
            Some(Target::Class(class)) => Some(class),
            _ => None,
        };
        groups.entry(class).or_default().push(index);
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut in_second = vec![false; dataset.examples.len()];
    for mut indices in groups.into_values() {
        indices.shuffle(&mut random);
        let count = (indices.len() as f64 * fraction).round() as usize;
        for &index in &indices[..count] {
            in_second[index] = true;
        }
    }
    let labels = dataset.labels;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (example, second_part) in dataset.examples.into_iter().zip(in_second) {
        if second_part { second.push(example) } else { first.push(example) }
    }
    let part = |examples: Vec<Example>| Dataset { examples, labels: labels.clone() };
    (part(first), part(second))
}

/// The first `count` examples.
pub fn subset(mut dataset: Dataset, count: usize) -> Dataset {
    dataset.examples.truncate(count);
    dataset
}
