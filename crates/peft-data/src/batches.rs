//! Batches of texts of similar length, so that little of a batch is padding.

use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_models::{Forward, Logits, Model, ModelConfig, ModelInput, Place, TextTokenizer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use crate::masking::{Masked, Masking};
use crate::sample::Sample;
use crate::{Dataset, Example, Goal, Result, Target, Text, Window};

/// A data set as token indices.
#[derive(Debug, Clone)]
pub struct TokenizedSet {
    samples: Vec<Sample>,
    /// What the examples should give, whether or not all of it was left after cutting.
    targets: Vec<Option<Target>>,
    goal: Goal,
    pairs: bool,
    pad: usize,
    /// What hides words, if that is the task.
    masking: Option<Masking>,
    /// How many targets all examples have; those that are drawn, on average.
    expected_targets: f64,
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
    /// Whether there is nothing to ask: no text has a word that was not cut off.
    pub fn asks_nothing(&self) -> bool {
        self.places.as_ref().is_some_and(Vec::is_empty)
    }

    /// What the model gives under a method, `[targets, outputs]`.
    ///
    /// # Errors
    /// If the texts do not fit the model.
    pub fn logits(&self, model: &Model, how: Forward<'_>) -> Result<Logits> {
        Ok(match &self.places {
            Some(places) => model.logits_at(&self.input, places, how)?,
            None => model.forward(&self.input, how)?.squeeze_dim(1).into(),
        })
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

    /// The tokens that answers begin and end with, `[targets, 2]`.
    pub fn spans(&self, device: &Device) -> Tensor<2, Int> {
        let of = |target: &Target| match target {
            Target::Span(span) => span.map(|token| token as i64),
            other => panic!("{other:?} where a span was expected"),
        };
        let spans: Vec<i64> = self.targets.iter().flat_map(of).collect();
        Tensor::from_data(TensorData::new(spans, [self.targets.len(), 2]), device)
    }

    /// Which of `labels` labels the texts have, `[targets, labels]`: 1 for each that it has.
    pub fn indicators(&self, labels: usize, device: &Device) -> Tensor<2> {
        let mut values = vec![0.0f32; self.targets.len() * labels];
        for (row, target) in values.chunks_mut(labels.max(1)).zip(&self.targets) {
            match target {
                Target::Classes(classes) => classes.iter().for_each(|class| row[*class] = 1.0),
                other => panic!("{other:?} where labels were expected"),
            }
        }
        Tensor::from_data(TensorData::new(values, [self.targets.len(), labels]), device)
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
    /// Tokenizes a data set for the model with this configuration.
    ///
    /// Texts that had to be cut are counted and shown.
    ///
    /// # Errors
    /// If the tokenizer fails, or lacks a token that the task needs.
    pub fn new(dataset: &Dataset, tokenizer: &TextTokenizer, config: &ModelConfig) -> Result<Self> {
        let goal = dataset.labels.goal;
        let samples = Sample::all(dataset, tokenizer, config)?;
        let masking = match goal {
            Goal::MaskedLm => Some(Masking::new(tokenizer)?),
            _ => None,
        };
        let truncated = samples.iter().filter(|sample| sample.text.truncated).count();
        if truncated > 0 {
            tracing::warn!("{truncated} of {} texts were cut to max_length", samples.len());
        }
        let is_pair = |example: &Example| matches!(example.text, Text::Pair(..));
        let pairs = dataset.examples.iter().any(is_pair);
        let targets = dataset.examples.iter().map(|example| example.target.clone()).collect();
        let expected_targets = expected_targets(&samples, masking.as_ref());
        let pad = config.pad_token_id();
        Ok(Self { samples, targets, goal, pairs, pad, masking, expected_targets })
    }

    /// The number of examples; of questions, that of the windows of their texts.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// A text that differs between data sets: a resumed run must have the data that it began with.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for sample in &self.samples {
            let ids = sample.text.ids.iter().flat_map(|id| id.to_le_bytes());
            hash.update(ids.collect::<Vec<u8>>());
            hash.update(format!("{:?};", sample.targets));
        }
        format!("{:x}", hash.finalize())
    }

    /// How many targets a batch of an epoch has, on average.
    pub fn mean_targets(&self, batch_size: usize) -> f64 {
        self.expected_targets / self.len().div_ceil(batch_size) as f64
    }

    /// The batches of an epoch of training: texts are shuffled, and if they are to be grouped by
    /// length, sorted in groups of 32 batches, and the batches shuffled again. The same seed and
    /// epoch give the same batches.
    ///
    /// In tasks over tokens, a group makes the same number of batches, each with about the same number
    /// of tokens: few long texts or many short ones. With the same number of texts in each, steps
    /// over short texts would learn little.
    pub fn shuffled(&self, batch_size: usize, by_length: bool, seed: u64, epoch: usize) -> Batches {
        let mut random = StdRng::seed_from_u64(mix(seed, epoch as u64));
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut random);
        if !by_length {
            return Batches(order.chunks(batch_size).map(<[_]>::to_vec).collect());
        }
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for group in order.chunks_mut(batch_size.saturating_mul(SORTED_TOGETHER)) {
            group.sort_by_key(|&index| self.samples[index].tokens());
            match self.goal.is_over_tokens() {
                true => batches.extend(self.of_like_size(group, batch_size)),
                false => batches.extend(group.chunks(batch_size).map(<[_]>::to_vec)),
            }
        }
        batches.shuffle(&mut random);
        Batches(batches)
    }

    /// The texts of a group in as many batches as `batch_size` makes of them, each of about as many
    /// tokens.
    fn of_like_size(&self, group: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
        let count = group.len().div_ceil(batch_size);
        let tokens = |index: &usize| self.samples[*index].tokens();
        let total: usize = group.iter().map(tokens).sum();
        let (mut batches, mut start, mut before) = (Vec::new(), 0, 0);
        for number in 1..=count {
            // Every batch that is still to come gets a text.
            let last = group.len() - (count - number);
            let mut end = start + 1;
            before += tokens(&group[start]);
            while end < last && (number == count || before * count < number * total) {
                before += tokens(&group[end]);
                end += 1;
            }
            batches.push(group[start..end].to_vec());
            start = end;
        }
        batches
    }

    /// All texts sorted by length, for inference.
    pub fn sorted(&self, batch_size: usize) -> Batches {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&index| self.samples[index].tokens());
        Batches(order.chunks(batch_size).map(<[_]>::to_vec).collect())
    }

    /// The examples at `indices`; `draw` is for what is random in them: which words are hidden.
    ///
    /// # Errors
    /// If there is none, or one has no tokens.
    pub fn batch(&self, indices: &[usize], draw: u64, device: &Device) -> Result<Batch> {
        let samples: Vec<&Sample> = indices.iter().map(|&i| &self.samples[i]).collect();
        let masked: Option<Vec<Masked>> = self.masking.as_ref().map(|masking| {
            let hide = |&i: &usize| masking.hide(&self.samples[i].text, mix(draw, i as u64));
            indices.iter().map(hide).collect()
        });
        let ids: Vec<&[u32]> = match &masked {
            Some(masked) => masked.iter().map(|text| text.ids.as_slice()).collect(),
            None => samples.iter().map(|sample| sample.text.ids.as_slice()).collect(),
        };
        let segments = samples.iter().map(|sample| sample.text.segments.as_slice());
        let segments = self.pairs.then(|| segments.collect::<Vec<_>>());
        let mut input = ModelInput::from_rows(&ids, segments.as_deref(), self.pad, device)?;
        let mut tokens: usize = ids.iter().map(|row| row.len()).sum();
        let decoder: Option<Vec<&[u32]>> =
            samples.iter().map(|sample| sample.decoder.as_deref()).collect();
        if let Some(decoder) = decoder {
            tokens += decoder.iter().map(|row| row.len()).sum::<usize>();
            input = input.with_decoder(ModelInput::from_rows(&decoder, None, self.pad, device)?)?;
        }
        let (places, targets) = match &masked {
            Some(masked) => {
                let hidden = masked.iter().enumerate().flat_map(|(row, text)| {
                    let hidden = text.hidden.iter();
                    hidden.map(move |&(at, word)| ([row, at], Target::Class(word as usize)))
                });
                hidden.unzip()
            }
            None => {
                let rows = samples.iter().enumerate();
                let places =
                    rows.flat_map(|(row, sample)| sample.places.iter().map(move |&at| [row, at]));
                let targets = samples.iter().flat_map(|sample| sample.targets.iter().cloned());
                (places.collect(), targets.collect())
            }
        };
        let places = self.goal.is_over_tokens().then_some(places);
        Ok(Batch { input, targets, places, indices: indices.to_vec(), tokens })
    }

    /// The words of a text that the model is asked about, by their indices: those that were not
    /// cut off. Empty where it is not asked about words.
    pub fn words(&self, index: usize) -> &[usize] {
        &self.samples[index].words
    }

    /// The part of a question's text that a sample has; `None` where there are no questions. A
    /// question whose text is long has several.
    pub fn window(&self, index: usize) -> Option<&Window> {
        self.samples[index].window.as_ref()
    }

    /// What the examples should give, in the order of the data set.
    pub fn targets(&self) -> &[Option<Target>] {
        &self.targets
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

/// How many targets examples have; with masking, on average.
fn expected_targets(samples: &[Sample], masking: Option<&Masking>) -> f64 {
    let targets = samples.iter().map(|sample| match masking {
        Some(masking) => masking.expected(&sample.text),
        None => sample.targets.len() as f64,
    });
    targets.sum()
}

/// A seed for one of many uses of a seed (SplitMix64).
pub fn mix(seed: u64, with: u64) -> u64 {
    let mut z = seed.wrapping_add(with.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use peft_models::Encoded;

    use super::*;

    /// Texts of these lengths, with a target for each token.
    fn set(goal: Goal, lengths: &[usize]) -> TokenizedSet {
        let sample = |&length: &usize| Sample {
            text: Encoded {
                ids: vec![1; length],
                segments: vec![0; length],
                special: vec![false; length],
                truncated: false,
            },
            decoder: None,
            places: (0..length).collect(),
            targets: vec![Target::Class(0); length],
            words: Vec::new(),
            window: None,
        };
        let samples: Vec<Sample> = lengths.iter().map(sample).collect();
        let targets = vec![None; samples.len()];
        let expected_targets = expected_targets(&samples, None);
        let (pairs, pad, masking) = (false, 0, None);
        TokenizedSet { samples, targets, goal, pairs, pad, masking, expected_targets }
    }

    #[test]
    fn batches_over_tokens_are_of_like_size_and_have_every_text_once() {
        // Many short texts, some long ones, and one that is longer than a whole batch.
        let mut lengths: Vec<usize> = (0..997).map(|i| 2 + i * i % 23).collect();
        lengths.extend([60, 80, 900]);
        let set = set(Goal::Tag, &lengths);
        let batches = set.shuffled(16, true, 3, 1);
        assert_eq!(batches.len(), 1000_usize.div_ceil(16));
        let mut found: Vec<usize> = batches.iter().flatten().copied().collect();
        found.sort_unstable();
        assert_eq!(found, (0..1000).collect::<Vec<_>>());
        let tokens = |batch: &[usize]| batch.iter().map(|&i| lengths[i]).sum::<usize>();
        let mean = lengths.iter().sum::<usize>() as f64 / batches.len() as f64;
        assert!((set.mean_targets(16) - mean).abs() < 1e-9);
        let near = batches.iter().filter(|b| (tokens(b) as f64 / mean - 1.0).abs() < 0.4).count();
        assert!(near > batches.len() * 9 / 10, "{near} of {} are near {mean}", batches.len());
        assert!(batches.iter().map(<[usize]>::len).max() > Some(24), "short texts come in numbers");
    }

    #[test]
    fn batches_of_whole_texts_have_a_size() {
        let set = set(Goal::Classify, &[5, 1, 9, 2, 2, 7, 3]);
        let mut sizes: Vec<usize> =
            set.shuffled(3, true, 0, 0).iter().map(<[usize]>::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 3, 3]);
        let ungrouped = set.shuffled(3, false, 0, 0);
        assert_eq!(ungrouped.iter().map(<[usize]>::len).collect::<Vec<_>>(), [3, 3, 1]);
    }
}
