//! What goes to standard output and standard error.
//!
//! `println!` panics where nobody reads on (`peft methods | head`); what is written here ends the
//! command as if it were done. Labels, keys and names come from files that others wrote: what of them
//! a terminal would obey is shown escaped, as JSON has it.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail};
use peft::format::{is_unfinished, remove_unfinished};
use serde::Serialize;

/// Standard output, to which all commands write.
pub struct Stdout(io::Stdout);

/// Standard output.
pub fn stdout() -> Stdout {
    Stdout(io::stdout())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(&escaped(bytes)).map_err(failed)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(failed)
    }
}

/// Standard error, to which notes, warnings and errors go.
pub struct Stderr(io::Stderr);

/// Standard error.
pub fn stderr() -> Stderr {
    Stderr(io::stderr())
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(&escaped(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A text with its control characters as JSON writes them, which changes no JSON; lines and tabs
/// stay.
fn escaped(text: &[u8]) -> Cow<'_, [u8]> {
    let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
    match std::str::from_utf8(text) {
        Ok(text) if !text.contains(is_control) => Cow::Borrowed(text.as_bytes()),
        _ => {
            let mut shown = String::new();
            for c in String::from_utf8_lossy(text).chars() {
                match is_control(c) {
                    true => shown += &format!("\\u{:04x}", u32::from(c)),
                    false => shown.push(c),
                }
            }
            Cow::Owned(shown.into_bytes())
        }
    }
}

/// Standard output cannot be written to.
#[derive(Debug)]
struct Failed(io::Error);

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output: {}", self.0)
    }
}

impl std::error::Error for Failed {}

/// An error of standard output, told from those of other files.
fn failed(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Failed(error))
}

/// Whether a command ended because its output was closed.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let mut errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| {
        let is_output = error.get_ref().is_some_and(|inner| inner.is::<Failed>());
        is_output && error.kind() == ErrorKind::BrokenPipe
    })
}

/// Writes a line to standard error, if it is open.
pub fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// A path as text, in JSON too; what of it is no text is replaced.
pub fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Prints one JSON object on a line of its own.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(stdout(), "{}", serde_json::to_string(value)?)?;
    Ok(())
}

/// Writes what is in a new directory; where that fails, nothing of it stays.
pub fn write_new<T>(
    directory: &Path,
    write: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let was_there = directory.is_dir();
    let written = write();
    if written.is_err() {
        // What cannot be removed either says no more than the error.
        for entry in directory.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = match path.is_dir() {
                true => std::fs::remove_dir_all(path),
                false => std::fs::remove_file(path),
            };
        }
        if !was_there {
            let _ = std::fs::remove_dir(directory);
        }
    }
    written
}

/// Refuses to write into a directory that already holds something, other than what a command that
/// was killed had not yet named.
pub fn refuse_used(directory: &Path) -> anyhow::Result<()> {
    let entries = match directory.read_dir() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| directory.display().to_string())?,
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    if names.any(|name| !is_unfinished(&name)) {
        bail!("{} is not empty: nothing is overwritten, choose another --out", directory.display());
    }
    Ok(remove_unfinished(directory)?)
}

/// A number with thousands apart: `1 234 567`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_written_raw_and_json_stays_the_same() {
        let all: String = (0..0x300).filter_map(char::from_u32).collect();
        let shown = String::from_utf8(escaped(all.as_bytes()).into_owned()).expect("text");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown}");
        let json = serde_json::to_string(&all).expect("JSON");
        let shown = String::from_utf8(escaped(json.as_bytes()).into_owned()).expect("text");
        assert!(!shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), all);
        let plain = "Žabe\t😀\n";
        assert!(matches!(escaped(plain.as_bytes()), Cow::Borrowed(_)));
    }
}
