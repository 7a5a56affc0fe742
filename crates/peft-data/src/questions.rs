//! Questions with the text that holds the answer: SQuAD's JSON, and JSON Lines.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, LabelColumn, Result};

/// An answer: a span of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// The byte of the text that it begins at.
    pub start: usize,
}

/// A question about a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub question: String,
    /// The text.
    pub context: String,
    /// The answers, any of which is right; none where the text holds none. `None` where they are not
    /// known.
    pub answers: Option<Vec<Answer>>,
}

/// Reads questions: SQuAD's JSON (`data`, `paragraphs`, `qas`), or objects with `question`,
/// `context` and `answers`, one a line or in one array. `answers` is SQuAD's list of objects with
/// `text` and `answer_start`, or the hub's object with a list of each; `answer_start` counts
/// characters, and may be left out where the text is to be searched for the answer.
///
/// # Errors
/// If the file is missing, not of that form, or an answer is not where it should be; the line, or
/// the question, is named.
pub fn read_questions(path: &Path, label: LabelColumn) -> Result<Vec<Question>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| Error::file(path, e))?;
    let text = text.trim_start_matches('\u{feff}');
    let questions = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) if fields.contains_key("data") => squad(path, &fields, label)?,
        Ok(Value::Array(rows)) => {
            let rows = rows.iter().enumerate();
            let of_row = |(number, row): (usize, &Value)| {
                let at = |reason| Error::file(path, format!("row {}: {reason}", number + 1));
                one(row, label).map_err(at)
            };
            rows.map(of_row).collect::<Result<_>>()?
        }
        _ => lines(path, text, label)?,
    };
    match questions.is_empty() {
        true => Err(Error::file(path, "no questions: the file is empty")),
        false => Ok(questions),
    }
}

fn lines(path: &Path, text: &str, label: LabelColumn) -> Result<Vec<Question>> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let of_line = |(line, number): (&str, u64)| {
        let row: Value = serde_json::from_str(line)
            .map_err(|e| Error::row(path, number, format!("not a JSON object: {e}")))?;
        one(&row, label).map_err(|reason| Error::row(path, number, reason))
    };
    lines.map(of_line).collect()
}

fn squad(path: &Path, fields: &Map<String, Value>, label: LabelColumn) -> Result<Vec<Question>> {
    let list = |fields: &Map<String, Value>, name: &str| match fields.get(name) {
        Some(Value::Array(list)) => Ok(list.clone()),
        _ => Err(Error::file(path, format!("{name} is not a list, as SQuAD has it"))),
    };
    let object = |value: Value, name: &str| match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::file(path, format!("{name} holds something that is no object"))),
    };
    let mut questions = Vec::new();
    for article in list(fields, "data")? {
        for paragraph in list(&object(article, "data")?, "paragraphs")? {
            let paragraph = object(paragraph, "paragraphs")?;
            for question in list(&paragraph, "qas")? {
                let mut row = object(question, "qas")?;
                let context = paragraph.get("context").cloned().unwrap_or_default();
                row.insert("context".into(), context);
                let name = row.get("id").or(row.get("question")).cloned().unwrap_or_default();
                let at = |reason| Error::file(path, format!("question {name}: {reason}"));
                questions.push(one(&Value::Object(row), label).map_err(at)?);
            }
        }
    }
    Ok(questions)
}

/// One question, or what is wrong with it.
fn one(row: &Value, label: LabelColumn) -> std::result::Result<Question, String> {
    let fields = row.as_object().ok_or("not a JSON object")?;
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{name:?} is {other}, not a text")),
        None => {
            let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
            Err(format!("no field {name:?}; there are: {}", keys.join(", ")))
        }
    };
    let (question, context) = (text("question")?, text("context")?);
    let found = fields.get("answers").filter(|_| label != LabelColumn::Ignored);
    let answers = match (found, label) {
        (Some(Value::Null) | None, LabelColumn::Required) => {
            return Err("no field \"answers\"".into());
        }
        (Some(Value::Null) | None, _) => None,
        (Some(answers), _) => Some(located(answers, &context)?),
    };
    Ok(Question { question, context, answers })
}

/// Answers with where they begin in `context`.
fn located(answers: &Value, context: &str) -> std::result::Result<Vec<Answer>, String> {
    const FORM: &str = "\"answers\" is neither a list of objects with text and answer_start, nor an \
                        object with a list of each";
    let pairs: Vec<(Value, Value)> = match answers {
        Value::Array(answers) => {
            let of = |answer: &Value| {
                let field = |name| answer.get(name).cloned().unwrap_or_default();
                answer.is_object().then(|| (field("text"), field("answer_start")))
            };
            answers.iter().map(of).collect::<Option<_>>().ok_or(FORM)?
        }
        Value::Object(lists) => {
            let list = |name: &str| match lists.get(name) {
                Some(Value::Array(list)) => Some(list.clone()),
                _ => None,
            };
            let texts = list("text").ok_or(FORM)?;
            let starts = list("answer_start").unwrap_or(vec![Value::Null; texts.len()]);
            if starts.len() != texts.len() {
                return Err(format!("{} answers, and {} answer_start", texts.len(), starts.len()));
            }
            texts.into_iter().zip(starts).collect()
        }
        _ => return Err(FORM.into()),
    };
    let mut located = Vec::new();
    for (text, start) in pairs {
        let Value::String(text) = text else { return Err(FORM.into()) };
        if text.is_empty() {
            return Err("an answer is empty: a text without an answer has an empty list".into());
        }
        let start = match &start {
            Value::Null => context.find(&text).ok_or(format!("{text:?} is not in the context"))?,
            Value::Number(number) => {
                let characters = number.as_u64().and_then(|number| usize::try_from(number).ok());
                let mut bytes = context.char_indices().map(|(byte, _)| byte);
                let byte = characters.and_then(|characters| bytes.nth(characters));
                byte.filter(|byte| context[*byte..].starts_with(&text)).ok_or(format!(
                    "answer_start = {number}: {text:?} is not there in the context"
                ))?
            }
            other => return Err(format!("answer_start = {other}: must be a number")),
        };
        located.push(Answer { text, start });
    }
    Ok(located)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, label: LabelColumn) -> Result<Vec<Question>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        std::fs::write(&path, content).expect("written");
        read_questions(&path, label)
    }

    #[test]
    fn every_form_says_the_same() {
        let answer = |text: &str, start| Answer { text: text.into(), start };
        let expected = [
            Question {
                question: "Where?".into(),
                context: "Né à Paris, in Paris.".into(),
                answers: Some(vec![answer("Paris", 7), answer("in Paris", 14)]),
            },
            Question {
                question: "When?".into(),
                context: "Né à Paris, in Paris.".into(),
                answers: Some(Vec::new()),
            },
        ];
        let list = r#"[{"text": "Paris", "answer_start": 5},
                       {"text": "in Paris", "answer_start": 12}]"#
            .replace('\n', " ");
        let context = "\"context\": \"Né à Paris, in Paris.\"";
        let where_ = format!("{{\"question\": \"Where?\", {context}, \"answers\": {list}}}");
        let when = format!("{{\"question\": \"When?\", {context}, \"answers\": []}}");
        let hub = format!(
            "{{\"id\": \"1\", \"question\": \"Where?\", {context}, \"answers\": \
             {{\"text\": [\"Paris\", \"in Paris\"], \"answer_start\": [5, 12]}}}}"
        );
        let none = when.replace("[]", "{\"text\": [], \"answer_start\": []}");
        let squad = format!(
            "{{\"version\": \"v2.0\", \"data\": [{{\"title\": \"t\", \"paragraphs\": [{{{context}, \
             \"qas\": [{{\"id\": \"1\", \"question\": \"Where?\", \"answers\": {list}}}, \
             {{\"id\": \"2\", \"question\": \"When?\", \"is_impossible\": true, \
             \"answers\": []}}]}}]}}]}}"
        );
        for content in [
            format!("{where_}\n\n{when}\n"),
            format!("\u{feff}{hub}\r\n{none}"),
            format!("[{where_},\n{none}]"),
            squad,
        ] {
            let found = read(&content, LabelColumn::Required).expect(&content);
            assert_eq!(found, expected, "{content}");
            let found = read(&content, LabelColumn::Ignored).expect(&content);
            assert!(found.iter().all(|question| question.answers.is_none()));
        }
        // Where it begins may be left out.
        let line = r#"{"question": "q", "context": "a b b", "answers": [{"text": "b"}]}"#;
        let found = read(line, LabelColumn::Required).expect("found by its text");
        assert_eq!(found[0].answers, Some(vec![answer("b", 2)]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let line = |answers: &str| {
            format!("{{\"question\": \"q\", \"context\": \"a b\", \"answers\": {answers}}}")
        };
        for (content, expected) in [
            (line("[{\"text\": \"b\", \"answer_start\": 1}]"), "line 1: answer_start = 1: \"b\""),
            (line("[{\"text\": \"b\", \"answer_start\": 99}]"), "answer_start = 99"),
            (line("[{\"text\": \"b\", \"answer_start\": -1}]"), "answer_start = -1"),
            (line("[{\"text\": \"c\"}]"), "\"c\" is not in the context"),
            (line("[{\"text\": \"\", \"answer_start\": 0}]"), "an answer is empty"),
            (line("\"b\""), "\"answers\" is neither"),
            (line("[\"b\"]"), "\"answers\" is neither"),
            (line("{\"text\": [\"b\"], \"answer_start\": []}"), "1 answers, and 0 answer_start"),
            ("{\"question\": \"q\", \"context\": \"c\"}".into(), "no field \"answers\""),
            ("{\"question\": \"q\"}".into(), "no field \"context\"; there are: question"),
            ("{\"question\": 1, \"context\": \"c\"}".into(), "\"question\" is 1"),
            ("question\tcontext\n".into(), "line 1: not a JSON object"),
            ("{\"data\": 1}".into(), "data is not a list"),
            ("{\"data\": [{\"paragraphs\": [3]}]}".into(), "paragraphs holds something"),
            (
                "{\"data\": [{\"paragraphs\": [{\"qas\": [{\"id\": \"x\", \"question\": \"q\"}]}]}]}"
                    .into(),
                "question \"x\": \"context\" is null",
            ),
            ("[1]".into(), "row 1: not a JSON object"),
            ("".into(), "no questions"),
        ] {
            let error = read(&content, LabelColumn::Required).expect_err(&content).to_string();
            assert!(error.contains(expected), "{content}: {error}");
        }
    }
}
