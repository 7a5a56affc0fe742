//! The lines of a text file.

use std::path::Path;

use crate::{Error, Result};

/// A file's bytes, without the byte order mark that programs on Windows put in front.
///
/// # Errors
/// If it cannot be read, or is UTF-16, as its mark says.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Error::file(path, "this is UTF-16; save it as UTF-8"));
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(.."\u{feff}".len());
    }
    Ok(bytes)
}

/// The lines of a file, without what ends them.
///
/// # Errors
/// If one is not UTF-8; it is named.
pub(crate) fn lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<&'a str>> {
    let lines = bytes.split(|&byte| byte == b'\n').zip(1..).map(|(text, line)| {
        let text = std::str::from_utf8(text).map_err(|e| {
            Error::row(path, line, format!("not UTF-8 from byte {}", e.valid_up_to()))
        })?;
        Ok(text.strip_suffix('\r').unwrap_or(text))
    });
    lines.collect()
}
