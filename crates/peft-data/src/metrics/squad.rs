//! Exact match and F1 of answers, as SQuAD's script counts them (Rajpurkar et al. 2016, arXiv
//! 1606.05250; 2018, arXiv 1806.03822).

use std::collections::BTreeMap;

/// Exact match and F1 of answers, each a share (the script prints it in per cent).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquadScores {
    /// The share of questions whose answer is one of the right ones.
    pub exact_match: f64,
    /// The mean F1 of the words that an answer shares with the nearest of the right ones.
    pub f1: f64,
}

impl SquadScores {
    /// Scores one answer to each question; an empty one says that there is none, and is right where
    /// there is none.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn new<S: AsRef<str>>(found: &[S], wanted: &[Vec<S>]) -> Self {
        assert_eq!(found.len(), wanted.len(), "each question has an answer");
        let (mut exact, mut f1) = (0.0, 0.0);
        for (found, wanted) in found.iter().zip(wanted) {
            let found = words(found.as_ref());
            let wanted = wanted.iter().map(|answer| words(answer.as_ref()));
            let mut wanted: Vec<Vec<String>> = wanted.filter(|words| !words.is_empty()).collect();
            if wanted.is_empty() {
                wanted.push(Vec::new());
            }
            exact += f64::from(u8::from(wanted.contains(&found)));
            f1 += wanted.iter().map(|wanted| shared(&found, wanted)).fold(0.0, f64::max);
        }
        let count = found.len().max(1) as f64;
        Self { exact_match: exact / count, f1: f1 / count }
    }
}

/// The words of an answer: in lower case, without punctuation and articles.
fn words(answer: &str) -> Vec<String> {
    let plain: String =
        answer.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // An article is one between any two characters that are of no word.
    let mut without = String::new();
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        let is_word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != is_word).unwrap_or(rest.len());
        let (run, others) = rest.split_at(end);
        without.push_str(if ["a", "an", "the"].contains(&run) { " " } else { run });
        rest = others;
    }
    without.split_whitespace().map(String::from).collect()
}

/// F1 of two lists of words.
fn shared(found: &[String], wanted: &[String]) -> f64 {
    if found.is_empty() || wanted.is_empty() {
        return f64::from(u8::from(found.is_empty() && wanted.is_empty()));
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for word in wanted {
        *left.entry(word).or_default() += 1;
    }
    let mut both = 0.0;
    for word in found {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            both += 1.0;
        }
    }
    2.0 * both / (found.len() + wanted.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    // `normalize_answer` of SQuAD's evaluate-v2.0.py.
    #[test]
    fn answers_are_compared_without_case_articles_and_punctuation() {
        for (answer, expected) in [
            ("The Norman  Conquest.", "norman conquest"),
            ("a man, an ox & the theatre", "man ox theatre"),
            ("U.S.A.", "usa"),
            ("the-cat a_b", "thecat ab"),
            ("x\u{2013}the\u{2013}y", "x\u{2013} \u{2013}y"),
            ("THE", ""),
            ("\t10,000 \n people", "10000 people"),
        ] {
            assert_eq!(words(answer).join(" "), expected, "{answer:?}");
        }
    }

    // compute_exact and compute_f1 of the same script, the best of the right answers.
    #[test]
    fn scores_are_those_of_the_official_script() {
        let check = |found: &str, wanted: &[&str], exact: f64, f1: f64| {
            let scores = SquadScores::new(&[found], &[wanted.to_vec()]);
            assert_eq!(scores.exact_match, exact, "{found:?} {wanted:?}");
            assert!((scores.f1 - f1).abs() < 1e-12, "{found:?} {wanted:?}: {}", scores.f1);
        };
        check("the Normans", &["Normans"], 1.0, 1.0);
        check("in Paris", &["Lyon", "Paris"], 0.0, 2.0 / 3.0);
        check("to be or not", &["be be or"], 0.0, 4.0 / 7.0);
        check("", &[], 1.0, 1.0);
        check("Paris", &[], 0.0, 0.0);
        check("", &["Paris"], 0.0, 0.0);
        check("x", &["the", "x y"], 0.0, 2.0 / 3.0);
        let all = SquadScores::new(&["a", "b"], &[vec!["b"], vec!["b"]]);
        assert_eq!((all.exact_match, all.f1), (0.5, 0.5));
    }
}
