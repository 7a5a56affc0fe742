//! Texts, and what is to be predicted from them.

use burn::tensor::Device;
use peft_models::{ModelInput, Place};

use super::HostKind;

/// Texts of different lengths.
const TEXTS: [&[u32]; 4] = [&[2, 17, 5, 59, 31, 8, 3], &[2, 44, 3], &[2, 9, 23, 50, 3], &[2, 3]];
const LABELS: [i64; 4] = [0, 2, 1, 2];
/// What a decoder is given beside each; of other lengths than the texts.
const ANSWERS: [&[u32]; 4] = [&[0, 12, 40], &[0, 33, 21, 58, 6, 1], &[0, 25], &[0, 48, 19, 7]];
/// What follows the last token of a text.
const END: u32 = 1;

/// Texts, and what is to be predicted from them.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// The texts, filled up to the longest.
    pub(crate) input: ModelInput,
    /// The tokens that something is predicted from; none where it is from the text as a whole.
    pub(crate) places: Vec<Place>,
    /// What is predicted, for each place or text.
    pub(crate) targets: Vec<i64>,
    kind: HostKind,
    /// Which text each row is.
    texts: Vec<usize>,
}

impl Batch {
    /// Every text once.
    pub(super) fn new(kind: HostKind, device: &Device) -> Self {
        Self::of(kind, &[0, 1, 2, 3], device)
    }

    /// Some of the texts, in this order.
    fn of(kind: HostKind, texts: &[usize], device: &Device) -> Self {
        let full = |number: usize, _text: &[u32]| 0..Self::read(kind, number).len();
        let (input, places) = Self::stretch(kind, texts, full, device);
        if kind == HostKind::Bert {
            let targets = texts.iter().map(|&text| LABELS[text]).collect();
            return Self { input, places: Vec::new(), targets, kind, texts: texts.into() };
        }
        let target = |&[row, token]: &Place| {
            let text = Self::read(kind, texts[row]);
            i64::from(*text.get(token + 1).unwrap_or(&END))
        };
        let targets = places.iter().map(target).collect();
        Self { input, places, targets, kind, texts: texts.into() }
    }

    /// The text that a model has outputs for.
    fn read(kind: HostKind, text: usize) -> &'static [u32] {
        if kind == HostKind::T5 { ANSWERS[text] } else { TEXTS[text] }
    }

    /// A stretch of each text as the model is given it, and the places in it.
    fn stretch(
        kind: HostKind,
        texts: &[usize],
        of: impl Fn(usize, &[u32]) -> std::ops::Range<usize>,
        device: &Device,
    ) -> (ModelInput, Vec<Place>) {
        let rows: Vec<&[u32]> = texts
            .iter()
            .map(|&number| {
                let text = Self::read(kind, number);
                &text[of(number, text)]
            })
            .collect();
        let places = rows.iter().enumerate();
        let places = places.flat_map(|(row, text)| (0..text.len()).map(move |token| [row, token]));
        let places = places.collect();
        let input = ModelInput::from_rows(&rows, None, 0, device).expect("texts have tokens");
        if kind != HostKind::T5 {
            return (input, places);
        }
        let encoder: Vec<&[u32]> = texts.iter().map(|&text| TEXTS[text]).collect();
        let encoder = ModelInput::from_rows(&encoder, None, 0, device).expect("texts have tokens");
        (encoder.with_decoder(input).expect("one for each"), places)
    }

    /// The number of texts.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text that each target is of.
    pub(crate) fn row_of_target(&self, target: usize) -> usize {
        self.places.get(target).map_or(target, |[row, _]| *row)
    }

    /// The first and the second half of the texts.
    pub(super) fn halves(&self, device: &Device) -> [Self; 2] {
        let (first, second) = self.texts.split_at(self.len() / 2);
        [first, second].map(|texts| Self::of(self.kind, texts, device))
    }

    /// Some of the texts.
    pub(crate) fn rows(&self, rows: &[usize], device: &Device) -> Self {
        let texts: Vec<usize> = rows.iter().map(|&row| self.texts[row]).collect();
        Self::of(self.kind, &texts, device)
    }

    /// The texts twice, one after another.
    pub(crate) fn doubled(&self, device: &Device) -> Self {
        Self::of(self.kind, &self.texts.repeat(2), device)
    }

    /// The texts as they are read with a cache: the first half of each, and then token by token,
    /// while there is one. Each is the rows of the batch before that go on, what the model is given,
    /// and the places in it.
    pub(crate) fn token_by_token(&self, device: &Device) -> Vec<Step> {
        let first = |text: &[u32]| text.len().div_ceil(2);
        let (input, places) =
            Self::stretch(self.kind, &self.texts, |_, text| 0..first(text), device);
        let mut rows: Vec<usize> = (0..self.len()).collect();
        let targets = self.targets_at(&rows, &places, |_| 0);
        let mut steps = vec![Step { kept: rows.clone(), input, places, targets }];
        for step in 0.. {
            let token = |row: usize| {
                let text = Self::read(self.kind, self.texts[row]);
                let token = first(text) + step;
                (token < text.len()).then_some(token)
            };
            let kept: Vec<usize> =
                (0..rows.len()).filter(|&at| token(rows[at]).is_some()).collect();
            rows = kept.iter().map(|&at| rows[at]).collect();
            if rows.is_empty() {
                return steps;
            }
            let texts: Vec<usize> = rows.iter().map(|&row| self.texts[row]).collect();
            let next = |_: usize, text: &[u32]| first(text) + step..first(text) + step + 1;
            let (input, places) = Self::stretch(self.kind, &texts, next, device);
            let targets = self.targets_at(&rows, &places, |row| token(row).expect("it goes on"));
            steps.push(Step { kept, input, places, targets });
        }
        unreachable!("texts end")
    }

    /// The targets of the whole batch that are meant by places in a step over `rows`, where the
    /// stretch of each begins at `from`.
    fn targets_at(
        &self,
        rows: &[usize],
        places: &[Place],
        from: impl Fn(usize) -> usize,
    ) -> Vec<usize> {
        let target = |&[at, token]: &Place| {
            let place = [rows[at], from(rows[at]) + token];
            self.places.iter().position(|known| *known == place).expect("a token of the text")
        };
        places.iter().map(target).collect()
    }
}

/// A step of reading with a cache.
#[derive(Debug)]
pub(crate) struct Step {
    /// Which rows of the step before go on.
    pub(crate) kept: Vec<usize>,
    /// What the model is given.
    pub(crate) input: ModelInput,
    /// Its tokens.
    pub(crate) places: Vec<Place>,
    /// Which targets of the whole batch they are.
    pub(crate) targets: Vec<usize>,
}
