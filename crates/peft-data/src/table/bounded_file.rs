//! A file that a reader cannot read without end, whatever damage makes it do.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// How often a file may be read over: the header of each page takes a buffer of its own.
const TIMES: u64 = 1000;

/// What may be read of a file however small it is.
const LEAST: u64 = 4 << 20;

/// A file of which only so much may be read in all.
pub(super) struct BoundedFile {
    file: File,
    length: u64,
    left: Arc<AtomicU64>,
}

impl BoundedFile {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let left = length.saturating_mul(TIMES).saturating_add(LEAST);
        Ok(Self { file, length, left: Arc::new(left.into()) })
    }
}

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for BoundedFile {
    type T = BufReader<Counted>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(Counted { file, left: Arc::clone(&self.left) }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // A length that damage made is not believed before so many bytes are there.
        let mut bytes = Vec::new();
        let read = self.get_read(start)?.take(length as u64).read_to_end(&mut bytes)?;
        match read == length {
            true => Ok(bytes.into()),
            false => {
                Err(ParquetError::EOF(format!("{length} bytes at {start}, and {read} are there")))
            }
        }
    }
}

/// What reads it, counting.
pub(super) struct Counted {
    file: File,
    left: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        // A call counts too, at the end of the file.
        let taken = |left: u64| left.checked_sub(read as u64 + 1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken) {
            Ok(_) => Ok(read),
            Err(_) => Err(io::Error::other("the file is read again and again")),
        }
    }
}
