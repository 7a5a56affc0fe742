//! Quotes of CSV that do not mean what their writer thought.

use std::path::Path;

use crate::{Error, Result};

/// Checks that no quoted cell swallows rows: its quote must be closed, and where the cell is of
/// several lines, be the last of it.
///
/// # Errors
/// If a quote is never closed, or is closed lines later by what does not end the cell; the line of
/// the opening quote is named.
pub(super) fn check(path: &Path, bytes: &[u8], delimiter: u8) -> Result<()> {
    let ends_cell = |byte: &u8| [delimiter, b'\n', b'\r'].contains(byte);
    let (mut line, mut at) = (1, 0);
    let (mut begins, mut followed) = (true, 0);
    while let Some(&byte) = bytes.get(at) {
        if byte != b'"' || !begins {
            line += u64::from(byte == b'\n');
            begins = ends_cell(&byte);
            at += 1;
            continue;
        }
        let cell = quoted(&bytes[at + 1..]).ok_or_else(|| {
            let reason = "a quote opens a cell here, and is never closed; a quote that is text \
                          stands doubled in a quoted cell";
            Error::row(path, line, reason)
        })?;
        at += cell.len() + 2;
        let lines = cell.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let ends = bytes.get(at).is_none_or(ends_cell);
        if !ends && lines > 0 {
            let reason = format!(
                "a quote opens a cell here; the next one, in line {}, does not end the cell: one \
                 of them is too many, or stands for itself and must be doubled",
                line + lines
            );
            return Err(Error::row(path, line, reason));
        }
        followed += usize::from(!ends);
        if holds_rows(cell, bytes, delimiter) {
            tracing::warn!(
                "{}, line {line}: a quoted cell goes on to line {}, and what is in it looks like \
                 rows of the table: is a quote missing?",
                path.display(),
                line + lines
            );
        }
        line += lines;
        begins = false;
    }
    if followed > 0 {
        tracing::warn!(
            "{}: {followed} quoted cells go on behind their closing quote; the quotes are dropped",
            path.display()
        );
    }
    Ok(())
}

/// The cell behind an opening quote, up to the closing one; `None` if there is none.
fn quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|&byte| byte == b'"')?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(&bytes[..at]);
        }
        at += 2;
    }
}

/// Whether all whole lines of a cell, two at the least, have as many cells as the file's first one.
fn holds_rows(cell: &[u8], bytes: &[u8], delimiter: u8) -> bool {
    let delimiters = |line: &[u8]| line.iter().filter(|&&byte| byte == delimiter).count();
    let lines: Vec<&[u8]> = cell.split(|&byte| byte == b'\n').collect();
    let [_, whole @ .., _] = &lines[..] else { return false };
    let first = bytes.split(|&byte| byte == b'\n').next().map_or(0, delimiters);
    whole.len() >= 2 && first > 0 && whole.iter().all(|line| delimiters(line) == first)
}
