//! Data files, and standard input in the place of one.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use peft::data::Goal;
use tempfile::NamedTempFile;

/// What stands for standard input where a file is asked for.
const STDIN: &str = "-";

/// A data file, or what standard input held when the command began.
pub struct Input {
    path: PathBuf,
    bytes: Option<Vec<u8>>,
}

impl Input {
    /// The file `path`; `-` is standard input, which is read now.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut bytes = None;
        if path == Path::new(STDIN) {
            let mut read = Vec::new();
            io::stdin().read_to_end(&mut read).context("standard input")?;
            bytes = Some(read);
        }
        Ok(Self { path: path.into(), bytes })
    }

    /// That of `--data`, or of a single argument that is `-`, which is then no text.
    pub fn beside(data: Option<&Path>, texts: &mut Vec<String>) -> anyhow::Result<Option<Self>> {
        let data = match (data, &texts[..]) {
            (None, [text]) if text == STDIN => {
                texts.clear();
                Some(Path::new(STDIN))
            }
            _ => data,
        };
        data.map(Self::open).transpose()
    }

    /// What `read` makes of the file, for this goal; `is_measured` where its labels are read.
    pub fn read<T, E>(
        &self,
        goal: Goal,
        is_measured: bool,
        read: impl FnOnce(&Path) -> Result<T, E>,
    ) -> anyhow::Result<T>
    where
        anyhow::Error: From<E>,
    {
        let Some(bytes) = &self.bytes else { return Ok(read(&self.path)?) };
        // Files are read by what their names say of their format.
        let suffix = format!(".{}", format_of(bytes, goal, is_measured));
        let mut file = NamedTempFile::with_suffix(suffix)?;
        file.write_all(bytes)?;
        read(file.path()).map_err(|error| {
            let shown = format!("{:#}", anyhow::Error::from(error));
            anyhow!(shown.replace(&*file.path().to_string_lossy(), "standard input"))
        })
    }
}

/// The format of data without a name: JSON Lines where they begin like JSON, tab-separated where
/// their first line has a tab, a word a line where words have labels; otherwise comma-separated with
/// labels, and a text a line without.
fn format_of(bytes: &[u8], goal: Goal, is_measured: bool) -> &'static str {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match first.first() {
        Some(b'{') => "jsonl",
        Some(b'[') => "json",
        _ if goal == Goal::Tag => "conll",
        _ if first.contains(&b'\t') => "tsv",
        _ if is_measured && goal.has_labels() => "csv",
        _ => "txt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_data_without_a_name_is_told_from_their_first_line() {
        let cases = [
            ("{\"text\": \"a\"}\n", Goal::Classify, true, "jsonl"),
            ("\u{feff}\n{\"text\": \"a\"}\n", Goal::Classify, false, "jsonl"),
            ("[{\"text\": \"a\"}]", Goal::Classify, false, "json"),
            ("text\tlabel\na\tb\n", Goal::Classify, true, "tsv"),
            ("text,label\na,b\n", Goal::Regress, true, "csv"),
            ("well, yes\n", Goal::Classify, false, "txt"),
            ("well, yes\n", Goal::CausalLm, true, "txt"),
            ("EU\tB-ORG\n", Goal::Tag, true, "conll"),
            ("", Goal::Classify, false, "txt"),
        ];
        for (text, goal, is_measured, format) in cases {
            assert_eq!(format_of(text.as_bytes(), goal, is_measured), format, "{text:?}");
        }
    }
}
