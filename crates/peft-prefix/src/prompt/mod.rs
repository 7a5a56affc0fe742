//! Prompt tuning.

mod adapters_format;
mod config;

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor, TensorData};
use peft_core::{
    Base, Error, Exchange, Hooks, InitContext, Key, Layout, Method, Pass, Piece, Result, Role,
    Site, Stage, Tokens,
};

use crate::model::{ModelDimensions, embeddings, words};
use crate::start;
use crate::subspace::IntrinsicPrompt;

pub use config::{Combine, PromptInit, PromptTuningConfig, prompt_presets};

/// Prompt tuning (Lester et al. 2021, arXiv 2104.08691): `L` learned embeddings `P`, `[L, d]`,
/// before those of the text, `X' = [P; X]`; in a model with an encoder and a decoder, the encoder's.
///
/// Intrinsic prompt tuning (Qin et al. 2021, arXiv 2110.07867) trains `d_I` numbers, of which a frozen
/// decoder makes `P`, see [`PromptSubspace`](crate::PromptSubspace); [`finish`](Method::finish) keeps `P`
/// alone.
///
/// Created with [`PromptTuningConfig`].
#[derive(Module, Debug)]
pub struct PromptTuning {
    source: Source,
    /// How many rows there are in a file, and how wide they are. For an encoder and a decoder they are
    /// `[2 L, d]` as in HF PEFT's files, whose second half nothing reads.
    #[module(skip)]
    shape: [usize; 2],
    #[module(skip)]
    length: usize,
    #[module(skip)]
    combine: Combine,
    #[module(skip)]
    after_embeddings: bool,
}

/// Where a prompt comes from.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
enum Source {
    /// The prompt itself, `[rows, d]`.
    Table(Param<Tensor<2>>),
    /// What is trained in its place.
    Subspace(IntrinsicPrompt),
}

impl PromptTuning {
    fn new(config: &PromptTuningConfig, context: &InitContext<'_>) -> Result<Self> {
        let base = context.base;
        let d = embeddings(base, "prompt tuning")?.d_out();
        ModelDimensions::check("token_dim", config.model.token_dim, d)?;
        let length = config.num_virtual_tokens;
        let shape = [length * config.model.submodules(base)?, d];
        let (combine, after_embeddings) = (config.combine, config.after_embeddings);
        let made = |source| Self { source, shape, length, combine, after_embeddings };
        if config.is_intrinsic() && !context.is_read() {
            let Some(decoder) = &config.decoder else {
                let dimension = config.intrinsic_dimension.unwrap_or_default();
                let expected = "needs a decoder, which is found between prompts of other tasks: train some \
                                with --method prompt, run `peft subspace` on them, and give its directory \
                                as decoder";
                return Err(Error::config("intrinsic_dimension", dimension, expected));
            };
            let of = [length, d];
            let prompt = IntrinsicPrompt::new(decoder, config.intrinsic_dimension, of, context)?;
            return Ok(made(Source::Subspace(prompt)));
        }
        let prompt = match (config.prompt_tuning_init, config.inference_mode) {
            (PromptInit::Random, _) => match config.random_uniform_scale {
                Some(scale) => {
                    let uniform = Distribution::Uniform(-scale, scale);
                    Param::from_tensor(context.random(shape, uniform))
                }
                None => start::normal(shape, context),
            },
            // What it starts from is read over.
            (_, true) => start::normal(shape, context),
            (init, false) => Param::from_tensor(words_of(config, init, context, shape[0])?),
        };
        Ok(made(Source::Table(prompt)))
    }

    /// How many rows there are in a file, and how wide they are.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The prompt `P`, `[L, d]`.
    pub fn prompt(&self) -> Tensor<2> {
        match &self.source {
            Source::Table(prompt) => prompt.val().narrow(0, 0, self.length),
            Source::Subspace(prompt) => prompt.prompt(self.shape[1]),
        }
    }
}

/// Embeddings of a text's tokens, or of tokens drawn from the vocabulary: `[length, d]`.
fn words_of(
    config: &PromptTuningConfig,
    init: PromptInit,
    context: &InitContext<'_>,
    length: usize,
) -> Result<Tensor<2>> {
    let InitContext { base, device, .. } = *context;
    let Some(site) = words(base) else {
        let init = serde_json::to_string(&init).unwrap_or_default();
        let expected = "needs a model with a table of words; RANDOM does not";
        return Err(Error::config("prompt_tuning_init", init, expected));
    };
    let vocabulary = site.d_in();
    let ids: Vec<usize> = match init {
        PromptInit::Text => {
            let ids = tokens_of(config, context)?;
            if let Some(outside) = ids.iter().find(|id| **id >= vocabulary) {
                return Err(Error::config(
                    "prompt_tuning_init_ids",
                    outside,
                    format!("the model's vocabulary has {vocabulary} entries, from 0"),
                ));
            }
            // Repeated where the text is shorter than the prompt, cut where it is longer.
            ids.iter().copied().cycle().take(length).collect()
        }
        _ => {
            let last = vocabulary as f64;
            let drawn = context.random([length], Distribution::Uniform(0.0, last)).into_data();
            // A draw from the upper end can be rounded up to it.
            drawn.iter::<f32>().map(|id| (id as usize).min(vocabulary - 1)).collect()
        }
    };
    Ok(start::rows(base, site, &ids, device))
}

/// The tokens of the text that a prompt starts from, at least one.
fn tokens_of(config: &PromptTuningConfig, context: &InitContext<'_>) -> Result<Vec<usize>> {
    if let Some(ids) = &config.prompt_tuning_init_ids {
        return Ok(ids.clone());
    }
    let text = config.prompt_tuning_init_text.as_deref().unwrap_or_default();
    let wrong =
        |expected: &str| Error::config("prompt_tuning_init_text", format!("{text:?}"), expected);
    let encode = context
        .encode
        .ok_or_else(|| wrong("needs a tokenizer, or its tokens as prompt_tuning_init_ids"))?;
    let ids = encode(text)?;
    if ids.is_empty() { Err(wrong("has no tokens")) } else { Ok(ids) }
}

impl Hooks for PromptTuning {
    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        let own = if self.after_embeddings { Stage::Input } else { Stage::Embedded };
        if stage != own || site.role == Role::DecoderEmbeddings {
            return tokens;
        }
        let prompt = Piece::Virtual(self.prompt());
        match self.combine {
            Combine::Prefix => tokens.assembled(&[prompt, Piece::Text]),
            Combine::PrefixAfterBos => tokens.assembled(&[Piece::First, prompt, Piece::Text]),
        }
    }
}

impl Method for PromptTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        let model = base.model_prefix();
        let theirs = format!("{model}prompt_tuning.prompt_tunings.{{}}.prompt_embedding.weight");
        let key = Key::from("prompt_embeddings").adapters(theirs);
        match &mut self.source {
            Source::Table(prompt) => file.param(key, prompt, Layout::AsIs),
            Source::Subspace(prompt) => prompt.exchange(file),
        }
    }

    fn finish(&mut self) {
        if let Source::Subspace(prompt) = &self.source {
            let ([rows, d], device) = (self.shape, prompt.vector.lazy_device());
            let mut values = prompt.valid().prompt(d).into_data().iter::<f32>().collect::<Vec<_>>();
            // What a file has beside it is read by nobody.
            values.resize(rows * d, 0.0);
            let values = TensorData::new(values, self.shape);
            let table = Param::from_tensor(Tensor::from_data(values, &device));
            self.source = Source::Table(table.set_require_grad(prompt.vector.is_require_grad()));
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it lengthens the input, which no weight or bias can express".into())
    }

    fn virtual_tokens(&self) -> usize {
        self.length
    }
}
