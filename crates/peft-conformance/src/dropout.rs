//! The fields of a configuration that are probabilities of dropout.

use serde_json::{Map, Value};

/// The probability that tests are run with.
pub(crate) const HALF: f64 = 0.5;

/// Fields with these set, where dots stand before fields of fields.
///
/// # Panics
/// If there is no such field.
pub(crate) fn set(mut fields: Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    for name in names {
        let mut parts = name.split('.').peekable();
        let mut inside = &mut fields;
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                inside.insert(part.into(), HALF.into());
                break;
            }
            let field = inside.get_mut(part).and_then(Value::as_object_mut);
            inside = field.unwrap_or_else(|| panic!("{name}: the configuration has no {part}"));
        }
    }
    fields
}

/// Fields with all set that are called a dropout; `None` where there are none.
pub(crate) fn set_all(mut fields: Map<String, Value>) -> Option<Map<String, Value>> {
    let mut found = false;
    for (name, value) in &mut fields {
        if name.contains("dropout") && value.is_number() {
            (*value, found) = (HALF.into(), true);
        }
    }
    found.then_some(fields)
}
