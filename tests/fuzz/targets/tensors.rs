//! Tensor files: safetensors, and PyTorch's pickles in zip archives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peft::core::TensorMap;
use peft::format::{read_pytorch, read_safetensors, write_safetensors};
use peft_fuzz::{Scratch, check};

thread_local!(static SCRATCH: Scratch = const { Scratch::new() });

fuzz_target!(|input: &[u8]| check(|| {
    SCRATCH.with(|scratch| {
        let file = scratch.write("input", input);
        if let Ok(tensors) = read_pytorch(&file) {
            again(scratch, &tensors, None);
        }
        if let Ok(tensors) = read_safetensors(&file) {
            again(scratch, &tensors, Some(input.len()));
        }
    });
}));

/// What was read is written and read as the same; it has no more bytes than the file it came from.
fn again(scratch: &Scratch, tensors: &TensorMap, file: Option<usize>) {
    let bytes: usize = tensors.values().map(|data| data.as_bytes().len()).sum();
    assert!(file.is_none_or(|file| bytes <= file), "{bytes} bytes of a file of {file:?}");
    let path = scratch.path().join("again.safetensors");
    write_safetensors(&path, tensors).expect("tensors that were read can be written");
    let read = read_safetensors(&path).expect("tensors that were written can be read");
    assert!(read.keys().eq(tensors.keys()), "names change");
    for (key, data) in tensors {
        assert!(
            read[key].as_bytes() == data.as_bytes() && read[key].shape() == data.shape(),
            "{key}"
        );
    }
}
