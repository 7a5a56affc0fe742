//! Commands of which one call fails, or is the last: a full disk, a broken one, a process that ends.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::files::{Files, not_whole};
use super::subjects::{OUT, SUBJECTS, Subject, TRIES, is_same, remove};
use super::trace::{Call, Kind, stable};
use super::workbench::Workbench;
use crate::table;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails.
    Error,
    /// The process is killed before it.
    Kill,
}

impl Fault {
    /// As strace takes it.
    fn inject(self, call: &Call) -> String {
        let fault = match self {
            Self::Error => format!("error={}", call.kind.error()),
            Self::Kill => "signal=SIGKILL".into(),
        };
        format!("inject={}:{fault}:when={}", call.name, call.number)
    }
}

/// The kinds of calls, as the heads of the table name them.
const KINDS: [(Kind, &str); 6] = [
    (Kind::Write, "write"),
    (Kind::Open, "open"),
    (Kind::Sync, "sync"),
    (Kind::MakeDirectory, "mkdir"),
    (Kind::Rename, "rename"),
    (Kind::Remove, "remove"),
];

/// What became of a command.
#[derive(Default)]
struct Counts {
    /// Failures that ended it with an error.
    errors: usize,
    /// Failures after which it went on to a whole result.
    passed: usize,
    killed: usize,
    problems: usize,
}

/// Lets calls fail, and prints what became of it; the number of problems.
pub fn run(bench: &Workbench) -> Result<usize> {
    let strace = Command::new("strace").arg("-V").output();
    ensure!(
        strace.is_ok_and(|output| output.status.success()),
        "strace makes calls fail, and cannot be run: every Linux has a package of that name, and \
         nothing else has it"
    );
    let kinds = KINDS.map(|(_, head)| head);
    let heads = [&["command"], &kinds[..], &["errors", "passed", "kills", "problems"]].concat();
    let mut rows = vec![heads.into_iter().map(String::from).collect::<Vec<_>>()];
    let started = Instant::now();
    let (mut faults, mut problems) = (0, 0);
    for subject in &SUBJECTS {
        let (calls, early) = subject.undisturbed(bench)?;
        let finished = Files::of(&bench.path(subject.name))?;
        let mut counts = Counts { problems: early.len(), ..Counts::default() };
        eprintln!("{}: {} calls", subject.name, calls.len());
        for problem in &early {
            eprintln!("problem: {}, after a loss of power: {problem}", subject.name);
        }
        for (call, fault) in
            calls.iter().flat_map(|call| [(call, Fault::Error), (call, Fault::Kill)])
        {
            let found = disturbed(bench, subject, call, fault, &finished, &mut counts)?;
            if found.is_empty() {
                remove(&bench.path(OUT))?;
                continue;
            }
            counts.problems += 1;
            let number = problems + counts.problems;
            let call = format!("{} {}", call.name, stable(&call.paths[0]).display());
            let found = found.join("; ");
            eprintln!("problem {number}: {}, {fault:?} at {call}: {found}", subject.name);
            bench.keep(OUT, number)?;
        }
        let Counts { errors, passed, killed, .. } = counts;
        faults += errors + passed + killed;
        problems += counts.problems;
        let of = |(kind, _)| calls.iter().filter(|call| call.kind == kind).count();
        let numbers = KINDS.into_iter().map(of).chain([errors, passed, killed, counts.problems]);
        let numbers = numbers.map(|number| number.to_string());
        rows.push([subject.name.to_string()].into_iter().chain(numbers).collect());
    }
    print!("{}", table::render(&rows));
    let seconds = started.elapsed().as_secs_f64();
    println!("{faults} failures and kills in {seconds:.0} s, {problems} problems\n");
    Ok(problems)
}

/// Runs a command to one of whose calls something happens, and has what it began ended; what is not
/// as it should be.
fn disturbed(
    bench: &Workbench,
    subject: &Subject,
    call: &Call,
    fault: Fault,
    finished: &Files,
    counts: &mut Counts,
) -> Result<Vec<String>> {
    let inject = fault.inject(call);
    let mut tries = 0;
    let ended = loop {
        let (ended, calls) = subject.traced(bench, &["-e", &inject])?;
        let mut hit = calls.iter().filter(|call| call.is_injected);
        if hit.next().is_some_and(|hit| is_same(hit, call)) && hit.next().is_none() {
            break ended;
        }
        tries += 1;
        if tries == TRIES {
            return Ok(vec!["strace did not hit it".into()]);
        }
    };
    let mut problems = Vec::new();
    match fault {
        Fault::Error if ended.is_success() => {
            counts.passed += 1;
            let differences = Files::of(&bench.path(OUT))?.differences(finished);
            problems
                .extend(differences.into_iter().map(|line| format!("it succeeded, and {line}")));
        }
        Fault::Error => {
            counts.errors += 1;
            // By its path, or that of what it is in.
            let is_named = |end: &str| ended.said.contains(&format!(" {OUT}{end}"));
            if !is_named("/") && !is_named(":") {
                problems.push(format!("it does not name the file: {}", ended.said.trim()));
            }
        }
        Fault::Kill => {
            counts.killed += 1;
            if ended.status.is_none_or(|status| status.code().is_some()) {
                problems.push(format!("it was not killed: {}", ended.said.trim()));
            }
        }
    }
    if fault == Fault::Error {
        problems.extend(ended.problem());
    }
    problems.extend(left(bench, subject, finished)?);
    let again = bench.run(&mut bench.peft(subject.again))?;
    problems.extend(again.problem());
    if again.is_success() {
        let differences = Files::of(&bench.path(OUT))?.differences(finished);
        problems.extend(differences.into_iter().map(|line| format!("run again: {line}")));
    } else if fault == Fault::Error || !again.said.contains("is not empty") {
        // What a process left that was killed is nobody's to overwrite, but a run goes on.
        problems.push(format!("it cannot be run again: {}", again.said.trim()));
    }
    Ok(problems)
}

/// What is accepted of what a command left, and is not whole.
fn left(bench: &Workbench, subject: &Subject, finished: &Files) -> Result<Vec<String>> {
    let Some(accepts) = subject.accepts else { return not_whole(bench, OUT, finished) };
    if !bench.run(&mut bench.peft(accepts))?.is_success() {
        return Ok(Vec::new());
    }
    let differences = Files::of(&bench.path(OUT))?.differences(finished);
    Ok(differences.into_iter().map(|line| format!("it is accepted, and {line}")).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::trace::calls;
    use super::*;

    #[test]
    fn what_is_injected_is_of_the_call_and_its_kind() {
        let text = "7 write(1</in/a>, \"\"..., 1) = 1\n7 write(1</in/a>, \"\"..., 1) = 1\n\
                    7 fsync(1</in/a>) = 0\n";
        let calls = calls(text, Path::new("/in"));
        assert_eq!(Fault::Error.inject(&calls[1]), "inject=write:error=ENOSPC:when=2");
        assert_eq!(Fault::Error.inject(&calls[2]), "inject=fsync:error=EIO:when=1");
        assert_eq!(Fault::Kill.inject(&calls[2]), "inject=fsync:signal=SIGKILL:when=1");
    }
}
