//! Which model an adapter is over, and what of it a task trains.

use serde_json::json;

use crate::workbench::{Workbench, text};

const TRAIN: &str = "train --train train.tsv --epochs 1 --limit 32 --max-length 24 --json";

fn copy(bench: &Workbench, to: &str) {
    std::fs::create_dir(bench.path(to)).unwrap();
    for name in ["config.json", "vocab.txt", "model.safetensors"] {
        std::fs::copy(bench.path("model").join(name), bench.path(to).join(name)).unwrap();
    }
}

/// What a successful command says on standard error.
fn said(bench: &Workbench, arguments: &str) -> String {
    let output = bench.run(arguments);
    assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn the_model_is_the_one_that_the_adapter_was_made_for() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --model model --out run"));
    let adapter = "--adapter run/adapter";
    let eval = format!("eval {adapter} --data test.tsv --json");
    let named = bench.json(&format!("{eval} --model model"));
    assert_eq!(bench.json(&eval), named);
    for command in [
        "eval --data test.tsv",
        "predict hello",
        "check",
        "merge --out merged",
        "convert --to peft --out converted",
    ] {
        let log = said(&bench, &format!("{command} {adapter}"));
        assert!(!log.contains("made for"), "{command}: {log}");
    }
    let over = format!("{TRAIN} {adapter} --compose stack --method houlsby --out over");
    assert!(!said(&bench, &over).contains("made for"));
    let run = std::fs::read_to_string(bench.path("over/run.toml")).unwrap();
    assert!(run.contains("model = \"model\""), "{run}");

    // What is merged is not what the adapter was made for.
    let error = bench.error(&format!("unmerge {adapter} --out unmerged"));
    assert!(error.contains("--model"), "{error}");
    let log = said(&bench, &format!("unmerge {adapter} --model merged --out unmerged"));
    assert!(!log.contains("made for"), "{log}");
}

#[test]
fn another_model_than_the_adapter_s_is_warned_of() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --model model --out run"));
    let eval = "eval --adapter run/adapter --data test.tsv";
    copy(&bench, "other");
    let log = said(&bench, &format!("{eval} --model other"));
    assert!(log.contains("run/adapter: the adapter was made for model, not for other"), "{log}");
    // Every adapter is looked at, whatever becomes of them.
    bench.json(&format!("{TRAIN} --model other --out second"));
    for compose in ["parallel", "stack", "average"] {
        let two = format!("{eval} --adapter second/adapter --compose {compose}");
        let log = said(&bench, &format!("{two} --model other"));
        assert_eq!(log.matches("the adapter was made for").count(), 1, "{compose}: {log}");
        assert!(log.contains("run/adapter: the adapter was made for model, not for other"));
        let log = said(&bench, &two);
        assert!(log.contains("run/adapter: the adapter was made for model, not for other"));
    }
    // Other paths to the same directory are the same.
    let whole = bench.path("model");
    for model in ["./model", "other/../model", whole.to_str().unwrap()] {
        let log = said(&bench, &format!("{eval} --model {model}"));
        assert!(!log.contains("made for"), "{model}: {log}");
    }

    std::fs::rename(whole, bench.path("moved")).unwrap();
    let error = bench.error(eval);
    for part in ["run/adapter: made for model; --model can name another", "the directory model"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(said(&bench, &format!("{eval} --model moved")).contains("not for moved"));

    let path = bench.path("run/adapter/adapter_config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let with = |name: &str| {
        let field = "\"base_model_name_or_path\": ";
        let other = config.replace(&format!("{field}\"model\""), &format!("{field}{name}"));
        assert_ne!(config, other, "the field is written otherwise");
        std::fs::write(&path, other).unwrap();
    };
    // Names of the hub are compared as they are.
    with("\"owner/some\"");
    let log = said(&bench, &format!("{eval} --model moved"));
    assert!(log.contains("made for owner/some, not for moved"), "{log}");
    let error = bench.error(eval);
    assert!(error.contains("made for owner/some") && error.contains("offline"), "{error}");
    // An adapter need not say anything.
    with("null");
    assert!(!said(&bench, &format!("{eval} --model moved")).contains("made for"));
    let error = bench.error(eval);
    assert!(error.contains("run/adapter: does not say what model it is for"), "{error}");
    with("3");
    let error = bench.error(eval);
    assert!(error.contains("base_model_name_or_path = 3"), "{error}");
    // Without an adapter there is a default.
    let error = bench.error("eval --data test.tsv");
    assert!(error.contains("no model \"minilm\""), "{error}");
}

#[test]
fn a_classifier_s_head_is_trained_and_found_again_on_every_architecture() {
    let rows: String = ["ab", "ba", "cc", "ac", "ca"]
        .iter()
        .enumerate()
        .map(|(label, text)| format!("{text}\tlabel {label}\n").repeat(4))
        .collect();
    for (base, end, head) in [
        ("t5-left", Some(1), "classification_head"),
        ("bart-left", Some(2), "classification_head"),
        ("gpt2-left", None, "score"),
        ("llama-llama3", None, "score"),
        ("llama-sequence", None, "score"),
    ] {
        let bench = Workbench::new();
        bench.model_of_letters(base, end);
        bench.write("five.tsv", format!("text\tlabel\n{rows}"));
        let train =
            "train --model model --train five.tsv --test five.tsv --epochs 2 --max-length 6";
        let trained = bench.json(&format!("{train} --lr 1e-2 --json --out run"));
        let config = std::fs::read_to_string(bench.path("run/adapter/adapter_config.json"));
        let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
        let saved = match head {
            "score" => json!(["classifier", "score"]),
            head => json!([head]),
        };
        assert_eq!(config["modules_to_save"], saved, "{base}");
        let check = bench.json("check --adapter run/adapter --json");
        let keys = check["expected"].as_array().unwrap();
        let is_head = |key: &&serde_json::Value| key["key"].as_str().unwrap().contains(head);
        assert!(keys.iter().any(|key| is_head(&key) && key["shape"][0] == 5), "{base}: {check}");
        let evaluated = bench.json("eval --adapter run/adapter --data five.tsv --json");
        let (a, b) = (&evaluated["loss"], &trained["test"]["loss"]);
        assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5, "{base}: {a} {b}");
        let scores =
            bench.json("predict --adapter run/adapter --json ab")["predictions"][0]["scores"]
                .clone();
        assert_eq!(scores.as_object().unwrap().len(), 5, "{base}");
    }
}

#[test]
fn a_prompt_starts_from_a_text_that_says_what_to_do() {
    let bench = Workbench::new();
    let prompt = "--model model --method prompt --set num_virtual_tokens=4";
    let config = |run: &str| -> serde_json::Value {
        let path = bench.path(run).join("adapter/adapter_config.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    bench.json(&format!("{TRAIN} {prompt} --out own"));
    let own = config("own");
    assert_eq!(own["prompt_tuning_init"], "TEXT");
    assert_eq!(own["prompt_tuning_init_text"], "Classify the text.");
    assert_eq!(own["tokenizer_name_or_path"], "model");
    bench.json(&format!("{TRAIN} {prompt} --task mlm --columns text --out words"));
    assert_eq!(config("words")["prompt_tuning_init_text"], "Fill in the words.");
    // What is set is not overruled, under either of its names.
    let random = "--set init=RANDOM --out random";
    bench.json(&format!("{TRAIN} {prompt} {random}"));
    assert!(config("random")["prompt_tuning_init_text"].is_null());
    bench.json(&format!("{TRAIN} {prompt} --set init_text=hello --out hello"));
    assert_eq!(config("hello")["prompt_tuning_init_text"], "hello");
    let error = bench
        .error(&format!("{TRAIN} {prompt} --set init_text=hello --set init_ids=[500] --out never"));
    assert!(error.contains("prompt_tuning_init_ids = 500"), "{error}");
}
