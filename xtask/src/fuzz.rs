//! Mutated files, read by everything that reads files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use xshell::Cmd;

use crate::manifest::Manifest;
use crate::table;
use crate::workspace::Workspace;

/// Read mutated files, guided by coverage.
///
/// Each target of tests/fuzz reads one kind of file: tensors, adapter and model configurations, GGUF,
/// tokenizers, tables, run directories. Whatever is in a file, reading it must end in a result or in
/// an error. An input that ends otherwise is written to the folder `fuzz/artifacts` of the build's
/// outputs, and named.
///
/// It needs cargo-fuzz (`cargo install cargo-fuzz`) and a nightly compiler
/// (`rustup toolchain install nightly`).
#[derive(ClapArgs)]
pub struct Args {
    /// The targets; without one, all of them.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each is run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Memory that reading one file may take, in MB.
    #[arg(long, default_value_t = 2048)]
    memory: u64,
}

/// The folder of the targets.
const FOLDER: &str = "tests/fuzz";
/// The longest input that is made, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// How long reading one file may take, in seconds.
const TIMEOUT: usize = 20;

/// What came of a target.
struct Outcome {
    target: String,
    /// How often it was run.
    executions: u64,
    /// Why libFuzzer ended it, if it was not the time.
    finding: Option<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let manifest = Manifest::read(&workspace.root.join(FOLDER).join("Cargo.toml"))?;
    let known = manifest.binaries();
    let targets = if args.targets.is_empty() { &known } else { &args.targets };
    for target in targets {
        ensure!(known.contains(target), "no target {target:?}; there are {}", known.join(", "));
    }
    let seen = cargo_fuzz(&workspace, &["--version"]).quiet().ignore_stderr().read();
    seen.context(
        "cargo-fuzz does not run with a nightly compiler: `cargo install cargo-fuzz`, \
         `rustup toolchain install nightly`",
    )?;
    let outcomes: Vec<Outcome> =
        targets.iter().map(|target| fuzz(&workspace, target, args)).collect::<Result<_>>()?;
    let head = ["target", "executions", "finding"].map(String::from);
    let row = |outcome: &Outcome| {
        let finding = outcome.finding.clone().unwrap_or_else(|| "none".into());
        [outcome.target.clone(), outcome.executions.to_string(), finding]
    };
    let rows = [head].into_iter().chain(outcomes.iter().map(row)).map(|row| row.to_vec());
    print!("{}", table::render(&rows.collect::<Vec<_>>()));
    let found = outcomes.iter().filter(|outcome| outcome.finding.is_some()).count();
    ensure!(found == 0, "{found} of {} targets have findings", outcomes.len());
    Ok(())
}

/// The nightly cargo's `fuzz`, in the root folder.
fn cargo_fuzz<'w>(workspace: &'w Workspace, args: &[&str]) -> Cmd<'w> {
    workspace.shell.cmd("cargo").args(["+nightly", "fuzz"]).args(args)
}

/// Where targets write their inputs: in memory, if the machine has such a folder, as syncing would take
/// most of the time.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// Runs a target on its seeds, and on what earlier runs found to reach more of the code.
fn fuzz(workspace: &Workspace, target: &str, args: &Args) -> Result<Outcome> {
    let seeds = workspace.root.join(FOLDER).join("seeds").join(target);
    let folder = workspace.target.join("fuzz");
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| folder.join(name).join(target));
    for made in [&corpus, &artifacts] {
        workspace.shell.create_dir(made)?;
    }
    let words = folder.join(format!("{target}.dict"));
    fs::write(&words, dictionary(&seeds)?).with_context(|| words.display().to_string())?;
    let log = folder.join(format!("{target}.log"));

    eprintln!("{target}: {} s; what it prints is in {}", args.seconds, log.display());
    let output = cargo_fuzz(workspace, &["run", "--fuzz-dir", FOLDER, "--sanitizer", "none"])
        .arg("--target-dir")
        .arg(folder.join("target"))
        .arg(target)
        .args([&corpus, &seeds])
        .arg("--")
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-rss_limit_mb={0}", args.memory))
        .arg(format!("-malloc_limit_mb={}", args.memory))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-max_len={MAX_BYTES}"))
        .arg(format!("-dict={}", words.display()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .env("TMPDIR", scratch())
        .quiet()
        .ignore_status()
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    fs::write(&log, text.as_bytes()).with_context(|| log.display().to_string())?;
    let Some(executions) = executions(&text) else {
        bail!("{target} did not run:\n{text}");
    };
    let finding = (!output.status.success()).then(|| finding(&text));
    Ok(Outcome { target: target.into(), executions, finding })
}

/// The words in quotes of all seeds, as libFuzzer reads a dictionary: names of fields and their values,
/// which it would not come upon by itself.
fn dictionary(seeds: &Path) -> Result<String> {
    let mut words = BTreeSet::new();
    let entries = fs::read_dir(seeds).with_context(|| seeds.display().to_string())?;
    for entry in entries {
        let bytes = fs::read(entry?.path())?;
        let text = String::from_utf8_lossy(&bytes);
        words.extend(
            text.split('"').skip(1).step_by(2).filter(|word| is_word(word)).map(String::from),
        );
    }
    let fixed =
        ["null", "true", "false", "[]", "{}", "-1", "0.5", "1e9", "18446744073709551615", "NaN"];
    let quoted = words.iter().map(|word| format!("\"\\\"{word}\\\"\"\n"));
    Ok(quoted.chain(fixed.map(|word| format!("\"{word}\"\n"))).collect())
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && c != '\\';
    (1..=40).contains(&text.len()) && text.chars().all(plain)
}

/// How often a target was run, by what libFuzzer prints at its end or last before it.
fn executions(text: &str) -> Option<u64> {
    let last = |start: &str, end: char| {
        let of_line = |line: &str| line.strip_prefix(start)?.split(end).next()?.trim().parse().ok();
        text.lines().rev().find_map(of_line)
    };
    last("stat::number_of_executed_units:", '\n').or_else(|| last("#", '\t'))
}

/// Why it ended, and where the input is.
fn finding(text: &str) -> String {
    let line =
        |start: &str| text.lines().find_map(|line| line.split_once(start)).map(|(_, end)| end);
    let why = line("ERROR: ").or(line("SUMMARY: ")).unwrap_or("it failed");
    match line("Test unit written to ") {
        Some(input) => format!("{}: {input}", why.trim()),
        None => why.trim().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_prints_is_understood() {
        let whole = "#2\tINITED cov: 5\n#900\tpulse cov: 7\nDone 1000 runs in 2 second(s)\n\
                     stat::number_of_executed_units: 1000\nstat::average_exec_per_sec:     500\n";
        assert_eq!(executions(whole), Some(1000));
        let ended = "#2\tINITED cov: 5\n#900\tNEW    cov: 7\n==3== ERROR: libFuzzer: timeout after 20 s\n\
                     artifact_prefix='x/'; Test unit written to x/timeout-12\n";
        assert_eq!(executions(ended), Some(900));
        assert_eq!(finding(ended), "libFuzzer: timeout after 20 s: x/timeout-12");
        assert_eq!(executions("error: could not compile"), None);
    }

    #[test]
    fn a_dictionary_has_the_words_of_the_seeds() {
        let seeds = tempfile::tempdir().unwrap();
        fs::write(seeds.path().join("a"), "bert\n{\"r\": 8, \"bias\": \"none\", \"x\\\\\": \"\"}")
            .unwrap();
        let words = dictionary(seeds.path()).unwrap();
        let lines: Vec<&str> = words.lines().take(3).collect();
        assert_eq!(lines, [r#""\"bias\"""#, r#""\"none\"""#, r#""\"r\"""#]);
    }
}
