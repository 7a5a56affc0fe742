//! BERT's tokenizer, from its `vocab.txt`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use serde_json::Map;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::{Error, Result, config};

/// What `tokenizer_config.json` says; names and defaults as there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    do_lower_case: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
    additional_special_tokens: Option<Vec<Token>>,
    /// By index.
    added_tokens_decoder: BTreeMap<String, Token>,
}

/// A token that texts may name, alone or with how it is found in them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Full(FullToken),
}

#[derive(Debug, Clone, Default, Deserialize)]
struct FullToken {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    special: bool,
}

impl From<Token> for FullToken {
    fn from(token: Token) -> Self {
        match token {
            Token::Text(content) => Self { content, ..Self::default() },
            Token::Full(token) => token,
        }
    }
}

impl FullToken {
    fn added(&self, special: bool) -> AddedToken {
        AddedToken::from(self.content.as_str(), special)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .single_word(self.single_word)
            .normalized(!special)
    }
}

impl Settings {
    fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::file(path, e)),
        };
        let fields: Map<_, _> = serde_json::from_str(&text).map_err(|e| Error::file(path, e))?;
        config::read(&fields, path)
    }
}

/// The tokenizer of a `vocab.txt` and the settings beside it.
pub(super) fn load(vocab: &Path, settings: &Path) -> Result<Tokenizer> {
    let broken = |e: &dyn std::fmt::Display| Error::file(vocab, e);
    let found = Settings::load(settings)?;
    let named = |token: Option<Token>, name: &str| {
        FullToken::from(token.unwrap_or_else(|| Token::Text(name.into())))
    };
    let unknown = named(found.unk_token, "[UNK]");
    let (sep, cls) = (named(found.sep_token, "[SEP]"), named(found.cls_token, "[CLS]"));
    let others = [named(found.pad_token, "[PAD]"), named(found.mask_token, "[MASK]")];
    let path = vocab.to_str().ok_or_else(|| broken(&"the path is not UTF-8"))?;
    let model = WordPiece::from_file(path).unk_token(unknown.content.clone());
    let mut tokenizer = Tokenizer::new(model.build().map_err(|e| broken(&e))?);
    let chinese = found.tokenize_chinese_chars.unwrap_or(true);
    let lower_case = found.do_lower_case.unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, found.strip_accents, lower_case);
    tokenizer.with_normalizer(Some(normalizer));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let with_id = |token: &FullToken| {
        let id = tokenizer.token_to_id(&token.content);
        id.map(|id| (token.content.clone(), id))
            .ok_or_else(|| broken(&format!("no {}", token.content)))
    };
    let processing = BertProcessing::new(with_id(&sep)?, with_id(&cls)?);
    tokenizer.with_post_processor(Some(processing));
    // A text may name them.
    let more = found.additional_special_tokens.into_iter().flatten().map(FullToken::from);
    for token in [unknown, sep, cls].into_iter().chain(others).chain(more) {
        if tokenizer.token_to_id(&token.content).is_some() {
            tokenizer.add_special_tokens(&[token.added(true)]);
        }
    }
    let mut listed = Vec::new();
    for (index, token) in found.added_tokens_decoder {
        let index: u32 = index.parse().map_err(|_| {
            Error::file(settings, format!("added_tokens_decoder: {index:?} is no index of a token"))
        })?;
        listed.push((index, FullToken::from(token)));
    }
    listed.sort_by_key(|(index, _)| *index);
    for (index, token) in listed {
        match token.special {
            true => tokenizer.add_special_tokens(&[token.added(true)]),
            false => tokenizer.add_tokens(&[token.added(false)]),
        };
        if tokenizer.token_to_id(&token.content) != Some(index) {
            let reason = format!("has index {index} in added_tokens_decoder, and another here");
            return Err(Error::added_token(&token.content, reason));
        }
    }
    Ok(tokenizer)
}
