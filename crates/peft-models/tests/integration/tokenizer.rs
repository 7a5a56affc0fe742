//! Tokenizers of letters, and tokens added to those of files.

use std::path::Path;

use peft_models::{ADDED_TOKENS, AddedTokens, TextTokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with the tables of a model that reads `abc` and writes `xyz`: `z` is of both.
fn letters() -> TempDir {
    directory("config.json", &json!({"grapheme_chars": "____zabc", "phoneme_chars": "____zxy"}))
}

fn directory(name: &str, content: &Value) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(name), content.to_string()).expect("written");
    directory
}

fn load(directory: &Path) -> TextTokenizer {
    TextTokenizer::load(directory, 16).expect("a tokenizer")
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn read(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(&[(text.into(), None)]).expect("a text").remove(0).ids
}

fn written(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_targets(&[text.into()]).expect("a text").remove(0).ids
}

#[test]
fn a_letter_is_its_place_in_the_table_of_what_is_read_or_written() {
    let tokenizer = load(letters().path());
    assert_eq!(read(&tokenizer, "cab"), [1, 7, 5, 6, 2]);
    assert_eq!(written(&tokenizer, "yxz"), [1, 6, 5, 4, 2]);
    // A letter of the other table, and one of none, a blank too.
    assert_eq!(read(&tokenizer, "xz ö"), [1, 3, 4, 3, 3, 2]);
    assert_eq!(written(&tokenizer, "az"), [1, 3, 4, 2]);
    let pair = tokenizer.encode(&[("a".into(), Some("b".into()))]).expect("a pair").remove(0);
    assert_eq!(pair.ids, [1, 5, 2, 6, 2]);
    assert_eq!(tokenizer.decode(&[1, 5, 5, 6, 4, 2, 0]).expect("tokens"), "xxyz");
    let unwritable = tokenizer.unwritable(&strings(&["xax", "aéy"])).expect("texts");
    let expected = [("a".to_string(), 2), ("é".to_string(), 1)];
    assert_eq!(unwritable.into_iter().collect::<Vec<_>>(), expected);
    let short = TextTokenizer::load(letters().path(), 4).expect("a tokenizer");
    assert_eq!(written(&short, "xyz"), [1, 5, 6, 2]);
}

#[test]
fn letters_are_added_to_what_is_written() {
    let directory = letters();
    let tokenizer = load(directory.path());
    let tokens = strings(&["ː", "a", "y", "sh", "ː"]);
    let added = AddedTokens::assign(&tokens, &tokenizer, 11).expect("three indices are free");
    assert_eq!(added.by_index(), [(8, "ː"), (9, "a"), (10, "sh")]);
    let more = tokenizer.clone().with_added(&added, 11).expect("they are free");
    assert_eq!(written(&more, "aːxshx"), [1, 9, 8, 5, 10, 5, 2]);
    assert_eq!(more.decode(&[1, 9, 8, 5, 10, 2]).expect("tokens"), "aːxsh");
    // What is read stays, but for letters that could not be.
    assert_eq!(read(&more, "cabː"), [1, 7, 5, 6, 8, 2]);
    assert!(more.unwritable(&strings(&["aːx"])).expect("texts").is_empty());

    // A directory with the file has the tokens, and another directory's can join them.
    added.save(directory.path()).expect("written");
    let text = std::fs::read_to_string(directory.path().join(ADDED_TOKENS)).expect("a file");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json, json!({"ː": 8, "a": 9, "sh": 10}));
    assert_eq!(AddedTokens::load(directory.path()).expect("a file"), added);
    let again = load(directory.path());
    assert_eq!(written(&again, "aːx"), [1, 9, 8, 5, 2]);
    assert_eq!(again.with_added(&added, 11).map(|t| written(&t, "sh")).expect("same"), [1, 10, 2]);
    assert!(AddedTokens::default().save(letters().path()).is_ok());
}

#[test]
fn tokens_that_do_not_fit_are_named() {
    let tokenizer = load(letters().path());
    let assign = |tokens: &[&str], rows| {
        let assigned = AddedTokens::assign(&strings(tokens), &tokenizer, rows);
        assigned.expect_err("they must not fit").to_string()
    };
    let error = assign(&["ː", "ɒ"], 9);
    for part in ["\"ɒ\"", "9 rows (vocab_size)", "leaves 1"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(assign(&[""], 20).contains("is empty"));
    let read = |tokens: Value| {
        let directory = directory(ADDED_TOKENS, &tokens);
        AddedTokens::load(directory.path()).expect("a file")
    };
    for (tokens, part) in [
        (json!({"ː": 5}), "that of \"b\"|that of \"a\"|that of \"x\""),
        (json!({"ː": 30}), "20 rows"),
        (json!({"x": 9}), "gives it 5"),
    ] {
        let added = tokenizer.clone().with_added(&read(tokens.clone()), 20);
        let error = added.expect_err("it must not fit").to_string();
        assert!(part.split('|').any(|part| error.contains(part)), "{tokens}: {error}");
    }
    let one = read(json!({"ː": 8}));
    for other in [json!({"ː": 9}), json!({"ɒ": 8})] {
        let error = one.clone().with(&read(other)).expect_err("they differ").to_string();
        assert!(error.contains("has index"), "{error}");
    }
    assert_eq!(one.clone().with(&one).expect("the same"), one);
}

#[test]
fn broken_tables_are_errors_that_name_the_field() {
    for (tables, part) in [
        (json!({"grapheme_chars": "____ab", "phoneme_chars": "abcd"}), "phoneme_chars: must begin"),
        (json!({"grapheme_chars": "____aba", "phoneme_chars": "____a"}), "'a' is there twice"),
        (json!({"grapheme_chars": 3, "phoneme_chars": "____a"}), "grapheme_chars: is no string"),
        (json!({"grapheme_chars": "____ab"}), "none of tokenizer.json"),
    ] {
        let directory = directory("config.json", &tables);
        let error = TextTokenizer::load(directory.path(), 16).expect_err("broken").to_string();
        assert!(error.contains(part), "{tables}: {error}");
    }
    let directory = letters();
    std::fs::write(directory.path().join(ADDED_TOKENS), "[1]").expect("written");
    let error = TextTokenizer::load(directory.path(), 16).expect_err("broken").to_string();
    assert!(error.contains(ADDED_TOKENS), "{error}");
}

#[test]
fn a_tokenizer_file_takes_tokens_behind_its_own() {
    let definition = json!({
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "<s>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2},
                  "merges": []},
    });
    let directory = directory("tokenizer.json", &definition);
    let tokenizer = load(directory.path());
    let added = AddedTokens::assign(&strings(&["ab", "c"]), &tokenizer, 6).expect("two are free");
    assert_eq!(added.by_index(), [(4, "ab"), (5, "c")]);
    let more = tokenizer.clone().with_added(&added, 6).expect("they are free");
    assert_eq!(read(&more, "abac"), [4, 1, 5]);
    assert_eq!(written(&more, "cd"), [5, 0]);
    assert_eq!(more.decode(&[3, 5, 4]).expect("tokens"), "cab");
    assert!(AddedTokens::assign(&strings(&["c"]), &tokenizer, 4).is_err());
    // Its indices leave no gap.
    std::fs::write(directory.path().join(ADDED_TOKENS), r#"{"c": 5}"#).expect("written");
    let error = TextTokenizer::load(directory.path(), 16).expect_err("a gap").to_string();
    assert!(error.contains("\"c\": has index 5, and the tokenizer gives it 4"), "{error}");
}

#[test]
fn texts_are_cut_to_any_length_that_leaves_something_of_them() {
    let template = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
            "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]},
        },
    });
    let around = |kind: &str| json!({"type": kind, "sep": ["</s>", 1], "cls": ["<s>", 0]});
    let mut roberta = around("RobertaProcessing");
    roberta["trim_offsets"] = json!(true);
    roberta["add_prefix_space"] = json!(false);
    let (text, pair) = ("ab".repeat(20), Some("ba".repeat(20)));
    // How many tokens are put around a text, and around a pair.
    for (processor, alone, paired) in
        [(Value::Null, 0, 0), (template, 1, 2), (around("BertProcessing"), 2, 3), (roberta, 2, 4)]
    {
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "post_processor": processor,
            "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3}, "merges": []},
        });
        let directory = directory("tokenizer.json", &tokenizer);
        let refused = |max_tokens: usize, special: usize, input: &str, texts: usize| {
            let least = special + texts;
            let why = format!("special tokens of {input}: {special}");
            format!("max_length = {max_tokens}: must be at least {least} ({why})")
        };
        for max_tokens in 0..12 {
            let tokenizer = match TextTokenizer::load(directory.path(), max_tokens) {
                Ok(tokenizer) => tokenizer,
                Err(error) => {
                    assert!(max_tokens < alone + 1, "{max_tokens}: {error}");
                    assert_eq!(error.to_string(), refused(max_tokens, alone, "a text", 1));
                    continue;
                }
            };
            let words = vec![text.clone()];
            assert_eq!(read(&tokenizer, &text).len(), max_tokens);
            assert_eq!(written(&tokenizer, &text).len(), max_tokens);
            let tagged = tokenizer.encode_words(&[words]).expect("a sentence").remove(0);
            assert_eq!(tagged.text.ids.len(), max_tokens);
            match tokenizer.encode(&[(text.clone(), None), (text.clone(), pair.clone())]) {
                Ok(encoded) => {
                    assert_eq!(encoded[1].ids.len(), max_tokens);
                    assert!(encoded[1].truncated);
                }
                Err(error) => {
                    assert!(max_tokens < paired + 2, "{max_tokens}: {error}");
                    assert_eq!(error.to_string(), refused(max_tokens, paired, "a pair", 2));
                }
            }
        }
        // Nothing is cut where nothing needs to be.
        let tokenizer = TextTokenizer::load(directory.path(), usize::MAX).expect("a tokenizer");
        let encoded = tokenizer.encode(&[(text.clone(), pair.clone())]).expect("a pair");
        assert_eq!(encoded[0].ids.len(), 80 + paired);
    }
}
