//! `peft predict`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use peft::data::metrics::Output;
use peft::data::{Columns, Dataset, Example, Goal, Labels, Text};
use peft::train::{Answered, TaskFile, predict, predict_answers, predict_tags};
use serde_json::{Map, Value, json};

use crate::data::{Tokens, layout};
use crate::input::Input;
use crate::loaded::Loaded;
use crate::options::{AdapterOptions, DeviceOptions, ModelOptions, known_task};
use crate::output::{Stdout, print_json, shown, stdout};

/// Label texts, or their words: texts given as arguments, in a file, or both.
#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Texts: .tsv, .csv, .jsonl, .txt, .conll, .conllu; questions: .json, .jsonl; `-` for standard
    /// input; labels are not read
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The columns of the file [default: those of the training data]
    #[arg(long)]
    columns: Option<Columns>,
    /// The texts; for question answering, a question and its text in turn
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Examples in a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Predict {
    pub fn run(mut self) -> anyhow::Result<ExitCode> {
        if self.texts.is_empty() && self.data.is_none() {
            bail!("no texts to label: give texts, or a file with --data");
        }
        if self.batch_size == 0 {
            bail!("--batch-size must be at least 1");
        }
        let input = Input::beside(self.data.as_deref(), &mut self.texts)?;
        let device = self.device.device()?;
        let loaded = Loaded::new(&self.model, &self.adapters, &device)?;
        loaded.check_heads()?;
        let directory = &loaded.resolved.directory;
        let labelled = loaded.each(|group, slot, side| {
            let task = known_task(side.task.as_ref())?;
            let dataset = self.dataset(input.as_ref(), task)?;
            let (model, added) = (&group.model, &side.added_tokens);
            let tokens = Tokens::load(directory, task.max_length, model, added)?;
            let data = tokens.of(&dataset)?;
            let (under, batch, labels) = (group.under(slot), self.batch_size, &task.labels);
            let rows: Vec<Map<String, Value>> = match labels.goal {
                Goal::Tag => {
                    let tags = predict_tags(model, under, &data, batch)?;
                    dataset.examples.iter().zip(tags).map(|(e, t)| tagged(e, &t, labels)).collect()
                }
                Goal::QuestionAnswering => {
                    let answers = predict_answers(model, under, &data, batch)?;
                    dataset.examples.iter().zip(answers).map(|(e, a)| answered(e, &a)).collect()
                }
                _ => {
                    let outputs = predict(model, under, &data, batch)?;
                    let pairs = dataset.examples.iter().zip(&outputs);
                    pairs.map(|(example, output)| row(example, output, labels)).collect()
                }
            };
            Ok(rows)
        })?;
        let labelled = labelled.into_iter().flat_map(|(adapter, rows)| {
            let named = adapter.filter(|_| loaded.are_several());
            rows.into_iter().map(move |mut row| {
                row.extend(named.map(|adapter| ("adapter".into(), json!(shown(adapter)))));
                row
            })
        });
        let labelled: Vec<Map<String, Value>> = labelled.collect();
        if self.json {
            print_json(&json!({"predictions": labelled}))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = stdout();
        for row in labelled {
            if let (Some(words), Some(tags)) = (row.get("words"), row.get("tags")) {
                print_tags(&mut out, words, tags)?;
                continue;
            }
            let (label, score) = label_and_score(&row);
            let text = row.get("text").or(row.get("question")).and_then(Value::as_str);
            let text = text.unwrap_or_default();
            let adapter = row.get("adapter").and_then(Value::as_str);
            let adapter = adapter.map_or(String::new(), |adapter| format!("{adapter}\t"));
            writeln!(out, "{adapter}{label}\t{score}{text}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn dataset(&self, input: Option<&Input>, task: &TaskFile) -> anyhow::Result<Dataset> {
        let labels = task.labels.clone();
        let texts: Vec<Text> = match labels.goal {
            Goal::QuestionAnswering => {
                let (pairs, rest) = self.texts.as_chunks();
                if !rest.is_empty() {
                    bail!("a question needs a text: give QUESTION TEXT, or a file with --data");
                }
                let pair =
                    |[question, text]: &[String; 2]| Text::Pair(question.clone(), text.clone());
                pairs.iter().map(pair).collect()
            }
            goal => self.texts.iter().map(|text| Text::new(goal, text.clone())).collect(),
        };
        let mut examples: Vec<Example> =
            texts.into_iter().map(|text| Example { text, target: None }).collect();
        if let Some(input) = input {
            let layout = layout(&self.columns, task);
            let read = |path: &Path| Dataset::unlabelled(path, &layout, &labels);
            examples.extend(input.read(labels.goal, false, read)?.examples);
        }
        Ok(Dataset { examples, labels })
    }
}

/// The likeliest answer to a question; where it begins is counted in characters, as in data files.
fn answered(example: &Example, answer: &Answered) -> Map<String, Value> {
    let (question, context) = match &example.text {
        Text::Pair(question, context) => (question.as_str(), context.as_str()),
        Text::One(question) => (question.as_str(), ""),
        Text::Words(_) => ("", ""),
    };
    let before = context.get(..answer.start).unwrap_or_default();
    Map::from_iter([
        ("question".into(), json!(question)),
        ("answer".into(), json!(answer.text)),
        ("answer_start".into(), json!(before.chars().count())),
        ("score".into(), json!(answer.score)),
        ("no_answer".into(), json!(answer.none)),
    ])
}

/// What a text got, and with what score, as columns; a number has none. Several labels are separated
/// by bars, as data files may have them.
fn label_and_score(row: &Map<String, Value>) -> (String, String) {
    let score = |score: &Value| format!("{:.4}", score.as_f64().unwrap_or(f64::NAN));
    if let Some(value) = row.get("value") {
        return (score(value), String::new());
    }
    if let Some(Value::Array(labels)) = row.get("labels") {
        let labels: Vec<&str> = labels.iter().filter_map(Value::as_str).collect();
        let scores = labels.iter().filter_map(|label| row.get("scores")?.get(label));
        let scores: Vec<String> = scores.map(score).collect();
        return (labels.join("|"), format!("{}\t", scores.join("|")));
    }
    let label =
        row.get("answer").or(row.get("label")).and_then(Value::as_str).unwrap_or("").to_string();
    (label, row.get("score").map_or(String::new(), |value| format!("{}\t", score(value))))
}

/// A word and its tag in each line, and an empty line after the sentence, as in the files.
fn print_tags(out: &mut Stdout, words: &Value, tags: &Value) -> std::io::Result<()> {
    let strings = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.map(|item| item.as_str().unwrap_or("").to_string()).collect()
    };
    for (word, tag) in strings(words).iter().zip(strings(tags)) {
        writeln!(out, "{word}\t{tag}")?;
    }
    writeln!(out)
}

fn tagged(example: &Example, tags: &[Option<usize>], labels: &Labels) -> Map<String, Value> {
    let words = match &example.text {
        Text::Words(words) => words.clone(),
        Text::One(text) | Text::Pair(text, _) => vec![text.clone()],
    };
    // A word that was cut off has no tag.
    let tag = |word: usize| tags.get(word).copied().flatten().map(|tag| name(labels, tag));
    let tags: Vec<Option<String>> = (0..words.len()).map(tag).collect();
    Map::from_iter([("words".into(), json!(words)), ("tags".into(), json!(tags))])
}

fn name(labels: &Labels, index: usize) -> String {
    labels.names.get(index).cloned().unwrap_or(format!("LABEL_{index}"))
}

fn scores(probabilities: &[f32], labels: &Labels) -> Value {
    let scores = probabilities.iter().enumerate();
    Value::Object(scores.map(|(i, p)| (name(labels, i), json!(p))).collect())
}

fn row(example: &Example, output: &Output, labels: &Labels) -> Map<String, Value> {
    let mut row = Map::new();
    match &example.text {
        Text::One(text) => row.extend([("text".into(), json!(text))]),
        Text::Pair(text, pair) => {
            row.extend([("text".into(), json!(text)), ("pair".into(), json!(pair))]);
        }
        Text::Words(words) => row.extend([("words".into(), json!(words))]),
    }
    match labels.goal {
        Goal::Regress => {
            row.insert("value".into(), json!(output.logits[0]));
        }
        Goal::Classify => {
            let class = output.class();
            let p = output.probabilities();
            row.insert("label".into(), json!(name(labels, class)));
            row.insert("score".into(), json!(p[class]));
            row.insert("scores".into(), scores(&p, labels));
        }
        Goal::MultiLabel => {
            let classes = output.classes().into_iter().map(|class| name(labels, class));
            row.insert("labels".into(), json!(classes.collect::<Vec<_>>()));
            row.insert("scores".into(), scores(&output.probabilities_apart(), labels));
        }
        _ => unreachable!("refused when the outputs were made"),
    }
    row
}
