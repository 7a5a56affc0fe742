//! What goes to standard output and standard error.
//!
//! `println!` panics where nobody reads on (`peft methods | head`); what is written here ends the
//! command as if it were done.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::bail;
use serde::Serialize;

/// Standard output, to which all commands write.
pub struct Stdout(io::Stdout);

/// Standard output.
pub fn stdout() -> Stdout {
    Stdout(io::stdout())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(marked)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(marked)
    }
}

/// Standard output is closed.
#[derive(Debug)]
struct Closed;

impl Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for Closed {}

/// A broken pipe of standard output, told from others that are errors.
fn marked(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, Closed),
        _ => error,
    }
}

/// Whether a command ended because its output was closed.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let mut errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| error.get_ref().is_some_and(|inner| inner.is::<Closed>()))
}

/// Writes a line to standard error, if it is open.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints one JSON object on a line of its own.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(stdout(), "{}", serde_json::to_string(value)?)?;
    Ok(())
}

/// Refuses to write into a directory that already holds something.
pub fn refuse_used(directory: &Path) -> anyhow::Result<()> {
    if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: nothing is overwritten, choose another --out", directory.display());
    }
    Ok(())
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
