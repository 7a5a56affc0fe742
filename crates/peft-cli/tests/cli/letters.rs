//! A model of letters that learns to write some that its tables lack.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::workbench::{Workbench, text};

/// `model/`, the tiny BART, which reads and writes the letters from a to z.
fn model(bench: &Workbench) {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases/bart-left");
    let model = bench.path("model");
    std::fs::remove_dir_all(&model).unwrap();
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(fixture.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(fixture.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let letters: String = ('a'..='z').collect();
    for (field, value) in [
        ("grapheme_chars", json!(format!("____{letters}"))),
        // In another order: a letter has an index for reading and one for writing.
        ("phoneme_chars", json!(format!("____{}", letters.chars().rev().collect::<String>()))),
        ("pad_token_id", json!(0)),
        ("bos_token_id", json!(1)),
        ("eos_token_id", json!(2)),
        ("decoder_start_token_id", json!(1)),
    ] {
        config[field] = value;
    }
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
}

/// Words, and how they sound on either side of the sea; two symbols are new.
const WORDS: [(&str, &str, &str); 6] = [
    ("car", "kar", "kaː"),
    ("dog", "dog", "dɒg"),
    ("bee", "bi", "biː"),
    ("ox", "oks", "ɒks"),
    ("ant", "ant", "ant"),
    ("hen", "hen", "hen"),
];

fn table(bench: &Workbench) {
    let rows: String = WORDS.map(|(word, us, gb)| format!("{word}\t{us}\t{gb}\n")).concat();
    bench.write("train.tsv", rows.repeat(6));
    bench.write("test.tsv", rows);
}

const TRAIN: &str = "train --model model --task seq2seq --train train.tsv --test test.tsv \
                     --columns text,_,label --max-length 10 --batch-size 9 --lr 1e-2 \
                     --weight-decay 0 --json";
// The norms are trained too: with those of a random model, scores hardly differ.
const LORA: &str = "--method lora --set target_modules=all-linear --set r=8 --set alpha=16 \
                    --set modules_to_save=layer_norm,layernorm_embedding";

fn read(bench: &Workbench, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(bench.path(path)).unwrap()).unwrap()
}

#[test]
fn symbols_that_are_new_are_learned_kept_and_written() {
    let bench = Workbench::new();
    model(&bench);
    table(&bench);
    // Without indices of their own, they are named, and so is the flag.
    let plain = bench.run(&format!("{TRAIN} {LORA} --epochs 1 --out plain"));
    let warning = text(&plain.stderr);
    for part in ["\"ɒ\" 12 times", "\"ː\" 12 times", "--add-tokens"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert!(!bench.path("plain/adapter/added_tokens.json").exists());

    let trained = bench.json(&format!("{TRAIN} {LORA} --epochs 200 --add-tokens auto --out gb"));
    assert_eq!(read(&bench, "gb/adapter/added_tokens.json"), json!({"ɒ": 30, "ː": 31}));
    let config = read(&bench, "gb/adapter/adapter_config.json");
    assert_eq!(config["trainable_token_indices"], json!([30, 31]));
    let checked = bench.json("check --model model --adapter gb/adapter --json");
    let key = "base_model.model.model.shared.token_adapter.trainable_tokens_delta";
    let keys = checked["expected"].as_array().unwrap();
    let rows = keys.iter().find(|spec| spec["key"] == key).expect("the new rows are saved");
    assert_eq!(rows["shape"], json!([2, 16]));

    let adapter = "--model model --adapter gb/adapter";
    let evaluated = bench.run(&format!("eval {adapter} --data test.tsv --json"));
    assert!(!text(&evaluated.stderr).contains("no token"), "the adapter's tokens are read");
    let evaluated: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    let loss = |metrics: &Value| metrics["loss"].as_f64().unwrap();
    assert!((loss(&evaluated) - loss(&trained["test"])).abs() < 1e-5, "{evaluated}");
    let generate = "--data test.tsv --max-new-tokens 9 --json";
    let written = bench.json(&format!("generate {adapter} {generate}"));
    assert!(written["metrics"]["exact_match"].as_f64().unwrap() > 0.3, "{written}");
    for symbol in ["ɒ", "ː"] {
        assert!(written["texts"].to_string().contains(symbol), "{written}");
    }

    // Merged, it needs nothing beside it; the rows are the trained ones.
    bench.json(&format!("merge {adapter} --out merged --json"));
    assert_eq!(read(&bench, "merged/added_tokens.json"), json!({"ɒ": 30, "ː": 31}));
    let columns = "--columns text,_,label";
    let merged = bench.json(&format!("generate --model merged {columns} {generate}"));
    assert_eq!(merged["texts"], written["texts"]);
    let back = "unmerge --model merged --adapter gb/adapter --out back --json";
    let kept = bench.json(back)["kept"].to_string();
    assert!(kept.contains("model.shared.weight"), "{kept}");

    bench.json(&format!("convert {adapter} --to peft --out copy --json"));
    assert_eq!(read(&bench, "copy/added_tokens.json"), json!({"ɒ": 30, "ː": 31}));

    // Where all rows are trained, the new ones are among them.
    let whole = "--method full --set modules_to_save=shared,embed_positions";
    let train = TRAIN.replace("--lr 1e-2", "--lr 5e-3");
    let full = bench.json(&format!("{train} {whole} --epochs 60 --add-tokens ɒ,ː --out full"));
    let model = bench.json("inspect --model model --method full --json");
    assert_eq!(
        read(&bench, "full/adapter/adapter_config.json")["trainable_token_indices"],
        json!(null)
    );
    assert!(full["trainable"].as_u64() > model["trainable"].as_u64(), "{full}");
    let written = bench.json(&format!("generate --model model --adapter full/adapter {generate}"));
    assert!(written["metrics"]["exact_match"].as_f64().unwrap() > 0.5, "{written}");
}

#[test]
fn more_tokens_than_there_are_rows_are_refused() {
    let bench = Workbench::new();
    model(&bench);
    table(&bench);
    // 61 rows, of which 30 are taken.
    let signs: Vec<String> = ('а'..='я').map(String::from).collect();
    assert_eq!(signs.len(), 32);
    let error = bench.error(&format!("{TRAIN} --add-tokens {} --out never", signs.join(",")));
    for part in ["\"я\"", "61 rows (vocab_size)", "leaves 31"] {
        assert!(error.contains(part), "{error}");
    }
    let twice = "--add-tokens auto --set trainable_token_indices=[3,3]";
    let error = bench.error(&format!("{TRAIN} {twice} --out never"));
    assert!(error.contains("trainable_token_indices = 3"), "{error}");
    assert!(!bench.path("never").exists());
}

#[test]
fn a_run_with_new_tokens_resumes() {
    let bench = Workbench::new();
    model(&bench);
    table(&bench);
    let train = format!(
        "{TRAIN} {LORA} --valid test.tsv --epochs 40 --add-tokens auto --checkpoint-every 3"
    );
    bench.json(&format!("{train} --out whole"));
    let mut child = bench
        .command(&format!("{train} --out cut"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = bench.path("cut/checkpoint/position.json");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !checkpoint.exists() {
        assert!(Instant::now() < deadline, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    bench.json(&format!("{TRAIN} --resume --out cut"));
    for name in ["adapter_model.safetensors", "added_tokens.json", "adapter_config.json"] {
        let [whole, cut] =
            ["whole", "cut"].map(|run| std::fs::read(bench.path(run).join("adapter").join(name)));
        assert!(whole.unwrap() == cut.unwrap(), "{name} of the resumed run is another");
    }
}
