//! Keys as other writers have them, in HF PEFT's terms.

use std::collections::BTreeSet;

use peft_core::TensorMap;

/// The most components of a key that a writer may have put before it.
const LONGEST_PREFIX: usize = 4;

/// Without what compiling a model, or saving its whole state, leaves in the keys: `_orig_mod.`, and
/// the name `default` of the adapter.
pub(crate) fn unwrapped(tensors: TensorMap) -> TensorMap {
    tensors.into_iter().map(|(key, data)| (plain(&key), data)).collect()
}

fn plain(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').filter(|part| *part != "_orig_mod").collect();
    let mut plain: Vec<&str> = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let of_method = parts[..place].last().is_some_and(|before| before.starts_with("lora_"));
        if !(of_method && *part == "default") {
            plain.push(part);
        }
    }
    // A vector is a parameter, not a layer, since HF PEFT 0.9.
    if let [.., "lora_magnitude_vector", "weight"] = plain[..] {
        plain.pop();
    }
    plain.join(".")
}

/// A prefix that all keys of a file have, and what should be in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    /// What the keys begin with.
    pub found: String,
    /// What they should begin with.
    pub expected: String,
}

impl Prefix {
    /// The key under the prefix that it should have.
    pub(crate) fn replaced_in(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.found).map(|rest| format!("{}{rest}", self.expected))
    }
}

/// The one exchange of prefixes by which all `expected` keys are among those `found`; `None` where some
/// keys agree as they are, where there is none, or where several would do.
pub(crate) fn other_prefix(found: &BTreeSet<&str>, expected: &BTreeSet<&str>) -> Option<Prefix> {
    if !found.is_disjoint(expected) {
        return None;
    }
    let [first, wanted] = [found.first()?, expected.first()?];
    let mut fitting = BTreeSet::new();
    for old in beginnings(first) {
        for new in beginnings(wanted) {
            // A component that both end with belongs to the rest.
            if !old.is_empty() && last(old) == last(new) {
                continue;
            }
            let prefix = Prefix { found: old.into(), expected: new.into() };
            let renamed: BTreeSet<String> =
                found.iter().filter_map(|key| prefix.replaced_in(key)).collect();
            if expected.iter().all(|key| renamed.contains(*key)) {
                fitting.insert(prefix);
            }
        }
    }
    match fitting.len() {
        1 => fitting.pop_first(),
        _ => None,
    }
}

/// The last component of a prefix.
fn last(prefix: &str) -> Option<&str> {
    prefix.trim_end_matches('.').rsplit('.').next()
}

/// Nothing, and the first components of a key with their dots.
fn beginnings(key: &str) -> impl Iterator<Item = &str> {
    let dots = key.match_indices('.').map(|(place, _)| place + 1);
    [0].into_iter().chain(dots).take(LONGEST_PREFIX + 1).map(|end| &key[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compiling_and_whole_states_leave_in_keys_is_taken_out() {
        for (key, expected) in [
            ("_orig_mod.base_model.model.q.lora_A.weight", "base_model.model.q.lora_A.weight"),
            ("base_model.model._orig_mod.q.lora_A.weight", "base_model.model.q.lora_A.weight"),
            ("base_model.model.q.lora_A.default.weight", "base_model.model.q.lora_A.weight"),
            ("q.lora_magnitude_vector.default.weight", "q.lora_magnitude_vector"),
            ("q.lora_magnitude_vector.weight", "q.lora_magnitude_vector"),
            ("q.lora_embedding_A.default", "q.lora_embedding_A"),
            // A module of this name is none of the adapter's.
            ("base_model.model.default.lora_A.weight", "base_model.model.default.lora_A.weight"),
        ] {
            assert_eq!(plain(key), expected);
        }
    }

    fn exchanged(found: &[&str], expected: &[&str]) -> Option<(String, String)> {
        let [found, expected] = [found, expected].map(|keys| keys.iter().copied().collect());
        other_prefix(&found, &expected).map(|prefix| (prefix.found, prefix.expected))
    }

    #[test]
    fn a_prefix_that_all_keys_have_is_found_out() {
        let expected =
            ["base_model.model.model.layers.0.q.a", "base_model.model.model.layers.1.q.a"];
        let with = |prefix: &str| {
            let found = [0, 1].map(|layer| format!("{prefix}layers.{layer}.q.a"));
            exchanged(&found.each_ref().map(String::as_str), &expected)
        };
        let pair = |found: &str, expected: &str| Some((found.to_string(), expected.to_string()));
        assert_eq!(with(""), pair("", "base_model.model.model."));
        assert_eq!(with("model."), pair("", "base_model.model."));
        assert_eq!(with("language_model.model."), pair("language_model.", "base_model.model."));
        let other = "base_model.model.language_model.model.";
        assert_eq!(with(other), pair("base_model.model.language_model.", "base_model.model."));
    }

    #[test]
    fn keys_that_fit_in_part_or_in_two_ways_are_left() {
        let expected = ["base.layers.0.q", "base.layers.1.q"];
        assert_eq!(exchanged(&["layers.0.q", "layers.7.q"], &expected), None);
        assert_eq!(exchanged(&["base.layers.0.q", "x.layers.1.q"], &expected), None);
        assert_eq!(exchanged(&["x.q"], &["a.q", "b.q"]), None);
    }
}
