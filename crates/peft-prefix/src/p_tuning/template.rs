//! Where virtual tokens go.

use peft_core::{Base, Error, Result};
use serde::{Deserialize, Serialize};

use crate::model::words;

/// A part of P-tuning's template.
///
/// ```
/// use peft_prefix::PromptPart;
/// // [CLS], three virtual tokens, token 1029, the rest of the text, two virtual tokens
/// let template = r#"["bos", {"virtual": 3}, {"anchor": [1029]}, "text", {"virtual": 2}]"#;
/// let template: Vec<PromptPart> = serde_json::from_str(template)?;
/// assert_eq!(template[1], PromptPart::Virtual(3));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptPart {
    /// The next virtual tokens, this many.
    Virtual(usize),
    /// Tokens of the vocabulary with their own, frozen embeddings (anchor tokens, section 3.2 of
    /// the paper).
    Anchor(Vec<usize>),
    /// The first token of the text.
    Bos,
    /// The text, without its first token if `bos` is in the template. The parts after it stand next
    /// to its last token, before any padding.
    Text,
}

/// Checks what can be checked without a model.
pub(super) fn validate(template: &[PromptPart], virtual_tokens: usize) -> Result<()> {
    let shown = serde_json::to_string(template).unwrap_or_default();
    let wrong = |expected: String| Err(Error::config("template", &shown, expected));
    let count = |of: &PromptPart| template.iter().filter(|part| *part == of).count();
    if count(&PromptPart::Text) != 1 {
        return wrong("must hold \"text\" once".into());
    }
    if count(&PromptPart::Bos) > 1 {
        return wrong("may hold \"bos\" once".into());
    }
    let place = |of: &PromptPart| template.iter().position(|part| part == of);
    if place(&PromptPart::Bos) > place(&PromptPart::Text) {
        return wrong("must hold \"bos\" before \"text\"".into());
    }
    let mut sum = 0_usize;
    for part in template {
        match part {
            PromptPart::Virtual(0) => return wrong("a group of virtual tokens is empty".into()),
            PromptPart::Virtual(tokens) => sum = sum.saturating_add(*tokens),
            PromptPart::Anchor(ids) if ids.is_empty() => {
                return wrong("an anchor has no tokens".into());
            }
            _ => {}
        }
    }
    if sum != virtual_tokens {
        return wrong(format!(
            "holds {sum} virtual tokens, but num_virtual_tokens is {virtual_tokens}"
        ));
    }
    Ok(())
}

/// The tokens of all anchors, in their order.
pub(super) fn anchors(template: &[PromptPart], base: &Base) -> Result<Vec<usize>> {
    let ids = template.iter().flat_map(|part| match part {
        PromptPart::Anchor(ids) => ids.as_slice(),
        _ => &[],
    });
    let ids: Vec<usize> = ids.copied().collect();
    let vocabulary = words(base).map_or(0, |site| site.d_in());
    match ids.iter().find(|id| **id >= vocabulary) {
        Some(outside) => Err(Error::config(
            "template",
            format!("{{\"anchor\": [{outside}]}}"),
            format!("the model's vocabulary has {vocabulary} entries, from 0"),
        )),
        None => Ok(ids),
    }
}
