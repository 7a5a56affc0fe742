//! PyTorch's files, written here byte by byte: their own old form, a pickle with storages behind it.

use burn::tensor::DType;
use peft_core::TensorMap;
use peft_format::{Result, read_pytorch};

/// A tensor over one of the storages.
struct View {
    key: &'static str,
    storage: u8,
    shape: Vec<u32>,
    stride: Vec<u32>,
}

/// A view of a storage.
fn view(key: &'static str, storage: u8, shape: &[u32], stride: &[u32]) -> View {
    View { key, storage, shape: shape.to_vec(), stride: stride.to_vec() }
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn number(number: u32) -> Vec<u8> {
    [&[0x8a, 5], &u64::from(number).to_le_bytes()[..5]].concat()
}

fn pickle(parts: &[Vec<u8>]) -> Vec<u8> {
    [vec![0x80, 2], parts.concat(), b".".to_vec()].concat()
}

fn tuple(values: &[u32]) -> Vec<u8> {
    let values: Vec<Vec<u8>> = values.iter().map(|value| number(*value)).collect();
    [b"(".to_vec(), values.concat(), b"t".to_vec()].concat()
}

/// A file of storages, each with the name of its type, the bytes of one number and their count.
fn file(storages: &[(&str, usize, u32)], views: &[View]) -> Vec<u8> {
    let magic = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let mut out = pickle(&[[&[0x8a, 10], &magic[..]].concat()]);
    out.extend(pickle(&[number(1001)]));
    out.extend(pickle(&[b"}(".to_vec(), text("little_endian"), vec![0x88], b"u".to_vec()]));
    let mut parts = vec![b"}(".to_vec()];
    for View { key, storage, shape, stride } in views {
        let (name, _, count) = storages[usize::from(*storage)];
        parts.push(text(key));
        parts.push(b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec());
        parts.push(text("storage"));
        parts.push(format!("ctorch\n{name}\n").into_bytes());
        parts.extend([text(&storage.to_string()), text("cpu"), number(count)]);
        parts.push(b"NtQ".to_vec());
        parts.extend([number(0), tuple(shape), tuple(stride), vec![0x89]]);
        parts.push(b"ccollections\nOrderedDict\n)RtR".to_vec());
    }
    parts.push(b"u".to_vec());
    out.extend(pickle(&parts));
    let keys = (0..storages.len()).map(|key| text(&key.to_string())).collect::<Vec<_>>().concat();
    out.extend(pickle(&[b"](".to_vec(), keys, b"e".to_vec()]));
    for (_, bytes, count) in storages {
        out.extend(u64::from(*count).to_le_bytes());
        out.extend(std::iter::repeat_n(1, bytes * *count as usize));
    }
    out
}

fn read(bytes: &[u8]) -> Result<TensorMap> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file.bin");
    std::fs::write(&path, bytes).expect("written");
    read_pytorch(&path)
}

#[test]
fn tensors_of_every_type_are_read() {
    for (name, bytes, expected) in [
        ("DoubleStorage", 8, DType::F64),
        ("FloatStorage", 4, DType::F32),
        ("HalfStorage", 2, DType::F16),
        ("BFloat16Storage", 2, DType::BF16),
        ("LongStorage", 8, DType::I64),
        ("IntStorage", 4, DType::I32),
        ("ShortStorage", 2, DType::I16),
        ("CharStorage", 1, DType::I8),
        ("ByteStorage", 1, DType::U8),
        ("BoolStorage", 1, DType::U8),
    ] {
        let all = file(&[(name, bytes, 6)], &[view("a", 0, &[2, 3], &[3, 1])]);
        let tensors = read(&all).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((tensors["a"].dtype(), tensors["a"].shape().to_vec()), (expected, vec![2, 3]));
        // And cut anywhere it is an error.
        for end in (0..all.len()).step_by(7) {
            assert!(read(&all[..end]).is_err(), "{name}, the first {end} bytes");
        }
    }
}

#[test]
fn what_is_stored_may_be_shared_but_not_repeated() {
    let storages = [("FloatStorage", 4, 16)];
    let shared = [view("a", 0, &[4, 4], &[4, 1]), view("b", 0, &[4, 4], &[1, 4])];
    assert_eq!(read(&file(&storages, &shared)).expect("two views").len(), 2);
    for (shape, stride) in [
        (&[1 << 20][..], &[0][..]),
        (&[1 << 14, 16], &[0, 1]),
        (&[16, 1 << 14], &[1, 0]),
        (&[1 << 10, 1 << 10, 1], &[0, 0, 9]),
    ] {
        let all =
            file(&storages, &[view("small", 0, &[16], &[1]), view("large", 0, shape, stride)]);
        let error = read(&all).expect_err("it is larger than the file").to_string();
        assert!(error.contains("large: [") && error.contains("bytes, in a file of"), "{error}");
    }
}
