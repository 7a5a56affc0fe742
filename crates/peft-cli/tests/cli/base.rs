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

#[test]
fn a_run_directory_stands_for_its_adapter_and_a_relative_base_is_found_from_anywhere() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --model model --out runs/a"));
    std::fs::create_dir(bench.path("elsewhere")).unwrap();
    let adapter = ["../runs/a", "../runs/a/adapter"];
    for (arguments, more) in [
        ("predict hello", ""),
        ("eval --data ../test.tsv", ""),
        ("check", ""),
        ("merge --out", "merged"),
        ("convert --to peft --out", "converted"),
    ] {
        for (number, adapter) in adapter.iter().enumerate() {
            let out = if more.is_empty() { String::new() } else { format!("{more}{number}") };
            let arguments = format!("{arguments} {out} --adapter {adapter}");
            let mut command = bench.command(&arguments);
            let output = command.current_dir(bench.path("elsewhere")).output().unwrap();
            assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
            assert!(!text(&output.stderr).contains("made for"), "{}", text(&output.stderr));
        }
    }
    let over = format!("{TRAIN} --adapter runs/a --compose stack --method houlsby --out over");
    bench.json(&over);
}

#[test]
fn what_makes_no_sense_is_not_passed_over() {
    let bench = Workbench::new();
    let train = format!("{TRAIN} --model model");
    bench.json(&format!("{train} --out run"));
    let eval = "eval --adapter run --data test.tsv --leave-out";
    let error = bench.error(&format!("{eval} 99"));
    assert!(error.contains("leave_out = 99: the model has 2 layers"), "{error}");
    assert!(bench.error(&format!("{eval} 0,2")).contains("leave_out = 2"));
    bench.json(&format!("{eval} 0,1 --json"));
    for (twice, field) in [("r=4 --set r=8", "r"), ("rank=4 --set r=4", "r")] {
        for command in [format!("{train} --out new"), "inspect --model model".into()] {
            let error = bench.error(&format!("{command} --set {twice}"));
            assert!(error.contains(&format!("{field} is set to 4 already")), "{error}");
        }
    }
    let log = said(&bench, &format!("{train} --lr 100 --out high"));
    assert!(log.contains("lr = 100"), "{log}");
    for flag in ["--lr", "--warmup-ratio", "--weight-decay", "--max-grad-norm", "--valid-split"] {
        for value in ["nan", "inf", "-inf", "1e999"] {
            let output = bench.run(&format!("{train} --out never {flag}={value}"));
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{flag} {value}: {error}");
            assert!(error.contains(flag) && error.contains("finite"), "{flag} {value}: {error}");
        }
    }
    for flag in ["--temperature", "--top-p", "--repetition-penalty", "--length-penalty"] {
        let output = bench.run(&format!("generate --model model {flag}=nan hello"));
        assert_eq!(output.status.code(), Some(2), "{flag}: {}", text(&output.stderr));
    }
    // Of another base nothing fits: that is one line, and not one for each key.
    let config = bench.path("run/adapter/adapter_config.json");
    let plain = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, plain.replace("\"r\": 8", "\"r\": 9")).unwrap();
    let error = bench.error("eval --adapter run --data test.tsv");
    assert!(error.contains("more, which `peft check` lists") && error.len() < 500, "{error}");
}
