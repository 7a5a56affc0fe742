//! A folder with a tiny model and data, and the command run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// 97 entries, as many as the fixture's model has: special tokens, letters, letters inside words,
/// digits, signs.
const VOCABULARY: &str = include_str!("vocab.txt");

/// A temporary folder with `model/` (a BERT with 2 layers, a vocabulary of letters, and dropout)
/// and `train.tsv`, `test.tsv` of the built-in data set.
pub struct Workbench {
    folder: TempDir,
}

impl Workbench {
    pub fn new() -> Self {
        let bench = Self { folder: TempDir::new().expect("a temporary folder") };
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases/bert");
        let model = bench.path("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::copy(fixture.join("model.safetensors"), model.join("model.safetensors")).unwrap();
        let config = std::fs::read_to_string(fixture.join("config.json")).unwrap();
        // With dropout, a step depends on the random state.
        let config = config.replace("_prob\": 0.0", "_prob\": 0.1");
        assert!(config.contains("0.1"), "the fixture's dropout is written otherwise");
        std::fs::write(model.join("config.json"), config).unwrap();
        std::fs::write(model.join("vocab.txt"), VOCABULARY).unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/support-intents");
        for name in ["train.tsv", "test.tsv"] {
            let text = std::fs::read_to_string(data.join(name)).unwrap();
            let rows = if name == "train.tsv" { 200 } else { 60 };
            let first: Vec<&str> = text.lines().take(rows + 1).collect();
            std::fs::write(bench.path(name), first.join("\n") + "\n").unwrap();
        }
        bench
    }

    /// Replaces `model/` by another of the tiny models, with a tokenizer of single letters that puts
    /// the token `end` behind a text.
    pub fn model_of_letters(&self, base: &str, end: Option<u32>) {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases").join(base);
        let model = self.path("model");
        std::fs::remove_dir_all(&model).unwrap();
        std::fs::create_dir(&model).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture.join(name), model.join(name)).unwrap();
        }
        let special = ["<0>", "<1>", "<2>", "?"].map(String::from);
        let letters = (' '..='~').filter(|c| " =>.".contains(*c) || c.is_ascii_lowercase());
        let entries: Vec<String> = special.into_iter().chain(letters.map(String::from)).collect();
        assert!(entries.len() <= 61, "the fixtures' vocabulary");
        let vocabulary: serde_json::Map<String, Value> =
            entries.iter().enumerate().map(|(id, entry)| (entry.clone(), json!(id))).collect();
        let added: Vec<Value> = (0..3)
            .map(|id| {
                json!({"id": id, "content": format!("<{id}>"), "single_word": false,
                       "lstrip": false, "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let around = end.map(|id| {
            let name = format!("<{id}>");
            let (text, end) = (
                |id| json!({"Sequence": {"id": id, "type_id": 0}}),
                json!({"SpecialToken": {"id": name, "type_id": 0}}),
            );
            json!({"type": "TemplateProcessing", "single": [text("A"), end],
                   "pair": [text("A"), text("B"), end],
                   "special_tokens": {&name: {"id": name, "ids": [id], "tokens": [name]}}})
        });
        let tokenizer = json!({
            "version": "1.0", "added_tokens": added, "decoder": {"type": "Fuse"},
            "post_processor": around,
            "model": {"type": "BPE", "unk_token": "?", "vocab": vocabulary, "merges": []},
        });
        std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// `peft ARGUMENTS` in the folder; arguments are separated by spaces.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        // Nothing may be fetched, nor found in the cache of whoever runs the tests.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("no-cache"));
        command
    }

    pub fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the command starts")
    }

    /// The JSON object that a successful command prints last.
    pub fn json(&self, arguments: &str) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
        let stdout = text(&output.stdout);
        let last = stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{arguments}: {e}: {last}"))
    }

    /// What a failing command says; it must fail without a panic.
    pub fn error(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let stderr = text(&output.stderr);
        assert!(!output.status.success(), "{arguments} succeeded");
        assert!(!stderr.contains("panicked"), "{arguments} panicked: {stderr}");
        assert!(stderr.contains("error:"), "{arguments}: no error is named: {stderr}");
        stderr
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
