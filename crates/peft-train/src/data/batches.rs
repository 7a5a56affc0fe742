//! Batches of texts of like length, so that little of a batch is padding.

use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_models::{Encoded, EncoderInput, TextTokenizer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::{Dataset, Target};
use crate::Result;

/// A data set as token indices.
#[derive(Debug, Clone)]
pub struct TokenizedSet {
    texts: Vec<Encoded>,
    targets: Vec<Option<Target>>,
    pairs: bool,
    pad: usize,
}

/// The examples of one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The texts.
    pub input: EncoderInput,
    /// What they should give; empty where that is not known.
    pub targets: Vec<Target>,
    /// Their places in the data set.
    pub indices: Vec<usize>,
    /// Tokens, padding not counted.
    pub tokens: usize,
}

impl Batch {
    /// The label indices, `[batch]`.
    pub fn classes(&self, device: &Device) -> Tensor<1, Int> {
        let classes: Vec<i64> = self
            .targets
            .iter()
            .map(|target| match target {
                Target::Class(class) => *class as i64,
                Target::Value(_) => panic!("a number where a label was expected"),
            })
            .collect();
        let shape = [classes.len()];
        Tensor::from_data(TensorData::new(classes, shape), device)
    }

    /// The numbers, `[batch]`.
    pub fn values(&self, device: &Device) -> Tensor<1> {
        let values: Vec<f32> = self
            .targets
            .iter()
            .map(|target| match target {
                Target::Value(value) => *value,
                Target::Class(_) => panic!("a label where a number was expected"),
            })
            .collect();
        let shape = [values.len()];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// The batches of one pass over a data set, as indices into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches(Vec<Vec<usize>>);

/// Batches whose texts are sorted by length together.
const SORTED_TOGETHER: usize = 32;

impl TokenizedSet {
    /// Tokenizes a data set.
    ///
    /// Texts that had to be cut are counted and shown.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn new(dataset: &Dataset, tokenizer: &TextTokenizer, pad: usize) -> Result<Self> {
        let texts: Vec<(String, Option<String>)> =
            dataset.examples.iter().map(|e| (e.text.clone(), e.pair.clone())).collect();
        let texts = tokenizer.encode(&texts)?;
        let truncated = texts.iter().filter(|text| text.truncated).count();
        if truncated > 0 {
            tracing::warn!("{truncated} of {} texts were cut to max_length", texts.len());
        }
        let pairs = dataset.examples.iter().any(|example| example.pair.is_some());
        let targets = dataset.examples.iter().map(|example| example.target).collect();
        Ok(Self { texts, targets, pairs, pad })
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// A text that differs between data sets: a resumed run must have the data that it began with.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (text, target) in self.texts.iter().zip(&self.targets) {
            let ids = text.ids.iter().flat_map(|id| id.to_le_bytes());
            hash.update(ids.collect::<Vec<u8>>());
            hash.update(format!("{target:?};"));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The batches of an epoch of training: texts are shuffled, sorted by length in groups of 32
    /// batches, and the batches shuffled again. The same seed and epoch give the same batches.
    pub fn shuffled(&self, batch_size: usize, seed: u64, epoch: usize) -> Batches {
        let mut random = StdRng::seed_from_u64(mix(seed, epoch as u64));
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut random);
        for group in order.chunks_mut(batch_size * SORTED_TOGETHER) {
            group.sort_by_key(|&index| self.texts[index].ids.len());
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[_]>::to_vec).collect();
        batches.shuffle(&mut random);
        Batches(batches)
    }

    /// All texts sorted by length, for inference.
    pub fn sorted(&self, batch_size: usize) -> Batches {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&index| self.texts[index].ids.len());
        Batches(order.chunks(batch_size).map(<[_]>::to_vec).collect())
    }

    /// The examples at `indices`.
    ///
    /// # Errors
    /// If there is none, or one has no tokens.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<Batch> {
        let ids: Vec<&[u32]> = indices.iter().map(|&i| self.texts[i].ids.as_slice()).collect();
        let segments: Vec<&[u32]> =
            indices.iter().map(|&i| self.texts[i].segments.as_slice()).collect();
        let input = EncoderInput::from_rows(
            &ids,
            self.pairs.then_some(segments.as_slice()),
            self.pad,
            device,
        )?;
        Ok(Batch {
            input,
            targets: indices.iter().filter_map(|&i| self.targets[i]).collect(),
            indices: indices.to_vec(),
            tokens: ids.iter().map(|row| row.len()).sum(),
        })
    }
}

impl Batches {
    /// The number of batches.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The batches.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.0.iter().map(Vec::as_slice)
    }
}

/// A seed for one of many uses of a seed (SplitMix64).
pub(crate) fn mix(seed: u64, with: u64) -> u64 {
    let mut z = seed.wrapping_add(with.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
