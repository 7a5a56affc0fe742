//! Rows of TSV, CSV and JSON Lines files.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result, TagColumn, Template};

/// Which columns hold the text (or the two texts of a pair) and the label.
///
/// Written as a list, `text,label`:
///
/// - of names from the header, in the order text, pair, label: `sentence1,sentence2,score`;
/// - of positions from 1, in the same order: `2,1`;
/// - for a file without a header, of what its columns are: `label,text`. The words for that are
///   `text` (or `sentence`, `text1`, `sentence1`), `pair` (`text2`, `sentence2`), `label`
///   (`score`), and `_` for a column that is not used. In a file with a header they are looked up
///   there first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Columns(Vec<String>);

impl Default for Columns {
    fn default() -> Self {
        Self(vec!["text".into(), "label".into()])
    }
}

impl std::str::FromStr for Columns {
    type Err = std::convert::Infallible;

    fn from_str(list: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self(list.split(',').map(|name| name.trim().to_string()).collect()))
    }
}

/// The part of an example that a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Text,
    Pair,
    Label,
}

fn part_named(word: &str) -> Option<Part> {
    match word.to_ascii_lowercase().as_str() {
        "text" | "sentence" | "text1" | "sentence1" => Some(Part::Text),
        "pair" | "text2" | "sentence2" => Some(Part::Pair),
        "label" | "score" => Some(Part::Label),
        _ => None,
    }
}

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

/// Where the parts are: text, pair, label, each a column or a key.
struct Places<T> {
    text: TextPlace<T>,
    pair: Option<T>,
    label: Option<T>,
}

/// Where the text is: in one place, or made by a template from several, by name.
enum TextPlace<T> {
    One(T),
    Made(Vec<(String, T)>),
}

impl<T> Places<T> {
    fn record(
        &self,
        layout: &Layout,
        line: u64,
        label: Option<&T>,
        cell: impl Fn(&T) -> Result<String>,
    ) -> Result<Record> {
        let text = match (&self.text, &layout.template) {
            (TextPlace::Made(places), Some(template)) => {
                let values: Vec<(&str, String)> = (places.iter())
                    .map(|(name, place)| Ok((name.as_str(), cell(place)?)))
                    .collect::<Result<_>>()?;
                let values: Vec<(&str, &str)> =
                    values.iter().map(|(name, value)| (*name, value.as_str())).collect();
                template.render(&values)?
            }
            (TextPlace::One(place), _) => cell(place)?,
            (TextPlace::Made(_), None) => unreachable!("only a template makes texts"),
        };
        let pair = self.pair.as_ref().map(&cell).transpose()?;
        let label = label.map(&cell).transpose()?;
        Ok(Record { line, text, pair, label })
    }
}

impl Layout {
    fn places<T>(
        &self,
        label: LabelColumn,
        mut find: impl FnMut(usize, &str) -> Result<T>,
    ) -> Result<Places<T>> {
        let Some(template) = &self.template else { return self.columns.places(label, find) };
        let mut made: Vec<(String, T)> = Vec::new();
        for name in template.columns() {
            if made.iter().all(|(known, _)| known != name) {
                made.push((name.to_string(), find(0, name)?));
            }
        }
        let label = match self.columns.0.last() {
            Some(name) => label.find(|| find(0, name))?,
            None => None,
        };
        Ok(Places { text: TextPlace::Made(made), pair: None, label })
    }

    /// Where the parts are in a file whose first row is `first`, and whether that row is a header.
    fn locate(
        &self,
        path: &Path,
        first: &[String],
        label: LabelColumn,
    ) -> Result<(Places<usize>, bool)> {
        if self.template.is_none() {
            return self.columns.locate(path, first, label);
        }
        let mut header = false;
        let places = self.places(label, |_, name| {
            let named = first.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
            header |= named.is_some();
            let numbered = name.parse().ok().filter(|number| (1..=first.len()).contains(number));
            let place = named.or(numbered.map(|number: usize| number - 1));
            place.ok_or_else(|| missing_column(path, name, first))
        })?;
        Ok((places, header))
    }
}

impl Columns {
    /// Columns by these names.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// The column with the tags of a file with a word in each line: the one that is listed, by
    /// number or name; the usual one if the list is of texts and labels.
    pub fn tag_column(&self) -> TagColumn {
        match &self.0[..] {
            [column] if part_named(column).is_none() => column.parse().unwrap_or(TagColumn::Usual),
            _ => TagColumn::Usual,
        }
    }

    /// What each listed column is: by its word if all have one, else by the order text, pair,
    /// label.
    fn parts(&self) -> Vec<Option<Part>> {
        if self.0.iter().all(|name| name == "_" || part_named(name).is_some()) {
            return self.0.iter().map(|name| part_named(name)).collect();
        }
        let used = self.0.iter().filter(|name| *name != "_").count();
        let order = match used {
            1 => &[Part::Text][..],
            2 => &[Part::Text, Part::Label],
            _ => &[Part::Text, Part::Pair, Part::Label],
        };
        let mut order = order.iter().copied();
        self.0.iter().map(|name| if name == "_" { None } else { order.next() }).collect()
    }

    fn places<T>(
        &self,
        labels: LabelColumn,
        mut find: impl FnMut(usize, &str) -> Result<T>,
    ) -> Result<Places<T>> {
        let (mut text, mut pair, mut label) = (None, None, None);
        for (index, (name, part)) in self.0.iter().zip(self.parts()).enumerate() {
            let place = match part {
                None => continue,
                Some(Part::Text) => &mut text,
                Some(Part::Pair) => &mut pair,
                Some(Part::Label) => &mut label,
            };
            if place.is_some() {
                return Err(Error::setting("columns", self.0.join(","), "names a part twice"));
            }
            *place = match part {
                Some(Part::Label) => labels.find(|| find(index, name))?,
                _ => Some(find(index, name)?),
            };
        }
        let text = text
            .ok_or_else(|| Error::setting("columns", self.0.join(","), "names no text column"))?;
        Ok(Places { text: TextPlace::One(text), pair, label })
    }

    /// Where the parts are in a file whose first row is `first`, and whether that row is a header.
    fn locate(
        &self,
        path: &Path,
        first: &[String],
        label: LabelColumn,
    ) -> Result<(Places<usize>, bool)> {
        let parts = self.parts();
        let needed = match label {
            LabelColumn::Required => self.0.len(),
            _ => {
                let text = |part: &Option<Part>| matches!(part, Some(Part::Text | Part::Pair));
                parts.iter().rposition(text).map_or(0, |last| last + 1)
            }
        };
        if self.0.is_empty() || needed > first.len().max(3) {
            let expected = format!("{} has {} columns", path.display(), first.len());
            return Err(Error::setting("columns", self.0.join(","), expected));
        }
        let numbered = |name: &str| -> Option<usize> {
            let number = name.parse().ok().filter(|number| (1..=first.len()).contains(number));
            number.map(|number: usize| number - 1)
        };
        let numbers = self.0.iter().all(|name| name == "_" || name.parse::<usize>().is_ok());
        if numbers {
            let places = self.places(label, |_, name| {
                numbered(name).ok_or_else(|| missing_column(path, name, first))
            })?;
            // A header has no number where a row has its label; without one, no row is skipped.
            let labels = parts.iter().position(|part| *part == Some(Part::Label));
            let cell = labels.and_then(|place| first.get(numbered(&self.0[place])?));
            let header = cell.is_some_and(|cell| part_named(cell.trim()) == Some(Part::Label));
            return Ok((places, header));
        }
        let in_header =
            |name: &str| first.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name));
        let mut named = self.0.iter().filter(|name| *name != "_");
        if named.any(|name| in_header(name).is_some()) {
            let places = self.places(label, |_, name| {
                in_header(name).ok_or_else(|| missing_column(path, name, first))
            })?;
            return Ok((places, true));
        }
        let places = self.places(label, |index, name| {
            let is_there = part_named(name).is_some() && index < first.len();
            is_there.then_some(index).ok_or_else(|| missing_column(path, name, first))
        })?;
        Ok((places, false))
    }
}

fn missing_column(path: &Path, name: &str, first: &[String]) -> Error {
    let shown: Vec<String> = first.iter().map(|cell| shorten(cell)).collect();
    let reason = format!("no column {name:?}; the first row is: {}", shown.join(" | "));
    Error::row(path, 1, reason)
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 32 {
        return text.into();
    }
    text.chars().take(31).chain(['…']).collect()
}

/// How the rows of a file become texts and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The columns of text, pair and label; with a template, the last one is that of the label.
    pub columns: Columns,
    /// What the text is made of, if it is not a column as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// Reads a data file: `.jsonl` (or `.json`, `.ndjson`) as JSON Lines, `.csv` as CSV with quoting,
/// `.txt` as a text on each line, anything else as tab-separated without quoting.
///
/// # Errors
/// If the file is missing or empty, a column is not there, a row has too few columns, is not
/// UTF-8, or is not JSON; the line is named.
pub fn read_records(path: &Path, layout: &Layout, label: LabelColumn) -> Result<Vec<Record>> {
    read_with(path, layout, label, Labelling::One)
}

/// The labels that a row may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labelling {
    One,
    /// Several, which JSON Lines may have as a list.
    Several,
}

/// As [`read_records`].
pub(crate) fn read_with(
    path: &Path,
    layout: &Layout,
    label: LabelColumn,
    labelling: Labelling,
) -> Result<Vec<Record>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let records = match extension.as_str() {
        "jsonl" | "ndjson" | "json" => json_lines(path, layout, label, labelling)?,
        "txt" => lines(path)?,
        "csv" => delimited(path, layout, label, b',', true)?,
        _ => delimited(path, layout, label, b'\t', false)?,
    };
    if records.is_empty() {
        return Err(Error::file(path, "no rows: the file is empty, or has only a header"));
    }
    Ok(records)
}

fn delimited(
    path: &Path,
    layout: &Layout,
    label: LabelColumn,
    delimiter: u8,
    quoting: bool,
) -> Result<Vec<Record>> {
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoting)
        .has_headers(false)
        .flexible(true)
        .from_reader(file);
    let mut records = Vec::new();
    let mut places: Option<Places<usize>> = None;
    for row in reader.byte_records() {
        let row = row.map_err(|e| {
            let line = e.position().map_or(0, csv::Position::line);
            Error::row(path, line, e)
        })?;
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |index: &usize| -> Result<String> {
            let bytes = row.get(*index).ok_or_else(|| {
                let reason = format!("{} columns, but column {} is needed", row.len(), index + 1);
                Error::row(path, line, reason)
            })?;
            let text = std::str::from_utf8(bytes).map_err(|e| {
                let reason =
                    format!("column {}: not UTF-8 from byte {}", index + 1, e.valid_up_to());
                Error::row(path, line, reason)
            })?;
            Ok(text.trim_start_matches('\u{feff}').trim_end_matches('\r').to_string())
        };
        if places.is_none() {
            let first = (0..row.len()).map(|index| cell(&index)).collect::<Result<Vec<_>>>()?;
            let (found, header) = layout.locate(path, &first, label)?;
            places = Some(found);
            if header {
                continue;
            }
        }
        let Some(places) = &places else { continue };
        records.push(places.record(layout, line, places.label.as_ref(), cell)?);
    }
    Ok(records)
}

/// Lines that are not blank, each a text.
fn lines(path: &Path) -> Result<Vec<Record>> {
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let number = index as u64 + 1;
        let text = line.map_err(|e| Error::row(path, number, e))?;
        if !text.trim().is_empty() {
            records.push(Record { line: number, text, pair: None, label: None });
        }
    }
    Ok(records)
}

fn json_lines(
    path: &Path,
    layout: &Layout,
    label: LabelColumn,
    labelling: Labelling,
) -> Result<Vec<Record>> {
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let places = layout.places(label, |_, name| Ok(name.to_string()))?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let number = index as u64 + 1;
        let line = line.map_err(|e| Error::row(path, number, e))?;
        let text = String::from_utf8(line).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::row(path, number, format!("not UTF-8 from byte {at}"))
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let object: serde_json::Map<String, Value> = serde_json::from_str(&text)
            .map_err(|e| Error::row(path, number, format!("not a JSON object: {e}")))?;
        let field = |name: &String| match object.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(list @ Value::Array(_))
                if labelling == Labelling::Several && places.label.as_ref() == Some(name) =>
            {
                Ok(list.to_string())
            }
            Some(other) => {
                Err(Error::row(path, number, format!("{name:?} is {other}, not a text or number")))
            }
            None => {
                let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                let reason = format!("no field {name:?}; there are: {}", keys.join(", "));
                Err(Error::row(path, number, reason))
            }
        };
        let is_read = |key: &&String| label == LabelColumn::Required || object.contains_key(*key);
        let label = places.label.as_ref().filter(is_read);
        records.push(places.record(layout, number, label, field)?);
    }
    Ok(records)
}
