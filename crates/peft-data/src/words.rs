//! Words with tags in rows that are objects, as the Hugging Face hub has them.

use std::path::Path;

use serde_json::Value;

use crate::table::{Object, Objects, missing};
use crate::{Columns, Error, LabelColumn, Result, Sentence};

/// What lists of words are called.
const WORDS: [&str; 5] = ["tokens", "words", "token", "word", "text"];

/// What lists of tags are called; the first that is there is read.
const TAGS: [&str; 9] =
    ["ner_tags", "ner", "tags", "labels", "label", "pos_tags", "upos", "pos", "chunk_tags"];

/// Reads the sentences of a file, each an object with a list of words and one of tags, which are
/// texts or integers.
///
/// # Errors
/// If a row has no such lists, or not as many tags as words; it is named.
pub(crate) fn read(
    path: &Path,
    kind: Objects,
    columns: &Columns,
    label: LabelColumn,
) -> Result<Vec<Sentence>> {
    let (words, tags) = columns.word_keys();
    let is_wanted = |name: &str| match (words, tags) {
        (Some(words), Some(tags)) => name == words || name == tags,
        (_, tags) => WORDS.contains(&name) || tags.map_or(TAGS.contains(&name), |t| t == name),
    };
    let sentences = kind.each(path, &is_wanted, |line, object| {
        let words = list(path, line, &object, words, &WORDS, "the words")?;
        let tags = match label {
            LabelColumn::Ignored => Vec::new(),
            _ => list(path, line, &object, tags, &TAGS, "the tags")?,
        };
        if label != LabelColumn::Ignored && words.len() != tags.len() {
            let reason = format!("words: {}, but tags: {}", words.len(), tags.len());
            return Err(Error::row(path, line, reason));
        }
        Ok(Sentence { line, words, tags })
    })?;
    match sentences.is_empty() {
        true => Err(Error::file(path, "no words: the file is empty")),
        false => Ok(sentences),
    }
}

/// The texts of a list in a row: that of this name, or else the first of the usual names.
fn list(
    path: &Path,
    line: u64,
    object: &Object,
    name: Option<&str>,
    usual: &[&str],
    what: &str,
) -> Result<Vec<String>> {
    let is_list = |name: &&&str| object.get(**name).is_some_and(Value::is_array);
    let name = match name {
        Some(name) => name,
        None => usual.iter().find(is_list).ok_or_else(|| {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            let reason = format!(
                "no list is called as {what} usually are ({}); there are: {}; --columns \
                 WORDS,TAGS says which to use",
                usual.join(", "),
                keys.join(", ")
            );
            Error::row(path, line, reason)
        })?,
    };
    let value = object.get(name).ok_or_else(|| missing(path, line, object, name))?;
    let Value::Array(items) = value else {
        let reason = format!("{name:?} is {value}, where a list of {what} should be");
        return Err(Error::row(path, line, reason));
    };
    let text = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        other => {
            Err(Error::row(path, line, format!("{name:?} has {other}, not a text or an integer")))
        }
    };
    items.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_text(name: &str, text: &str, columns: &str) -> std::result::Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        let columns: Columns = match columns {
            "" => Columns::default(),
            list => list.parse().expect("columns"),
        };
        let shown = |sentence: Sentence| {
            let pairs = sentence.words.iter().zip(&sentence.tags);
            let pairs: Vec<String> = pairs.map(|(word, tag)| format!("{word}/{tag}")).collect();
            format!("{}: {}", sentence.line, pairs.join(" "))
        };
        let sentences = read(&path, Objects::Json, &columns, LabelColumn::Required);
        let sentences = sentences
            .map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))?;
        Ok(sentences.into_iter().map(shown).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn the_usual_lists_are_found_and_others_by_name() {
        let read = |text: &str, columns: &str| read_text("a.jsonl", text, columns).expect("read");
        let hub = "\u{feff}{\"id\": \"0\", \"tokens\": [\"EU\", \"is\"], \"pos_tags\": [22, 42], \
                   \"ner_tags\": [\"B-ORG\", \"O\"]}\r\n\n{\"tokens\": [\"#\"], \"pos_tags\": [1], \
                   \"ner_tags\": [\"O\"]}";
        assert_eq!(read(hub, ""), "1: EU/B-ORG is/O; 3: #/O");
        assert_eq!(read(hub, "tokens,ner_tags"), "1: EU/B-ORG is/O; 3: #/O");
        assert_eq!(read(hub, "pos_tags"), "1: EU/22 is/42; 3: #/1");
        assert_eq!(read(hub, "tokens,pos_tags"), "1: EU/22 is/42; 3: #/1");
        let words = "[{\"words\": [\"a b\"], \"tags\": [3]},\n {\"words\": [], \"tags\": []}]";
        assert_eq!(read(words, ""), "1: a b/3; 2: ");
        assert_eq!(read("{\"w\": [\"a\"], \"t\": [\"X\"]}", "w,t"), "1: a/X");
    }

    #[test]
    fn what_is_wrong_and_where() {
        let error =
            |text: &str, columns: &str| read_text("a.jsonl", text, columns).expect_err("refused");
        let lists = "{\"tokens\": [\"a\", \"b\"], \"ner_tags\": [0]}";
        assert_eq!(error(lists, ""), "a.jsonl, line 1: words: 2, but tags: 1");
        let found = error(lists, "tokens,tags");
        assert!(
            found.starts_with("a.jsonl, line 1: no field \"tags\"; there are: tokens, ner_tags")
        );
        let found = error("{\"x\": [\"a\"], \"tags\": [0]}", "");
        assert!(found.contains("the words usually are") && found.contains("x, tags"), "{found}");
        let found = error("{\"tokens\": \"a b\", \"tags\": [0]}", "tokens,tags");
        assert_eq!(
            found,
            "a.jsonl, line 1: \"tokens\" is \"a b\", where a list of the words should be"
        );
        let found = error("{\"tokens\": [\"a\"], \"tags\": [null]}", "");
        assert_eq!(found, "a.jsonl, line 1: \"tags\" has null, not a text or an integer");
        assert_eq!(error("\n", ""), "a.jsonl: no words: the file is empty");
    }

    proptest! {
        #[test]
        fn every_sentence_of_a_written_file_is_read_back(
            written in prop::collection::vec(prop::collection::vec((".{0,6}", 0..9u8), 0..5), 1..6),
            is_array in any::<bool>(),
        ) {
            let object = |pairs: &Vec<(String, u8)>| {
                let (words, tags): (Vec<&String>, Vec<u8>) =
                    pairs.iter().map(|(word, tag)| (word, *tag)).unzip();
                serde_json::json!({"tokens": words, "ner_tags": tags}).to_string()
            };
            let objects: Vec<String> = written.iter().map(object).collect();
            let (name, text) = match is_array {
                true => ("a.json", format!("[{}]", objects.join(",\n"))),
                false => ("a.jsonl", objects.join("\n")),
            };
            let shown = written.iter().zip(1..).map(|(pairs, line)| {
                let pairs: Vec<String> = pairs.iter().map(|(w, t)| format!("{w}/{t}")).collect();
                format!("{line}: {}", pairs.join(" "))
            });
            let shown = shown.collect::<Vec<_>>().join("; ");
            prop_assert_eq!(read_text(name, &text, ""), Ok(shown));
        }
    }
}
