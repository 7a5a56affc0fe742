//! The configuration of P-tuning.

use peft_core::{Base, ComputationFunction, InitContext, MethodCard, MethodConfig, Result, Size};
use serde::{Deserialize, Serialize};

use super::template::{self, PromptPart};
use crate::model::{
    ModelDimensions, at_least_one, dropout, embeddings, or_default, virtual_tokens,
};
use crate::p_tuning::PTuning;

/// What makes virtual tokens of an embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EncoderType {
    /// `Linear(d → h)`, ReLU, `Linear(h → h)`, ReLU, `Linear(h → d)`.
    #[default]
    Mlp,
    /// A bidirectional LSTM of width `h`, then `Linear(2h → 2h)`, ReLU, `Linear(2h → d)`.
    Lstm,
}

/// Configuration of [`PTuning`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `num_virtual_tokens` (`prompt_length`) | 20 | the number `L` of virtual tokens |
/// | `encoder_reparameterization_type` (`encoder`) | `MLP` | `MLP` or `LSTM`, see [`EncoderType`] |
/// | `encoder_hidden_size` (`hidden`) | the hidden size | width `h` of the encoder |
/// | `encoder_num_layers` (`layers`) | 2 | layers of the LSTM; an MLP has three linear layers whatever it says |
/// | `encoder_dropout` (`dropout`) | 0 | between the layers of the LSTM |
/// | `template` (`parts`) | virtual tokens, text | see [`PromptPart`] |
/// | `num_layers`, `token_dim`, ... | | see [`ModelDimensions`] |
///
/// `template` is ours, and written only if it is set: HF PEFT puts virtual tokens before the text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PTuningConfig {
    /// The number of virtual tokens.
    pub num_virtual_tokens: usize,
    /// What the encoder is.
    #[serde(deserialize_with = "or_default")]
    pub encoder_reparameterization_type: EncoderType,
    /// The width of the encoder; the hidden size where it is not given.
    pub encoder_hidden_size: Option<usize>,
    /// The layers of the LSTM.
    pub encoder_num_layers: usize,
    /// Dropout between the layers of the LSTM.
    #[serde(deserialize_with = "or_default")]
    pub encoder_dropout: f64,
    /// Where virtual tokens, anchor tokens and the text go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Vec<PromptPart>>,
    /// What HF PEFT notes about the model.
    #[serde(flatten)]
    pub model: ModelDimensions,
}

impl Default for PTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            encoder_reparameterization_type: EncoderType::Mlp,
            encoder_hidden_size: None,
            encoder_num_layers: 2,
            encoder_dropout: 0.0,
            template: None,
            model: ModelDimensions::default(),
        }
    }
}

impl PTuningConfig {
    /// The parts of the sequence, in their order.
    pub fn parts(&self) -> Vec<PromptPart> {
        let default = || vec![PromptPart::Virtual(self.num_virtual_tokens), PromptPart::Text];
        self.template.clone().unwrap_or_else(default)
    }
}

impl MethodConfig for PTuningConfig {
    const NAME: &'static str = "p-tuning";
    const PEFT_TYPE: &'static str = "P_TUNING";
    const ABOUT: &'static str = "virtual tokens from a trained encoder (Liu et al. 2021)";
    // Its weights are those of a network, which learn at the rates of new layers; they start far from
    // any word, and have a way to go: a small encoder gains much from 1e-3 to 3e-3.
    const LEARNING_RATE: f64 = 3e-3;
    const PROMPT_LEARNING: bool = true;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("prompt_length", "num_virtual_tokens"),
        ("encoder", "encoder_reparameterization_type"),
        ("hidden", "encoder_hidden_size"),
        ("layers", "encoder_num_layers"),
        ("dropout", "encoder_dropout"),
        ("parts", "template"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Input],
        sites: "the embeddings",
        trainable: "L d and an encoder; L d in the file",
        merges: "no",
        formats: "peft",
    };
    type Method = PTuning;

    fn validate(&self) -> Result<()> {
        at_least_one("num_virtual_tokens", self.num_virtual_tokens)?;
        at_least_one("encoder_num_layers", self.encoder_num_layers)?;
        if let Some(width) = self.encoder_hidden_size {
            at_least_one("encoder_hidden_size", width)?;
        }
        dropout("encoder_dropout", self.encoder_dropout)?;
        template::validate(&self.parts(), self.num_virtual_tokens)?;
        self.model.validate()
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let d = embeddings(base, "P-tuning")?.d_out();
        let width = self.encoder_hidden_size.unwrap_or(d);
        let (h, layers) = (width as f64, self.encoder_num_layers);
        let hidden = Size::new("encoder_hidden_size", width, h * (2.0 * d as f64 + h));
        let mut sizes = vec![virtual_tokens(self.num_virtual_tokens, base)?, hidden.not_in_file()];
        if self.encoder_reparameterization_type == EncoderType::Lstm {
            // Four gates in two directions.
            let values = 8.0 * h * h * layers as f64;
            sizes.push(Size::new("encoder_num_layers", layers, values).not_in_file());
        }
        Ok(sizes)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<PTuning> {
        self.validate()?;
        PTuning::new(self, context)
    }
}
