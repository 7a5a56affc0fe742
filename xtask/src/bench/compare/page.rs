//! The page of the book.

use std::fmt::Write;

use super::case::Bar;
use super::results::{Compared, Outcome, Results, Spread};

/// What stands above the tables.
const HEAD: &str = "# Benchmarks

`cargo xtask bench compare` writes this page, and `benchmarks.json` beside it. Each program is a process
of its own, run several times, in turns with those that it is compared with; who goes first changes. A cell
is the median of these runs with the least and the most; of steps, each run counts with the median of its
own, without two that warm up. Memory is the most that the whole process had resident at once, as the
operating system counts it; a ratio is that of the medians, ours over the other's, and a bar what it
should be. Every program has all cores.

| row | what is measured |
|---|---|
";

/// The rows with what they are, in the order of the page.
pub const ROWS: [(&str, &str); 11] = [
    (
        "step",
        "a training step (forward, loss, backward, clipping, AdamW) over texts of one length, and what its frozen products alone would take",
    ),
    (
        "epoch",
        "an epoch of sentences, padded batch by batch, from the start of the process to its end",
    ),
    ("causal", "a training step of a language model"),
    ("startup", "from the start of the process to the end of the first step"),
    ("inference", "a forward pass under methods, over that of the base alone"),
    ("generate", "reading a prompt, and the tokens that follow it, beside llama.cpp"),
    ("switch", "loading another adapter into a running process, over loading the model"),
    ("drop", "a training step whose first half of layers has no adapters (AdapterDrop)"),
    ("checkpointing", "our own training step with gradient checkpointing, over that without"),
    ("estimate", "what `peft estimate` says of memory and time, beside what was measured"),
    (
        "scale",
        "our own training step against sizes; `expected` is the formula that the row's name says, from the first line on",
    ),
];

/// The whole page.
pub fn render(results: &Results) -> String {
    let mut page = HEAD.to_string();
    for (row, about) in ROWS {
        let _ = writeln!(page, "| `{row}` | {about} |");
    }
    let _ = writeln!(page, "\nPeak memory is in the tables of `step`, `epoch` and `causal`.");
    for (row, _) in ROWS {
        let cases: Vec<(&String, &Outcome)> =
            results.0.iter().filter(|(name, _)| name.split('/').next() == Some(row)).collect();
        if cases.is_empty() {
            continue;
        }
        let _ = writeln!(page, "\n## {row}");
        for (name, outcome) in cases {
            page += &table(name, outcome);
        }
    }
    page
}

/// The table of one case.
pub fn table(name: &str, outcome: &Outcome) -> String {
    let mut page = String::new();
    let Outcome { about, date, commit, machine, versions, repeat, disturbed, failed, figures } =
        outcome;
    let name = name.split_once('/').map_or(name, |(_, own)| own);
    let _ = writeln!(page, "\n### {name}\n\n{about}\n");
    let _ = writeln!(page, "| | ours | | compared with | ratio | bar | |");
    let _ = writeln!(page, "|---|---|---|---|---|---|---|");
    for figure in figures {
        let _ = writeln!(page, "{}", line(figure));
    }
    for failed in failed {
        let _ = writeln!(page, "\nNot measured: {failed}.");
    }
    if *disturbed > 0 {
        let _ = writeln!(page, "\nSomething else ran when {disturbed} of the runs began.");
    }
    let runs = if *repeat == 1 { "one run".into() } else { format!("{repeat} runs") };
    let _ = writeln!(page, "\n{date}, commit {commit}, {runs} each; {machine}; {versions}.");
    page
}

fn line(figure: &Compared) -> String {
    let ratio = figure.ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
    let bar = match figure.bar {
        Some(Bar::AtMost(most)) => format!("≤ {most}"),
        Some(Bar::AtLeast(least)) => format!("≥ {least}"),
        None => String::new(),
    };
    let met = match figure.is_met() {
        Some(true) => "met",
        Some(false) => "**not met**",
        None => "",
    };
    let name = match figure.of.as_str() {
        "ours" => figure.name.clone(),
        of => format!("{}, {of}", figure.name),
    };
    let against = figure.against.as_deref().unwrap_or("");
    let (value, other) = (cell(figure.value), figure.other.map_or("".into(), |o| cell(Some(o))));
    format!("| {name} | {value} | {against} | {other} | {ratio} | {bar} | {met} |")
}

fn cell(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else { return "-".into() };
    match min == max {
        true => number(median),
        false => format!("{} ({}..{})", number(median), number(min), number(max)),
    }
}

/// With about four digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 0.1 => 3,
        _ => 5,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_its_bar_is_met() {
        let spread = |median: f64, min, max| Some(Spread { median, min, max });
        let figure = Compared {
            name: "step, s".into(),
            of: "ours".into(),
            value: spread(1.0, 0.9, 1.25),
            against: Some("peft".into()),
            other: spread(2.0, 2.0, 2.0),
            ratio: Some(0.5),
            bar: Some(Bar::AtMost(0.5)),
        };
        let met = "| step, s | 1.000 (0.900..1.250) | peft | 2.000 | 0.500 | ≤ 0.5 | met |";
        assert_eq!(line(&figure), met);
        let figure = Compared { ratio: Some(0.6), ..figure };
        assert!(line(&figure).ends_with("| **not met** |"));
        let figure = Compared { value: None, ratio: None, ..figure };
        assert!(line(&figure).starts_with("| step, s | - |"));
    }
}
