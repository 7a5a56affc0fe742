//! GGUF files that are broken, or ask for what is not supported, are errors that say so.

use std::path::Path;

use peft_models::{Checkpoint, Gguf, TextTokenizer, config_fields};
use serde_json::json;

use crate::support::Draft;

/// Everything that reads a file; the first error.
fn read(directory: &Path) -> peft_models::Result<()> {
    config_fields(directory)?;
    let mut checkpoint = Checkpoint::open(directory)?;
    let keys: Vec<String> = checkpoint.keys().map(String::from).collect();
    keys.iter().for_each(|key| assert!(checkpoint.take(key).is_some()));
    TextTokenizer::load(directory, 100)?.encode(&[("ab ba 12".into(), None)])?;
    Ok(())
}

/// The error that a changed file gives; it must name the file and `parts`.
fn refused(parts: &[&str], change: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::llama();
    change(&mut draft);
    let directory = draft.save();
    let error = read(directory.path()).expect_err("an error").to_string();
    for part in [&["model.gguf"], parts].concat() {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn the_file_that_the_others_are_made_from_is_fine() {
    let directory = Draft::llama().save();
    read(directory.path()).expect("readable");
}

#[test]
fn what_is_no_gguf_file_is_refused() {
    refused(&["does not begin with GGUF"], |draft| draft.magic = *b"ggml");
    refused(&["version 1", "supported: 2, 3"], |draft| draft.version = 1);
    refused(&["version 4"], |draft| draft.version = 4);
    refused(&["big-endian"], |draft| draft.version = 3_u32.swap_bytes());
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_refused() {
    let draft = Draft::llama();
    let (bytes, directory) = (draft.bytes(), draft.save());
    for length in 0..bytes.len() {
        std::fs::write(directory.path().join("model.gguf"), &bytes[..length]).expect("written");
        let error = read(directory.path()).expect_err("an error").to_string();
        assert!(error.contains("model.gguf"), "{error}");
    }
}

#[test]
fn a_file_with_any_byte_changed_is_an_error_or_still_a_file() {
    let draft = Draft::llama();
    let (mut bytes, directory) = (draft.bytes(), draft.save());
    let header = bytes.len() - draft.data.len();
    let mut errors = 0;
    for at in 0..header {
        let own = bytes[at];
        for other in [0, 0x7f, 0xff, own.wrapping_add(1)] {
            bytes[at] = other;
            std::fs::write(directory.path().join("model.gguf"), &bytes).expect("written");
            errors += usize::from(read(directory.path()).is_err());
        }
        bytes[at] = own;
    }
    assert!(errors > header, "{errors} of {header} times four changes were noticed");
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused() {
    let long = u64::MAX.to_le_bytes().to_vec();
    refused(&["tensor 2 of 18446744073709551615: "], |draft| draft.counts = [Some(u64::MAX), None]);
    refused(&["metadata"], |draft| draft.counts = [None, Some(u64::MAX)]);
    refused(&["x: a text of 18446744073709551615 bytes"], |draft| {
        draft.set_raw("x", 8, long.clone());
    });
    let array = |kind: u32, length: u64| [&kind.to_le_bytes()[..], &length.to_le_bytes()].concat();
    refused(&["x: an array of 18446744073709551615 values"], |draft| {
        draft.set_raw("x", 9, array(0, u64::MAX));
    });
    refused(&["x: "], |draft| draft.set_raw("x", 9, array(0, 1 << 22)));
    refused(&["x: arrays too deep"], |draft| draft.set_raw("x", 9, array(9, 1).repeat(40)));
    refused(&["token_embd.weight has 5 dimensions"], |draft| {
        draft.tensors[0].dimensions = vec![1; 5];
    });
}

#[test]
fn metadata_that_makes_no_sense_is_refused() {
    refused(&["x: a value of unknown type 13"], |draft| draft.set_raw("x", 13, vec![]));
    refused(&["x: 2, where a boolean"], |draft| draft.set_raw("x", 7, vec![2]));
    refused(&["x: a text that is not UTF-8"], |draft| {
        draft.set_raw("x", 8, [&1_u64.to_le_bytes()[..], &[0xff]].concat());
    });
    refused(&["llama.block_count is there twice"], |draft| {
        let again = draft.metadata.iter().find(|(key, ..)| key == "llama.block_count").cloned();
        draft.metadata.extend(again);
    });
    refused(&["general.alignment = 24"], |draft| draft.set("general.alignment", &json!(24)));
    refused(&["general.alignment"], |draft| draft.set("general.alignment", &json!("32")));
}

#[test]
fn tensors_that_are_not_in_the_file_are_refused() {
    let tensor = "tensor token_embd.weight: ";
    refused(&[tensor, "is not there"], |draft| draft.tensors[0].offset = 1 << 20);
    refused(&[tensor, "is not there"], |draft| draft.tensors[0].offset = u64::MAX - 31);
    refused(&[tensor, "is not there"], |draft| draft.tensors[0].dimensions = vec![1 << 40; 3]);
    refused(&[tensor, "is not there"], |draft| draft.tensors[0].dimensions = vec![1 << 30, 8]);
    refused(&[tensor, "it is empty"], |draft| draft.tensors[0].dimensions = vec![0, 1 << 63, 8]);
    refused(&[tensor, "no multiple of 32"], |draft| draft.tensors[0].offset = 16);
    refused(&[tensor, "rows of 8 are not whole blocks of 32 (Q8_0)"], |draft| {
        draft.tensors[0].kind = 8;
    });
    refused(&["tensor token_embd.weight is there twice"], |draft| {
        draft.tensors[1].name = draft.tensors[0].name.clone();
    });
    // Many names for the same bytes would be a file that grows when it is read.
    refused(&["is not there"], |draft| {
        for i in 0..1000 {
            let name = format!("x.{i}");
            let whole = draft.tensors[1].clone();
            draft.tensors.push(crate::support::DraftTensor { name, ..whole });
        }
    });
}

#[test]
fn types_that_are_not_supported_are_named_with_their_tensor() {
    let supported = "supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K";
    refused(&["the type of blk.0.attn_q.weight = Q2_K", supported], |draft| {
        draft.tensors[1].kind = 10;
    });
    refused(&["the type of blk.0.attn_q.weight = number 99"], |draft| draft.tensors[1].kind = 99);
}

#[test]
fn models_that_are_not_supported_are_refused_by_field() {
    refused(&["general.architecture = mamba", "llama, qwen2, gpt2"], |draft| {
        draft.set("general.architecture", &json!("mamba"));
    });
    refused(&["no general.architecture"], |draft| {
        draft.metadata.retain(|(key, ..)| key != "general.architecture");
    });
    refused(&["no llama.block_count"], |draft| {
        draft.metadata.retain(|(key, ..)| key != "llama.block_count");
    });
    refused(&["llama.block_count"], |draft| draft.set("llama.block_count", &json!("two")));
    refused(&["llama.expert_count = 8"], |draft| draft.set("llama.expert_count", &json!(8)));
    refused(&["llama.rope.dimension_count = 2"], |draft| {
        draft.set("llama.attention.key_length", &json!(4));
        draft.set("llama.rope.dimension_count", &json!(2));
    });
    refused(&["llama.rope.scaling.type = longrope", "none, linear, yarn"], |draft| {
        draft.set("llama.rope.scaling.type", &json!("longrope"));
    });
    refused(&["rope_freqs.weight", "Llama 3"], |draft| {
        draft.tensor("rope_freqs.weight", &[4]);
    });
    refused(&["split.count = 2", "llama-gguf-split"], |draft| {
        draft.set("split.count", &json!(2));
    });
    refused(&["blk.0.attn_q.weight", "is not 3 heads"], |draft| {
        draft.set("llama.attention.head_count", &json!(3));
    });
    refused(&["blk.0.attn_q.weight", "is not 0 heads"], |draft| {
        draft.set("llama.attention.head_count", &json!(0));
    });
    refused(&["no tensor token_embd.weight"], |draft| {
        draft.tensors[0].name = "other.weight".into();
    });
}

#[test]
fn tokenizers_that_are_not_supported_or_broken_are_refused() {
    refused(&["tokenizer.ggml.model = llama", "supported: gpt2"], |draft| {
        draft.set("tokenizer.ggml.model", &json!("llama"));
    });
    refused(&["tokenizer.ggml.pre = tekken", "gpt-2", "smollm", "qwen2"], |draft| {
        draft.set("tokenizer.ggml.pre", &json!("tekken"));
    });
    refused(&["no tokenizer.ggml.tokens"], |draft| {
        draft.metadata.retain(|(key, ..)| key != "tokenizer.ggml.tokens");
    });
    refused(&["the token \"a\" is there twice"], |draft| {
        draft.set("tokenizer.ggml.tokens", &json!(["a", "b", "ab", "a"]));
    });
    refused(&["tokenizer.ggml.merges", "\"ab\" is not two tokens"], |draft| {
        draft.set("tokenizer.ggml.merges", &json!(["ab"]));
    });
    refused(&["tokenizer"], |draft| draft.set("tokenizer.ggml.merges", &json!(["a c"])));
    refused(&["tokenizer.ggml.bos_token_id: no token 9"], |draft| {
        draft.set("tokenizer.ggml.bos_token_id", &json!(9));
    });
}

#[test]
fn a_directory_with_several_files_needs_one_to_be_named() {
    let directory = Draft::llama().save();
    let other = directory.path().join("other.gguf");
    std::fs::copy(directory.path().join("model.gguf"), &other).expect("copied");
    let error = Checkpoint::open(directory.path()).expect_err("two files").to_string();
    assert!(error.contains("model.gguf, other.gguf"), "{error}");
    read(&other).expect("one file");
    std::fs::remove_file(&other).expect("removed");
    assert!(Gguf::open(&other).is_err());
    read(directory.path()).expect("one file");
}
