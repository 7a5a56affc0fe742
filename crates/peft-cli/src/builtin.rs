//! The built-in data set: support messages by intent.

use std::path::Path;

use peft::format::write_atomically;

const FILES: [(&str, &str); 3] = [
    ("train.tsv", include_str!("../data/support-intents/train.tsv")),
    ("valid.tsv", include_str!("../data/support-intents/valid.tsv")),
    ("test.tsv", include_str!("../data/support-intents/test.tsv")),
];

/// Writes the built-in data set (`train.tsv`, `valid.tsv`, `test.tsv`, columns `text` and `label`)
/// into a directory.
pub fn write_builtin(directory: &Path) -> peft::format::Result<()> {
    for (name, text) in FILES {
        write_atomically(&directory.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    Ok(())
}
