//! From training to a merged model and back.

use std::io::Write;

use serde_json::{Value, json};

use crate::workbench::{Workbench, text};

const TRAIN: &str = "train --model model --train train.tsv --test test.tsv --epochs 2 \
                     --batch-size 16 --lr 1e-2 --max-length 40 --set rank=4 --set alpha=8 --json";

#[test]
fn an_adapter_is_trained_used_merged_and_taken_out_again() {
    let bench = Workbench::new();
    let trained = bench.json(&format!("{TRAIN} --out run"));
    let accuracy = trained["test"]["accuracy"].as_f64().unwrap();
    // LoRA on query and value of two layers (rank 4, hidden 32), and a head of ten labels.
    assert_eq!(trained["trainable"], 2 * 2 * 4 * (32 + 32) + 32 * 10 + 10);
    for file in ["run.toml", "metrics.jsonl", "plot.svg", "result.json", "adapter/task.json"] {
        assert!(bench.path("run").join(file).exists(), "{file} is missing");
    }
    assert!(!bench.path("run/checkpoint").exists(), "a finished run keeps no checkpoint");

    let evaluated = bench.json("eval --model model --adapter run/adapter --data test.tsv --json");
    assert_eq!(evaluated["accuracy"].as_f64().unwrap(), accuracy);

    bench.json("merge --model model --adapter run/adapter --out merged --json");
    let merged = bench.json("eval --model merged --data test.tsv --json");
    assert_eq!(merged["accuracy"].as_f64().unwrap(), accuracy);
    let (a, b) = (merged["loss"].as_f64().unwrap(), evaluated["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-5, "merged {a}, unmerged {b}");

    let unmerged = bench.json("unmerge --model merged --adapter run/adapter --out unmerged --json");
    let kept: Vec<&str> =
        unmerged["kept"].as_array().unwrap().iter().filter_map(|k| k.as_str()).collect();
    assert_eq!(kept, ["classifier.bias", "classifier.weight"]);
    let again = bench.json("eval --model unmerged --adapter run/adapter --data test.tsv --json");
    assert!((again["loss"].as_f64().unwrap() - b).abs() < 1e-5);

    let check = bench.json("check --model model --adapter run/adapter --json");
    assert_eq!(check["ok"], true);
    assert_eq!(check["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn what_pissa_started_from_goes_with_its_adapter() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --method pissa --out run"));
    let start = |adapter: &str| bench.path(adapter).join("adapter_start.safetensors");
    bench.json("convert --model model --adapter run/adapter --to peft --out converted --json");
    let [first, second] = ["run/adapter", "converted"].map(|a| std::fs::read(start(a)).unwrap());
    assert!(first == second, "the converted adapter has another start");

    let loss = |model: &str, adapter: &str| {
        let eval = format!("eval --model {model} {adapter} --data test.tsv --json");
        bench.json(&eval)["loss"].as_f64().unwrap()
    };
    let adapted = loss("model", "--adapter converted");
    bench.json("merge --model model --adapter converted --out merged --json");
    let merged = loss("merged", "");
    assert!((merged - adapted).abs() < 1e-5, "merged {merged}, unmerged {adapted}");
    bench.json("unmerge --model merged --adapter converted --out unmerged --json");
    let again = loss("unmerged", "--adapter converted");
    assert!((again - adapted).abs() < 1e-5, "{again} after merging and back, {adapted} before");

    std::fs::write(start("converted"), &first[..first.len() - 1]).unwrap();
    let error = bench.error("eval --model model --adapter converted --data test.tsv");
    assert!(error.contains("adapter_start.safetensors: not a whole"), "{error}");
}

#[test]
fn a_profile_says_where_the_time_went() {
    let bench = Workbench::new();
    let trained = bench.json(&format!("{TRAIN} --profile --out run"));
    let parts = trained["profile"].as_array().unwrap();
    let of = |name: &str, field: &str| {
        let part = parts.iter().find(|part| part["name"] == name);
        part.unwrap_or_else(|| panic!("no {name} among {parts:?}"))[field].as_f64().unwrap()
    };
    let steps = trained["steps"].as_f64().unwrap();
    assert_eq!(of("optimizer", "calls"), steps);
    // Two layers of six linear layers each in every step, forward and backward.
    assert!(of("linear", "calls") >= 12.0 * steps, "{parts:?}");
    assert!(of("linear, backward", "calls") >= 8.0 * steps, "{parts:?}");
    let all: f64 = parts.iter().map(|part| part["seconds"].as_f64().unwrap()).sum();
    let seconds = trained["train_seconds"].as_f64().unwrap();
    assert!(all > 0.0 && all < 1.5 * seconds, "{all} of {seconds}");
}

#[test]
fn predictions_name_labels() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --out run"));
    let mut command = bench.command("predict --model model --adapter run/adapter --json");
    let output = command.args(["where is my parcel", "let me cancel"]).output().unwrap();
    let value: serde_json::Value =
        serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap();
    let rows = value["predictions"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let scores = rows[0]["scores"].as_object().unwrap();
    assert_eq!(scores.len(), 10);
    let sum: f64 = scores.values().filter_map(|score| score.as_f64()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert!(scores.contains_key(rows[1]["label"].as_str().unwrap()));
    // A file without labels is as good as one with them.
    bench.write("texts.tsv", "text\nmy card was charged twice\n");
    let value = bench.json("predict --model model --adapter run/adapter --data texts.tsv --json");
    assert_eq!(value["predictions"][0]["text"], "my card was charged twice");
    let value = bench.json("predict --model model --adapter run/adapter --data test.tsv --json");
    assert_eq!(value["predictions"].as_array().unwrap().len(), 60);
}

#[test]
fn a_saved_run_file_does_the_run_again() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --seed 7 --schedule cosine --warmup-ratio 0.2 --out first"));
    bench.json("train first/run.toml --out second --json");
    let adapter = |run: &str| {
        std::fs::read(bench.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    };
    assert!(adapter("first") == adapter("second"), "the same run gave another adapter");
    bench.json("train first/run.toml --seed 8 --out third --json");
    assert!(adapter("first") != adapter("third"), "another seed gave the same adapter");
}

#[test]
fn json_lines_csv_pairs_and_regression() {
    let bench = Workbench::new();
    let mut csv = String::from("id,sentence1,sentence2,score\n");
    let mut json = String::new();
    for i in 0..40 {
        let (a, b) = (format!("a, {} man", i % 7), format!("the \"\"{} dog", i % 5));
        csv.push_str(&format!("{i},\"{a}\",\"{b}\",{}\n", i % 5));
        json.push_str(&format!("{{\"text\": \"{a}\", \"label\": {}}}\n", i % 3));
    }
    bench.write("pairs.csv", csv);
    bench.write("texts.jsonl", json);
    let value = bench.json(
        "train --model model --task regress --train pairs.csv --columns sentence1,sentence2,score \
         --test-split 0.25 --valid-split 0.25 --epochs 1 --out regression --json",
    );
    assert_eq!(value["test"]["examples"], 10);
    assert_eq!(value["valid"]["examples"], 10);
    assert!(value["test"]["spearman"].is_number());
    let value = bench.json(
        "train --model model --train texts.jsonl --test texts.jsonl --epochs 1 --out labels --json",
    );
    assert_eq!(value["test"]["examples"], 40);
    let predicted =
        bench.json("predict --model model --adapter regression/adapter --data pairs.csv --json");
    assert_eq!(predicted["predictions"][0]["pair"], "the \"0 dog");
    assert!(predicted["predictions"][0]["value"].is_number());
}

#[test]
fn what_a_model_has_beside_its_tensors_is_kept_when_it_is_merged() {
    let bench = Workbench::new();
    let settings = "{\"eos_token_id\": [2, 3]}";
    bench.write("model/generation_config.json", settings);
    let config = std::fs::read_to_string(bench.path("model/config.json")).unwrap();
    let narrow = config.replace("\"float32\"", "\"bfloat16\"");
    assert_ne!(config, narrow, "the fixture's dtype is written otherwise");
    bench.write("model/config.json", narrow);
    bench.json(
        "train --model model --train train.tsv --test test.tsv --epochs 1 --limit 8 --json --out run",
    );
    bench.json("merge --model model --adapter run/adapter --out merged --json");
    bench.json("unmerge --model merged --adapter run/adapter --out unmerged --json");
    for model in ["merged", "unmerged"] {
        let read = |name: &str| std::fs::read_to_string(bench.path(model).join(name)).unwrap();
        assert_eq!(read("generation_config.json"), settings, "{model}");
        assert!(!read("config.json").contains("bfloat16"), "{model}");
        assert!(read("config.json").contains("float32"), "{model}");
    }
}

#[test]
fn inspection_counts_by_the_closed_formula() {
    let bench = Workbench::new();
    let lora = bench.json("inspect --model model --method lora --set rank=4 --labels 3 --json");
    let (d, r, sites, head) = (32, 4, 4, 32 * 3 + 3);
    assert_eq!(lora["trainable"], sites * r * 2 * d + head);
    assert_eq!(lora["changed"], sites * d * d + head);
    assert_eq!(lora["rank"], sites * r + 3);
    let listed = lora["sites"].as_array().unwrap();
    assert_eq!(listed.len(), 5);
    assert_eq!(listed[0]["path"], "bert.encoder.layer.0.attention.self.query");
    let dora = bench.json("inspect --model model --method dora --set rank=4 --labels 3 --json");
    assert_eq!(dora["trainable"], sites * (r * 2 * d + d) + head);
    assert_eq!(dora["rank"], sites * d + 3);
}

#[test]
fn an_estimate_is_the_sum_of_its_parts_and_follows_the_batch() {
    let bench = Workbench::new();
    let estimate = |flags: &str| {
        bench.json(&format!("estimate --model model --method lora --set rank=4 --json {flags}"))
    };
    let number = |value: &serde_json::Value, part: &str| value["memory"][part].as_u64().unwrap();
    let small = estimate("--batch-size 4 --length 8");
    let parts = ["base", "adapter", "gradients", "optimizer", "activations", "workspace"];
    let sum: u64 = parts.iter().map(|part| number(&small, part)).sum();
    assert_eq!(small["peak_bytes"], sum);
    let (d, r, sites, head) = (32, 4, 4, 32 * 2 + 2);
    let trainable = sites * r * 2 * d + head;
    assert_eq!(small["trainable"], trainable);
    assert_eq!(number(&small, "optimizer"), 2 * 4 * trainable);

    let large = estimate("--batch-size 8 --length 8");
    let [of_small, of_large] = [&small, &large].map(|it| number(it, "activations"));
    // The head's own weight is kept once, whatever the batch.
    assert_eq!(2 * of_small - of_large, 4 * 32 * 2);
    let top = estimate("--batch-size 8 --length 8 --set layers_to_transform=[1]");
    assert!(number(&top, "activations") < of_large, "below the lowest layer nothing is kept");
    let operations = |value: &serde_json::Value| value["operations"].as_f64().unwrap();
    assert!(operations(&top) < operations(&large));
    let saving = estimate("--batch-size 8 --length 8 --gradient-checkpointing");
    assert!(operations(&saving) > operations(&large));
}

/// Its words alone are a quarter of a terabyte.
#[test]
fn a_model_that_no_memory_holds_is_inspected() {
    let bench = Workbench::new();
    let path = bench.path("model/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..length]).unwrap();
    let (words, end): (u64, u64) = (1 << 31, bytes.len() as u64 - length as u64);
    let table = header.as_object_mut().unwrap();
    let (_, table) =
        table.iter_mut().find(|(key, _)| key.ends_with("word_embeddings.weight")).unwrap();
    // Where the old table was, there is another tensor.
    let old = std::mem::replace(
        table,
        json!({"dtype": "F32", "shape": [words, 32], "data_offsets": [end, end + words * 32 * 4]}),
    );
    header["old"] = old;
    let header = header.to_string();
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // A file with a hole takes no room.
    file.set_len(8 + header.len() as u64 + end + words * 32 * 4).unwrap();
    let config = std::fs::read_to_string(bench.path("model/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["vocab_size"] = json!(words);
    bench.write("model/config.json", config.to_string());
    for method in ["lora", "pissa", "prefix"] {
        let counts = bench.json(&format!("inspect --model model --method {method} --json"));
        assert!(counts["total"].as_u64().unwrap() > words * 32, "{method}: {counts}");
    }
}

#[test]
fn every_method_trains() {
    let bench = Workbench::new();
    let methods = bench.json("methods --json")["methods"].as_array().unwrap().clone();
    assert!(methods.len() > 20, "{} methods", methods.len());
    for method in &methods {
        let name = method["name"].as_str().unwrap();
        let more = match name {
            "lora" => "--set target_modules=all-linear --set rank=4",
            "pissa" => "--set bias=lora_only --gradient-checkpointing",
            "lora+" => "--set bias=all --max-grad-norm 1.0 --accumulate 2 --set dropout=0.1",
            // The tiny model has 40 positions, and a width of 32.
            "prefix" => "--set num_virtual_tokens=4 --set prefix_projection=true",
            "prompt" | "p-tuning" => "--set num_virtual_tokens=4",
            "phm" | "compacter" | "compacter++" | "adapterplus" | "sparse-adapter" => {
                "--set reduction_factor=4"
            }
            "large-sparse" => "--set pruning=grasp --set calibration_batches=1",
            "multitask-prompt" => "--set num_virtual_tokens=4",
            "cpt" => "--set cpt_token_ids=[3,4,5,6] --set epsilon=5.0",
            "vb-lora" => "--set num_vectors=16 --set vector_length=8",
            "c3a" => "--set block_size=8",
            "road" => "--set group_size=8",
            "miss" | "shira" => "--set r=8",
            "trainable-tokens" => "--set token_indices=[3,4,5]",
            // Trained over other adapters, and in a subspace of other prompts.
            "fusion" | "ipt" => continue,
            _ => "",
        };
        let command = "train --model model --train train.tsv --test test.tsv --epochs 1 \
                       --batch-size 32 --max-length 24 --limit 96 --json";
        let value = bench.json(&format!("{command} --method {name} {more} --out {name}"));
        assert!(value["test"]["loss"].as_f64().unwrap().is_finite(), "{name}");
        let start = bench.path(name).join("adapter/adapter_start.safetensors");
        assert_eq!(start.exists(), name == "pissa", "{name}");
        let check = bench.json(&format!("check --model model --adapter {name}/adapter --json"));
        assert_eq!(check["ok"], true, "{name}: {check}");
        let evaluated = bench
            .json(&format!("eval --model model --adapter {name}/adapter --data test.tsv --json"));
        let (a, b) = (&evaluated["loss"], &value["test"]["loss"]);
        let distance = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
        assert!(distance < 1e-5, "{name}: {a} from its file, {b} in training");
    }
}

/// The ranks that the data gave are in the configuration, and what was taken off is beside the factors.
#[test]
fn starts_from_data_are_saved_as_they_trained() {
    let bench = Workbench::new();
    for name in ["eva", "corda", "lora_ga", "loftq"] {
        let value = bench.json(&format!(
            "train --model model --train train.tsv --test test.tsv --epochs 1 --batch-size 16 \
             --max-length 24 --limit 64 --json --set init={name} --set rank=3 --out {name}"
        ));
        let start = bench.path(name).join("adapter/adapter_start.safetensors");
        assert_eq!(start.exists(), ["corda", "lora_ga"].contains(&name), "{name}");
        let evaluated = bench
            .json(&format!("eval --model model --adapter {name}/adapter --data test.tsv --json"));
        let [trained, read] =
            [&value["test"]["loss"], &evaluated["loss"]].map(|loss| loss.as_f64());
        let distance = (trained.unwrap() - read.unwrap()).abs();
        assert!(distance < 1e-5, "{name}: {read:?} from its file, {trained:?} in training");
        let config = std::fs::read_to_string(bench.path(name).join("adapter/adapter_config.json"));
        let config: Value = serde_json::from_str(&config.unwrap()).unwrap();
        assert_eq!(config["init_lora_weights"], name);
        if name == "eva" {
            let ranks = config["rank_pattern"].as_object().unwrap();
            assert!(ranks.values().all(|rank| *rank != 3), "{ranks:?}");
        }
    }
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    let bench = Workbench::new();
    // At this rate nothing is learned, so that no epoch is better than the first ones.
    let value = bench.json(
        "train --model model --train train.tsv --valid test.tsv --test test.tsv --epochs 30 \
         --lr 1e-12 --early-stopping 2 --out run --json",
    );
    let (epochs, best) = (value["epochs"].as_u64().unwrap(), value["best_epoch"].as_u64().unwrap());
    assert_eq!(epochs, best + 2);
    assert_eq!(value["valid"]["accuracy"], value["test"]["accuracy"]);
}
