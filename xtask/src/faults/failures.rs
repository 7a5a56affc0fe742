//! Commands of which one call fails: a full disk, a broken one.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::files::{Files, not_whole};
use super::trace::{Call, Kind, WATCHED, stable};
use super::workbench::{Ended, Workbench};
use super::{power, trace};
use crate::table;

/// What every command here writes.
const OUT: &str = "run";
/// What strace writes.
const TRACE: &str = "trace.txt";
/// How often a command is run undisturbed. Burn draws the names of parameters by chance, and they decide
/// how many writes a file takes: what happens in most runs is what can be hit.
const RUNS: usize = 5;
/// How often it is tried to hit a call.
const TRIES: usize = 10;

/// A command, and what is done with what it leaves.
struct Subject {
    name: &'static str,
    arguments: &'static str,
    /// What, added to the command, ends it where it failed.
    again: &'static str,
    /// What accepts its directory.
    accepts: &'static str,
}

macro_rules! train {
    ($method:literal) => {
        concat!(
            "train --model model --train train.tsv --valid test.tsv --test test.tsv --max-length 24 \
             --epochs 2 --batch-size 16 --lr 1e-2 --checkpoint-every 2 --json --out run --method ",
            $method
        )
    };
}

/// In an order in which each has what it needs of those before: what they write undisturbed stays
/// under their names.
const SUBJECTS: [Subject; 6] = [
    Subject {
        name: "train",
        arguments: train!("lora"),
        again: " --resume",
        accepts: "check --model model --adapter run",
    },
    // It has a file more than others: what it started from.
    Subject {
        name: "train-pissa",
        arguments: train!("pissa"),
        again: " --resume",
        accepts: "check --model model --adapter run",
    },
    Subject {
        name: "merge",
        arguments: "merge --model model --adapter train --out run",
        again: "",
        accepts: "check --model run --adapter train",
    },
    Subject {
        name: "unmerge",
        arguments: "unmerge --model merge --adapter train --out run",
        again: "",
        accepts: "check --model run --adapter train",
    },
    Subject {
        name: "convert-adapters",
        arguments: "convert --model model --adapter train --to adapters --out run",
        again: "",
        accepts: "check --model model --adapter run",
    },
    Subject {
        name: "convert-peft",
        arguments: "convert --model model --adapter convert-adapters --to peft --out run",
        again: "",
        accepts: "check --model model --adapter run",
    },
];

/// What became of a command's failures.
#[derive(Default)]
struct Counts {
    failed: usize,
    /// Of these, those that ended the command with an error.
    errors: usize,
    /// And those after which it went on to a whole result.
    passed: usize,
    problems: usize,
}

/// Lets calls fail, and prints what became of it; the number of problems.
pub fn run(bench: &Workbench) -> Result<usize> {
    let strace = Command::new("strace").arg("-V").output();
    ensure!(
        strace.is_ok_and(|output| output.status.success()),
        "strace makes calls fail, and cannot be run: it is a package of that name on every Linux, and \
         there is none elsewhere"
    );
    let heads = [
        "command", "write", "open", "sync", "mkdir", "rename", "remove", "errors", "passed",
        "problems",
    ];
    let mut rows = vec![heads.map(String::from).to_vec()];
    let started = Instant::now();
    let (mut failed, mut problems) = (0, 0);
    for subject in &SUBJECTS {
        let (targets, order) = undisturbed(bench, subject)?;
        for (number, problem) in (problems + 1..).zip(&order) {
            eprintln!("problem {number}: {}: {problem}", subject.name);
        }
        problems += order.len();
        let mut counts = Counts { problems: order.len(), ..Counts::default() };
        let finished = Files::of(&bench.path(subject.name))?;
        for target in &targets {
            let found = fail(bench, subject, target, &finished, &mut counts)?;
            if found.is_empty() {
                continue;
            }
            counts.problems += 1;
            problems += 1;
            let shown = format!("{} {}", target.name, stable(&target.paths[0]).display());
            eprintln!("problem {problems}: {}, {shown}: {}", subject.name, found.join("; "));
            bench.keep(OUT, problems)?;
        }
        failed += counts.failed;
        let of = |kind| targets.iter().filter(|target| target.kind == kind).count();
        let kinds =
            [Kind::Write, Kind::Open, Kind::Sync, Kind::MakeDirectory, Kind::Rename, Kind::Remove]
                .map(of);
        let numbers = kinds.into_iter().chain([counts.errors, counts.passed, counts.problems]);
        rows.push(
            [subject.name.into()].into_iter().chain(numbers.map(|n| n.to_string())).collect(),
        );
    }
    print!("{}", table::render(&rows));
    println!(
        "{failed} failures in {:.0} s, {problems} problems\n",
        started.elapsed().as_secs_f64()
    );
    Ok(problems)
}

/// Runs a command to whose calls nothing happens: those that can fail, and what a loss of power
/// could take. What it wrote gets its name.
fn undisturbed(bench: &Workbench, subject: &Subject) -> Result<(Vec<Call>, Vec<String>)> {
    let out = bench.path(OUT);
    // The name of the directory itself is written into the one above.
    let is_own = |call: &Call| {
        let is_sync = call.kind == Kind::Sync;
        call.paths.iter().any(|path| path.starts_with(&out) || is_sync && path == bench.folder())
    };
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        remove(&out)?;
        let (ended, calls) = traced(bench, subject, &[])?;
        ensure!(ended.is_success(), "{}: {}", subject.name, ended.said);
        let changes = calls.into_iter().filter(|call| call.kind != Kind::Read && is_own(call));
        runs.push(changes.collect::<Vec<_>>());
    }
    std::fs::rename(&out, bench.path(subject.name))?;
    let is_like =
        |a: &[Call], b: &[Call]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b));
    let usual =
        runs.iter().max_by_key(|run| runs.iter().filter(|other| is_like(run, other)).count());
    let usual = usual.filter(|run| !run.is_empty());
    let usual = usual.with_context(|| format!("{} wrote nothing", subject.name))?;
    Ok((usual.clone(), power::problems(usual)))
}

/// Runs a command under strace.
fn traced(bench: &Workbench, subject: &Subject, more: &[&str]) -> Result<(Ended, Vec<Call>)> {
    let strace = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", TRACE, "-e", WATCHED];
    let strace = [&strace[..], more].concat();
    let mut command = bench.under(&strace, subject.arguments);
    // Calls are counted by thread.
    command.env("RAYON_NUM_THREADS", "1");
    let ended = bench.run(&mut command)?;
    let path = bench.path(TRACE);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok((ended, trace::calls(&String::from_utf8_lossy(&text), bench.folder())))
}

/// Lets one call fail, and has the command end what it began; what is not as it should be.
fn fail(
    bench: &Workbench,
    subject: &Subject,
    target: &Call,
    finished: &Files,
    counts: &mut Counts,
) -> Result<Vec<String>> {
    let (name, error) = (&target.name, target.kind.error());
    let inject = format!("inject={name}:error={error}:when={}", target.number);
    for _ in 0..TRIES {
        let (ended, calls) = traced(bench, subject, &["-e", &inject])?;
        let hit: Vec<&Call> = calls.iter().filter(|call| call.is_injected).collect();
        if hit.len() != 1 || !is_same(hit[0], target) {
            remove(&bench.path(OUT))?;
            continue;
        }
        counts.failed += 1;
        let mut problems: Vec<String> = ended.problem().into_iter().collect();
        match ended.is_success() {
            true => {
                counts.passed += 1;
                let left = Files::of(&bench.path(OUT))?.differences(finished);
                problems.extend(left.into_iter().map(|line| format!("it succeeded, and {line}")));
            }
            false => {
                counts.errors += 1;
                // By its path, or that of what it is in.
                if ![format!("{OUT}/"), format!("{OUT}:")]
                    .iter()
                    .any(|path| ended.said.contains(path))
                {
                    problems
                        .push(format!("the error does not name the file: {}", ended.said.trim()));
                }
            }
        }
        problems.extend(left(bench, subject, finished)?);
        let again = subject.arguments.to_string() + subject.again;
        let ended = bench.run(&mut bench.peft(&again))?;
        if !ended.is_success() {
            problems.push(format!("it cannot be run again: {}", ended.said.trim()));
        } else {
            let other = Files::of(&bench.path(OUT))?.differences(finished);
            problems.extend(other.into_iter().map(|line| format!("run again: {line}")));
        }
        if problems.is_empty() {
            remove(&bench.path(OUT))?;
        }
        return Ok(problems);
    }
    Ok(vec!["strace did not hit it".into()])
}

/// What is accepted of what a command left, and is not whole.
fn left(bench: &Workbench, subject: &Subject, finished: &Files) -> Result<Vec<String>> {
    if subject.name.starts_with("train") {
        return not_whole(bench, OUT, finished);
    }
    if !bench.run(&mut bench.peft(subject.accepts))?.is_success() {
        return Ok(Vec::new());
    }
    let differences = Files::of(&bench.path(OUT))?.differences(finished);
    Ok(differences.into_iter().map(|line| format!("it is accepted, and {line}")).collect())
}

/// Whether two calls, of two runs, are one.
fn is_same(a: &Call, b: &Call) -> bool {
    let paths = |call: &Call| call.paths.iter().map(|path| stable(path)).collect::<Vec<_>>();
    (&a.name, a.number, paths(a)) == (&b.name, b.number, paths(b))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    Ok(())
}
