//! The tokenizer in a GGUF file.

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::Gguf;
use crate::{Error, Result};

/// How a text is cut before pairs are merged, by `tokenizer.ggml.pre`.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// GPT-2's words.
    Words,
    /// Each digit alone, then GPT-2's words.
    Digits,
    /// Llama 3's words; up to three digits stay together.
    Llama3,
    /// Qwen2's words, each digit alone.
    Qwen2,
    /// llama.cpp's for files that do not say.
    Unsaid,
}

const CUTS: &[(&str, Cut)] = &[
    ("gpt-2", Cut::Words),
    ("phi-2", Cut::Words),
    ("smollm", Cut::Digits),
    ("llama-bpe", Cut::Llama3),
    ("llama3", Cut::Llama3),
    ("llama-v3", Cut::Llama3),
    ("qwen2", Cut::Qwen2),
    ("deepseek-r1-qwen", Cut::Qwen2),
    ("default", Cut::Unsaid),
];

/// Kinds of tokens, `tokenizer.ggml.token_type`: those that a text may name as they are, and those
/// that are only there to fill up the vocabulary.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

impl Gguf {
    /// The file's tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file has none, or one of another kind, or a broken one.
    pub fn tokenizer_json(&self) -> Result<String> {
        tokenizer(self)?.to_string(true).map_err(|e| Error::file(self.path(), e))
    }
}

/// The tokenizer of a file: byte-level pair encoding, with Hugging Face's rules.
///
/// # Errors
/// If the file has none, or one of another kind, or a broken one.
pub(crate) fn tokenizer(gguf: &Gguf) -> Result<Tokenizer> {
    let broken = |e: &dyn std::fmt::Display| Error::file(gguf.path(), format!("tokenizer: {e}"));
    let model: &str = gguf.require("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(gguf.unsupported("tokenizer.ggml.model", model, "gpt2"));
    }
    let pre = gguf.get::<&str>("tokenizer.ggml.pre")?.unwrap_or("default");
    let cut = CUTS.iter().find(|(name, _)| *name == pre).map(|(_, cut)| *cut).ok_or_else(|| {
        let known: Vec<&str> = CUTS.iter().map(|(name, _)| *name).collect();
        gguf.unsupported("tokenizer.ggml.pre", pre, known.join(", "))
    })?;
    let tokens: Vec<&str> = gguf.require("tokenizer.ggml.tokens")?;
    let kinds: Vec<i32> = gguf.get("tokenizer.ggml.token_type")?.unwrap_or_default();
    let kind = |id: usize| kinds.get(id).copied().unwrap_or(1);
    let mut vocab = Vocab::default();
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| kind(*id) != UNUSED) {
        if vocab.insert((*token).into(), id as u32).is_some() {
            return Err(broken(&format!("the token {token:?} is there twice")));
        }
    }
    let merges = merges(gguf)?;
    // Llama 3 takes a word that is a token as it is.
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(cut == Cut::Llama3);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| broken(&e))?);
    let words = cut.pre_tokenizer().map_err(|e| broken(&e))?;
    tokenizer.with_pre_tokenizer(Some(words));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    if cut == Cut::Qwen2 {
        tokenizer.with_normalizer(Some(NFC));
    }
    for (id, token) in tokens.iter().enumerate() {
        let added = |special| AddedToken::from(*token, special).normalized(false);
        match kind(id) {
            CONTROL => tokenizer.add_special_tokens(&[added(true)]),
            USER_DEFINED => tokenizer.add_tokens(&[added(false)]),
            _ => 0,
        };
    }
    let around = around(gguf, cut, &tokens)?;
    if let Some(around) = around {
        tokenizer.with_post_processor(Some(around));
    }
    Ok(tokenizer)
}

/// `tokenizer.ggml.merges`: two tokens with a space between, which may itself begin with a space.
fn merges(gguf: &Gguf) -> Result<Merges> {
    let lines: Vec<&str> = gguf.require("tokenizer.ggml.merges")?;
    let merge = |line: &str| {
        let first = line.chars().next()?.len_utf8();
        let at = first + line.get(first..)?.find(' ')?;
        Some((line[..at].to_string(), line[at + 1..].to_string()))
    };
    let merges = lines.into_iter().map(|line| {
        let reason = || format!("tokenizer.ggml.merges: {line:?} is not two tokens");
        merge(line).ok_or_else(|| Error::file(gguf.path(), reason()))
    });
    merges.collect()
}

/// The tokens that the model expects at a text's beginning and end.
fn around(gguf: &Gguf, cut: Cut, tokens: &[&str]) -> Result<Option<TemplateProcessing>> {
    let token = |name: &str, add: bool| {
        let add = gguf.get::<bool>(&format!("tokenizer.ggml.add_{name}_token"))?.unwrap_or(add);
        if !add {
            return Ok(None);
        }
        let key = format!("tokenizer.ggml.{name}_token_id");
        let id: u32 = gguf.require(&key)?;
        let token = tokens.get(id as usize).map(|token| ((*token).to_string(), id));
        token.map(Some).ok_or_else(|| Error::file(gguf.path(), format!("{key}: no token {id}")))
    };
    let (first, last) = (token("bos", cut == Cut::Llama3)?, token("eos", false)?);
    if first.is_none() && last.is_none() {
        return Ok(None);
    }
    let broken = |e: &dyn std::fmt::Display| Error::file(gguf.path(), format!("tokenizer: {e}"));
    let part = |text: &str, segment: usize| {
        let around = |token: &Option<(String, u32)>| {
            token.iter().map(|(token, _)| format!("{token}:{segment}")).collect::<Vec<_>>()
        };
        [around(&first), vec![format!("${text}:{segment}")], around(&last)].concat()
    };
    let special: Vec<(String, u32)> = first.iter().chain(&last).cloned().collect();
    let template = TemplateProcessing::builder()
        .try_single(part("A", 0))
        .map_err(|e| broken(&e))?
        .try_pair([part("A", 0), part("B", 1)].concat())
        .map_err(|e| broken(&e))?
        .special_tokens(special)
        .build();
    template.map(Some).map_err(|e| broken(&e))
}

impl Cut {
    fn pre_tokenizer(self) -> tokenizers::Result<PreTokenizerWrapper> {
        let bytes = |words: bool| PreTokenizerWrapper::from(ByteLevel::new(false, true, words));
        let cuts = match self {
            Self::Words => return Ok(bytes(true)),
            Self::Digits => vec![Digits::new(true).into(), bytes(true)],
            Self::Llama3 => vec![split(&words(r"\p{N}{1,3}"))?, bytes(false)],
            Self::Qwen2 => vec![split(&words(r"\p{N}"))?, bytes(false)],
            Self::Unsaid => vec![
                split(r"[\p{P}\$\+<=>\^~\|]+")?,
                split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)")?,
                split(r"\p{N}+")?,
                split("[0-9][0-9][0-9]")?,
                bytes(false),
            ],
        };
        Ok(Sequence::new(cuts).into())
    }
}

/// Llama 3's and Qwen2's pattern, which differ in what they do with numbers.
fn words(numbers: &str) -> String {
    let parts = [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        numbers,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ];
    parts.join("|")
}

fn split(pattern: &str) -> tokenizers::Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.into());
    Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into())
}
