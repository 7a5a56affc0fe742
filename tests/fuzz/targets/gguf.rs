//! GGUF files: metadata, tensors, the tokenizer and the model in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peft::models::{Gguf, Model, ModelInput, TextTokenizer};
use peft_fuzz::{Scratch, check};

thread_local!(static SCRATCH: Scratch = const { Scratch::new() });

fuzz_target!(|input: &[u8]| check(|| {
    SCRATCH.with(|scratch| {
        let file = scratch.write("model.gguf", input);
        let Ok(mut gguf) = Gguf::open(&file) else { return };
        let names: Vec<String> = gguf.tensors().keys().cloned().collect();
        for name in names {
            let _ = gguf.read(&name);
        }
        let _ = gguf.tokenizer_json();
        if let Ok(tokenizer) = TextTokenizer::load(scratch.path(), 16)
            && let Ok(texts) = tokenizer.encode(&[("the cat, \u{e9}".into(), None)])
        {
            let _ = tokenizer.decode(&texts[0].ids);
        }
        let device = peft::device("flex").expect("there");
        if let Ok((model, _)) = Model::load(scratch.path(), None, &device) {
            let input = ModelInput::from_rows(&[&[1, 2, 3], &[2]], None, 0, &device);
            let _ = model.infer(&input.expect("two texts"), &());
        }
    });
}));
