//! How much longer than a text its normalised form may be, by what a `tokenizer.json` says.

use serde::Deserialize;
use serde_json::Value;

/// The bytes that a text may become before it is cut into tokens, each of which takes about a
/// hundred of memory.
pub(super) const LONGEST: usize = 1 << 22;

/// The bytes of a text that counts as short: what is put before any text counts by these.
const SHORT: usize = 64;

/// How many times longer a decoder may make a text: more is no decoder's purpose.
const LARGEST_DECODER: f64 = 1024.0;

/// The parts that lengthen texts.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

/// How many bytes a byte of text may become in the normaliser of a file.
///
/// # Errors
/// What is wrong with a file that makes far more of a text than it is.
pub(super) fn of_file(json: &str) -> Result<f64, String> {
    let Parts { normalizer, decoder, added_tokens } =
        serde_json::from_str(json).map_err(|e| e.to_string())?;
    let growth = of_part(&normalizer).map_err(|reason| format!("normalizer: {reason}"))?;
    // Added tokens are normalised as soon as the file is read.
    let longest = added_tokens.iter().map(|token| token.content.len()).max().unwrap_or(1);
    if growth * longest.max(SHORT) as f64 > LONGEST as f64 {
        let reason = "normalizer: it may make";
        return Err(format!("{reason} {growth:.0} bytes of one, which is no normal form"));
    }
    let decoded = of_part(&decoder).map_err(|reason| format!("decoder: {reason}"))?;
    match decoded > LARGEST_DECODER {
        true => Err(format!("decoder: it may make {decoded:.0} bytes of one")),
        false => Ok(growth),
    }
}

/// The same for a part, which is known by its fields.
fn of_part(part: &Value) -> Result<f64, String> {
    let text = |field: &str| part.get(field).and_then(Value::as_str);
    if let Some(charsmap) = text("precompiled_charsmap") {
        return of_charsmap(charsmap);
    }
    if let Some(prepended) = text("prepend") {
        return Ok(1.0 + prepended.len() as f64 / SHORT as f64);
    }
    if let (Some(pattern), Some(content)) = (part.get("pattern"), text("content")) {
        let replaced = pattern.get("String").and_then(Value::as_str).map_or(0, str::len);
        let growth = match replaced {
            // A pattern may match nothing, between any two letters.
            0 => content.len() as f64 + 1.0,
            bytes => content.len() as f64 / bytes as f64,
        };
        return Ok(growth.max(1.0));
    }
    let parts = ["normalizers", "decoders"].iter().find_map(|parts| part.get(parts)?.as_array());
    parts.into_iter().flatten().try_fold(1.0, |all, part| Ok(all * of_part(part)?))
}

/// A SentencePiece normaliser: the size of a table, as many bytes of it, and what letters become,
/// each with a 0 behind it.
fn of_charsmap(base64: &str) -> Result<f64, String> {
    let bytes = from_base64(base64).ok_or("precompiled_charsmap: not Base64")?;
    let (size, rest) = bytes.split_first_chunk().ok_or("precompiled_charsmap: too short")?;
    let size = u32::from_le_bytes(*size) as usize;
    let pieces = rest.get(size / 4 * 4..).ok_or_else(|| {
        format!("precompiled_charsmap: a table of {size} bytes, where {} are there", rest.len())
    })?;
    if size < 4 {
        return Err("precompiled_charsmap: its table is empty".into());
    }
    let longest = pieces.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    Ok(longest.max(1) as f64)
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        digits.iter().position(|digit| *digit == letter)
    };
    let letters = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 3);
    for group in letters.chunks(4) {
        let bits = group.iter().try_fold(0, |bits, letter| Some(bits << 6 | digit(*letter)?))?;
        let bits = (bits << (6 * (4 - group.len()))) as u32;
        bytes.extend(&bits.to_be_bytes()[1..][..group.len() * 6 / 8]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn base64_is_read_at_any_length() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmE=", b"fooba"),
            ("+/8A", &[0xfb, 0xff, 0]),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(from_base64("Zm 9v"), None);
    }

    #[test]
    fn growth_is_the_product_of_what_the_parts_may_do() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let all = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
        let space = replace(json!({"String": " "}), "▁");
        for (normalizer, expected) in [
            (Value::Null, 1.0),
            (json!({"type": "NFC"}), 1.0),
            (space.clone(), 3.0),
            (replace(json!({"String": "aaaa"}), "b"), 1.0),
            (replace(json!({"String": ""}), "bb"), 3.0),
            (replace(json!({"Regex": " {2,}"}), "▁"), 4.0),
            (all(vec![json!({"type": "Prepend", "prepend": "▁".repeat(64)}), space]), 12.0),
            (all(vec![all(vec![replace(json!({"String": "a"}), "aa"); 3]); 2]), 64.0),
        ] {
            let file = json!({"normalizer": normalizer}).to_string();
            assert_eq!(of_file(&file), Ok(expected), "{file}");
        }
        let doubled = all(vec![replace(json!({"String": "a"}), "aa"); 30]);
        let error = of_file(&json!({"normalizer": doubled}).to_string()).expect_err("2^30");
        assert!(error.starts_with("normalizer: it may make 1073741824 bytes"), "{error}");
        let decoders = json!({"decoders": vec![replace(json!({"String": "a"}), "aa"); 30]});
        let error = of_file(&json!({"decoder": decoders}).to_string()).expect_err("2^30");
        assert!(error.starts_with("decoder: it may make"), "{error}");
        // A table said to be larger than the file.
        let charsmap = json!({"normalizer": {"precompiled_charsmap": "////fwAAAAA="}});
        let error = of_file(&charsmap.to_string()).expect_err("2^31").to_string();
        assert!(error.contains("a table of 2147483647 bytes, where 4 are there"), "{error}");
    }
}
