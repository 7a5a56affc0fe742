//! A program's time and memory.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use wait4::Wait4;

/// What a program printed and what it took.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Its standard output.
    pub output: String,
    /// Seconds from its start to its end.
    pub seconds: f64,
    /// Seconds of processor time, over all of its threads.
    pub cpu_seconds: f64,
    /// The most memory that it had resident at once, in bytes.
    pub peak_bytes: u64,
    /// When it was started, in seconds since 1970.
    pub started_at: f64,
}

/// Runs a program to its end; an exit status other than 0 is an error.
///
/// The kernel itself counts the memory, for this one program, so that a peak between two looks at
/// it is not missed.
pub fn measure(command: &mut Command) -> Result<Measured> {
    let name = command.get_program().to_string_lossy().into_owned();
    eprintln!("$ {}", shown(command));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let (start, started_at) = (Instant::now(), now.unwrap_or_default().as_secs_f64());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name} cannot be run"))?;
    let mut output = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut output)?;
    let end = child.wait4()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(end.status.success(), "{name} failed: {}", end.status);
    let cpu_seconds = (end.rusage.utime + end.rusage.stime).as_secs_f64();
    Ok(Measured { output, seconds, cpu_seconds, peak_bytes: end.rusage.maxrss, started_at })
}

fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_measured() {
        let measured = measure(Command::new("sh").args(["-c", "sleep 0.2; echo done"])).unwrap();
        assert_eq!(measured.output, "done\n");
        assert!(measured.seconds >= 0.2 && measured.peak_bytes > 100_000, "{measured:?}");
    }

    #[test]
    fn failure_is_an_error() {
        assert!(measure(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }
}
