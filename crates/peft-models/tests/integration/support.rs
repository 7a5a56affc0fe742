//! The workspace's tiny bases, and GGUF files that tests make.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The directory of a tiny model.
pub fn base(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bases").join(name)
}

/// What a file has recorded from the reference.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(path)
}

/// The parts of a GGUF file.
#[derive(Clone)]
pub struct Draft {
    pub magic: [u8; 4],
    pub version: u32,
    /// What the file says instead of how many tensors and metadata it has.
    pub counts: [Option<u64>; 2],
    /// Keys with the numbers of their types and the bytes of their values.
    pub metadata: Vec<(String, u32, Vec<u8>)>,
    pub tensors: Vec<DraftTensor>,
    pub data: Vec<u8>,
}

#[derive(Clone)]
pub struct DraftTensor {
    pub name: String,
    /// Columns first.
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

impl Draft {
    /// A Llama of one layer, two heads of width 4 and four tokens, with all that it needs.
    pub fn llama() -> Self {
        let mut draft = Self {
            magic: *b"GGUF",
            version: 3,
            counts: [None; 2],
            metadata: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        };
        let metadata = json!({
            "general.architecture": "llama",
            "llama.block_count": 1,
            "llama.context_length": 16,
            "llama.embedding_length": 8,
            "llama.feed_forward_length": 8,
            "llama.attention.head_count": 2,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": ["a", "b", "ab", "<s>"],
            "tokenizer.ggml.token_type": [1, 1, 1, 3],
            "tokenizer.ggml.merges": ["a b"],
            "tokenizer.ggml.bos_token_id": 3,
            "tokenizer.ggml.add_bos_token": true,
            "tokenizer.chat_template": "{{ messages }}",
        });
        draft.set_all(metadata.as_object().expect("an object"));
        draft.tensor("token_embd.weight", &[8, 4]);
        draft.tensor("blk.0.attn_q.weight", &[8, 8]);
        draft
    }

    /// Sets metadata; of a type that fits the value.
    pub fn set(&mut self, key: &str, value: &Value) {
        let (kind, bytes) = encoded(value);
        self.set_raw(key, kind, bytes);
    }

    pub fn set_all(&mut self, values: &Map<String, Value>) {
        values.iter().for_each(|(key, value)| self.set(key, value));
    }

    pub fn set_raw(&mut self, key: &str, kind: u32, bytes: Vec<u8>) {
        self.metadata.retain(|(known, ..)| known != key);
        self.metadata.push((key.into(), kind, bytes));
    }

    /// Adds a tensor in F32 of this shape, columns first, with 0, 1, 2, ... in it.
    pub fn tensor(&mut self, name: &str, dimensions: &[u64]) {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let (name, dimensions) = (name.to_string(), dimensions.to_vec());
        let offset = self.data.len() as u64;
        let numbers = 0..dimensions.iter().product::<u64>();
        self.data.extend(numbers.flat_map(|i| (i as f32).to_le_bytes()));
        self.tensors.push(DraftTensor { name, dimensions, kind: 0, offset });
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        let [tensors, metadata] = self.counts;
        out.extend(tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(metadata.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.metadata {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            out.extend(tensor.dimensions.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    /// A directory with the file and nothing else.
    pub fn save(&self) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("model.gguf"), self.bytes()).expect("written");
        directory
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The number of a value's type, and its bytes.
fn encoded(value: &Value) -> (u32, Vec<u8>) {
    match value {
        Value::Bool(value) => (7, vec![u8::from(*value)]),
        Value::String(value) => (8, text(value)),
        Value::Array(values) => {
            let values: Vec<(u32, Vec<u8>)> = values.iter().map(encoded).collect();
            let mut out = values.first().map_or(4_u32, |(kind, _)| *kind).to_le_bytes().to_vec();
            out.extend((values.len() as u64).to_le_bytes());
            out.extend(values.into_iter().flat_map(|(_, bytes)| bytes));
            (9, out)
        }
        value => match value.as_u64() {
            Some(value) => (4, (value as u32).to_le_bytes().to_vec()),
            None => (6, (value.as_f64().expect("a number") as f32).to_le_bytes().to_vec()),
        },
    }
}
