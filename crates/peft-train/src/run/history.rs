//! What happened in a run, line by line.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use peft_data::metrics::Metrics;
use peft_format::write_atomically;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// An optimizer step.
    Step {
        /// Steps done, this one included.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The mean loss of the step's examples.
        loss: f32,
        /// The learning rate.
        lr: f64,
        /// Tokens, padding not counted.
        tokens: usize,
    },
    /// The validation data after an epoch.
    Valid {
        /// Steps done.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The metrics.
        metrics: Metrics,
    },
}

impl Entry {
    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Valid { step, .. } => *step,
        }
    }
}

/// The lines so far, and the file that they are appended to.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    entries: Vec<Entry>,
    /// Of the lines.
    digest: Sha256,
    pub(super) file: std::fs::File,
}

impl History {
    /// The history in the file `path`, if it is there, of which `keep` says what to keep; what a run
    /// wrote after its last checkpoint is taken back, since it will be done again.
    ///
    /// # Errors
    /// If the file cannot be read or written, or a line other than the last is not an entry. The
    /// last one may be cut off where the run was, and is dropped then.
    pub fn open(path: &Path, keep: impl Fn(&Entry) -> bool) -> Result<Self> {
        let mut entries = read(path)?;
        entries.retain(keep);
        let mut digest = Sha256::new();
        entries.iter().for_each(|entry| digest.update(line(entry)));
        write_atomically(path, |file| {
            entries.iter().try_for_each(|entry| writeln!(file, "{}", line(entry)))
        })?;
        let file = std::fs::OpenOptions::new().append(true).open(path);
        let file = file.map_err(|e| Error::file(path, e))?;
        Ok(Self { path: path.into(), entries, digest, file })
    }

    /// The history up to a step.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn until(path: &Path, step: usize, epochs: usize) -> Result<Self> {
        Self::open(path, |entry| {
            entry.step() <= step && !matches!(entry, Entry::Valid { epoch, .. } if *epoch > epochs)
        })
    }

    /// Makes sure that the lines outlive a loss of power.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::file(&self.path, e))
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        let line = line(&entry);
        writeln!(self.file, "{line}").map_err(|e| Error::file(&self.path, e))?;
        self.digest.update(line);
        self.entries.push(entry);
        Ok(())
    }

    /// What the lines are known by.
    pub(crate) fn digest(&self) -> String {
        format!("{:x}", self.digest.clone().finalize())
    }

    /// The lines.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// The entries of a file; none of one that is not there.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::file(path, e)),
    };
    let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if whole.is_empty() {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    let mut lines = (1..).zip(whole.split(|&byte| byte == b'\n')).peekable();
    while let Some((number, line)) = lines.next() {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(entry),
            Err(e) if lines.peek().is_some() => {
                return Err(Error::Log { path: path.into(), line: number, source: e });
            }
            Err(_) => tracing::warn!("{}, line {number}: cut off, and dropped", path.display()),
        }
    }
    Ok(entries)
}

fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> Entry {
        Entry::Step { step, epoch: 1, loss: 0.5, lr: 1e-3, tokens: 7 }
    }

    fn valid(step: usize, epoch: usize) -> Entry {
        Entry::Valid { step, epoch, metrics: Metrics::default() }
    }

    fn text(entries: &[Entry]) -> String {
        entries.iter().map(|entry| line(entry) + "\n").collect()
    }

    fn open(path: &Path) -> Result<Vec<Entry>> {
        Ok(History::open(path, |_| true)?.entries)
    }

    #[test]
    fn a_file_cut_off_anywhere_in_its_last_line_loses_that_line_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let entries = [step(1), step(2), valid(2, 1)];
        let whole = text(&entries);
        let last = text(&entries[..2]).len();
        for end in last..=whole.len() {
            std::fs::write(&path, &whole[..end]).expect("written");
            // A line without its end is whole too.
            let kept = if end + 1 >= whole.len() { 3 } else { 2 };
            assert_eq!(open(&path).expect("read"), entries[..kept], "{end}");
            // The cut line does not stay, to be continued by the next one.
            let mut history = History::open(&path, |_| true).expect("read");
            history.push(step(9)).expect("written");
            let again = open(&path).expect("read");
            assert_eq!(again, [&entries[..kept], &[step(9)]].concat(), "{end}");
        }
        for rest in [&b"\0\0\0\0"[..], b"{\"kind\": \"\xc3", b"{}\n", b"\n"] {
            std::fs::write(&path, [text(&entries).as_bytes(), rest].concat()).expect("written");
            assert_eq!(open(&path).expect("read"), entries, "{rest:?}");
        }
    }

    #[test]
    fn a_broken_line_before_others_is_an_error_that_names_it_and_nothing_is_rewritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let [first, last] = [text(&[step(1)]), text(&[step(3)])];
        let cut = &first[..first.len() / 2];
        for broken in [cut, "", "{}", "null", "{\"kind\":\"other\"}", "\0\0"] {
            let content = format!("{first}{broken}\n{last}");
            std::fs::write(&path, &content).expect("written");
            let error = open(&path).expect_err(broken).to_string();
            let named = format!("{}, line 2: not an entry of a run", path.display());
            assert!(error.starts_with(&named), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), content);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_one_that_is_not_there_is_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(open(&path).expect("not there"), []);
        std::fs::write(&path, "").expect("written");
        assert_eq!(open(&path).expect("empty"), []);
        // A directory cannot be read, whoever runs this.
        let directory = folder.path().join("directory");
        std::fs::create_dir(&directory).expect("made");
        let error = History::until(&directory, 0, 0).expect_err("unreadable").to_string();
        assert!(error.starts_with(&directory.display().to_string()), "{error}");
        assert!(!error.contains("cannot be written"), "it was not read: {error}");
    }

    #[test]
    fn what_came_after_a_checkpoint_is_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let entries = [step(1), step(2), valid(2, 1), step(3), step(4), valid(4, 2)];
        std::fs::write(&path, text(&entries)).expect("written");
        let kept = History::until(&path, 3, 1).expect("read");
        assert_eq!(kept.entries(), &entries[..4]);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), text(&entries[..4]));
        // An epoch's end whose evaluation came after the checkpoint of its last step.
        let kept = History::until(&path, 2, 0).expect("read");
        assert_eq!(kept.entries(), &entries[..2]);
    }
}
