//! `peft generate`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use peft::data::metrics::{Bleu, Rouge, chrf, exact_match};
use peft::data::{Columns, Dataset, Example, Goal, Layout, Target, Template, Text};
use peft::models::{DecodeStream, GenerationConfig, Generator, Model, TextTokenizer};
use peft::train::Side;
use serde_json::{Map, Value, json};

use crate::data::layout;
use crate::input::Input;
use crate::loaded::{Group, Loaded};
use crate::options::{AdapterOptions, DeviceOptions, ModelOptions, known_task, number};
use crate::output::{note, print_json, shown, stdout};

/// Continue texts (causal language models) or transform them (encoder-decoders). Texts are given as
/// arguments, in a file, or both.
///
/// If the file has reference texts, the output is compared with them: exact match, BLEU, chrF and
/// ROUGE. Rows with the same text count as one text with several references.
#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapters: AdapterOptions,
    /// Texts, with or without references: .tsv, .csv, .jsonl, .txt, `-` for standard input
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The columns of the file [default: those of the training data]
    #[arg(long)]
    columns: Option<Columns>,
    /// Template of a text, with columns in braces [default: that of the training data]
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<Template>,
    /// The first rows only
    #[arg(long, value_name = "ROWS")]
    limit: Option<usize>,
    /// The texts
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// Texts in a batch
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// How to generate. Defaults are those of the model's generation_config.json.
#[derive(Args)]
#[command(next_help_heading = "Generation")]
struct Settings {
    /// Maximum number of new tokens [default: 128]
    #[arg(long, value_name = "TOKENS")]
    max_new_tokens: Option<usize>,
    /// Sample instead of taking the most likely token
    #[arg(long)]
    do_sample: bool,
    /// Sampling temperature: logits are divided by it
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    temperature: Option<f64>,
    /// Sample from the k most likely tokens; 0 for all
    #[arg(long, value_name = "TOKENS")]
    top_k: Option<usize>,
    /// Sample from the most likely tokens that together have this probability
    #[arg(long, value_parser = number, allow_hyphen_values = true, value_name = "PROBABILITY")]
    top_p: Option<f64>,
    /// Above 1: tokens that have occurred become less likely
    #[arg(long, value_parser = number, allow_hyphen_values = true, value_name = "FACTOR")]
    repetition_penalty: Option<f64>,
    /// No sequence of n tokens occurs twice
    #[arg(long, value_name = "TOKENS")]
    no_repeat_ngram_size: Option<usize>,
    /// Number of beams in beam search
    #[arg(long, value_name = "BEAMS")]
    num_beams: Option<usize>,
    /// Above 0: favours longer beams
    #[arg(long, value_parser = number, allow_hyphen_values = true, value_name = "POWER")]
    length_penalty: Option<f64>,
    /// Stop at this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of sampling
    #[arg(long)]
    seed: Option<u64>,
}

impl Settings {
    fn over(&self, config: GenerationConfig) -> anyhow::Result<GenerationConfig> {
        let given = [
            ("max_new_tokens", json!(self.max_new_tokens)),
            ("do_sample", json!(self.do_sample.then_some(true))),
            ("temperature", json!(self.temperature)),
            ("top_k", json!(self.top_k)),
            ("top_p", json!(self.top_p)),
            ("repetition_penalty", json!(self.repetition_penalty)),
            ("no_repeat_ngram_size", json!(self.no_repeat_ngram_size)),
            ("num_beams", json!(self.num_beams)),
            ("length_penalty", json!(self.length_penalty)),
            ("seed", json!(self.seed)),
        ];
        // JSON has no such numbers.
        let numbers = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("repetition_penalty", self.repetition_penalty),
            ("length_penalty", self.length_penalty),
        ];
        let is_finite = |number: &Option<f64>| number.is_none_or(f64::is_finite);
        if let Some((field, Some(number))) = numbers.iter().find(|(_, n)| !is_finite(n)) {
            bail!("{field} = {number}: must be a finite number");
        }
        let given = given.into_iter().filter(|(_, value)| !value.is_null());
        let fields: Map<String, Value> =
            given.map(|(field, value)| (field.to_string(), value)).collect();
        Ok(config.with_fields(&fields)?)
    }
}

/// The prompts of one adapter.
struct Reader {
    tokenizer: TextTokenizer,
    prompts: Vec<Prompt>,
    /// Their tokens.
    ids: Vec<Vec<u32>>,
}

/// What is to be generated for one text, or one pair of texts.
struct Prompt {
    text: String,
    pair: Option<String>,
    /// What it should be, where that is known.
    references: Vec<String>,
}

impl Generate {
    pub fn run(mut self) -> anyhow::Result<ExitCode> {
        if self.texts.is_empty() && self.data.is_none() {
            bail!("no prompts: give texts, or a file with --data");
        }
        if self.batch_size == 0 {
            bail!("--batch-size must be at least 1");
        }
        let input = Input::beside(self.data.as_deref(), &mut self.texts)?;
        let device = self.device.device()?;
        let loaded = Loaded::new(&self.model, &self.adapters, &device)?;
        loaded.check_heads()?;
        // One text is shown as it is written, to somebody who watches.
        let watched = !self.json && !loaded.are_several() && std::io::stdout().is_terminal();
        let (directory, mut written) = (&loaded.resolved.directory, Vec::new());
        for group in &loaded.groups {
            written.extend(self.write(directory, group, input.as_ref(), watched)?);
        }
        let results = loaded.in_order(written);
        match &results[..] {
            [(_, written)] if self.json => print_json(&written.json())?,
            _ if self.json => {
                let each = results.iter().map(|(adapter, written)| {
                    let mut fields = written.json();
                    fields["adapter"] = json!(adapter.map(|path| shown(path)));
                    fields
                });
                print_json(&json!({"adapters": each.collect::<Vec<_>>()}))?;
            }
            _ => {
                for (adapter, written) in &results {
                    if let (Some(adapter), true) = (adapter, results.len() > 1) {
                        writeln!(stdout(), "{}", adapter.display())?;
                    }
                    written.print()?;
                }
            }
        }
        let failed: Vec<String> =
            results.iter().flat_map(|(_, written)| written.failed()).collect();
        match failed.is_empty() {
            true => Ok(ExitCode::SUCCESS),
            false => bail!("{}", failed.join("\n")),
        }
    }

    /// Generates under each adapter of a group, all in the same batches; by adapter's number.
    fn write(
        &self,
        directory: &Path,
        group: &Group,
        input: Option<&Input>,
        watched: bool,
    ) -> anyhow::Result<Vec<(usize, Written)>> {
        let model = &group.model;
        let config = self.settings.over(GenerationConfig::load(directory, model.config())?)?;
        let generator = Generator::new(model, group.hooks(), &config)?;
        let reader = |(slot, side): (usize, &Side)| {
            let slots = group.slots([slot]);
            let longest = generator.with_slots(&slots).longest_prompt();
            self.reader(directory, model, longest, side, input)
        };
        let sides = group.sides.iter().enumerate();
        let readers: Vec<Reader> = sides.map(reader).collect::<anyhow::Result<_>>()?;
        let most = readers.iter().map(|reader| reader.prompts.len()).max().unwrap_or(0);
        // Which beam is best is known at the end.
        let shown = watched && most == 1 && config.num_beams == 1;
        // A prompt under all adapters at once: rows of like length.
        let rows: Vec<[usize; 2]> = (0..most)
            .flat_map(|prompt| (0..readers.len()).map(move |slot| [slot, prompt]))
            .filter(|&[slot, prompt]| prompt < readers[slot].prompts.len())
            .collect();
        let mut texts: Vec<Vec<Generated>> = vec![Vec::new(); readers.len()];
        let mut batches = rows.chunks(self.batch_size).map(<[_]>::to_vec).collect::<Vec<_>>();
        batches.reverse();
        while let Some(mut batch) = batches.pop() {
            let ids = batch.iter().map(|&[slot, prompt]| readers[slot].ids[prompt].as_slice());
            let slots = group.slots(batch.iter().map(|[slot, _]| *slot));
            let numbers: Vec<usize> = batch.iter().map(|[_, prompt]| *prompt).collect();
            let stream = |&[slot, _]: &[usize; 2]| readers[slot].tokenizer.decode_stream();
            let mut screen = Screen {
                texts: batch.iter().map(stream).collect(),
                stops: &self.settings.stop,
                shown,
                failed: None,
            };
            let generated = generator
                .with_slots(&slots)
                .with_numbers(&numbers)
                .generate_with(&ids.collect::<Vec<_>>(), &mut |row, token| screen.ends(row, token));
            screen.failed.map_or(Ok(()), Err)?;
            let generated = match generated {
                Ok(generated) => generated,
                // The others go on without it.
                Err(peft::models::Error::Generation { text, reason, .. }) => {
                    let [slot, prompt] = batch.remove(text);
                    texts[slot].push((prompt, Err(reason)));
                    batches.extend((!batch.is_empty()).then_some(batch));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for (&[slot, prompt], tokens) in batch.iter().zip(&generated) {
                let text = readers[slot].tokenizer.decode(tokens)?;
                texts[slot].push((prompt, Ok(until(&self.settings.stop, text))));
            }
        }
        let written = group.sides.iter().zip(readers).zip(texts).map(|((side, reader), texts)| {
            let texts = in_order(texts);
            let metrics = metrics(&reader.prompts, &texts);
            (side.number, Written { prompts: reader.prompts, texts, metrics, shown })
        });
        Ok(written.collect())
    }

    /// The prompts of an adapter.
    fn reader(
        &self,
        directory: &Path,
        model: &Model,
        longest: usize,
        side: &Side,
        input: Option<&Input>,
    ) -> anyhow::Result<Reader> {
        let task = known_task(side.task.as_ref())?;
        let tokenizer = TextTokenizer::load(directory, longest)?;
        let tokenizer = tokenizer.with_added(&side.added_tokens, model.config().vocab_size)?;
        let mut layout = layout(&self.columns, task);
        layout.template = self.template.clone().or(layout.template);
        let prompts = self.prompts(input, &layout, task.labels.goal)?;
        let texts = prompts.iter().map(|prompt| (prompt.text.clone(), prompt.pair.clone()));
        let encoded = tokenizer.encode(&texts.collect::<Vec<_>>())?;
        let cut = encoded.iter().filter(|text| text.truncated).count();
        if cut > 0 {
            let all = encoded.len();
            tracing::warn!(
                "{cut} of {all} texts were cut to {longest} tokens, so that new ones fit"
            );
        }
        let ids: Vec<Vec<u32>> = encoded.into_iter().map(|text| text.ids).collect();
        Ok(Reader { tokenizer, prompts, ids })
    }

    fn prompts(
        &self,
        input: Option<&Input>,
        layout: &Layout,
        goal: Goal,
    ) -> anyhow::Result<Vec<Prompt>> {
        let alone = |text: &String| Prompt { text: text.clone(), pair: None, references: vec![] };
        let mut prompts: Vec<Prompt> = self.texts.iter().map(alone).collect();
        let Some(input) = input else { return Ok(prompts) };
        let labels = peft::data::Labels { goal, names: Vec::new() };
        let mut places = HashMap::new();
        for (place, text) in self.texts.iter().enumerate() {
            places.entry((text.clone(), None)).or_insert(place);
        }
        let read = |path: &Path| Dataset::perhaps_labelled(path, layout, &labels);
        for Example { text, target } in input.read(goal, false, read)?.examples {
            let (text, pair) = match text {
                Text::One(text) => (text, None),
                Text::Pair(text, pair) => (text, Some(pair)),
                Text::Words(words) => (words.join(" "), None),
            };
            let place = *places.entry((text.clone(), pair.clone())).or_insert(prompts.len());
            if place == prompts.len() {
                prompts.push(Prompt { text, pair, references: Vec::new() });
            }
            if let Some(Target::Text(reference)) = target {
                prompts[place].references.push(reference);
            }
        }
        prompts.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(prompts)
    }
}

/// A prompt's number, and what follows it, or why nothing can.
type Generated = (usize, Result<String, String>);

/// By the prompts' numbers, some of which were given up before others.
fn in_order(mut texts: Vec<Generated>) -> Vec<Result<String, String>> {
    texts.sort_by_key(|(prompt, _)| *prompt);
    texts.into_iter().map(|(_, text)| text).collect()
}

/// What was generated.
struct Written {
    prompts: Vec<Prompt>,
    /// What follows each prompt, or why nothing can.
    texts: Vec<Result<String, String>>,
    metrics: Option<Map<String, Value>>,
    /// Whether it was shown as it was written.
    shown: bool,
}

impl Written {
    fn json(&self) -> Value {
        let rows = self.prompts.iter().zip(&self.texts).map(|(prompt, generated)| {
            let mut row = Map::from_iter([("text".into(), json!(prompt.text))]);
            row.extend(prompt.pair.iter().map(|pair| ("pair".into(), json!(pair))));
            row.insert("generated".into(), json!(generated.as_ref().ok()));
            row.extend(generated.as_ref().err().map(|error| ("error".into(), json!(error))));
            row
        });
        json!({"texts": rows.collect::<Vec<_>>(), "metrics": self.metrics})
    }

    /// The prompts that nothing follows, with their numbers from 1.
    fn failed(&self) -> impl Iterator<Item = String> {
        let texts = self.prompts.iter().zip(&self.texts).zip(1..);
        texts.filter_map(|((prompt, text), number)| {
            let reason = text.as_ref().err()?;
            let shown: String = prompt.text.chars().take(40).collect();
            Some(format!("text {number} ({shown:?}) cannot be continued: {reason}"))
        })
    }

    fn print(&self) -> io::Result<()> {
        let mut out = stdout();
        if self.shown {
            writeln!(out)?;
        } else {
            let text = |text: &Result<String, String>| text.clone().unwrap_or_default();
            self.texts.iter().try_for_each(|generated| writeln!(out, "{}", text(generated)))?;
        }
        for (name, value) in self.metrics.iter().flatten() {
            note(format_args!("{name:20} {value}"));
        }
        Ok(())
    }
}

/// Texts while they are written, with an eye on where they stop.
struct Screen<'a> {
    texts: Vec<DecodeStream<'a>>,
    stops: &'a [String],
    /// Whether they are shown.
    shown: bool,
    failed: Option<anyhow::Error>,
}

impl Screen<'_> {
    /// Takes a token of a text; returns whether it is the last one.
    fn ends(&mut self, row: usize, token: u32) -> bool {
        if !self.shown && self.stops.is_empty() {
            return false;
        }
        let is_end = self.take(row, token);
        is_end.unwrap_or_else(|error| {
            self.failed = Some(error);
            true
        })
    }

    fn take(&mut self, row: usize, token: u32) -> anyhow::Result<bool> {
        let stream = &mut self.texts[row];
        let shown = stream.text().len();
        let new_from = stream.push(token)?;
        let text = stream.text();
        if self.shown {
            // What is shown stays.
            let mut out = stdout();
            write!(out, "{}", text.get(shown..).unwrap_or_default())?;
            out.flush()?;
        }
        Ok(self.stops.iter().any(|stop| {
            let from = text.floor_char_boundary(new_from.saturating_sub(stop.len()));
            text[from..].contains(stop)
        }))
    }
}

/// The text up to where it should stop.
fn until(stops: &[String], mut text: String) -> String {
    let end = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
    text.truncate(end.unwrap_or(text.len()));
    text
}

/// How like the references the texts are, if all have some.
fn metrics(prompts: &[Prompt], texts: &[Result<String, String>]) -> Option<Map<String, Value>> {
    let texts: Vec<&String> = texts.iter().map(|text| text.as_ref().ok()).collect::<Option<_>>()?;
    if prompts.is_empty() || prompts.iter().any(|prompt| prompt.references.is_empty()) {
        return None;
    }
    let texts: Vec<&str> = texts.iter().map(|text| text.trim()).collect();
    let references: Vec<Vec<&str>> = (prompts.iter())
        .map(|prompt| prompt.references.iter().map(|reference| reference.trim()).collect())
        .collect();
    let (bleu, rouge) = (Bleu::new(&texts, &references), Rouge::new(&texts, &references));
    let values = [
        ("examples", json!(texts.len())),
        ("exact_match", json!(exact_match(&texts, &references))),
        ("bleu", json!(bleu.score)),
        ("chrf", json!(chrf(&texts, &references, 0))),
        ("rouge1", json!(rouge.rouge1)),
        ("rouge2", json!(rouge.rouge2)),
        ("rouge_l", json!(rouge.rouge_l)),
    ];
    Some(values.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}
