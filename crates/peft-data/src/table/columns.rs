//! Which columns of a table hold what.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{LabelColumn, Record, shorten};
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

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
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

/// Where the parts are: text, pair, label, each a column or a key.
pub(super) struct Places<T> {
    text: TextPlace<T>,
    pair: Option<T>,
    pub(super) label: Option<T>,
}

/// Where the text is: in one place, or made by a template from several, by name.
enum TextPlace<T> {
    One(T),
    Made(Vec<(String, T)>),
}

impl<T> Places<T> {
    pub(super) fn record(
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
    pub(super) fn places<T>(
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

    /// Whether a text and a label are read, and nothing else.
    pub(super) fn is_of_text_and_label(&self) -> bool {
        let used = self.columns.0.iter().filter(|name| *name != "_");
        self.template.is_none() && used.count() <= 2
    }

    /// Where the parts are in a file whose first row is `first`, and whether that row is a header.
    pub(super) fn locate(
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
    ///
    /// # Errors
    /// If columns of words and tags are listed: where the words are goes by the file's form.
    pub fn tag_column(&self) -> Result<TagColumn> {
        match self.word_keys() {
            (None, None) => Ok(TagColumn::Usual),
            (None, Some(tags)) => Ok(tags.parse().unwrap_or(TagColumn::Usual)),
            (Some(_), _) => {
                let expected = "of a file with a word in each line, name the column of the tags \
                                alone; the words are in the first, or in CoNLL-U in the second";
                Err(Error::setting("columns", self, expected))
            }
        }
    }

    /// The keys of words and of tags, where the list is not of texts and labels.
    pub(crate) fn word_keys(&self) -> (Option<&str>, Option<&str>) {
        match &self.0[..] {
            columns if columns.iter().all(|name| name == "_" || part_named(name).is_some()) => {
                (None, None)
            }
            [tags] => (None, Some(tags)),
            [words, .., tags] => (Some(words), Some(tags)),
            [] => (None, None),
        }
    }

    /// Whether these are the ones that nobody chose.
    pub(super) fn are_default(&self) -> bool {
        *self == Self::default()
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
                return Err(Error::setting("columns", self, "names a part twice"));
            }
            *place = match part {
                Some(Part::Label) => labels.find(|| find(index, name))?,
                _ => Some(find(index, name)?),
            };
        }
        let text = text.ok_or_else(|| Error::setting("columns", self, "names no text column"))?;
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
            return Err(Error::setting("columns", self, expected));
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
    let mut reason = format!("no column {name:?}; the first row is: {}", shown.join(" | "));
    if let [cell] = first
        && let Some(other) = cell.chars().find(|letter| [';', '\t', ',', '|'].contains(letter))
    {
        let by = "columns are between commas in .csv, between tabs in files of other endings";
        reason += &format!(" (one column, with {other:?} in it: {by})");
    }
    Error::row(path, 1, reason)
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
