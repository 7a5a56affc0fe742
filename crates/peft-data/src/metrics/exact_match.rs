//! Exact match.

/// The share of hypotheses that equal one of their references, white space around both aside.
///
/// # Panics
/// If the lengths differ.
pub fn exact_match<S: AsRef<str>>(hypotheses: &[S], references: &[Vec<S>]) -> f64 {
    assert_eq!(hypotheses.len(), references.len(), "each hypothesis has references");
    let right = hypotheses.iter().zip(references).filter(|(hypothesis, references)| {
        let hypothesis = hypothesis.as_ref().trim();
        references.iter().any(|reference| reference.as_ref().trim() == hypothesis)
    });
    right.count() as f64 / hypotheses.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reference_will_do_and_white_space_around_it_is_no_mistake() {
        let hypotheses = [" two words\n", "Case", "a  b", ""];
        let references = [vec!["other", "two words"], vec!["case"], vec!["a b"], vec![" "]];
        assert_eq!(exact_match(&hypotheses, &references), 0.5);
        assert_eq!(exact_match::<&str>(&[], &[]), 0.0);
    }
}
