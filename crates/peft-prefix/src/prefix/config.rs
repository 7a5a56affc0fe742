//! The configuration of prefix tuning.

use peft_core::{
    Activation, Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result,
    Role, Site, Size,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::adapters_format;
use crate::model::{ModelDimensions, at_least_one, dropout};
use crate::prefix::PrefixTuning;

/// How a prefix starts, if not at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixInit {
    /// Keys and values are zero. That is not the base: every query spreads some of its attention
    /// over the prefix.
    Zero,
}

/// Configuration of [`PrefixTuning`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `num_virtual_tokens` (`prefix_length`) | 20 | length `L` of the prefix |
/// | `prefix_projection` | false | train an embedding and an MLP that give the prefix, not the prefix |
/// | `encoder_hidden_size` (`bottleneck_size`) | the hidden size | width `m` of the MLP |
/// | `init_weights` | random | `"zero"`: the prefix starts at zero |
/// | `non_linearity` (`activation`) | `tanh` | of the MLP |
/// | `dropout` (`prefix_dropout`) | 0 | on the prefix's keys and values, in training |
/// | `leave_out` (`skip_layers`) | none | layers without a prefix, from 0 |
/// | `shift_positions` (`shift`) | true | the text's positions start at `L`, as with HF PEFT; false: at 0, as with adapter-hub/adapters |
/// | `encoder_prefix` (`encoder`), `cross_prefix` (`cross`) | false | with an encoder and a decoder: also in the encoder's attentions, in the decoder's to it |
/// | `num_layers`, `token_dim`, ... | | see [`ModelDimensions`] |
///
/// `non_linearity`, `dropout`, `leave_out`, `shift_positions`, `encoder_prefix` and `cross_prefix`
/// are written only where they differ from the default: HF PEFT does not know them.
///
/// In a model with an encoder and a decoder, the decoder's self-attention gets a prefix. As HF PEFT
/// reads its own table there, it has as many slices as the encoder has layers, and decoder layer `i`
/// gets slice `2 i`, from the front again behind the last one: half of an even number of slices
/// serves two layers each, and nothing reads the others.
/// With `shift_positions` false, or `num_transformer_submodules` 1, each layer has its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixTuningConfig {
    /// The length of the prefix.
    pub num_virtual_tokens: usize,
    /// Whether an MLP gives the prefix in training.
    pub prefix_projection: bool,
    /// The width of the MLP; the hidden size where it is not given.
    pub encoder_hidden_size: Option<usize>,
    /// How the prefix starts.
    pub init_weights: Option<PrefixInit>,
    /// The activation of the MLP.
    #[serde(skip_serializing_if = "is_tanh")]
    pub non_linearity: Activation,
    /// Dropout on the prefix's keys and values.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// Layers without a prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<usize>,
    /// Whether the positions of the text are counted from the prefix on.
    #[serde(skip_serializing_if = "is_true")]
    pub shift_positions: bool,
    /// Whether the encoder's attentions get a prefix too, beside a decoder.
    #[serde(skip_serializing_if = "is_false")]
    pub encoder_prefix: bool,
    /// Whether the decoder's attentions to the encoder get a prefix too.
    #[serde(skip_serializing_if = "is_false")]
    pub cross_prefix: bool,
    /// What HF PEFT notes about the model.
    #[serde(flatten)]
    pub model: ModelDimensions,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prefix_projection: false,
            encoder_hidden_size: None,
            init_weights: None,
            non_linearity: Activation::Tanh,
            dropout: 0.0,
            leave_out: Vec::new(),
            shift_positions: true,
            encoder_prefix: false,
            cross_prefix: false,
            model: ModelDimensions::default(),
        }
    }
}

fn is_tanh(activation: &Activation) -> bool {
    *activation == Activation::Tanh
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !value
}

impl PrefixTuningConfig {
    /// The kinds of attention that get a prefix, each with a table of its own.
    pub(super) fn roles(&self) -> Vec<Role> {
        let others = [
            (self.encoder_prefix, Role::EncoderAttention),
            (self.cross_prefix, Role::CrossAttention),
        ];
        let others = others.into_iter().filter(|(wanted, _)| *wanted).map(|(_, role)| role);
        std::iter::once(Role::SelfAttention).chain(others).collect()
    }

    /// The attentions of `base` that get a prefix, in the order of the model.
    ///
    /// # Errors
    /// If there is none.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let left_out =
            |site: &Site| site.layer.is_some_and(|layer| self.leave_out.contains(&layer));
        let roles = self.roles();
        let attentions = base.sites().filter(|site| roles.contains(&site.role));
        let sites: Vec<&Site> =
            attentions.map(|site| site.as_ref()).filter(|site| !left_out(site)).collect();
        if sites.is_empty() {
            let left_out = format!("{:?}", self.leave_out);
            return Err(Error::config(
                "leave_out",
                left_out,
                "leaves no attention of the model for a prefix",
            ));
        }
        Ok(sites)
    }
}

impl MethodConfig for PrefixTuningConfig {
    const NAME: &'static str = "prefix";
    const PEFT_TYPE: &'static str = "PREFIX_TUNING";
    const ABOUT: &'static str = "learned keys and values in every attention (Li and Liang 2021)";
    // The values of a flat prefix move on their own, so they need far larger steps than weights.
    const LEARNING_RATE: f64 = 1e-2;
    const PROMPT_LEARNING: bool = true;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("prefix_length", "num_virtual_tokens"),
        ("bottleneck_size", "encoder_hidden_size"),
        ("activation", "non_linearity"),
        ("prefix_dropout", "dropout"),
        ("skip_layers", "leave_out"),
        ("shift", "shift_positions"),
        ("encoder", "encoder_prefix"),
        ("cross", "cross_prefix"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Input],
        sites: "every self-attention",
        trainable: "2 L d per layer; with an MLP in training more, in the file the same",
        merges: "no",
        formats: "peft, adapters",
    };
    type Method = PrefixTuning;

    fn learning_rate(&self) -> f64 {
        // An MLP has weights again.
        if self.prefix_projection { 1e-3 } else { Self::LEARNING_RATE }
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config, base)
    }

    fn validate(&self) -> Result<()> {
        at_least_one("num_virtual_tokens", self.num_virtual_tokens)?;
        if let Some(width) = self.encoder_hidden_size {
            at_least_one("encoder_hidden_size", width)?;
        }
        dropout("dropout", self.dropout)?;
        self.model.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let layers: Vec<usize> = base.sites().filter_map(|site| site.layer).collect();
        let missed = self.leave_out.iter().filter(|layer| !layers.contains(layer));
        let count = layers.iter().max().map_or(0, |last| last + 1);
        let error = |layer| {
            Error::config("leave_out", layer, format!("the model has {count} layers, from 0"))
        };
        Ok(missed.map(error).collect())
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let sites = self.sites(base)?;
        let columns: f64 = sites.iter().map(|site| 2.0 * site.d_out() as f64).sum();
        let tokens = self.num_virtual_tokens;
        let mut sizes = vec![Size::new("num_virtual_tokens", tokens, tokens as f64 * columns)];
        if self.prefix_projection {
            let d = sites[0].d_out();
            let width = self.encoder_hidden_size.unwrap_or(d);
            let values = width as f64 * (d as f64 + columns);
            sizes.push(Size::new("encoder_hidden_size", width, values).not_in_file());
        }
        Ok(sizes)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<PrefixTuning> {
        self.validate()?;
        PrefixTuning::new(self, context)
    }
}
