//! What goes to standard output.

use std::path::Path;

use anyhow::bail;
use serde::Serialize;

/// Prints one JSON object on a line of its own.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
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
