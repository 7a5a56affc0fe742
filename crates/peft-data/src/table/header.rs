//! Headers that nobody named a column of, and columns that are not what they are taken for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use csv::ByteRecord;

use super::columns::Places;
use super::delimited::line;
use super::{Layout, Record, shorten};
use crate::{Error, Result};

/// What columns of texts are called.
const TEXTS: &str = "abstract answer article body caption comment completion content context \
    description dialogue document essay headline hypothesis input instruction message output \
    paragraph passage post premise prompt query question reference response review sentence \
    sentence1 sentence2 source statement story summary text text1 text2 title translation tweet \
    utterance";

/// What columns of labels are called.
const LABELS: &str = "category class emotion gold grade intent label labels language polarity \
    rating score sentiment stance stars tag target topic type verdict";

/// What other columns are called.
const OTHERS: &str = "author country date guid id idx index lang name no number split timestamp url \
    user username year";

/// Fewer labels than these may differ by chance.
const ENOUGH_ROWS: usize = 10;

/// Checks that the first row, which no column was found in, is not a header.
///
/// # Errors
/// If it looks like one; the columns to give are named.
pub(super) fn check(
    path: &Path,
    rows: &[ByteRecord],
    layout: &Layout,
    places: &Places<usize>,
) -> Result<()> {
    let Some((first, rest)) = rows.split_first() else { return Ok(()) };
    let Some(reason) = reason(first, rest, places.label) else { return Ok(()) };
    let names: Vec<String> = cells(first).map(|name| shorten(&name)).collect();
    let columns = match usual(first, rest).filter(|_| layout.is_of_text_and_label()) {
        Some([text, label]) => format!("{},{}", cell(first, text), cell(first, label)),
        None => "with the names of those to use".to_string(),
    };
    let reason = format!(
        "this row looks like a header ({reason}), but no column of it is named: give --columns \
         {columns}; the row is: {}. If it is a row like the others, put a header above it",
        names.join(" | ")
    );
    Err(Error::row(path, line(first), reason))
}

/// Checks that labels which are to be told apart are labels.
///
/// # Errors
/// If nearly all differ, and they look like texts, or nobody said that they stand in this column.
pub(crate) fn check_labels(path: &Path, layout: &Layout, records: &[Record]) -> Result<()> {
    let labels: Vec<&str> = records.iter().filter_map(|record| record.label.as_deref()).collect();
    let different = labels.iter().collect::<BTreeSet<_>>().len();
    let differ = different * 2 > labels.len();
    let by_place = layout.columns.are_default() && layout.template.is_none();
    let texts_are_numbers = by_place && records.iter().all(|record| is_number(&record.text));
    let few = labels.len() < ENOUGH_ROWS;
    if few || !(differ || texts_are_numbers) {
        return Ok(());
    }
    let count: usize = labels.iter().map(|label| words(label)).sum();
    let are_texts = count >= 4 * labels.len();
    let rows = super::unnamed_rows(path, layout);
    if !(are_texts || rows.is_some()) {
        if differ {
            tracing::warn!(
                "{}: {different} labels in {} rows: is this the column of the labels?",
                path.display(),
                labels.len()
            );
        }
        return Ok(());
    }
    let columns = match rows.and_then(|rows| usual(rows.first()?, &rows)) {
        Some([text, label]) => format!("{},{}", text + 1, label + 1),
        None => "with those of the text and the label, in this order".to_string(),
    };
    let reason = format!(
        "{different} different labels in {} rows, such as {:?}{}: give --columns {columns}",
        labels.len(),
        shorten(labels[0]),
        if texts_are_numbers { ", and the texts are numbers" } else { "" }
    );
    Err(Error::setting("columns", &layout.columns, format!("{}: {reason}", path.display())))
}

/// Why a row looks like a header of the others, if it does.
fn reason(first: &ByteRecord, rest: &[ByteRecord], label: Option<usize>) -> Option<String> {
    let mut names: Vec<Cow<'_, str>> = cells(first).filter(|name| !name.is_empty()).collect();
    if names.is_empty() || !names.iter().all(|name| is_name(name)) {
        return None;
    }
    // A name alone may be a text, where others are as short.
    let stands_out = || rest.len() > 1 && rest.iter().all(|row| words(&cell(row, 0)) > 1);
    if names.iter().all(|name| is_usual(name)) && (names.len() > 1 || stands_out()) {
        return Some("these are usual names of columns".to_string());
    }
    let numbered = (0..first.len()).find(|&column| {
        let under = || rest.iter().map(|row| cell(row, column));
        !cell(first, column).is_empty() && rest.len() > 1 && under().all(|cell| is_number(&cell))
    });
    if let Some(column) = numbered {
        return Some(format!("below {:?} are numbers alone", cell(first, column)));
    }
    let count = names.len();
    names.sort();
    names.dedup();
    let label = label.filter(|_| names.len() == count)?;
    let name = cell(first, label);
    let others: BTreeSet<_> = rest.iter().map(|row| cell(row, label)).collect();
    let repeated = !rest.is_empty() && others.len() * 2 <= rest.len();
    (repeated && !others.contains(&name)).then(|| format!("the label {name:?} occurs nowhere else"))
}

/// The columns that seem to hold the texts and the labels.
fn usual(first: &ByteRecord, rows: &[ByteRecord]) -> Option<[usize; 2]> {
    let is_label = |column: usize| {
        let labels: BTreeSet<_> = rows.iter().map(|row| cell(row, column)).collect();
        labels.len() > 1 && labels.len() * 2 <= rows.len()
    };
    let words = |column: usize| rows.iter().map(|row| words(&cell(row, column))).sum::<usize>();
    let is_named = |column: usize, list| is_in(list, &cell(first, column));
    let text = (0..first.len())
        .rev() // of equals, the first
        .max_by_key(|&column| (words(column), is_named(column, TEXTS)))?;
    let others = || (0..first.len()).filter(|&column| column != text);
    let label = others().find(|&column| is_named(column, LABELS));
    let label = label.or_else(|| others().find(|&column| is_label(column)))?;
    Some([text, label])
}

fn cell(row: &ByteRecord, column: usize) -> Cow<'_, str> {
    String::from_utf8_lossy(row.get(column).unwrap_or_default().trim_ascii())
}

fn cells(row: &ByteRecord) -> impl Iterator<Item = Cow<'_, str>> {
    (0..row.len()).map(|column| cell(row, column))
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<f64>().is_ok_and(f64::is_finite)
}

/// Whether a text may be the name of a column: a few words that are no sentence.
fn is_name(text: &str) -> bool {
    text.chars().count() <= 40
        && words(text) <= 3
        && text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
        && !text.ends_with(['.', '!', '?', ',', ';', ':'])
}

fn is_usual(name: &str) -> bool {
    [TEXTS, LABELS, OTHERS].into_iter().any(|list| is_in(list, name))
}

fn is_in(list: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    let mut words = name.split(['_', '-', ' ']).filter(|word| !word.is_empty()).peekable();
    let is_listed = |word: &str| list.split_whitespace().any(|listed| listed == word);
    words.peek().is_some() && words.all(is_listed)
}
