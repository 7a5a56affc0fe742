//! BERT's tokenizer from its `vocab.txt`; tokens are those of transformers' `BertTokenizerFast`.

use peft_models::TextTokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\n[\n]\nsep\nGood\n<end>\n";

fn directory(settings: Option<&str>) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("vocab.txt"), VOCAB).expect("written");
    if let Some(settings) = settings {
        std::fs::write(directory.path().join("tokenizer_config.json"), settings).expect("written");
    }
    directory
}

fn ids(settings: Option<Value>, text: &str) -> Vec<u32> {
    let directory = directory(settings.map(|settings| settings.to_string()).as_deref());
    let tokenizer = TextTokenizer::load(directory.path(), 32).expect("a tokenizer");
    tokenizer.encode(&[(text.into(), None)]).expect("a text").remove(0).ids
}

#[test]
fn a_text_may_name_special_tokens() {
    for (token, id) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().zip(0..) {
        assert_eq!(ids(None, &format!("good {token} bad")), [2, 5, id, 6, 3], "{token}");
        assert_eq!(ids(None, &format!("Good{token}bad")), [2, 5, id, 6, 3], "{token}");
    }
    // As they are written, and no others.
    assert_eq!(ids(None, "good [sep]"), [2, 5, 7, 9, 8, 3]);
    assert_eq!(ids(None, "<end>"), [2, 1, 1, 1, 3]);
}

#[test]
fn settings_say_which_tokens_are_special_and_what_letters_become() {
    let named = json!({"content": "<end>", "lstrip": false, "rstrip": false});
    for settings in [
        json!({"additional_special_tokens": ["<end>"]}),
        json!({"additional_special_tokens": [named]}),
        json!({"mask_token": "<end>", "do_lower_case": null}),
        json!({"added_tokens_decoder": {"11": {"content": "<end>", "special": true}}}),
    ] {
        assert_eq!(ids(Some(settings.clone()), "Good <end>"), [2, 5, 11, 3], "{settings}");
    }
    let sep = json!({"sep_token": "<end>", "do_lower_case": false});
    assert_eq!(ids(Some(sep), "Good [SEP]"), [2, 10, 7, 1, 8, 11]);
    let new = json!({"added_tokens_decoder": {"12": {"content": "ßß", "special": false}}});
    assert_eq!(ids(Some(new), "good ßß"), [2, 5, 12, 3]);
}

#[test]
fn settings_that_cannot_be_read_are_errors_that_name_the_field() {
    for (settings, named) in [
        (r#"{"do_lower_case": "false"}"#, "do_lower_case = \"false\""),
        (r#"{"strip_accents": 1}"#, "strip_accents = 1"),
        (r#"{"mask_token": 5}"#, "mask_token = 5"),
        (r#"{"added_tokens_decoder": {"7": {"content": "<new>"}}}"#, "<new>"),
        (r#"{"added_tokens_decoder": {"x": "<end>"}}"#, "\"x\""),
        (r#"{"sep_token": "<none>"}"#, "no <none>"),
        ("[]", "tokenizer_config.json"),
        ("{", "tokenizer_config.json"),
    ] {
        let directory = directory(Some(settings));
        let error = TextTokenizer::load(directory.path(), 32).expect_err(settings).to_string();
        assert!(error.contains(named), "{settings}: {error}");
    }
    let directory = directory(None);
    std::fs::write(directory.path().join("tokenizer_config.json"), b"{\"a\": \"\xff\"}")
        .expect("written");
    let error = TextTokenizer::load(directory.path(), 32).expect_err("not UTF-8").to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("UTF-8"), "{error}");
}
