//! Rows of tables: CSV, TSV, JSON, Parquet.

#[cfg(feature = "parquet")]
mod bounded_file;
mod columns;
mod delimited;
mod header;
mod objects;
#[cfg(feature = "parquet")]
mod parquet;
mod quotes;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use columns::{Columns, Layout};
use csv::ByteRecord;
use delimited::Form;
pub(crate) use header::check_labels;
pub(crate) use objects::{Object, Objects, missing};

use crate::{Error, Result, lines};

/// Whether the labels of a file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelColumn {
    /// They are; a file without the column is an error.
    Required,
    /// They are, if the column is there.
    Optional,
    /// They are not, and need not be there.
    Ignored,
}

impl LabelColumn {
    fn find<T>(self, find: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        match self {
            Self::Required => find().map(Some),
            Self::Optional => Ok(find().ok()),
            Self::Ignored => Ok(None),
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label, or the number of a regression; `None` where the columns name none.
    pub label: Option<String>,
}

/// How the rows of a file are written, by its extension.
enum Written {
    Objects(Objects),
    Cells(Form),
    Lines,
}

impl Written {
    fn of(path: &Path) -> Self {
        match extension(path).as_str() {
            "csv" => Self::Cells(Form::Csv),
            "txt" => Self::Lines,
            _ => Objects::of(path).map_or(Self::Cells(Form::Tsv), Self::Objects),
        }
    }
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase()
}

/// Reads a data file: `.jsonl` (or `.ndjson`) as JSON Lines, `.json` as those or an array of
/// objects, `.parquet` as Parquet, `.csv` as CSV with quoting, `.txt` as a text on each line,
/// anything else as tab-separated without quoting.
///
/// # Errors
/// If the file is missing or empty, a column is not there, a row has too few columns, is not
/// UTF-8, or is not JSON, if a quote swallows rows, or the first row looks like a header of other
/// columns; the line is named.
pub fn read_records(path: &Path, layout: &Layout, label: LabelColumn) -> Result<Vec<Record>> {
    read_with(path, layout, label, Labelling::One)
}

/// The labels that a row may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labelling {
    One,
    /// Several, which objects may have as a list.
    Several,
}

/// As [`read_records`].
pub(crate) fn read_with(
    path: &Path,
    layout: &Layout,
    label: LabelColumn,
    labelling: Labelling,
) -> Result<Vec<Record>> {
    let records = match Written::of(path) {
        Written::Objects(objects) => objects.records(path, layout, label, labelling)?,
        Written::Cells(form) => form.records(path, layout, label)?,
        Written::Lines => texts(path)?,
    };
    if records.is_empty() {
        return Err(Error::file(path, "no rows: the file is empty, or has only a header"));
    }
    Ok(records)
}

/// Lines that are not blank, each a text.
fn texts(path: &Path) -> Result<Vec<Record>> {
    let bytes = lines::read(path)?;
    let lines = lines::lines(path, &bytes)?.into_iter().zip(1..);
    let lines = lines.filter(|(text, _)| !text.trim().is_empty());
    let record = |(text, line): (&str, u64)| Record {
        line,
        text: text.to_string(),
        pair: None,
        label: None,
    };
    Ok(lines.map(record).collect())
}

/// The rows of a file with cells, if its columns were found by their place, not by a name.
fn unnamed_rows(path: &Path, layout: &Layout) -> Option<Vec<ByteRecord>> {
    let Written::Cells(form) = Written::of(path) else { return None };
    let rows = form.rows(path).ok()?;
    let first: Vec<String> =
        rows.first()?.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
    let (_, has_header) = layout.locate(path, &first, LabelColumn::Required).ok()?;
    (layout.columns.are_default() && !has_header).then_some(rows)
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 32 {
        return text.into();
    }
    text.chars().take(31).chain(['…']).collect()
}
