//! Scores of texts, recorded from sacreBLEU 2.6.0 and `rouge_score` 0.1.2.

use super::{Bleu, Rouge, chrf};

struct Case {
    hypotheses: &'static [&'static str],
    references: &'static [&'static [&'static str]],
    bleu: f64,
    precisions: [f64; 4],
    penalty: f64,
    tokens: [usize; 2],
    /// chrF, and chrF++.
    chrf: [f64; 2],
    /// ROUGE-1, -2, -L, -Lsum.
    rouge: [f64; 4],
}

#[track_caller]
fn check(case: Case) {
    let hypotheses = case.hypotheses;
    let references: Vec<Vec<&str>> = case.references.iter().map(|r| r.to_vec()).collect();
    let near = |name: &str, found: &[f64], wanted: &[f64]| {
        let same = found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12 * b.abs().max(1.0));
        assert!(same, "{name}: {found:?}, recorded {wanted:?}");
    };

    let bleu = Bleu::new(hypotheses, &references);
    near("precisions", &bleu.precisions, &case.precisions);
    assert_eq!([bleu.tokens, bleu.reference_tokens], case.tokens);
    near("BLEU", &[bleu.score, bleu.penalty], &[case.bleu, case.penalty]);

    let found = [0, 2].map(|word_order| chrf(hypotheses, &references, word_order));
    near("chrF", &found, &case.chrf);

    let rouge = Rouge::new(hypotheses, &references);
    let found = [rouge.rouge1, rouge.rouge2, rouge.rouge_l, rouge.rouge_l_sum];
    near("ROUGE", &found, &case.rouge);
}

#[test]
fn one_reference() {
    check(Case {
        hypotheses: &["The cat sat on the mat.", "A dog barks at 10:30, loudly!"],
        references: &[&["The cat is on the mat."], &["At 10:30 a dog barks loudly."]],
        bleu: 28.83241900654793,
        precisions: [70.58823529411765, 46.666666666666664, 23.076923076923077, 9.090909090909092],
        penalty: 1.0,
        tokens: [17, 16],
        chrf: [63.03297261069984, 61.20118537952355],
        rouge: [0.9166666666666667, 0.6333333333333333, 0.7023809523809523, 0.7023809523809523],
    });
}

#[test]
fn several_references_two_of_them_as_near_in_length() {
    check(Case {
        hypotheses: &["the red house by the lake", "one two three"],
        references: &[
            &[
                "the red house near the lake shore",
                "a house by the lake",
                "the red house by a big blue lake",
            ],
            &["one two three four", "one two"],
        ],
        bleu: 90.36020036098454,
        precisions: [100.0, 100.0, 100.0, 66.66666666666667],
        penalty: 1.0,
        tokens: [9, 7],
        chrf: [82.82191171674704, 81.64164129815117],
        rouge: [0.8131868131868132, 0.7333333333333333, 0.8131868131868132, 0.8131868131868132],
    });
}

#[test]
fn punctuation() {
    check(Case {
        hypotheses: &[
            "It costs 1,000.50 (or 5-10%) &amp; more, he said: \"no\".",
            "e-mail me@x.org - now...",
        ],
        references: &[
            &["It costs 1,000.5 (or 5 - 10 %) & more , he said : \"No\" .", "It cost 1,000.50."],
            &["E-mail me@x.org, now."],
        ],
        bleu: 63.93572917795662,
        precisions: [83.87096774193549, 68.96551724137932, 55.55555555555556, 52.0],
        penalty: 1.0,
        tokens: [31, 29],
        chrf: [74.92111228360778, 66.73776518143629],
        rouge: [0.94, 0.8478260869565217, 0.94, 0.94],
    });
}

#[test]
fn orders_without_a_match() {
    check(Case {
        hypotheses: &["a b c x y z", "k l"],
        references: &[&["a b c d e f"], &["k m"]],
        bleu: 28.86751345948128,
        precisions: [50.0, 33.333333333333336, 25.0, 16.666666666666668],
        penalty: 1.0,
        tokens: [8, 8],
        chrf: [18.055555555555554, 23.958333333333336],
        rouge: [0.5, 0.20000000000000004, 0.5, 0.5],
    });
}

#[test]
fn letters_beyond_ascii() {
    check(Case {
        hypotheses: &["Žabe skačejo čez cesto 😀", "日本語 の テスト"],
        references: &[&["Žabe so skakale čez cesto 😀"], &["日本語の テスト です"]],
        bleu: 29.81074878472585,
        precisions: [62.5, 33.333333333333336, 25.0, 25.0],
        penalty: 0.8824969025845955,
        tokens: [8, 9],
        chrf: [55.77126866136498, 52.60898440314816],
        rouge: [0.3, 0.125, 0.3, 0.3],
    });
}

#[test]
fn an_empty_hypothesis() {
    check(Case {
        hypotheses: &["", "the quick brown fox jumps"],
        references: &[&["something there"], &["the quick brown fox jumps"]],
        bleu: 67.03200460356396,
        precisions: [100.0; 4],
        penalty: 0.6703200460356393,
        tokens: [5, 7],
        chrf: [66.93213788771216, 70.16480411479161],
        rouge: [0.5; 4],
    });
    check(Case {
        hypotheses: &["", ""],
        references: &[&["something"], &["other thing"]],
        bleu: 0.0,
        precisions: [0.0; 4],
        penalty: 0.0,
        tokens: [0, 3],
        chrf: [0.0; 2],
        rouge: [0.0; 4],
    });
}

#[test]
fn nothing_in_common() {
    check(Case {
        hypotheses: &["aa bb"],
        references: &[&["cc dd ee"]],
        bleu: 0.0,
        precisions: [0.0; 4],
        penalty: 0.6065306597126334,
        tokens: [2, 3],
        chrf: [0.0; 2],
        rouge: [0.0; 4],
    });
}

#[test]
fn lines() {
    check(Case {
        hypotheses: &["first line here\nsecond line there", "b a\nc"],
        references: &[&["second line here\nfirst there"], &["a b c\na"]],
        bleu: 21.448629472025402,
        precisions: [88.88888888888889, 28.571428571428573, 10.0, 8.333333333333334],
        penalty: 1.0,
        tokens: [9, 9],
        chrf: [68.51096011070968, 66.09855946027068],
        rouge: [0.8831168831168831, 0.22222222222222224, 0.5584415584415585, 0.7402597402597403],
    });
}

#[test]
fn no_texts() {
    let none: &[&str] = &[];
    assert_eq!(Bleu::new(none, &[]).score, 0.0);
    assert_eq!(chrf(none, &[], 0), 0.0);
    assert_eq!(Rouge::new(none, &[]), Rouge::default());
}
