//! Tokenizer files that are broken, and texts that are too long: errors in little memory, no panics.

use peft_models::{Error, TextTokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

fn directory(content: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("tokenizer.json"), content).expect("written");
    directory
}

fn load(content: &Value, max_tokens: usize) -> Result<TextTokenizer, Error> {
    TextTokenizer::load(directory(&content.to_string()).path(), max_tokens)
}

/// A tokenizer of letters, with everything that a file can have.
fn whole() -> Value {
    let token = |content: &str, id: u32| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": true, "special": true})
    };
    json!({
        "version": "1.0",
        "added_tokens": [token("<s>", 0), token("</s>", 1)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
            {"type": "Prepend", "prepend": "_"},
        ]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a-z]+|_"},
                          "behavior": "Isolated", "invert": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "unk_token": "?", "byte_fallback": true,
                  "vocab": {"<s>": 0, "</s>": 1, "?": 2, "_": 3, "a": 4, "b": 5, "ab": 6},
                  "merges": [["a", "b"]]},
    })
}

/// SentencePiece's, with a table that makes nothing else of any letter.
fn pieces() -> Value {
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    json!({
        "version": "1.0",
        "added_tokens": [],
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 1,
                       "direction": "Right"},
        "padding": {"strategy": {"Fixed": 1u64 << 40}, "direction": "Right",
                    "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAB4AA=="},
            {"type": "Strip", "strip_left": true, "strip_right": true},
            {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "Nmt"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, metaspace,
            {"type": "Punctuation", "behavior": "Isolated"},
            {"type": "Digits", "individual_digits": true}, {"type": "UnicodeScripts"},
        ]},
        "post_processor": null,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
                  "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["b", -2.5], ["▁a", -1.5]]},
    })
}

/// BERT's.
fn word_pieces() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["s", 1], "cls": ["c", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"u": 0, "s": 1, "c": 2, "a": 3, "##b": 4}},
    })
}

/// GPT-2's and RoBERTa's.
fn bytes() -> Value {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                            "use_regex": true});
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": byte_level,
        "pre_tokenizer": byte_level,
        "post_processor": {"type": "RobertaProcessing", "sep": ["s", 1], "cls": ["c", 2],
                           "trim_offsets": true, "add_prefix_space": true},
        "decoder": {"type": "Sequence", "decoders": [
            byte_level,
            {"type": "BPEDecoder", "suffix": "</w>"},
            {"type": "CTC", "pad_token": "s", "word_delimiter_token": "|", "cleanup": true},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "ignore_merges": false,
                  "vocab": {"u": 0, "s": 1, "c": 2, "a": 3, "b": 4, "ab": 5, "Ġ": 6},
                  "merges": ["a b"]},
    })
}

/// Uses a tokenizer in every way; nothing of it may panic.
fn use_all(tokenizer: &TextTokenizer) {
    let text = "ab é a 日".to_string();
    let _ = tokenizer.encode(&[(text.clone(), None)]);
    let _ = tokenizer.encode(&[(text.clone(), Some(text.clone()))]);
    let _ = tokenizer.encode_plain(&[text.clone(), String::new()]);
    let _ = tokenizer.encode_words(&[vec![text.clone(), String::new()]]);
    let texts = [text];
    let _ = tokenizer.encode_targets(&texts);
    let _ = tokenizer.unwritable(&texts);
    for ids in [&[][..], &[0, 4, 5, 6], &[3, 7, u32::MAX, 1 << 31]] {
        let _ = tokenizer.decode(ids);
    }
}

/// The value at each place within a value.
fn places(value: &Value) -> Vec<String> {
    let inner = |key: String, value: &Value| {
        let key = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        let below = places(value).into_iter().map(|below| format!("{key}{below}"));
        [key.clone()].into_iter().chain(below).collect::<Vec<_>>()
    };
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| inner(key.clone(), value)).collect()
        }
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(i, value)| inner(i.to_string(), value)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_file_with_any_other_value_is_an_error_or_a_tokenizer() {
    let definitions = [whole(), pieces(), word_pieces(), bytes()];
    let others = [
        Value::Null,
        json!(0),
        json!(-1),
        json!(1u64 << 31),
        json!(u64::MAX),
        json!(""),
        json!("(?=a)*+[^"),
        json!([]),
        json!({}),
        json!("a".repeat(300)),
    ];
    for whole in definitions {
        use_all(&load(&whole, 16).unwrap_or_else(|e| panic!("{e}: {whole}")));
        for place in places(&whole) {
            for other in &others {
                let mut changed = whole.clone();
                *changed.pointer_mut(&place).expect("a place") = other.clone();
                match load(&changed, 16) {
                    Ok(tokenizer) => use_all(&tokenizer),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_off_is_an_error_that_names_it() {
    let text = whole().to_string();
    for end in 0..text.len() {
        let directory = directory(&text[..end]);
        let error = TextTokenizer::load(directory.path(), 16).expect_err("cut off").to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_normaliser_that_makes_far_more_of_a_text_is_refused() {
    let doubled = |times: usize| {
        let mut file = whole();
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        file["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; times]});
        file
    };
    // As soon as added tokens are normalised, when the text would be too long, or not at all.
    let error = load(&doubled(40), 16).expect_err("2^40").to_string();
    assert!(error.contains("normalizer: it may make 1099511627776 bytes of one"), "{error}");
    let tokenizer = load(&doubled(14), usize::MAX).expect("2^14");
    assert!(tokenizer.encode(&[("aaaa".into(), None)]).is_ok());
    let texts = [("b".into(), None), ("a".repeat(1 << 12), None)];
    let error = tokenizer.encode(&texts).expect_err("2^26 bytes").to_string();
    assert!(error.starts_with("input: text 2 (\"aaaa"), "{error}");
    assert!(error.ends_with("too long, at most 256 bytes can be encoded"), "{error}");
    // Less of the text is enough for fewer tokens.
    let tokenizer = load(&doubled(10), 16).expect("2^10");
    assert_eq!(tokenizer.encode(&[("a".repeat(1 << 20), None)]).expect("cut")[0].ids.len(), 16);
}

#[test]
fn a_template_that_holds_a_text_twice_makes_no_text_longer_than_it_may_be() {
    let mut file = whole();
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [text("A")],
        "pair": [text("A"), text("B"), text("B")],
        "special_tokens": {},
    });
    let tokenizer = load(&file, 8).expect("it can be used for short texts");
    let pair = |second: String| [("a".into(), Some(second))];
    let short = tokenizer.encode(&pair("b".into())).expect("it is short");
    assert!((3..=8).contains(&short[0].ids.len()));
    let error = tokenizer.encode(&pair("b ".repeat(20))).expect_err("cut, and then doubled");
    assert!(error.to_string().contains("tokens of a text that is cut to 8"), "{error}");
}

#[test]
fn a_long_text_is_encoded_as_its_beginning_is() {
    let words = ["ab", "b", "日本", "", "a-b"];
    let text = |bytes: usize| {
        let words = (0..).map(|i: usize| words[i * i % words.len()]);
        let mut all = String::new();
        words.take(bytes / 2).for_each(|word| all.extend([word, " "]));
        all
    };
    for max_tokens in [4, 16, 300] {
        let tokenizer = load(&whole(), max_tokens).expect("a tokenizer");
        let (short, long) = (text(max_tokens * 16), text(8 << 20));
        let encoded =
            tokenizer.encode(&[(short.clone(), None), (long.clone(), None)]).expect("two texts");
        assert_eq!(encoded[0], encoded[1]);
        assert!(encoded[1].truncated);
        let split = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let words = tokenizer.encode_words(&[split(&short), split(&long)]).expect("sentences");
        assert_eq!(words[0], words[1]);
        assert_eq!(tokenizer.encode_targets(&[long]).expect("a text")[0].ids.len(), max_tokens);
    }
    // Nothing but spaces before the first word: more is read until there is one.
    let tokenizer = load(
        &json!({
            "version": "1.0", "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
        }),
        4,
    )
    .expect("a tokenizer");
    let far = format!("{}a a", " ".repeat(1 << 20));
    assert_eq!(tokenizer.encode(&[(far, None)]).expect("two words")[0].ids, [0, 0]);
    let too_far = format!("{}a", " ".repeat(1 << 25));
    let error = tokenizer.encode(&[(too_far, None)]).expect_err("32 MiB").to_string();
    assert!(error.contains("too long, at most 4194304 bytes"), "{error}");
}
