//! Frozen weights in fewer bits.

use std::path::Path;

use crate::workbench::{Workbench, text};

#[test]
fn a_packed_base_is_trained_over_measured_and_merged() {
    let bench = Workbench::new();
    let trained = bench.json(
        "train --model model --load-in 8bit --train train.tsv --test test.tsv --epochs 4 --lr 1e-2 \
         --set r=4 --out run --json",
    );
    let test = &trained["test"];
    let loss = |options: &str| {
        let eval = bench.json(&format!("eval {options} --data test.tsv --json"));
        eval["loss"].as_f64().unwrap()
    };
    // The adapter knows what it was trained over.
    let over_packed = loss("--model model --adapter run/adapter");
    assert!((over_packed - test["loss"].as_f64().unwrap()).abs() < 1e-5, "{over_packed} {test}");
    assert_eq!(loss("--model model --adapter run/adapter --load-in 8bit"), over_packed);
    let over_full = loss("--model model --adapter run/adapter --load-in stored");
    assert_ne!(over_full, over_packed, "8 bits are rounded");
    std::fs::create_dir(bench.path("full")).unwrap();
    for file in std::fs::read_dir(bench.path("run/adapter")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), bench.path("full").join(file.file_name())).unwrap();
    }
    let task: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.path("full/task.json")).unwrap()).unwrap();
    assert_eq!(task["load_in"], "8bit");
    let mut task = task.as_object().unwrap().clone();
    task.remove("load_in");
    bench.write("full/task.json", serde_json::to_string(&task).unwrap());
    assert_eq!(loss("--model model --adapter full"), over_full, "nothing is recorded");
    let both = bench.json("eval --model model --adapter full --adapter run/adapter --compose parallel --data test.tsv --json");
    let losses = [0, 1].map(|n| both["adapters"][n]["metrics"]["loss"].as_f64().unwrap());
    assert_eq!(losses, [over_full, over_packed], "each over its own base");

    // Merged over the rounded base it is what was trained, in full precision.
    let merge = bench.run("merge --model model --adapter run/adapter --out merged");
    assert!(merge.status.success(), "{}", text(&merge.stderr));
    assert!(text(&merge.stderr).contains("full precision"), "{}", text(&merge.stderr));
    assert!((loss("--model merged") - over_packed).abs() < 1e-5);
    let merge = bench.run("merge --model model --adapter run/adapter --load-in stored --out plain");
    assert!(!text(&merge.stderr).contains("full precision"), "{}", text(&merge.stderr));
    assert!((loss("--model plain") - over_full).abs() < 1e-5);
}

#[test]
fn training_in_bf16_is_that_in_f32_but_for_rounding() {
    let bench = Workbench::new();
    let train = |dtype: &str, out: &str| {
        bench.json(&format!(
            "train --model model --dtype {dtype} --train train.tsv --test test.tsv --epochs 4 --lr 1e-2 \
             --set r=4 --out {out} --json"
        ))
    };
    let loss = |value: &serde_json::Value| value["loss"].as_f64().unwrap();
    let [full, half] = [train("f32", "full"), train("bf16", "half")].map(|run| loss(&run["test"]));
    let difference = (full - half).abs();
    assert!(difference > 0.0 && difference < 0.02, "{full} {half}");
    // The adapter knows what it was trained in.
    let eval = |options: &str| {
        loss(&bench.json(&format!(
            "eval --model model --adapter half/adapter {options} --data test.tsv --json"
        )))
    };
    assert!((eval("") - half).abs() < 1e-5);
    assert_ne!(eval("--load-in f32"), eval(""));
    let run = bench.run("train half/run.toml --out again");
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(
        (loss(&bench.json("eval --model model --adapter again/adapter --data test.tsv --json"))
            - half)
            .abs()
            < 1e-5
    );
    let merge = bench.run("merge --model model --adapter half/adapter --out merged");
    assert!(merge.status.success(), "{}", text(&merge.stderr));
    assert!(
        (loss(&bench.json("eval --model merged --load-in bf16 --data test.tsv --json")) - half)
            .abs()
            < 0.02
    );
}

#[test]
fn a_precision_that_is_not_known_is_named() {
    let bench = Workbench::new();
    let error = bench.error("eval --model model --load-in 3bit --data test.tsv");
    assert!(
        error.contains("3bit") && error.contains("stored, f32, f16, bf16, 8bit, 4bit"),
        "{error}"
    );
}

#[test]
fn a_gguf_file_stays_packed_and_its_merged_model_stands_alone() {
    let bench = Workbench::new();
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../peft-models/tests/fixtures/gguf/llama");
    std::fs::create_dir(bench.path("packed")).unwrap();
    std::fs::copy(file.join("model.gguf"), bench.path("packed/model.gguf")).unwrap();
    bench.write("texts.txt", "the cat sat\non the mat\nand the dog\nran home\n".repeat(8));
    let trained = bench.json(
        "train --model packed --task clm --train texts.txt --test texts.txt --epochs 2 --lr 1e-2 \
         --max-length 16 --out run --json",
    );
    let loss = |options: &str| {
        let eval = bench.json(&format!("eval {options} --data texts.txt --json"));
        eval["loss"].as_f64().unwrap()
    };
    let over_packed = loss("--model packed --adapter run/adapter");
    assert!((over_packed - trained["test"]["loss"].as_f64().unwrap()).abs() < 1e-5);
    // The file's numbers are the same in f32.
    let expanded = loss("--model packed --adapter run/adapter --load-in f32");
    assert!((over_packed - expanded).abs() < 1e-5, "{over_packed} {expanded}");
    let merge = bench.run("merge --model packed --adapter run/adapter --out merged");
    assert!(text(&merge.stderr).contains("full precision"), "{}", text(&merge.stderr));
    assert!((loss("--model merged") - over_packed).abs() < 1e-5);
}
