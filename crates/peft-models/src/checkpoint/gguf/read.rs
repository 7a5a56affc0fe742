//! The parts that a GGUF file's header is made of, read so that no count in it is believed before
//! the bytes are there.

use std::io::{self, Read};

use serde_json::{Number, Value};

/// The most values in all of a file's metadata; the largest tokenizers have a million and a half.
const MAX_VALUES: u64 = 1 << 23;
/// How deep arrays may lie in arrays.
const MAX_DEPTH: usize = 4;

/// What is wrong with a header, without the file's name.
pub type Result<T> = std::result::Result<T, String>;

/// Reads little-endian parts one after the other.
pub struct Parts<R> {
    inner: R,
    position: u64,
    length: u64,
    values_left: u64,
}

impl<R: Read> Parts<R> {
    /// Over `length` bytes.
    pub fn new(inner: R, length: u64) -> Self {
        Self { inner, position: 0, length, values_left: MAX_VALUES }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.inner.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => "the file ends here: it was cut off".to_string(),
            _ => e.to_string(),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Four bytes as they are.
    pub fn magic(&mut self) -> Result<[u8; 4]> {
        self.array()
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length and as many bytes of UTF-8.
    pub fn string(&mut self) -> Result<String> {
        let length = self.u64()?;
        let left = self.length.saturating_sub(self.position);
        if length > left {
            return Err(format!("a text of {length} bytes, where the file has {left} left"));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".into())
    }

    /// The number of a type, and a value of it.
    pub fn value(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: u32, depth: usize) -> Result<Value> {
        self.values_left = self.values_left.checked_sub(1).ok_or("too many values")?;
        Ok(match kind {
            0 => self.array().map(u8::from_le_bytes)?.into(),
            1 => self.array().map(i8::from_le_bytes)?.into(),
            2 => self.array().map(u16::from_le_bytes)?.into(),
            3 => self.array().map(i16::from_le_bytes)?.into(),
            4 => self.u32()?.into(),
            5 => self.array().map(i32::from_le_bytes)?.into(),
            6 => shortest(self.array().map(f32::from_le_bytes)?),
            7 => match self.array()? {
                [0] => false.into(),
                [1] => true.into(),
                [other] => return Err(format!("{other}, where a boolean is 0 or 1")),
            },
            8 => self.string()?.into(),
            9 => {
                let kind = self.u32()?;
                let length = self.u64()?;
                if length > self.values_left {
                    return Err(format!("an array of {length} values, which is too many"));
                }
                if depth == MAX_DEPTH {
                    return Err("arrays too deep in arrays".into());
                }
                let values = (0..length).map(|_| self.value_of(kind, depth + 1));
                values.collect::<Result<Vec<_>>>()?.into()
            }
            10 => self.u64()?.into(),
            11 => self.array().map(i64::from_le_bytes)?.into(),
            12 => self.array().map(f64::from_le_bytes)?.into(),
            other => return Err(format!("a value of unknown type {other}")),
        })
    }
}

/// The number with the fewest digits that rounds to `value`: 1e-5, as it stood in the configuration
/// that the file was made from, and not 9.999999747378752e-6. What is no number is `null`.
fn shortest(value: f32) -> Value {
    let shortest = value.to_string().parse().ok().and_then(Number::from_f64);
    shortest.map_or(Value::Null, Value::Number)
}
