//! Tokenizer files. An input is a file's name on a line, and the file.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use peft::models::TextTokenizer;
use peft_fuzz::{Scratch, check, first_line};

thread_local!(static SCRATCH: Scratch = const { Scratch::new() });

const TEXTS: [&str; 4] = ["the cat sat", "", "na\u{ef}ve \u{1f600} [SEP]", "\u{0}a  b\n"];

/// Where a vocabulary is alone, the settings that it is read with.
const SETTINGS: &[u8] = br#"{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}"#;
const WORDS: &[u8] = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\n";

fuzz_target!(|input: &[u8]| check(|| {
    SCRATCH.with(|scratch| {
        let (name, file) = first_line(input);
        let directory = scratch.path();
        for entry in fs::read_dir(directory).expect("it is there") {
            fs::remove_file(entry.expect("it can be read").path()).expect("it is ours");
        }
        match name {
            b"vocab.txt" => {
                scratch.write("vocab.txt", file);
                scratch.write("tokenizer_config.json", SETTINGS);
            }
            b"tokenizer_config.json" => {
                scratch.write("vocab.txt", WORDS);
                scratch.write("tokenizer_config.json", file);
            }
            b"added_tokens.json" => {
                scratch.write("vocab.txt", WORDS);
                scratch.write("added_tokens.json", file);
            }
            b"config.json" => {
                scratch.write("config.json", file);
            }
            _ => {
                scratch.write("tokenizer.json", file);
            }
        }
        let Ok(tokenizer) = TextTokenizer::load(directory, 12) else { return };
        for text in TEXTS {
            for pair in [None, Some("a mat".to_string())] {
                let Ok(read) = tokenizer.encode(&[(text.into(), pair)]) else { continue };
                assert!(read[0].ids.len() <= 12, "a text is longer than it may be");
                let _ = tokenizer.decode(&read[0].ids);
            }
        }
        let words = vec![TEXTS[0].split(' ').map(String::from).collect()];
        let _ = tokenizer.encode_words(&words);
        let _ = tokenizer.encode_plain(&[TEXTS[2].into()]);
        let _ = tokenizer.encode_targets(&[TEXTS[0].into()]);
        let _ = (tokenizer.mask_token(), tokenizer.vocabulary());
    });
}));
