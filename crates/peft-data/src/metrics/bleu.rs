//! BLEU.

use super::ngrams::{Counts, is_space, matches, ngrams, words};

/// The longest n-grams that are counted.
const ORDER: usize = 4;

/// BLEU of a corpus (Papineni et al. 2002), as sacreBLEU 2 counts it by default: tokens of
/// `mteval-v13a`, case kept, n-grams up to 4, exponential smoothing, no effective order.
///
/// `score = penalty * exp(mean(log(precisions)))`, of n-grams counted over the whole corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Bleu {
    /// The score, from 0 to 100.
    pub score: f64,
    /// The precision of n-grams of 1 to 4 tokens, from 0 to 100.
    pub precisions: [f64; ORDER],
    /// The brevity penalty, from 0 to 1.
    pub penalty: f64,
    /// The tokens of the hypotheses.
    pub tokens: usize,
    /// The tokens of the references, each example's nearest in length.
    pub reference_tokens: usize,
}

impl Bleu {
    /// BLEU of hypotheses, each against its references, of which there may be any number but 0.
    ///
    /// # Panics
    /// If the lengths differ, or an example has no reference.
    pub fn new<S: AsRef<str>>(hypotheses: &[S], references: &[Vec<S>]) -> Self {
        assert_eq!(hypotheses.len(), references.len(), "each hypothesis has references");
        let mut sums = Sums::default();
        for (hypothesis, references) in hypotheses.iter().zip(references) {
            sums.add(hypothesis.as_ref(), references.iter().map(AsRef::as_ref));
        }
        sums.bleu()
    }
}

/// What is summed over examples.
#[derive(Default)]
struct Sums {
    right: [usize; ORDER],
    all: [usize; ORDER],
    tokens: usize,
    reference_tokens: usize,
}

impl Sums {
    fn add<'a>(&mut self, hypothesis: &str, references: impl Iterator<Item = &'a str>) {
        let hypothesis = tokenize(hypothesis);
        let hypothesis: Vec<&str> = words(&hypothesis).collect();
        let references: Vec<String> = references.map(tokenize).collect();
        let references: Vec<Vec<&str>> = references.iter().map(|r| words(r).collect()).collect();

        self.tokens += hypothesis.len();
        // Ties go to the shorter reference.
        let lengths = references.iter().map(Vec::len);
        let nearest = lengths.min_by_key(|&length| (length.abs_diff(hypothesis.len()), length));
        self.reference_tokens += nearest.expect("an example has a reference");
        for n in 1..=ORDER {
            let mut most = Counts::new();
            for (ngram, count) in references.iter().flat_map(|reference| ngrams(reference, n)) {
                let entry = most.entry(ngram).or_default();
                *entry = count.max(*entry);
            }
            self.right[n - 1] += matches(&ngrams(&hypothesis, n), &most);
            self.all[n - 1] += hypothesis.windows(n).len();
        }
    }

    fn bleu(&self) -> Bleu {
        let penalty = match self.tokens {
            tokens if tokens >= self.reference_tokens => 1.0,
            0 => 0.0,
            tokens => (1.0 - self.reference_tokens as f64 / tokens as f64).exp(),
        };
        let precisions = self.precisions();
        let score = if precisions.contains(&0.0) {
            0.0
        } else {
            let logarithms: f64 = precisions.iter().map(|p| p.ln()).sum();
            penalty * (logarithms / ORDER as f64).exp()
        };
        Bleu {
            score,
            precisions,
            penalty,
            tokens: self.tokens,
            reference_tokens: self.reference_tokens,
        }
    }

    /// Each order without a match counts half a match, a quarter, and so on; if no order has one,
    /// all are 0.
    fn precisions(&self) -> [f64; ORDER] {
        let mut precisions = [0.0; ORDER];
        if self.right == [0; ORDER] {
            return precisions;
        }
        let mut smoothed = 1.0;
        for ((precision, &right), &all) in precisions.iter_mut().zip(&self.right).zip(&self.all) {
            if all == 0 {
                break;
            }
            let mut right = right as f64;
            if right == 0.0 {
                smoothed /= 2.0;
                right = smoothed;
            }
            *precision = 100.0 * right / all as f64;
        }
        precisions
    }
}

/// The text with white space between its tokens, as `mteval-v13a` divides it: at ASCII's
/// punctuation, but for `.` and `,` within numbers, `-` not after a digit, and `'`.
fn tokenize(text: &str) -> String {
    let text = text
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");

    let mut spaced = String::from(" ");
    for c in text.chars() {
        if c.is_ascii_punctuation() && !"',-.".contains(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');

    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| c == '.' || c == ',';
    let spaced = pairs(&spaced, |a, b| !digit(a) && stop(b), |a, b| [a, ' ', b, ' ']);
    let spaced = pairs(&spaced, |a, b| stop(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    pairs(&spaced, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' '])
}

/// Writes pairs of characters that match in another way. From left to right; a character belongs to
/// one pair at most.
fn pairs(
    text: &str,
    matches: impl Fn(char, char) -> bool,
    written: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(a) = rest.next() {
        match rest.next_if(|&b| matches(a, b)) {
            Some(b) => result.extend(written(a, b)),
            None => result.push(a),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    // As sacreBLEU 2.6.0 gives them.
    #[test]
    fn tokens_of_mteval() {
        let tokens = |text| words(&tokenize(text)).map(String::from).collect::<Vec<_>>().join(" ");
        assert_eq!(tokens("1,000.50 costs 3."), "1,000.50 costs 3 .");
        assert_eq!(tokens("a..b, 5-10 -7 e-mail"), "a . . b , 5 - 10 -7 e-mail");
        assert_eq!(tokens("don't (say) {x}/[y]"), "don't ( say ) { x } / [ y ]");
        assert_eq!(tokens("&lt;b&gt; &amp;quot; <skipped>x-\ny\nz"), "< b > & quot ; xy z");
        assert_eq!(tokens(".5 5. U.S.A. ٣.٣"), ". 5 5 . U . S . A . ٣ . ٣");
    }
}
