//! Tokenizers of letters, from the tables of a `config.json`.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, Tokenizer};

use crate::{Error, Result};

/// The fields with the letters of what is read, and of what is written.
const TABLES: [&str; 2] = ["grapheme_chars", "phoneme_chars"];

/// What stands in a table for each of [`SPECIAL`].
const PLACEHOLDER: char = '_';

/// The first tokens of a table: padding, the begin and the end of a text, and what is not in the
/// table.
const SPECIAL: [&str; 4] = ["<pad>", "<s>", "</s>", UNKNOWN];
const UNKNOWN: &str = "<unk>";

/// The tokenizers of what a model reads and of what it writes, if `fields` has the tables of both: a
/// letter's place in its table is its token index.
///
/// # Errors
/// If a table is broken.
pub(super) fn tokenizers(
    fields: &Map<String, Value>,
    path: &Path,
) -> Result<Option<[Tokenizer; 2]>> {
    if TABLES.iter().any(|table| !fields.contains_key(*table)) {
        return Ok(None);
    }
    let [read, written] = TABLES.map(|table| {
        let broken = |reason: String| Error::file(path, format!("{table}: {reason}"));
        let letters = fields[table].as_str().ok_or_else(|| broken("is no string".into()))?;
        tokenizer(letters).map_err(broken)
    });
    Ok(Some([read?, written?]))
}

fn tokenizer(letters: &str) -> std::result::Result<Tokenizer, String> {
    let mut rest = letters.chars();
    if !SPECIAL.iter().all(|_| rest.next() == Some(PLACEHOLDER)) {
        let places = PLACEHOLDER.to_string().repeat(SPECIAL.len());
        return Err(format!("must begin with {places}, the places of {}", SPECIAL.join(", ")));
    }
    let mut vocab: Vocab =
        SPECIAL.iter().zip(0..).map(|(token, id)| (token.to_string(), id)).collect();
    for (letter, id) in rest.zip(SPECIAL.len() as u32..) {
        if vocab.insert(letter.into(), id).is_some() {
            return Err(format!("{letter:?} is there twice"));
        }
    }
    let mut tokenizer = Tokenizer::new(model(vocab)?);
    tokenizer.with_decoder(Some(DecoderWrapper::Fuse(Default::default())));
    let special = SPECIAL.map(|token| AddedToken::from(token, true).normalized(false));
    tokenizer.add_special_tokens(&special);
    let around = TemplateProcessing::builder()
        .try_single("<s> $A </s>")
        .and_then(|around| around.try_pair("<s> $A </s> $B </s>"))?
        .special_tokens(vec![("<s>", 1), ("</s>", 2)])
        .build()
        .map_err(|e| e.to_string())?;
    tokenizer.with_post_processor(Some(around));
    Ok(tokenizer)
}

/// Pairs of which none is merged: every letter is a token.
fn model(vocab: Vocab) -> std::result::Result<BPE, String> {
    let pairs = BPE::builder().vocab_and_merges(vocab, Vec::new()).unk_token(UNKNOWN.into());
    pairs.build().map_err(|e| e.to_string())
}

/// Gives a token a place of its own in the table of such a tokenizer.
pub(super) fn extend(
    tokenizer: &mut Tokenizer,
    token: &str,
    id: u32,
) -> std::result::Result<(), String> {
    let ModelWrapper::BPE(pairs) = tokenizer.get_model() else {
        unreachable!("letters are made into pairs")
    };
    let mut vocab: Vocab = pairs.get_vocab().into_iter().collect();
    vocab.insert(token.into(), id);
    tokenizer.with_model(model(vocab)?);
    Ok(())
}
