//! What the methods of this crate ask of a model.

use peft_core::{Base, Error, Result, Role, Site, Size};
use serde::{Deserialize, Deserializer, Serialize};

/// What HF PEFT notes about the model in the files of its prompt methods.
///
/// The model knows all of it, so the fields may be left out; where a file has them, they are
/// compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelDimensions {
    /// The number of heads of an attention, by which HF PEFT cuts a prefix.
    pub num_attention_heads: Option<usize>,
    /// The number of layers.
    pub num_layers: Option<usize>,
    /// 2 for a model with an encoder and a decoder, 1 for others.
    pub num_transformer_submodules: Option<usize>,
    /// The hidden size.
    pub token_dim: Option<usize>,
}

impl ModelDimensions {
    pub(crate) fn validate(&self) -> Result<()> {
        match self.num_transformer_submodules {
            None | Some(1 | 2) => Ok(()),
            Some(other) => Err(Error::config(
                "num_transformer_submodules",
                other,
                "must be 1, or 2 for a model with an encoder and a decoder",
            )),
        }
    }

    /// For how many stacks of layers HF PEFT makes room: 2 where there is an encoder and a decoder,
    /// unless the file says otherwise.
    pub(crate) fn submodules(&self, base: &Base) -> Result<usize> {
        let own = if base.is_encoder_decoder() { 2 } else { 1 };
        match self.num_transformer_submodules {
            Some(2) if own == 1 => {
                let expected = "the model has no encoder beside a decoder";
                Err(Error::config("num_transformer_submodules", 2, expected))
            }
            noted => Ok(noted.unwrap_or(own)),
        }
    }

    /// Compares a field with what the model has.
    pub(crate) fn check(field: &str, noted: Option<usize>, found: usize) -> Result<()> {
        match noted {
            Some(noted) if noted != found => {
                Err(Error::config(field, noted, format!("the model's is {found}")))
            }
            _ => Ok(()),
        }
    }
}

/// The site of the embeddings as a whole.
pub(crate) fn embeddings<'b>(base: &'b Base, method: &str) -> Result<&'b Site> {
    let site = base.sites().find(|site| site.role == Role::Embeddings);
    site.map(|site| site.as_ref()).ok_or_else(|| {
        Error::config("num_virtual_tokens", "(any)", format!("{method} needs a model of tokens"))
    })
}

/// The size of this many embeddings of virtual tokens.
pub(crate) fn virtual_tokens(tokens: usize, base: &Base) -> Result<Size> {
    let d = embeddings(base, "a prompt")?.d_out();
    Ok(Size::new("num_virtual_tokens", tokens, tokens as f64 * d as f64))
}

/// The table of the tokens' embeddings.
pub(crate) fn words(base: &Base) -> Option<&Site> {
    base.sites().find(|site| site.role == Role::WordEmbedding).map(|site| site.as_ref())
}

/// A field that says how a prompt starts; HF PEFT, which is done with that, takes `null` in a file.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Refuses an empty prompt.
pub(crate) fn at_least_one(field: &str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::config(field, value, "must be at least 1")) } else { Ok(()) }
}

/// Refuses what is not a probability of dropping.
pub(crate) fn dropout(field: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, value, "must be at least 0, below 1"))
}
