//! Texts made of a row's columns.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A text with places for columns: `Meaning: {mr} Text:`. `{{` and `}}` are braces.
///
/// What a column holds is put in as it is: braces in it mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

impl FromStr for Template {
    type Err = Error;

    /// # Errors
    /// If a brace has no partner, or a column no name; the position is named.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut letters = (1..).zip(text.chars()).peekable();
        while let Some((place, letter)) = letters.next() {
            let wrong = |reason: &str| {
                let reason = format!("character {place}: {reason}");
                Err(Error::setting("template", text, reason))
            };
            match letter {
                '{' | '}' if letters.next_if(|&(_, next)| next == letter).is_some() => {
                    plain.push(letter);
                }
                '}' => return wrong("this } closes nothing; a brace in the text is }}"),
                '{' => {
                    let mut name = String::new();
                    while let Some((_, letter)) = letters.next_if(|(_, l)| !"{}".contains(*l)) {
                        name.push(letter);
                    }
                    if letters.next_if(|&(_, next)| next == '}').is_none() {
                        return wrong("this { is not closed; a brace in the text is {{");
                    }
                    if name.is_empty() {
                        return wrong("{} names no column");
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Column(name));
                }
                _ => plain.push(letter),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }
}

impl Template {
    /// The names of the columns, in the order of the text.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Column(name) => Some(name.as_str()),
        })
    }

    /// The text with these columns, each a name with what it holds.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn render(&self, columns: &[(&str, &str)]) -> Result<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Column(name) => match columns.iter().find(|(column, _)| column == name) {
                    Some((_, value)) => text.push_str(value),
                    None => {
                        let names: Vec<&str> = columns.iter().map(|(column, _)| *column).collect();
                        let reason = format!("no column {name:?}; there are: {}", names.join(", "));
                        return Err(Error::setting("template", self, reason));
                    }
                },
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(plain) => write!(f, "{}", plain.replace('{', "{{").replace('}', "}}")),
            Part::Column(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [(&str, &str); 3] = [("mr", "a {b} {{c}}"), ("ref", ""), ("two words", "č")];

    #[track_caller]
    fn check(template: &str, text: &str) {
        let parsed: Template = template.parse().unwrap();
        assert_eq!(parsed.render(&COLUMNS).unwrap(), text);
        let json = serde_json::to_string(&parsed).unwrap();
        assert_eq!(json, serde_json::to_string(template).unwrap());
        assert_eq!(serde_json::from_str::<Template>(&json).unwrap(), parsed);
    }

    #[test]
    fn columns_are_put_in_as_they_are() {
        check("", "");
        check("Meaning: {mr} Text:", "Meaning: a {b} {{c}} Text:");
        check("{mr}{ref}{two words}", "a {b} {{c}}č");
        check("{{mr}} {{{ref}}} }}{{ {{{{", "{mr} {} }{ {{");
        check("{mr}}}", "a {b} {{c}}}");
        let template: Template = "{ref} {mr} {{x}} {ref}".parse().unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["ref", "mr", "ref"]);
    }

    #[track_caller]
    fn refused(template: &str, message: &str) {
        let result = template.parse::<Template>().and_then(|parsed| parsed.render(&COLUMNS));
        assert_eq!(result.unwrap_err().to_string(), format!("template = {template}: {message}"));
    }

    #[test]
    fn what_is_wrong_and_where() {
        let open = "this { is not closed; a brace in the text is {{";
        refused("žž{mr", &format!("character 3: {open}"));
        refused("{mr{ref}", &format!("character 1: {open}"));
        refused("{{{", &format!("character 3: {open}"));
        let closed = "this } closes nothing; a brace in the text is }}";
        refused("{mr} }", &format!("character 6: {closed}"));
        refused("}}}", &format!("character 3: {closed}"));
        refused("a {}", "character 3: {} names no column");
        refused("{{a}} {MR}", "no column \"MR\"; there are: mr, ref, two words");
        assert!(serde_json::from_str::<Template>("\"{\"").is_err());
    }
}
