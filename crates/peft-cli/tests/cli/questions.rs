//! Answers to questions.

use serde_json::{Value, json};

use crate::workbench::{Workbench, text};

/// Questions about texts of letters, in SQuAD's form; each third has no answer if `some_have_none`.
fn squad(some_have_none: bool) -> Value {
    let words = ["see", "rain", "hill", "road", "tree", "wind", "sand"];
    let question = |number: usize| {
        let context: Vec<&str> = (0..12).map(|place| words[(number + place * 3) % 7]).collect();
        let (before, answer) = (context[..number % 9].join(" "), context[number % 9]);
        let start = before.len() + usize::from(!before.is_empty());
        let answers = match some_have_none && number.is_multiple_of(3) {
            true => json!([]),
            false => json!([{"text": answer, "answer_start": start}]),
        };
        json!({"title": "t", "paragraphs": [{
            "context": context.join(" "),
            "qas": [{"id": number.to_string(), "question": "which one", "answers": answers}],
        }]})
    };
    let articles: Vec<Value> = (0..12).map(question).collect();
    json!({"version": "v2.0", "data": articles})
}

/// The same rows as the hub's data sets have them.
fn rows(squad: &Value) -> String {
    let mut lines = String::new();
    for article in squad["data"].as_array().unwrap() {
        let paragraph = &article["paragraphs"][0];
        let question = &paragraph["qas"][0];
        let answers = question["answers"].as_array().unwrap();
        let list = |name: &str| answers.iter().map(|a| a[name].clone()).collect::<Vec<_>>();
        let row = json!({
            "question": question["question"], "context": paragraph["context"],
            "answers": {"text": list("text"), "answer_start": list("answer_start")},
        });
        lines += &format!("{row}\n");
    }
    lines
}

#[test]
fn questions_are_learned_measured_answered_and_the_adapter_is_merged() {
    for (base, some_have_none, length) in [("bert", false, 36), ("bert", true, 24)] {
        let bench = Workbench::new();
        let data = squad(some_have_none);
        bench.write("train.json", data.to_string());
        bench.write("train.jsonl", rows(&data));
        let train = format!(
            "train --model model --task qa --train train.json --valid train.jsonl --epochs 2 \
             --max-length {length} --json --out run"
        );
        let trained = bench.json(&train);
        let both = "--model model --adapter run/adapter";
        for file in ["train.json", "train.jsonl"] {
            let found = bench.json(&format!("eval {both} --data {file} --json"));
            for name in ["loss", "exact_match", "f1"] {
                assert_eq!(found[name], trained["valid"][name], "{base}: {name}");
            }
            assert_eq!(found["examples"], 12);
        }
        let config = std::fs::read_to_string(bench.path("run/adapter/adapter_config.json"));
        let config: Value = serde_json::from_str(&config.unwrap()).unwrap();
        assert_eq!(config["task_type"], "QUESTION_ANS");
        assert_eq!(config["modules_to_save"], json!(["qa_outputs"]));
        assert_eq!(bench.json(&format!("check {both} --json"))["ok"], true);

        let found = bench.json(&format!("predict {both} --data train.json --json"));
        let answers = found["predictions"].as_array().unwrap();
        assert_eq!(answers.len(), 12);
        let articles = data["data"].as_array().unwrap();
        for (answer, article) in answers.iter().zip(articles) {
            let context = article["paragraphs"][0]["context"].as_str().unwrap();
            let start = answer["answer_start"].as_u64().unwrap() as usize;
            let text = answer["answer"].as_str().unwrap();
            assert!(!text.is_empty() && context[start..].starts_with(text), "{answer}");
        }

        bench.json(&format!("merge {both} --out merged --json"));
        let config = std::fs::read_to_string(bench.path("merged/config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["architectures"], json!(["BertForQuestionAnswering"]));
        // Longer windows, where the texts fit: the same data, measured by the merged model alone.
        if length == 36 {
            let merged = bench.json("eval --model merged --data train.json --json");
            let loss = |metrics: &Value| metrics["loss"].as_f64().unwrap();
            assert!((loss(&merged) - loss(&trained["valid"])).abs() < 1.0, "{merged}");
        }
    }
}

#[test]
fn a_question_and_its_text_may_be_given_as_arguments() {
    let bench = Workbench::new();
    bench.write("train.json", squad(false).to_string());
    bench.json("train --model model --task qa --train train.json --epochs 1 --out run --json");
    let predict = "predict --model model --adapter run/adapter which";
    let printed = text(&bench.run(&format!("{predict} hill")).stdout);
    let columns: Vec<&str> = printed.trim_end().split('\t').collect();
    assert_eq!((columns.len(), columns[2]), (3, "which"), "{printed}");
    assert!("hill".contains(columns[0]) && !columns[0].is_empty(), "{printed}");
    let columns = "train --model model --task qa --train train.json --columns 1,2 --out other";
    let error = bench.error(columns);
    assert!(error.contains("--task qa has no columns"), "{error}");
    let error = bench.error(predict);
    assert!(error.contains("a question needs a text"), "{error}");
}
