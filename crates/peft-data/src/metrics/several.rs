//! Metrics of texts with any number of labels.

use super::ratio;

/// How often each of several labels was found and wanted, as scikit-learn counts.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelCounts {
    /// Of each label: found and wanted, found, wanted.
    counts: Vec<[f64; 3]>,
    /// The texts whose labels are all right.
    right: usize,
    texts: usize,
}

impl LabelCounts {
    /// Counts the labels of each text, of which there are `labels` in all.
    ///
    /// # Panics
    /// If the texts differ in number, or there is no such label.
    pub fn new(labels: usize, found: &[Vec<usize>], wanted: &[Vec<usize>]) -> Self {
        assert_eq!(found.len(), wanted.len(), "each text has labels on both sides");
        let mut counts = vec![[0.0; 3]; labels];
        let mut right = 0;
        for (found, wanted) in found.iter().zip(wanted) {
            for (label, counts) in counts.iter_mut().enumerate() {
                let (is_found, is_wanted) = (found.contains(&label), wanted.contains(&label));
                let both = is_found && is_wanted;
                for (count, one) in counts.iter_mut().zip([both, is_found, is_wanted]) {
                    *count += f64::from(u8::from(one));
                }
            }
            let known = |list: &[usize]| list.iter().all(|label| *label < labels);
            assert!(known(found) && known(wanted), "a label is one of {labels}");
            right += usize::from(
                found.len() == wanted.len() && found.iter().all(|label| wanted.contains(label)),
            );
        }
        Self { counts, right, texts: found.len() }
    }

    /// The share of texts whose labels are all right, and no others (subset accuracy).
    pub fn accuracy(&self) -> f64 {
        ratio(self.right as f64, self.texts as f64)
    }

    /// F1 of all labels together.
    pub fn f1_micro(&self) -> f64 {
        let sum = |place: usize| self.counts.iter().map(|count| count[place]).sum::<f64>();
        f1(&[sum(0), sum(1), sum(2)])
    }

    /// The mean of every label's F1, that of a label that is on neither side being 0.
    pub fn f1_macro(&self) -> f64 {
        ratio(self.counts.iter().map(f1).sum(), self.counts.len() as f64)
    }
}

fn f1([both, found, wanted]: &[f64; 3]) -> f64 {
    ratio(2.0 * both, found + wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    // sklearn.metrics.f1_score and accuracy_score of the same as indicators, zero_division=0.
    #[test]
    fn labels_are_counted_as_scikit_learn_counts_them() {
        let found = [vec![0, 1], vec![1], vec![], vec![2, 0], vec![]];
        let wanted = [vec![1, 0], vec![1, 2], vec![0], vec![2], vec![]];
        let counts = LabelCounts::new(4, &found, &wanted);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        // Of each label found and wanted: 1 of 2 and 2, 2 of 2 and 2, 1 of 1 and 2, none.
        near(counts.accuracy(), 2.0 / 5.0);
        near(counts.f1_micro(), 2.0 * 4.0 / (5.0 + 6.0));
        near(counts.f1_macro(), (0.5 + 1.0 + 2.0 / 3.0 + 0.0) / 4.0);
        let none = LabelCounts::new(2, &[], &[]);
        assert_eq!([none.accuracy(), none.f1_micro(), none.f1_macro()], [0.0; 3]);
    }
}
