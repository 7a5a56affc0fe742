//! Language adapters, and tasks above them.

use crate::workbench::Workbench;

/// The messages of the data set as a language of their own, and the same in a cipher.
fn languages(bench: &Workbench) {
    let rows = std::fs::read_to_string(bench.path("train.tsv")).unwrap();
    let texts: Vec<&str> = rows.lines().skip(1).filter_map(|row| row.split('\t').next()).collect();
    let cipher = |letter: char| match letter {
        'a'..='y' => ((letter as u8) + 1) as char,
        'z' => 'a',
        other => other,
    };
    let other: String = texts.join("\n").to_lowercase().chars().map(cipher).collect();
    bench.write("plain.txt", texts.join("\n"));
    bench.write("cipher.txt", other);
}

const TRAIN: &str = "train --model model --task mlm --method pfeiffer-inv --set reduction_factor=2 \
                     --lr 2e-2 --epochs 8 --batch-size 8 --max-length 32 --json";

#[test]
fn a_language_is_learned_and_exchanged_under_a_task() {
    let bench = Workbench::new();
    languages(&bench);
    let mut learned = Vec::new();
    for name in ["plain", "cipher"] {
        let files = format!("--train {name}.txt --test {name}.txt");
        learned.push(bench.json(&format!("{TRAIN} {files} --out {name}"))["test"].clone());
    }
    let eval = |adapter: &str, data: &str| {
        bench.json(&format!("eval --model model --adapter {adapter}/adapter --data {data} --json"))
    };
    let perplexity = |metrics: &serde_json::Value| metrics["perplexity"].as_f64().unwrap();
    // Of the 97 tokens, a language knows which to expect, in a model that is otherwise random.
    assert!(perplexity(&learned[0]) < 50.0, "{learned:?}");
    let again = eval("plain", "plain.txt");
    assert_eq!(again["tokens"], learned[0]["tokens"], "the same words are hidden each time");
    assert!((perplexity(&again) / perplexity(&learned[0]) - 1.0).abs() < 1e-4, "{again}");
    // Each language is read better with its own adapter.
    for (own, other, data) in [("plain", "cipher", "plain.txt"), ("cipher", "plain", "cipher.txt")]
    {
        let (own, other) = (eval(own, data), eval(other, data));
        assert!(perplexity(&own) < 0.95 * perplexity(&other), "{data}: {own} {other}");
    }

    let task = "train --model model --train train.tsv --test test.tsv --epochs 1 --limit 96 --json";
    let over = "--adapter plain/adapter --compose stack --method pfeiffer";
    let trained = bench.json(&format!("{task} {over} --out task"));
    let stacked = |language: &str| {
        let stack = format!("--adapter {language}/adapter --adapter task/adapter --compose stack");
        bench.json(&format!("eval --model model {stack} --data test.tsv --json"))
    };
    let (a, b) = (stacked("plain")["loss"].as_f64(), trained["test"]["loss"].as_f64());
    assert!((a.unwrap() - b.unwrap()).abs() < 1e-5, "{a:?} from the files, {b:?} in training");
    assert_ne!(stacked("cipher")["loss"].as_f64(), a);
}

#[test]
fn what_words_cannot_give_is_said() {
    let bench = Workbench::new();
    languages(&bench);
    bench.json(&format!("{TRAIN} --train plain.txt --limit 20 --out plain"));
    let error = bench.error("predict --model model --adapter plain/adapter words");
    assert!(error.contains("no output for a text"), "{error}");
    let vocabulary = std::fs::read_to_string(bench.path("model/vocab.txt")).unwrap();
    bench.write("model/vocab.txt", vocabulary.replace("[MASK]", "[GONE]"));
    let error = bench.error(&format!("{TRAIN} --train plain.txt --out never"));
    assert!(error.contains("no mask token"), "{error}");
    assert!(!bench.path("never").exists());
}
