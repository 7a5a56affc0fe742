//! A data set in a directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Labelled texts, or pairs of texts.
#[derive(Debug)]
pub struct Data {
    /// The directory's name.
    pub name: String,
    pub train: PathBuf,
    /// What accuracies are of: the test texts, or those of development where the others have no
    /// labels. Nothing is chosen by them.
    pub test: PathBuf,
    /// As `peft train --columns` takes them.
    pub columns: &'static str,
}

const PAIRS: &str = "sentence1,sentence2,label";

impl Data {
    /// # Errors
    /// If a file is not there.
    pub fn open(directory: &Path) -> Result<Self> {
        let train = directory.join("train.tsv");
        let text = std::fs::read_to_string(&train).with_context(|| train.display().to_string())?;
        let are_pairs = is_of_pairs(&text);
        let labelled = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let head = text.lines().next().unwrap_or_default();
            !text.is_empty() && (!are_pairs || head.split('\t').any(|name| name == "label"))
        };
        let tests = ["test.tsv", "dev.tsv"].map(|name| directory.join(name));
        let test = tests.into_iter().find(labelled);
        let name = directory.file_name().context("a directory has a name")?;
        ensure!(test.is_some(), "{}: no labelled test.tsv or dev.tsv", directory.display());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            train,
            test: test.expect("checked"),
            columns: if are_pairs { PAIRS } else { "text,label" },
        })
    }
}

/// Whether the first line names the columns of pairs.
fn is_of_pairs(text: &str) -> bool {
    let head: Vec<&str> = text.lines().next().unwrap_or_default().split('\t').collect();
    PAIRS.split(',').all(|name| head.contains(&name))
}
