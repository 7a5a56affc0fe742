//! A batch of texts in generation, token by token.

use std::cell::RefCell;

use burn::tensor::Device;
use peft_core::{Memo, Slots};

use super::Generator;
use crate::{Cache, Error, Forward, ModelInput, Place, Result, Task};

/// A batch of texts in generation.
pub(super) struct Stream<'m> {
    generator: Generator<'m>,
    cache: Cache,
    /// What is computed once: no parameter changes meanwhile.
    memo: Memo,
    /// The adapter of each unfinished row.
    slots: RefCell<Slots>,
    /// The tokens of each prompt.
    lengths: Vec<usize>,
    device: Device,
    /// What a decoder's text begins with, where there is an encoder.
    start: Option<u32>,
}

/// The scores of every token, for each text.
pub(super) type Scores = Vec<Vec<f32>>;

impl<'m> Stream<'m> {
    /// Reads the prompts: the stream, and the scores of each text's first new token.
    pub(super) fn begin(generator: Generator<'m>, prompts: &[&[u32]]) -> Result<(Self, Scores)> {
        let Generator { model, config, .. } = generator;
        let device = model.base().device().clone();
        let start = match model.task() {
            Task::Seq2SeqLm => Some(config.decoder_start_token_id.ok_or_else(|| {
                Error::Input(
                    "the first token of the decoder is not known: the model's \
                     config.json has no decoder_start_token_id"
                        .into(),
                )
            })?),
            _ => None,
        };
        let pad = config.pad_token_id.unwrap_or(model.config().pad_token_id() as u32);
        let (cache, memo) = (Cache::new(), Memo::new());
        let slots = RefCell::new(generator.slots.cloned().unwrap_or_default());
        let lengths = prompts.iter().map(|prompt| prompt.len()).collect();
        let stream = Self { generator, cache, memo, slots, lengths, device, start };
        let text = ModelInput::from_rows(prompts, None, pad as usize, &stream.device)?;
        let input = match start {
            Some(start) => text.with_decoder(stream.column(&vec![start; prompts.len()])?)?,
            None => text,
        };
        let scores = stream.scores(&input)?;
        Ok((stream, scores))
    }

    /// What a decoder's text begins with, where there is an encoder.
    pub(super) fn start(&self) -> Option<u32> {
        self.start
    }

    /// Goes on with some of the texts, each with the token that was chosen for it: a row of the
    /// batch as it was, which may be there several times, and its token.
    pub(super) fn next(&self, rows: &[(usize, u32)]) -> Result<Scores> {
        let kept: Vec<usize> = rows.iter().map(|&(row, _)| row).collect();
        self.cache.select(&kept);
        self.slots.replace_with(|slots| slots.select(kept));
        let tokens: Vec<u32> = rows.iter().map(|&(_, token)| token).collect();
        let input = self.column(&tokens)?;
        let input = match self.start {
            // The encoder's text has been read; only its number of rows matters.
            Some(_) => input.clone().with_decoder(input)?,
            None => input,
        };
        self.scores(&input)
    }

    fn scores(&self, input: &ModelInput) -> Result<Scores> {
        let [rows, tokens] = input.output_shape();
        let places: Vec<Place> = (0..rows).map(|row| [row, self.last(row, tokens)]).collect();
        let Generator { model, hooks, .. } = self.generator;
        let slots = self.slots.borrow();
        let how = Forward::infer(hooks).with_cache(&self.cache).with_memo(&self.memo);
        let logits = model.forward_at(input, &places, how.with_slots(&slots))?;
        let [_, words] = logits.dims();
        let values = logits.into_data().convert::<f32>().try_into_vec::<f32>();
        let values = values.expect("converted to f32");
        if rows == 1 {
            return Ok(vec![values]);
        }
        Ok(values.chunks(words).map(<[f32]>::to_vec).collect())
    }

    /// The last token of a text that the model is given.
    fn last(&self, row: usize, tokens: usize) -> usize {
        match self.cache.is_empty() && self.start.is_none() {
            true => self.lengths[row] - 1,
            false => tokens - 1,
        }
    }

    /// One token for each text.
    fn column(&self, tokens: &[u32]) -> Result<ModelInput> {
        let rows: Vec<&[u32]> = tokens.chunks(1).collect();
        ModelInput::from_rows(&rows, None, 0, &self.device)
    }
}
