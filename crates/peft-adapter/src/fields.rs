//! Values of the configuration's fields, as adapter-hub/adapters writes them.

use std::collections::BTreeMap;

use peft_core::Activation;
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The hidden size over that of the bottleneck.
///
/// ```
/// use peft_adapter::ReductionFactor;
/// let factor: ReductionFactor = serde_json::from_str(r#"{"1": 8, "default": 16}"#)?;
/// assert_eq!((factor.at(0), factor.at(1)), (Some(16.0), Some(8.0)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum ReductionFactor {
    /// One for all layers.
    Same(f64),
    /// By the layer's index, from zero, or `default`.
    PerLayer(BTreeMap<String, f64>),
}

impl ReductionFactor {
    /// The factor of a layer; `None` where neither it nor a default is given.
    pub fn at(&self, layer: usize) -> Option<f64> {
        match self {
            Self::Same(factor) => Some(*factor),
            Self::PerLayer(map) => map.get(&layer.to_string()).or(map.get("default")).copied(),
        }
    }
}

impl From<f64> for ReductionFactor {
    fn from(factor: f64) -> Self {
        Self::Same(factor)
    }
}

impl Serialize for ReductionFactor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Same(factor) => Whole(*factor).serialize(serializer),
            Self::PerLayer(map) => {
                serializer.collect_map(map.iter().map(|(layer, factor)| (layer, Whole(*factor))))
            }
        }
    }
}

/// A number that is written without a fraction where it has none, as people write factors.
struct Whole(f64);

impl Serialize for Whole {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 1e15 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

pub(crate) fn serialize_whole<S: Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.map(Whole).serialize(serializer)
}

/// The scale `s` of an adapter's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// A constant.
    Fixed(f64),
    /// `"learned"`: one trained value, 1 at the start.
    Learned,
    /// `"channel"`: a trained value for each of the `d` channels, 1 at the start.
    Channel,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FlagNumberOrName {
    Flag(bool),
    Number(f64),
    Name(String),
}

impl Serialize for Scaling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // With a fraction always: the reference takes no whole number.
            Self::Fixed(scale) => serializer.serialize_f64(*scale),
            Self::Learned => serializer.serialize_str("learned"),
            Self::Channel => serializer.serialize_str("channel"),
        }
    }
}

impl<'de> Deserialize<'de> for Scaling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FlagNumberOrName::deserialize(deserializer)? {
            FlagNumberOrName::Number(scale) => Ok(Self::Fixed(scale)),
            FlagNumberOrName::Name(name) if name == "learned" => Ok(Self::Learned),
            FlagNumberOrName::Name(name) if name == "channel" => Ok(Self::Channel),
            _ => Err(D::Error::custom("must be a number, \"learned\" or \"channel\"")),
        }
    }
}

/// Where the residual connection around an adapter in series begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResidualBeforeNorm {
    /// `true`: at the sublayer's output.
    Output,
    /// `false`: at what the adapter is given, which is normalised with `original_ln_before`.
    Input,
    /// `"post_add"`: at the sum of the sublayer's output and its residual.
    PostAdd,
}

impl Serialize for ResidualBeforeNorm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Output => serializer.serialize_bool(true),
            Self::Input => serializer.serialize_bool(false),
            Self::PostAdd => serializer.serialize_str("post_add"),
        }
    }
}

impl<'de> Deserialize<'de> for ResidualBeforeNorm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FlagNumberOrName::deserialize(deserializer)? {
            FlagNumberOrName::Flag(true) => Ok(Self::Output),
            FlagNumberOrName::Flag(false) => Ok(Self::Input),
            FlagNumberOrName::Name(name) if name == "post_add" => Ok(Self::PostAdd),
            _ => Err(D::Error::custom("must be true, false or \"post_add\"")),
        }
    }
}

/// How the projections of an adapter start; biases start at zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitWeights {
    /// Both `N(0, 0.02)`.
    #[default]
    Bert,
    /// `W_d ~ U(-1/sqrt(d), 1/sqrt(d))`, `W_u = 0`: the base itself.
    MamAdapter,
    /// Both `N(0, 0.01)`, without the values beyond two standard deviations.
    Houlsby,
}

/// The kind of an invertible adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvertibleKind {
    /// Additive coupling (Dinh et al. 2014, arXiv 1410.8516).
    Nice,
    /// Affine coupling (Kingma and Dhariwal 2018, arXiv 1807.03039).
    Glow,
}

/// How the rule of parameterised hypercomplex multiplication starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhmInit {
    /// `N(0, phm_init_range)` if shared, else `N(0, 0.01)`.
    #[default]
    Normal,
    /// `U(-1, 1)` if shared, else `U(-0.01, 0.01)`.
    Uniform,
}

/// The name that the reference gives the start of `W`.
///
/// Carried, not needed: the reference draws from the Xavier normal distribution under each of
/// these names, and so does this crate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HypercomplexInit {
    /// `"phm"`.
    Phm,
    /// `"glorot-normal"`.
    GlorotNormal,
    /// `"glorot-uniform"`.
    #[default]
    GlorotUniform,
    /// `"normal"`.
    Normal,
}

/// An activation by its name in any case: the reference lowers it too.
pub(crate) fn activation<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Activation, D::Error> {
    let name = String::deserialize(deserializer)?.to_lowercase();
    Activation::deserialize(name.into_deserializer())
}
