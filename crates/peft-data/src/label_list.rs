//! The labels of a text that may have several, in one cell.

use serde_json::Value;

/// The labels of a text in one cell: separated by `|`, or by commas where no cell has a `|`, or a
/// JSON list. An empty cell has none.
pub(crate) struct LabelList;

impl LabelList {
    /// What separates labels in cells that belong together.
    pub(crate) fn separator<'a>(cells: impl IntoIterator<Item = &'a str>) -> char {
        let has_bar = |cell: &str| !cell.starts_with('[') && cell.contains('|');
        if cells.into_iter().any(has_bar) { '|' } else { ',' }
    }

    /// The labels of a cell.
    ///
    /// # Errors
    /// Why it is no list of different labels.
    pub(crate) fn parse(cell: &str, separator: char) -> Result<Vec<String>, String> {
        let cell = cell.trim();
        let labels: Vec<String> = match cell.starts_with('[') {
            true => from_json(cell)?,
            false if cell.is_empty() => Vec::new(),
            false => cell.split(separator).map(|label| label.trim().to_string()).collect(),
        };
        if labels.iter().any(String::is_empty) {
            return Err(format!("{cell:?} has an empty label"));
        }
        let twice =
            labels.iter().enumerate().find(|(place, label)| labels[..*place].contains(label));
        match twice {
            Some((_, label)) => Err(format!(
                "{cell:?} has {label} twice: list the names of the labels that the text has"
            )),
            None => Ok(labels),
        }
    }
}

fn from_json(cell: &str) -> Result<Vec<String>, String> {
    let found: Vec<Value> = serde_json::from_str(cell).map_err(|e| format!("{cell:?}: {e}"))?;
    let label = |value: Value| match value {
        Value::String(label) => Ok(label.trim().to_string()),
        Value::Number(label) => Ok(label.to_string()),
        other => Err(format!("{cell:?}: {other} is not the name of a label")),
    };
    found.into_iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_in_three_ways() {
        for (cell, expected) in [
            ("joy", &["joy"][..]),
            ("joy,fear", &["joy", "fear"]),
            (" joy , fear ", &["joy", "fear"]),
            ("joy|fear, mild", &["joy", "fear, mild"]),
            (r#"["joy", "fear, mild|x"]"#, &["joy", "fear, mild|x"]),
            ("[3, 12]", &["3", "12"]),
            ("[]", &[]),
            ("", &[]),
        ] {
            let separator = LabelList::separator([cell]);
            assert_eq!(LabelList::parse(cell, separator).expect(cell), expected, "{cell}");
        }
        let bars = LabelList::separator(["a, b", "c|d"]);
        assert_eq!(LabelList::parse("a, b", bars).expect("one"), ["a, b"]);
    }

    #[test]
    fn what_is_no_list_of_different_labels_is_refused() {
        for (cell, expected) in [
            ("joy,,fear", "empty label"),
            ("joy,", "empty label"),
            ("joy, joy", "joy twice"),
            ("[0, 1, 0]", "0 twice"),
            ("[joy]", "expected value"),
            ("[null]", "null is not the name of a label"),
        ] {
            let error = LabelList::parse(cell, LabelList::separator([cell])).expect_err(cell);
            assert!(error.contains(expected), "{cell}: {error}");
        }
    }
}
