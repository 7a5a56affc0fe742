//! Texts and adapters drawn at random, always the same.

use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft::core::{BoxedMethod, InitContext};
use peft::format::{Adapter, AdapterConfig};
use peft::models::{Model, ModelInput};
use serde_json::{Map, Value};

/// Words that are one token each in most vocabularies.
const WORDS: [&str; 16] = [
    "time", "people", "water", "house", "good", "new", "old", "long", "day", "man", "world",
    "life", "hand", "part", "place", "case",
];

/// A text of so many words.
pub fn text(words: usize, number: usize) -> String {
    let word = |place: usize| WORDS[(number * 131 + place * place * 7 + place) % WORDS.len()];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// Token indices, all of them ordinary words of a vocabulary.
pub fn ids(tokens: usize, number: usize) -> Vec<u32> {
    (0..tokens).map(|place| 1000 + (number * 131 + place * 17) as u32 % 9000).collect()
}

/// A batch of texts of the same length.
pub fn input(rows: usize, tokens: usize, device: &Device) -> Result<ModelInput> {
    let ids: Vec<Vec<u32>> = (0..rows).map(|row| ids(tokens, row)).collect();
    let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    Ok(ModelInput::from_rows(&ids, None, 0, device)?)
}

/// Away from its start, as a trained method is.
struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.clone() + tensor.random_like(Distribution::Normal(0.0, 0.02)))
    }
}

/// A method with noise on all that it trains.
pub fn adapter(
    method: &str,
    settings: &Map<String, Value>,
    model: &Model,
    device: &Device,
) -> Result<Adapter> {
    let config = AdapterConfig::new(peft::registry().configure(method, settings.clone())?);
    let adapter = Adapter::init(config, &InitContext::new(model.base(), device))?;
    Ok(Adapter { method: adapter.method.map(&mut Noise), ..adapter })
}

/// The same for inference.
pub fn method(
    method: &str,
    settings: &Map<String, Value>,
    model: &Model,
    device: &Device,
) -> Result<BoxedMethod> {
    Ok(BoxedMethod::new(adapter(method, settings, model, device)?.method.valid()))
}
