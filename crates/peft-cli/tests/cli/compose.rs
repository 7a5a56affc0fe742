//! Several adapters, and adapters of the other library.

use burn::tensor::TensorData;
use peft::core::TensorMap;
use peft::format::{read_safetensors, write_safetensors};

use crate::workbench::Workbench;

const TRAIN: &str = "train --model model --train train.tsv --test test.tsv --epochs 1 \
                     --batch-size 32 --max-length 24 --limit 96 --json";

/// Two adapters, `a` and `b`.
fn bench() -> Workbench {
    let bench = Workbench::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let set = "--set reduction_factor=4";
        bench
            .json(&format!("{TRAIN} --method pfeiffer {set} --lr 1e-2 --seed {seed} --out {name}"));
    }
    bench
}

#[test]
fn a_fusion_is_trained_over_adapters_used_and_looked_at() {
    let bench = bench();
    let two = "--adapter a/adapter --adapter b/adapter --compose fuse";
    let trained = bench.json(&format!("{TRAIN} {two} --lr 1e-2 --out fused"));
    // Query, key and value of width 32 in two layers, and the head; not the adapters.
    assert_eq!(trained["trainable"], 2 * (3 * 32 * 32 + 2 * 32) + 32 * 10 + 10);
    let with = format!("{two} --fusion fused/adapter");
    let evaluated = bench.json(&format!("eval --model model {with} --data test.tsv --json"));
    let (a, b) = (evaluated["loss"].as_f64().unwrap(), trained["test"]["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-5, "{a} from the file, {b} in training");
    let seen =
        bench.json(&format!("observe --model model {with} --data test.tsv --plot map.svg --json"));
    bench.write("intents.json", seen.to_string());
    let compare = "observe --from intents.json --from intents.json --plot tasks.svg";
    assert!(bench.run(compare).status.success());
    assert!(std::fs::read_to_string(bench.path("tasks.svg")).unwrap().contains("intents"));
    let seen = seen["observations"].as_array().unwrap();
    assert_eq!(seen.len(), 2);
    for layer in seen {
        let means: Vec<f64> =
            layer["mean"].as_array().unwrap().iter().filter_map(|m| m.as_f64()).collect();
        assert!(means.len() == 2 && (means.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{means:?}");
    }
    let plot = std::fs::read_to_string(bench.path("map.svg")).unwrap();
    assert!(
        plot.contains("layer 1") && plot.contains(">\na\n"),
        "the plot names layers and adapters"
    );

    let error = bench.error(&format!("eval --model model {two} --data test.tsv"));
    assert!(error.contains("a fusion is trained"), "{error}");
}

#[test]
fn adapters_of_other_tasks_have_other_heads() {
    let bench = bench();
    bench.write("two.tsv", "text\tlabel\n".to_string() + &"so good\tyes\nso bad\tno\n".repeat(8));
    let two = "train --model model --train two.tsv --test two.tsv --epochs 1 --json";
    for (how, more) in [("stack", "--method houlsby"), ("fuse", "")] {
        let below = format!("--adapter a/adapter --adapter b/adapter --compose {how}");
        let trained = bench.json(&format!("{two} {below} {more} --out {how}"));
        let with = match how {
            "stack" => {
                "--adapter a/adapter --adapter b/adapter --adapter stack/adapter --compose stack"
            }
            _ => "--adapter a/adapter --adapter b/adapter --compose fuse --fusion fuse/adapter",
        };
        let evaluated = bench.json(&format!("eval --model model {with} --data two.tsv --json"));
        let (a, b) =
            (evaluated["loss"].as_f64().unwrap(), trained["test"]["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{how}: {a} from the files, {b} in training");
    }
}

#[test]
fn a_task_adapter_is_trained_over_another_and_saved_alone() {
    let bench = bench();
    let over = "--adapter a/adapter --compose stack";
    let trained = bench.json(&format!("{TRAIN} {over} --method houlsby --out task"));
    let stacked = "--adapter a/adapter --adapter task/adapter --compose stack";
    let both = bench.json(&format!("eval --model model {stacked} --data test.tsv --json"));
    let (a, b) = (both["loss"].as_f64().unwrap(), trained["test"]["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-5, "{a} from the files, {b} in training");
    // Another one below, as a language is swapped at test time.
    let swapped = stacked.replace("a/adapter --adapter task", "b/adapter --adapter task");
    let swapped = bench.json(&format!("eval --model model {swapped} --data test.tsv --json"));
    assert_ne!(swapped["loss"], both["loss"]);
    // The run file says what was below.
    bench.json("train task/run.toml --out again --json");
    let adapter = |run: &str| {
        std::fs::read(bench.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    };
    assert!(adapter("task") == adapter("again"), "the same run gave another adapter");
}

#[test]
fn averages_and_adapters_side_by_side() {
    let bench = bench();
    let two = "--adapter a/adapter --adapter b/adapter";
    let average =
        bench.json(&format!("eval --model model {two} --compose average --data test.tsv --json"));
    assert!(average["accuracy"].is_number());
    let each =
        bench.json(&format!("eval --model model {two} --compose parallel --data test.tsv --json"));
    let alone = bench.json("eval --model model --adapter b/adapter --data test.tsv --json");
    assert_eq!(each["adapters"][1]["metrics"], alone);
    let rows = bench
        .json(&format!("predict --model model {two} --compose parallel --data test.tsv --json"));
    assert_eq!(rows["predictions"].as_array().unwrap().len(), 2 * 60);
    let ids = TensorData::new(vec![2i64, 5, 9, 3, 2, 40, 3, 0], [2, 4]);
    let mask = TensorData::new(vec![1i64, 1, 1, 1, 1, 1, 1, 0], [2, 4]);
    let inputs = TensorMap::from([("input_ids".into(), ids), ("attention_mask".into(), mask)]);
    write_safetensors(&bench.path("ids.safetensors"), &inputs).unwrap();
    let logits = |adapters: &str| -> Vec<f32> {
        let forward = format!("forward {adapters} --inputs ids.safetensors --out out.safetensors");
        bench.json(&format!("{forward} --json"));
        let out = read_safetensors(&bench.path("out.safetensors")).unwrap();
        out["logits"].clone().try_into_vec().unwrap()
    };
    let each = [logits("--adapter a/adapter"), logits("--adapter b/adapter")].concat();
    let together = logits(&format!("{two} --compose parallel"));
    assert_eq!(together.len(), 4 * 10);
    assert!(together.iter().zip(&each).all(|(a, b)| (a - b).abs() < 1e-5));
    let rows = logits(&format!("{two} --compose batch-split --batch-sizes 1,1"));
    let own = [&each[..10], &each[30..]].concat();
    assert!(rows.iter().zip(&own).all(|(a, b)| (a - b).abs() < 1e-5));
    // A whole text under one of them, and the first tokens of each under the other.
    let first = logits(&format!("{two} --compose split --splits 9,1"));
    let alone = logits("--adapter a/adapter --adapter b/adapter --compose split --splits 4,0");
    assert_eq!(first, alone);
    assert_ne!(first, logits(&format!("{two} --compose split --splits 2,2")));
    let split = format!("eval --model model {two} --compose split --splits 3,3");
    assert!(bench.json(&format!("{split} --data test.tsv --json"))["accuracy"].is_number());
    for (compose, expected) in [
        ("split", "--compose split needs --splits"),
        ("split --splits 1,2,3", "3 splits for 2 adapters"),
        ("stack --splits 1,2", "--splits is for --compose split"),
        ("batch-split --batch-sizes 1,2", "batch_sizes sum to 3, and the batch has 2 texts"),
        ("batch-split", "--compose batch-split needs --batch-sizes"),
        ("multi-task", "the task of each text must be given (task_ids)"),
    ] {
        let forward = "forward --inputs ids.safetensors --out never.safetensors";
        let error = bench.error(&format!("{forward} {two} --compose {compose}"));
        assert!(error.contains(expected), "{error}");
    }
    // Each row in its task.
    let with_tasks = |tasks: [i64; 2]| {
        let mut inputs = inputs.clone();
        inputs.insert("task_ids".into(), TensorData::new(tasks.to_vec(), [2]));
        write_safetensors(&bench.path("tasks.safetensors"), &inputs).unwrap();
        let forward = "forward --inputs tasks.safetensors --out out.safetensors";
        format!("{forward} {two} --compose multi-task")
    };
    bench.json(&format!("{} --json", with_tasks([1, 0])));
    let out = read_safetensors(&bench.path("out.safetensors")).unwrap();
    let rows: Vec<f32> = out["logits"].clone().try_into_vec().unwrap();
    let own = [&each[20..30], &each[10..20]].concat();
    assert!(rows.iter().zip(&own).all(|(a, b)| (a - b).abs() < 1e-5));
    let error = bench.error(&with_tasks([1, 2]));
    assert!(error.contains("task 2 of 2 adapters"), "{error}");
    let one = "forward --inputs tasks.safetensors --out never --adapter a/adapter";
    let error = bench.error(one);
    assert!(error.contains("task_ids has task 1, and the adapter has 1"), "{error}");
    // The same from one directory.
    bench.json(&format!("compose {two} --compose split --splits 2,2 --out both --json"));
    let both = logits("--adapter both");
    assert_eq!(both, logits(&format!("{two} --compose split --splits 2,2")));
    let error = bench.error(&format!("compose {two} --compose split --splits 2,2 --out both"));
    assert!(error.contains("is not empty"), "{error}");
    let error = bench.error("compose --adapter a --adapter nowhere --compose stack --out never");
    assert!(error.contains("nowhere"), "{error}");
    assert!(!bench.path("never").exists());
    bench.json(&format!("compose {two} --compose parallel --out sides --json"));
    let each_of = |adapters: &str| {
        bench.json(&format!("eval --model model {adapters} --data test.tsv --json"))["adapters"][1]
            ["metrics"]
            .clone()
    };
    assert_eq!(each_of("--adapter sides"), each_of(&format!("{two} --compose parallel")));
    let setup = bench.path("both/adapter_setup.json");
    let text = std::fs::read_to_string(&setup).unwrap();
    for (from, to, expected) in [
        ("\"Split\"", "\"Nested\"", "the composition \"Nested\" is not supported"),
        ("\"single\"", "\"Stack\"", "in a composition is not supported"),
        ("\"a\"", "\"../a\"", "must be the name of a directory beside it"),
        ("\"splits\"", "\"parts\"", "kwargs.splits must be a list of numbers"),
    ] {
        std::fs::write(&setup, text.replace(from, to)).unwrap();
        let error = bench.error("forward --adapter both --inputs ids.safetensors --out never");
        assert!(error.contains("adapter_setup.json") && error.contains(expected), "{error}");
    }
    let of_rows = "--compose batch-split --batch-sizes 1,1 --data test.tsv";
    let error = bench.error(&format!("eval --model model {two} {of_rows}"));
    assert!(error.contains("are for one batch"), "{error}");
    let error = bench.error(&format!("observe {two} --compose parallel --data test.tsv"));
    assert!(error.contains("observe one at a time"), "{error}");

    let error = bench.error(&format!("eval --model model {two} --data test.tsv"));
    assert!(error.contains("compose"), "{error}");
    let error = bench.error(&format!("{TRAIN} {two} --compose average --out never"));
    assert!(error.contains("nothing of their own to train"), "{error}");
    assert!(!bench.path("never").exists());
}

#[test]
fn adapters_side_by_side_share_their_model() {
    let bench = bench();
    let loads = |arguments: &str| {
        let output = bench.run(&format!("{arguments} -vv"));
        let log = crate::workbench::text(&output.stderr);
        assert!(output.status.success(), "{log}");
        log.matches("frozen weights: ").count()
    };
    let two = "--adapter a/adapter --adapter b/adapter --adapter a/adapter --compose parallel";
    for command in ["eval", "predict"] {
        assert_eq!(
            loads(&format!("{command} --model model {two} --data test.tsv")),
            1,
            "{command}"
        );
    }
    // One with another head has a model of its own.
    bench.write("two.tsv", "text\tlabel\n".to_string() + &"so good\tyes\nso bad\tno\n".repeat(8));
    bench.json("train --model model --train two.tsv --epochs 1 --json --method lora --out c");
    let three = "--adapter a/adapter --adapter c/adapter --adapter b/adapter --compose parallel";
    let predict = format!("predict --model model {three} --data test.tsv");
    assert_eq!(loads(&predict), 2);
    let rows = bench.json(&format!("{predict} --json"))["predictions"].as_array().unwrap().clone();
    for (number, name) in ["a", "c", "b"].into_iter().enumerate() {
        let alone =
            format!("predict --model model --adapter {name}/adapter --data test.tsv --json");
        let alone = bench.json(&alone)["predictions"].as_array().unwrap().clone();
        for (found, alone) in rows[number * 60..].iter().zip(&alone) {
            assert_eq!(found["adapter"], format!("{name}/adapter"));
            assert_eq!((&found["text"], &found["scores"]), (&alone["text"], &alone["scores"]));
        }
    }
}

#[test]
fn an_adapter_is_converted_there_and_back() {
    let bench = Workbench::new();
    for (method, more) in [
        ("pfeiffer", "--set reduction_factor=4"),
        ("lora", ""),
        (
            "ia3",
            "--set feedforward_modules=[] --set target_modules=[\"key\",\"value\",\"intermediate.dense\"]",
        ),
        ("mam", ""),
    ] {
        bench.json(&format!("{TRAIN} --method {method} {more} --out {method}"));
        let there =
            format!("convert --model model --adapter {method}/adapter --to adapters --name t");
        bench.json(&format!("{there} --out {method}-adapters --json"));
        let back = format!("convert --model model --adapter {method}-adapters --to peft");
        bench.json(&format!("{back} --out {method}-back --json"));
        let loss = |adapter: &str| {
            let eval = format!("eval --model model --adapter {adapter} --data test.tsv --json");
            bench.json(&eval)["loss"].as_f64().unwrap()
        };
        let here = loss(&format!("{method}/adapter"));
        for adapter in [format!("{method}-adapters"), format!("{method}-back")] {
            assert!((loss(&adapter) - here).abs() < 1e-6, "{adapter}");
        }
    }
    let dir = "bitfit/adapter";
    bench.json(&format!("{TRAIN} --method bitfit --out bitfit"));
    let error =
        bench.error(&format!("convert --model model --adapter {dir} --to adapters --out x"));
    assert!(error.contains("does not have the method"), "{error}");
    assert!(!bench.path("x").exists());
}
