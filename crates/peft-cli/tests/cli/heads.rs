//! What the outputs of a head mean, and heads that are not there.

use serde_json::{Value, json};

use crate::workbench::{Workbench, text};

/// A table of texts with labels, taken in turn.
fn table(bench: &Workbench, name: &str, labels: &[&str]) {
    let words = ["see", "rain", "hill", "road", "tree"];
    let row = |row: usize| {
        let label = labels[row % labels.len()];
        format!("{} {}\t{label}\n", words[row % 5], words[(row / 5 + row) % 5])
    };
    let rows: String = (0..12).map(row).collect();
    bench.write(name, format!("text\tlabel\n{rows}"));
}

#[test]
fn a_classifier_of_any_size_over_any_model_is_measured_checked_and_merged() {
    let bench = Workbench::new();
    table(&bench, "four.tsv", &["a", "b", "c", "d"]);
    for (base, end) in
        [("gpt2-sequence", None), ("bart-sequence", Some(2)), ("t5-sequence", Some(1))]
    {
        bench.model_of_letters(base, end);
        let train = "train --model model --train four.tsv --epochs 1 --max-length 12 --json";
        bench.json(&format!("{train} --out {base}"));
        let both = format!("--model model --adapter {base}/adapter");
        assert_eq!(bench.json(&format!("check {both} --json"))["ok"], true, "{base}");
        let found = bench.json(&format!("eval {both} --data four.tsv --json"));
        let predicted = bench.json(&format!("predict {both} --json rain"));
        let scores = &predicted["predictions"][0]["scores"];
        assert_eq!(scores.as_object().map(serde_json::Map::len), Some(4), "{predicted}");
        bench.json(&format!("merge {both} --out {base}-merged --json"));
        let merged = bench.json(&format!("eval --model {base}-merged --data four.tsv --json"));
        let [one, other] = [&found, &merged].map(|metrics| metrics["loss"].as_f64().unwrap());
        assert!((one - other).abs() < 1e-5, "{base}: {found} {merged}");
    }
}

#[test]
fn a_head_that_nothing_has_gives_no_results() {
    let bench = Workbench::new();
    bench.model_of_letters("bert-mlm", None);
    let path = bench.path("model/config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["architectures"] = json!(["BertForTokenClassification"]);
    std::fs::write(&path, config.to_string()).unwrap();
    bench.write("words.conll", "see\tLABEL_0\n\n");
    for command in ["eval --data words.conll", "predict see"] {
        let error = bench.error(&format!("{command} --model model"));
        assert!(error.contains("neither the checkpoint nor an adapter has classifier"), "{error}");
    }
}

#[test]
fn a_task_file_of_another_head_is_an_error_that_names_both() {
    let bench = Workbench::new();
    table(&bench, "three.tsv", &["neg", "neu", "pos"]);
    bench.json("train --model model --train three.tsv --epochs 1 --out run --json");
    let path = bench.path("run/adapter/task.json");
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (field, value, expected) in [
        ("names", json!(["neg", "pos"]), "neg, pos: 2 names; the head"),
        ("names", json!(["neg", "neu", "pos", "good"]), "good: 4 names; the head"),
        ("names", json!(["neg", "neu", "neu"]), "\"neu\" twice"),
        ("goal", json!("regress"), "goal = regress: has one output"),
        ("goal", json!("tag"), "goal = tag: needs a head for token classification"),
        ("goal", json!("clm"), "goal = clm: needs a head for causal language modelling"),
        ("goal", json!("rank"), "unknown variant `rank`"),
        ("problem_type", json!("regression"), "goal = classify, but problem_type"),
    ] {
        let mut file = whole.clone();
        file[field] = value.clone();
        std::fs::write(&path, file.to_string()).unwrap();
        for command in ["eval --data three.tsv", "predict see", "check"] {
            let error = bench.error(&format!("{command} --model model --adapter run/adapter"));
            assert!(error.contains("task.json: ") && error.contains(expected), "{error}");
        }
    }
}

#[test]
fn several_labels_a_text_are_learned_measured_predicted_and_merged() {
    let bench = Workbench::new();
    table(&bench, "train.tsv", &["wet", "wet,cold", "", "cold"]);
    let train = "train --model model --task multi-label --train train.tsv --valid train.tsv \
                 --epochs 2 --json --out run";
    let trained = bench.json(train);
    let metrics = bench.json("eval --model model --adapter run/adapter --data train.tsv --json");
    for name in ["loss", "accuracy", "f1_micro", "f1_macro"] {
        assert_eq!(metrics[name], trained["valid"][name], "{name}");
    }
    let file = std::fs::read_to_string(bench.path("run/adapter/task.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(file["problem_type"], "multi_label_classification");
    assert_eq!(file["names"], json!(["cold", "wet"]));

    let predict = "predict --model model --adapter run/adapter rain";
    let found = bench.json(&format!("{predict} --json"));
    let row = &found["predictions"][0];
    let scores = row["scores"].as_object().unwrap();
    let likely = scores.iter().filter(|(_, score)| score.as_f64().unwrap() > 0.5);
    let likely: Vec<&str> = likely.map(|(label, _)| label.as_str()).collect();
    assert_eq!(row["labels"], json!(likely));
    let printed = text(&bench.run(predict).stdout);
    let columns: Vec<&str> = printed.trim_end().split('\t').collect();
    assert_eq!((columns.len(), columns[0], columns[2]), (3, likely.join("|").as_str(), "rain"));

    bench.json("merge --model model --adapter run/adapter --out merged --json");
    let config = std::fs::read_to_string(bench.path("merged/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["problem_type"], "multi_label_classification");
    let merged = bench.json("eval --model merged --data train.tsv --json");
    let [one, other] = [&metrics, &merged].map(|metrics| metrics["loss"].as_f64().unwrap());
    assert!((one - other).abs() < 1e-5, "{metrics} {merged}");
}
