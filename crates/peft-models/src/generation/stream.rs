//! A batch of texts that a model goes on with, token by token.

use burn::tensor::{Device, TensorData};

use super::Generator;
use crate::{Cache, Error, ModelInput, Pass, Place, Result, Task};

/// A batch of texts that a model goes on with.
pub(super) struct Stream<'m> {
    generator: Generator<'m>,
    cache: Cache,
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
                    "what a decoder's text begins with is not known: the model's \
                     config.json has no decoder_start_token_id"
                        .into(),
                )
            })?),
            _ => None,
        };
        let pad = config.pad_token_id.unwrap_or(model.config().pad_token_id() as u32);
        let stream = Self { generator, cache: Cache::new(), device, start };
        let input = match start {
            Some(start) => {
                let text = ModelInput::from_rows(prompts, None, pad as usize, &stream.device)?;
                text.with_decoder(stream.column(&vec![start; prompts.len()])?)?
            }
            None => stream.padded_in_front(prompts, pad)?,
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
        let places: Vec<Place> = (0..rows).map(|row| [row, tokens - 1]).collect();
        let Generator { model, hooks, .. } = self.generator;
        let pass = Pass::inference(hooks).with_cache(&self.cache);
        let logits = model.forward_at(input, &places, pass)?;
        let [_, found, words] = logits.dims();
        if found != rows {
            let reason = "methods side by side cannot generate: generate under one after another, or \
                          give each text its method";
            return Err(Error::Input(reason.into()));
        }
        let values = logits.into_data().convert::<f32>().try_into_vec::<f32>();
        let values = values.expect("converted to f32");
        Ok(values.chunks(words).map(<[f32]>::to_vec).collect())
    }

    /// One token for each text.
    fn column(&self, tokens: &[u32]) -> Result<ModelInput> {
        let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let data = TensorData::new(tokens.clone(), [tokens.len(), 1]);
        Ok(ModelInput::from_data(data, None, None, &self.device)?.counting_tokens())
    }

    /// Prompts that end together; padding has no positions.
    fn padded_in_front(&self, prompts: &[&[u32]], pad: u32) -> Result<ModelInput> {
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        if prompts.iter().any(|prompt| prompt.is_empty()) {
            return Err(Error::Input("a prompt has no tokens".into()));
        }
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let missing = longest - prompt.len();
            ids.extend(std::iter::repeat_n(i64::from(pad), missing));
            ids.extend(prompt.iter().map(|&token| i64::from(token)));
            mask.extend((0..longest).map(|place| i64::from(place >= missing)));
        }
        let shape = [prompts.len(), longest];
        let (ids, mask) = (TensorData::new(ids, shape), TensorData::new(mask, shape));
        Ok(ModelInput::from_data(ids, Some(mask), None, &self.device)?.counting_tokens())
    }
}
