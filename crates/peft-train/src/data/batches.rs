//! Batches of texts of like length, so that little of a batch is padding.

use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_models::{Encoded, EncodedWords, Model, ModelInput, Pass, Place, TextTokenizer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::masking::{Masked, Masking};
use super::{Dataset, Example, Goal, Target, Text};
use crate::Result;

/// A data set as token indices.
#[derive(Debug, Clone)]
pub struct TokenizedSet {
    texts: Vec<Encoded>,
    targets: Vec<Option<Target>>,
    pairs: bool,
    pad: usize,
    asked: Asked,
}

/// What of a text the model is asked about.
#[derive(Debug, Clone)]
enum Asked {
    /// The text as a whole.
    Text,
    /// The words of each text: their indices, and the first token of each.
    Words(Vec<Vec<(usize, usize)>>),
    /// Words that are hidden.
    Hidden(Masking),
}

/// The examples of one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The texts.
    pub input: ModelInput,
    /// What they should give, or what their tokens at `places` should; empty where that is not
    /// known.
    pub targets: Vec<Target>,
    /// Of a task over tokens: those that have a target.
    pub places: Option<Vec<Place>>,
    /// Their places in the data set.
    pub indices: Vec<usize>,
    /// Tokens, padding not counted.
    pub tokens: usize,
}

impl Batch {
    /// What the model gives under a method, `[targets, outputs]`.
    ///
    /// # Errors
    /// If the texts do not fit the model.
    pub fn logits(&self, model: &Model, pass: Pass<'_>) -> Result<Tensor<2>> {
        let logits = match &self.places {
            Some(places) => model.forward_at(&self.input, places, pass)?,
            None => model.forward(&self.input, pass)?,
        };
        let [rows, columns, outputs] = logits.dims();
        Ok(logits.reshape([rows * columns, outputs]))
    }

    /// The label indices, `[targets]`.
    pub fn classes(&self, device: &Device) -> Tensor<1, Int> {
        let classes: Vec<i64> = self
            .targets
            .iter()
            .map(|target| match target {
                Target::Class(class) => *class as i64,
                other => panic!("{other:?} where a label was expected"),
            })
            .collect();
        let shape = [classes.len()];
        Tensor::from_data(TensorData::new(classes, shape), device)
    }

    /// The numbers, `[targets]`.
    pub fn values(&self, device: &Device) -> Tensor<1> {
        let values: Vec<f32> = self
            .targets
            .iter()
            .map(|target| match target {
                Target::Value(value) => *value,
                other => panic!("{other:?} where a number was expected"),
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
    /// If the tokenizer fails, or words are to be hidden and it has no token for that.
    pub fn new(dataset: &Dataset, tokenizer: &TextTokenizer, pad: usize) -> Result<Self> {
        let (texts, asked) = match dataset.labels.goal {
            Goal::Tag => {
                let (texts, words) = words(dataset, tokenizer)?;
                (texts, Asked::Words(words))
            }
            Goal::MaskedLm => (whole(dataset, tokenizer)?, Asked::Hidden(Masking::new(tokenizer)?)),
            Goal::Classify | Goal::Regress => (whole(dataset, tokenizer)?, Asked::Text),
        };
        let truncated = texts.iter().filter(|text| text.truncated).count();
        if truncated > 0 {
            tracing::warn!("{truncated} of {} texts were cut to max_length", texts.len());
        }
        let is_pair = |example: &Example| matches!(example.text, Text::Pair(..));
        let pairs = dataset.examples.iter().any(is_pair);
        let targets = dataset.examples.iter().map(|example| example.target.clone()).collect();
        Ok(Self { texts, targets, pairs, pad, asked })
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

    /// The examples at `indices`; `draw` is for what is random in them: which words are hidden.
    ///
    /// # Errors
    /// If there is none, or one has no tokens.
    pub fn batch(&self, indices: &[usize], draw: u64, device: &Device) -> Result<Batch> {
        let masked: Option<Vec<Masked>> = match &self.asked {
            Asked::Hidden(masking) => {
                let hide = |&i: &usize| masking.hide(&self.texts[i], mix(draw, i as u64));
                Some(indices.iter().map(hide).collect())
            }
            Asked::Text | Asked::Words(_) => None,
        };
        let ids: Vec<&[u32]> = match &masked {
            Some(masked) => masked.iter().map(|text| text.ids.as_slice()).collect(),
            None => indices.iter().map(|&i| self.texts[i].ids.as_slice()).collect(),
        };
        let segments: Vec<&[u32]> =
            indices.iter().map(|&i| self.texts[i].segments.as_slice()).collect();
        let segments = self.pairs.then_some(segments.as_slice());
        let input = ModelInput::from_rows(&ids, segments, self.pad, device)?;
        let (places, targets) = match (&self.asked, &masked) {
            (Asked::Words(words), _) => {
                let (places, targets) = self.tagged(words, indices);
                (Some(places), targets)
            }
            (_, Some(masked)) => {
                let hidden = masked.iter().enumerate().flat_map(|(row, text)| {
                    let hidden = text.hidden.iter();
                    hidden.map(move |&(at, word)| ([row, at], Target::Class(word as usize)))
                });
                let (places, targets) = hidden.unzip();
                (Some(places), targets)
            }
            (_, None) => (None, indices.iter().filter_map(|&i| self.targets[i].clone()).collect()),
        };
        let tokens = ids.iter().map(|row| row.len()).sum();
        Ok(Batch { input, targets, places, indices: indices.to_vec(), tokens })
    }

    /// Where the words of some texts are, and their tags, if these are known.
    fn tagged(
        &self,
        words: &[Vec<(usize, usize)>],
        indices: &[usize],
    ) -> (Vec<Place>, Vec<Target>) {
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (row, &index) in indices.iter().enumerate() {
            for &(word, token) in &words[index] {
                places.push([row, token]);
                if let Some(Target::Tags(tags)) = &self.targets[index] {
                    targets.push(Target::Class(tags[word]));
                }
            }
        }
        (places, targets)
    }

    /// The words of a text that the model is asked about, by their indices: those that were not
    /// cut off. Empty where it is not asked about words.
    pub(crate) fn words(&self, index: usize) -> impl Iterator<Item = usize> {
        let words = match &self.asked {
            Asked::Words(words) => &words[index][..],
            Asked::Text | Asked::Hidden(_) => &[],
        };
        words.iter().map(|&(word, _)| word)
    }

    /// The targets, in the order of the data set.
    pub(crate) fn targets(&self) -> &[Option<Target>] {
        &self.targets
    }
}

/// Texts and pairs as token indices.
fn whole(dataset: &Dataset, tokenizer: &TextTokenizer) -> Result<Vec<Encoded>> {
    let texts = dataset.examples.iter().map(|example| match &example.text {
        Text::One(text) => (text.clone(), None),
        Text::Pair(text, pair) => (text.clone(), Some(pair.clone())),
        Text::Words(words) => (words.join(" "), None),
    });
    Ok(tokenizer.encode(&texts.collect::<Vec<_>>())?)
}

/// Texts in words as token indices; of each word that is left, its index and its first token.
fn words(
    dataset: &Dataset,
    tokenizer: &TextTokenizer,
) -> Result<(Vec<Encoded>, Vec<Vec<(usize, usize)>>)> {
    let texts = dataset.examples.iter().map(|example| match &example.text {
        Text::Words(words) => words.clone(),
        Text::One(text) | Text::Pair(text, _) => vec![text.clone()],
    });
    let encoded = tokenizer.encode_words(&texts.collect::<Vec<_>>())?;
    Ok(encoded
        .into_iter()
        .map(|EncodedWords { text, words }| {
            let mut first: Vec<(usize, usize)> = Vec::new();
            for (token, word) in words.into_iter().enumerate() {
                if let Some(word) = word
                    && first.last().is_none_or(|&(last, _)| last != word)
                {
                    first.push((word, token));
                }
            }
            (text, first)
        })
        .unzip())
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
