//! Digests of the files that a resumed run reads, beside them: what was damaged since is an error,
//! and not another adapter.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use peft_format::write_atomically;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The file with the digests, which `sha256sum -c` reads too.
const SUMS: &str = "SHA256SUMS";

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// That of a file.
pub(crate) fn digest_of(path: &Path) -> Result<String> {
    std::fs::read(path).map(|bytes| digest(&bytes)).map_err(|e| Error::file(path, e))
}

/// The digests of files in a directory, by their names there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums(BTreeMap<String, String>);

impl Sums {
    /// The digests of these files.
    pub(crate) fn of(directory: &Path, names: &[&str]) -> Result<Self> {
        let sum = |name: &&str| Ok((name.to_string(), digest_of(&directory.join(name))?));
        Ok(Self(names.iter().map(sum).collect::<Result<_>>()?))
    }

    /// With the file `name`, which is yet to be written.
    pub(crate) fn with(mut self, name: &str, bytes: &[u8]) -> Self {
        self.0.insert(name.into(), digest(bytes));
        self
    }

    /// Writes them into the directory that the files are in.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        Ok(write_atomically(&directory.join(SUMS), |file| {
            self.0.iter().try_for_each(|(name, sum)| writeln!(file, "{sum}  {name}"))
        })?)
    }

    /// Reads them from a directory; `None` where there are none.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(SUMS);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::file(&path, e)),
        };
        let sum = |line: &str| {
            let (sum, name) = line.split_once("  ")?;
            Some((name.to_string(), sum.to_string()))
        };
        let sums = text.lines().map(sum).collect::<Option<_>>();
        sums.map(|sums| Some(Self(sums))).ok_or_else(|| Error::file(&path, "not digests of files"))
    }

    /// Checks the files of a directory, among which these must be.
    pub(crate) fn check(&self, directory: &Path, names: &[&str]) -> Result<()> {
        if let Some(name) = names.iter().find(|name| !self.0.contains_key(**name)) {
            let reason = format!("says nothing of {name}: the file is damaged");
            return Err(Error::file(directory.join(SUMS), reason));
        }
        for (name, sum) in &self.0 {
            let path = directory.join(name);
            if digest_of(&path)? != *sum {
                return Err(Error::damaged(path));
            }
        }
        Ok(())
    }

    /// Checks a directory that cannot do without them.
    pub(crate) fn check_all(directory: &Path, names: &[&str]) -> Result<()> {
        let sums = Self::load(directory)?;
        sums.ok_or_else(|| Error::file(directory.join(SUMS), "not there"))?.check(directory, names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_changed_or_gone_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let names = ["a", "b"];
        for name in names {
            std::fs::write(path(name), name).expect("written");
        }
        Sums::of(folder.path(), &names).expect("sums").save(folder.path()).expect("saved");
        Sums::check_all(folder.path(), &names).expect("whole");
        let sums = std::fs::read(path(SUMS)).expect("there");
        let failed = || Sums::check_all(folder.path(), &names).expect_err("damaged").to_string();

        for name in ["a", "b", SUMS] {
            let whole = std::fs::read(path(name)).expect("there");
            for at in 0..whole.len() {
                for other in [whole[at] ^ 1, whole[at] ^ 0x80, 0, b'\n', b' '] {
                    let mut damaged = whole.clone();
                    damaged[at] = other;
                    if damaged == whole {
                        continue;
                    }
                    std::fs::write(path(name), &damaged).expect("written");
                    failed();
                }
                std::fs::write(path(name), &whole[..at]).expect("written");
                // Without what ends the last line nothing is missing.
                if (name, at + 1) != (SUMS, whole.len()) {
                    failed();
                }
            }
            std::fs::remove_file(path(name)).expect("removed");
            assert!(failed().contains(name), "{}", failed());
            std::fs::write(path(name), &whole).expect("written");
        }
        assert_eq!(std::fs::read(path(SUMS)).expect("there"), sums);
        Sums::check_all(folder.path(), &names).expect("whole again");
    }
}
