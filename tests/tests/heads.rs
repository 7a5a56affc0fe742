//! Heads of every architecture, task and size, from training to the merged model.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use peft::data::{Answer, Dataset, Example, Goal, Labels, Layout, Target, Text, TokenizedSet};
use peft::train::{
    AdaptedModel, AdapterPaths, RunDirectory, TASK_FILE, TaskFile, TrainData, TrainSettings,
    Trainer, Under, evaluate, predict, predict_answers, predict_tags,
};
use peft_core::TensorMap;
use peft_format::{Adapter, AdapterConfig, merged_tensors, read_safetensors, write_safetensors};
use peft_models::{Model, ModelConfig, ModelTask, Precision, TextTokenizer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Each with a recorded model of its shape.
const ARCHITECTURES: [(&str, &str); 10] = [
    ("bert", "bert"),
    ("roberta", "roberta"),
    ("xlm-roberta", "roberta"),
    ("distilbert", "distilbert-sequence"),
    ("gpt2", "gpt2-sequence"),
    ("llama", "llama-sequence"),
    ("mistral", "llama-sequence"),
    ("qwen2", "llama-sequence"),
    ("t5", "t5-sequence"),
    ("bart", "bart-sequence"),
];

const HEADS: [&str; 5] =
    ["classifier", "pre_classifier", "score", "classification_head", "lm_head"];

/// A folder with a model without a head, and a tokenizer of letters that ends a text with token 2.
struct Bench {
    folder: TempDir,
    architecture: &'static str,
}

impl Bench {
    fn new(architecture: &'static str, shape: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder"), architecture };
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bases").join(shape);
        let text = std::fs::read_to_string(fixture.join("config.json")).expect("a configuration");
        let mut config: Map<String, Value> = serde_json::from_str(&text).expect("an object");
        config.insert("model_type".into(), architecture.into());
        config.insert("eos_token_id".into(), 2.into());
        for field in ["architectures", "id2label", "label2id"] {
            config.remove(field);
        }
        let tensors = read_safetensors(&fixture.join("model.safetensors")).expect("tensors");
        let is_head = |key: &String| HEADS.iter().any(|head| key.starts_with(head));
        let mut body: TensorMap = tensors.into_iter().filter(|(key, _)| !is_head(key)).collect();
        // The tokenizer tells the texts of a pair apart.
        let segments =
            body.iter_mut().find(|(key, _)| key.ends_with("token_type_embeddings.weight"));
        if let Some((_, table)) = segments.filter(|(_, table)| table.shape()[0] == 1) {
            let row: Vec<f32> = table.iter::<f32>().collect();
            *table = TensorData::new(row.repeat(2), [2, row.len()]);
            config.insert("type_vocab_size".into(), 2.into());
        }
        if architecture == "qwen2" {
            let biased = ["q_proj", "k_proj", "v_proj"].map(|name| format!(".{name}.weight"));
            let layers: Vec<(String, usize)> = body
                .iter()
                .filter(|(key, _)| biased.iter().any(|end| key.ends_with(end)))
                .map(|(key, weight)| (key.replace("weight", "bias"), weight.shape()[0]))
                .collect();
            body.extend(
                layers.into_iter().map(|(key, d)| (key, TensorData::new(vec![0.1f32; d], [d]))),
            );
        }
        bench.write_model("base", &Value::Object(config), &body);
        bench
    }

    fn write_model(&self, name: &str, config: &Value, tensors: &TensorMap) {
        let directory = self.path(name);
        std::fs::create_dir_all(&directory).expect("made");
        write_safetensors(&directory.join("model.safetensors"), tensors).expect("written");
        std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
        let vocabulary = "[PAD]\n[UNK]\n[SEP]\n[CLS]\na\nb\nc\nd\n";
        std::fs::write(directory.join("vocab.txt"), vocabulary).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tokenizer(&self) -> TextTokenizer {
        TextTokenizer::load(&self.path("base"), 8).expect("a tokenizer")
    }

    fn model(&self, labels: &Labels) -> Model {
        let task = ModelTask { task: labels.task(), seed: 3 };
        let model = Model::load(&self.path("base"), Some(task), &Device::default());
        let (model, report) = model.unwrap_or_else(|e| panic!("{}: {e}", self.architecture));
        assert!(!report.initialized.is_empty(), "the head is new");
        model
    }

    fn tokens(&self, dataset: &Dataset, config: &ModelConfig) -> TokenizedSet {
        TokenizedSet::new(dataset, &self.tokenizer(), config).expect("tokens")
    }

    /// Trains one step, into `run`.
    fn train(&self, labels: &Labels) -> PathBuf {
        let (model, dataset) = (self.model(labels), dataset(labels));
        let fields = json!({"r": 2, "target_modules": "all-linear"});
        let Value::Object(fields) = fields else { unreachable!("an object") };
        let config = AdapterConfig::configure(&peft::registry(), "lora", fields).expect("LoRA");
        let task = model.task_type().expect("a task with a tag");
        let config = config.with_task(task, model.base());
        let device = Device::default().autodiff();
        let adapter = Adapter::new(config, model.base(), &device).expect("an adapter");
        let run = RunDirectory::new(self.path("run"));
        let file = TaskFile {
            labels: labels.clone(),
            layout: Layout::default(),
            max_length: 8,
            load_in: Precision::Stored,
        };
        let settings = TrainSettings { epochs: 1, lr: Some(1e-2), ..TrainSettings::default() };
        let train = self.tokens(&dataset, model.config());
        let data = TrainData { train, valid: None, test: None };
        let trainer = Trainer::new(&model, adapter, file, settings, run.clone(), 0);
        trainer.expect("it fits").run(&data, false).expect("trained");
        run.adapter()
    }

    fn load(&self, model: &str, adapters: &AdapterPaths) -> peft::train::Result<AdaptedModel> {
        let (registry, device) = (peft::registry(), Device::default());
        AdaptedModel::load(&self.path(model), adapters, &registry, None, &device)
    }
}

/// Labels of a goal with so many outputs.
fn labels(goal: Goal, outputs: usize) -> Labels {
    let names = (0..outputs).map(|label| format!("label {label}")).collect();
    Labels { goal, names: if goal.has_names() { names } else { Vec::new() } }
}

/// Texts with every label.
fn dataset(labels: &Labels) -> Dataset {
    let outputs = labels.task().labels().unwrap_or(1);
    let example = |number: usize| {
        let words: Vec<&str> =
            (0..2 + number % 3).map(|i| ["a", "b", "c"][(i + number) % 3]).collect();
        let label = number % outputs;
        let target = match labels.goal {
            Goal::Regress => Target::Value(number as f32),
            Goal::MultiLabel if number == 0 => Target::Classes(Vec::new()),
            Goal::MultiLabel if outputs > 1 => Target::Classes(vec![label, (label + 1) % outputs]),
            Goal::MultiLabel => Target::Classes(vec![label]),
            Goal::Tag => Target::Tags((0..words.len()).map(|i| (i + number) % outputs).collect()),
            Goal::QuestionAnswering if number == 0 => Target::Answers(Vec::new()),
            Goal::QuestionAnswering => {
                let answer = Answer { text: words[1].into(), start: 2 };
                Target::Answers(vec![answer])
            }
            _ => Target::Class(label),
        };
        let text = match labels.goal {
            Goal::Tag => Text::Words(words.iter().map(|word| word.to_string()).collect()),
            Goal::QuestionAnswering => Text::Pair("d".into(), words.join(" ")),
            _ => Text::One(words.join(" ")),
        };
        Example { text, target: Some(target) }
    };
    Dataset { examples: (0..6).map(example).collect(), labels: labels.clone() }
}

/// What a model gives for the texts, and how that is measured.
fn results(bench: &Bench, adapted: &AdaptedModel) -> (Vec<f32>, f64) {
    let task = adapted.task.as_ref().expect("the outputs mean something");
    let dataset = dataset(&task.labels);
    let data = bench.tokens(&dataset, adapted.model.config());
    let method = adapted.adapter.as_ref().map(|adapter| adapter.method.valid());
    let under = match &method {
        Some(method) => Under::method(method),
        None => Under::method(&()),
    };
    let model = &adapted.model;
    let outputs = match task.labels.goal {
        Goal::Tag => {
            let tags = predict_tags(model, under, &data, 4).expect("tags");
            tags.into_iter().flatten().map(|tag| tag.expect("no word is cut off") as f32).collect()
        }
        Goal::QuestionAnswering => {
            let answers = predict_answers(model, under, &data, 4).expect("answers");
            answers.into_iter().flat_map(|answer| [answer.start as f32, answer.score]).collect()
        }
        _ => {
            let outputs = predict(model, under, &data, 4).expect("outputs");
            outputs.into_iter().flat_map(|output| output.logits).collect()
        }
    };
    let metrics = evaluate(model, under, &data, &task.labels, 4).expect("metrics");
    (outputs, metrics.get(peft::data::metrics::Metric::Loss).expect("a loss"))
}

fn check(architecture: &'static str, shape: &str, labels: &Labels) {
    let what = format!("{architecture}, {}, {:?}", labels.goal.name(), labels.task().labels());
    let bench = Bench::new(architecture, shape);
    let adapter = bench.train(labels);
    let paths = AdapterPaths::one(&adapter);
    let (registry, device) = (peft::registry(), Device::default());
    let found = AdaptedModel::check(&bench.path("base"), &adapter, &registry, &device);
    assert!(found.as_ref().is_ok_and(|found| found.ok), "{what}: {found:?}");
    let adapted = bench.load("base", &paths).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(adapted.model.task(), labels.task(), "{what}");
    assert!(adapted.drawn.is_empty(), "{what}: {:?}", adapted.drawn);
    let task = adapted.task.as_ref().expect("it is beside the adapter");
    assert_eq!(task.labels, *labels, "{what}");
    let config = adapted.model.config();
    let layer = config.model_type.output_layer(labels.task()).unwrap_or("qa_outputs");
    let mut sites = adapted.model.base().sites();
    let outputs = sites.find(|site| site.path == layer).map(|site| site.d_out());
    assert_eq!(outputs, labels.task().labels().or(Some(2)), "{what}: {layer}");

    let (found, loss) = results(&bench, &adapted);
    assert!(loss.is_finite(), "{what}");
    let merged =
        merged_tensors(adapted.adapter.as_ref().expect("it has one"), adapted.model.base());
    let merged = merged.unwrap_or_else(|e| panic!("{what}: {e}"));
    let problem = labels.goal.problem_type();
    let fields = config.to_json(adapted.model.task(), &labels.names, problem);
    bench.write_model("merged", &fields, &merged);
    let alone = bench.load("merged", &AdapterPaths::default());
    let alone = alone.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(alone.drawn.is_empty(), "{what}: {:?}", alone.drawn);
    let own = alone.task.as_ref().expect("config.json says what the outputs mean");
    assert_eq!(own.labels, *labels, "{what}");
    let (again, other) = results(&bench, &alone);
    assert!((loss - other).abs() < 1e-5, "{what}: {loss} {other}");
    let far = found.iter().zip(&again).fold(0.0, |far: f32, (a, b)| far.max((a - b).abs()));
    assert!(found.len() == again.len() && far < 1e-4, "{what}: {far}");
}

#[test]
fn every_head_can_be_trained_saved_checked_loaded_measured_and_merged() {
    for (architecture, shape) in ARCHITECTURES {
        check(architecture, shape, &labels(Goal::Regress, 1));
        if ["bert", "roberta", "xlm-roberta", "distilbert"].contains(&architecture) {
            check(architecture, shape, &labels(Goal::QuestionAnswering, 0));
        }
        for outputs in [1, 2, 3, 5] {
            let goals = [Goal::Classify, Goal::MultiLabel, Goal::Tag].into_iter();
            // One label of a text is no choice, and BART has no head for tokens.
            let goals = goals.filter(|goal| *goal != Goal::Classify || outputs > 1);
            for goal in goals.filter(|goal| *goal != Goal::Tag || architecture != "bart") {
                check(architecture, shape, &labels(goal, outputs));
            }
        }
    }
}

#[test]
fn a_head_that_neither_checkpoint_nor_adapter_has_is_named() {
    for (architecture, shape) in ARCHITECTURES {
        let bench = Bench::new(architecture, shape);
        let labels = labels(Goal::Classify, 3);
        let adapter = bench.train(&labels);
        // What HF PEFT writes where the head was not to be saved.
        let weights = adapter.join("adapter_model.safetensors");
        let tensors = read_safetensors(&weights).expect("tensors");
        let is_head = |key: &str| HEADS.iter().any(|head| key.contains(&format!(".{head}.")));
        let other: TensorMap = tensors
            .into_iter()
            .filter(|(key, _)| !is_head(key) && !key.contains("classifier"))
            .collect();
        write_safetensors(&weights, &other).expect("written");
        let config = adapter.join("adapter_config.json");
        let text = std::fs::read_to_string(&config).expect("a configuration");
        let mut fields: Map<String, Value> = serde_json::from_str(&text).expect("an object");
        fields.insert("modules_to_save".into(), Value::Null);
        std::fs::write(&config, Value::Object(fields).to_string()).expect("written");
        std::fs::remove_file(adapter.join(TASK_FILE)).expect("it was there");
        let adapted = bench.load("base", &AdapterPaths::one(&adapter)).expect("it can be loaded");
        let task = adapted.model.task();
        let layer = adapted.model.config().model_type.output_layer(task).expect("a layer");
        assert!(adapted.drawn.iter().any(|module| module == layer), "{:?}", adapted.drawn);
    }
}

#[test]
fn a_head_that_the_configuration_of_a_prompt_does_not_name_is_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let device = Device::default();
    for name in ["bert-prompt", "bert-prefix", "bert-ptuning-mlp"] {
        let origin = fixtures.join("peft").join(name);
        let folder = tempfile::tempdir().expect("a folder");
        let text =
            std::fs::read_to_string(origin.join("adapter_config.json")).expect("it is there");
        let mut fields: Map<String, Value> = serde_json::from_str(&text).expect("an object");
        fields.insert("modules_to_save".into(), Value::Null);
        let config = folder.path().join("adapter_config.json");
        std::fs::write(config, Value::Object(fields).to_string()).expect("written");
        let weights = "adapter_model.safetensors";
        std::fs::copy(origin.join(weights), folder.path().join(weights)).expect("copied");
        let base = fixtures.join("bases/bert");
        let (model, _) = Model::load(&base, None, &device).expect("a model");
        let adapter = Adapter::load(folder.path(), &peft::registry(), model.base(), &device);
        let adapter = adapter.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(adapter.config.modules_to_save, ["classifier"], "{name}");
    }
}

#[test]
fn a_task_file_beside_another_head_is_refused_and_any_other_can_be_used() {
    let goals = [
        Goal::Classify,
        Goal::MultiLabel,
        Goal::Regress,
        Goal::Tag,
        Goal::QuestionAnswering,
        Goal::MaskedLm,
        Goal::CausalLm,
        Goal::Seq2Seq,
    ];
    for head in [labels(Goal::Regress, 1), labels(Goal::Classify, 2), labels(Goal::Tag, 3)] {
        let bench = Bench::new("bert", "bert");
        let adapter = bench.train(&head);
        let outputs = head.task().labels().expect("labels");
        for (goal, names) in goals.iter().flat_map(|goal| (0..5).map(move |names| (*goal, names))) {
            let names: Vec<String> = (0..names).map(|name| format!("label {name}")).collect();
            let file = json!({"goal": goal, "names": names, "columns": ["text", "label"],
                              "max_length": 8});
            std::fs::write(adapter.join(TASK_FILE), file.to_string()).expect("written");
            let is_whole = Goal::is_over_tokens;
            let fits = match goal {
                Goal::Regress => outputs == 1 && head.goal == Goal::Regress,
                _ if !goal.has_names() || is_whole(goal) != is_whole(head.goal) => false,
                _ => names.is_empty() || names.len() == outputs,
            };
            let paths = AdapterPaths::one(&adapter);
            let loaded = bench.load("base", &paths);
            let (registry, device) = (peft::registry(), Device::default());
            let checked = AdaptedModel::check(&bench.path("base"), &adapter, &registry, &device);
            assert_eq!(checked.is_ok(), fits, "{file} beside {head:?}");
            match loaded {
                Ok(adapted) => {
                    assert!(fits, "{file} beside {head:?}");
                    results(&bench, &adapted);
                }
                Err(error) => {
                    assert!(!fits, "{file} beside {head:?}: {error}");
                    let error = error.to_string();
                    let kind = head.task().to_string();
                    assert!(error.contains("task.json: ") && error.contains(&kind), "{error}");
                }
            }
        }
    }
}

#[test]
fn the_names_of_the_base_are_those_of_its_own_head() {
    let bench = Bench::new("bert", "bert");
    let path = bench.path("base/config.json");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let mut config: Map<String, Value> = serde_json::from_str(&text).expect("an object");
    config.insert("id2label".into(), json!({"0": "bad", "1": "so-so", "2": "good"}));
    config.insert("problem_type".into(), "multi_label_classification".into());
    std::fs::write(&path, Value::Object(config).to_string()).expect("written");
    for (outputs, goal, names) in [
        (2, Goal::Classify, vec!["LABEL_0", "LABEL_1"]),
        (3, Goal::MultiLabel, vec!["bad", "so-so", "good"]),
        (5, Goal::Classify, vec!["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4"]),
    ] {
        let _ = std::fs::remove_dir_all(bench.path("run"));
        let adapter = bench.train(&labels(Goal::Classify, outputs));
        std::fs::remove_file(adapter.join(TASK_FILE)).expect("it was there");
        let adapted = bench.load("base", &AdapterPaths::one(&adapter)).expect("it can be loaded");
        let found = adapted.task.expect("labels").labels;
        assert_eq!(
            (found.goal, found.names),
            (goal, names.into_iter().map(String::from).collect())
        );
    }
}
