//! The configuration of ReFT, with adapter-hub/adapters' fields.

use peft_core::{
    Activation, Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result,
    Role, Site, Size,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{Reft, adapters_format};

/// Configuration of [`Reft`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `layers` | `"all"` | the layers behind which states change, counted from 0; of an encoder and a decoder through both |
/// | `prefix_positions` | 3 | how many tokens at the beginning of a text change |
/// | `suffix_positions` | 0 | how many at its end |
/// | `r` (`rank`) | 1 | dimensions of the subspace |
/// | `orthogonality` | true | whether the rows of `R` are orthonormal: LoReFT |
/// | `subtract_projection` | true | false leaves `R h` out: DiReFT |
/// | `tied_weights` | false | whether first and last tokens have the same parameters |
/// | `non_linearity` | none | `f`, an activation |
/// | `dropout` | 0.05 | dropout of the states that change, in training |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReftConfig {
    /// The layers behind which states change.
    pub layers: ReftLayers,
    /// How many tokens at the beginning of a text change.
    pub prefix_positions: usize,
    /// How many tokens at the end of a text change.
    pub suffix_positions: usize,
    /// Dimensions of the subspace.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Whether the rows of `R` are orthonormal.
    pub orthogonality: bool,
    /// Whether `R h` is subtracted.
    pub subtract_projection: bool,
    /// Whether first and last tokens have the same parameters.
    pub tied_weights: bool,
    /// The activation of `W h + b`.
    pub non_linearity: Option<Activation>,
    /// Dropout of the states that change.
    pub dropout: f64,
}

impl Default for ReftConfig {
    fn default() -> Self {
        Self {
            layers: ReftLayers::All,
            prefix_positions: 3,
            suffix_positions: 0,
            rank: 1,
            orthogonality: true,
            subtract_projection: true,
            tied_weights: false,
            non_linearity: None,
            dropout: 0.05,
        }
    }
}

/// Some layers of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReftLayers {
    /// `"all"`.
    #[default]
    All,
    /// Those with these numbers.
    List(Vec<usize>),
}

impl Serialize for ReftLayers {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::List(layers) => layers.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ReftLayers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NameOrList {
            Name(String),
            List(Vec<usize>),
        }
        match NameOrList::deserialize(deserializer) {
            Ok(NameOrList::Name(name)) if name == "all" => Ok(Self::All),
            Ok(NameOrList::List(layers)) => Ok(Self::List(layers)),
            _ => Err(D::Error::custom("must be \"all\" or a list of layers, counted from 0")),
        }
    }
}

impl ReftConfig {
    /// The sublayers in which the layers end, each with the path of its layer.
    ///
    /// # Errors
    /// If there is no such layer.
    pub(crate) fn layers<'b>(&self, base: &'b Base) -> Result<Vec<(&'b Site, String)>> {
        let all: Vec<&Site> = (base.sites().map(AsRef::as_ref))
            .filter(|site: &&Site| site.role == Role::FeedForwardSublayer)
            .collect();
        let chosen: Vec<usize> = match &self.layers {
            ReftLayers::All => (0..all.len()).collect(),
            ReftLayers::List(layers) => layers.clone(),
        };
        let layer = |number: &usize| match all.get(*number) {
            Some(site) => Ok((*site, path_of_layer(site))),
            None => {
                let expected = format!("the model has {} layers, counted from 0", all.len());
                Err(Error::config("layers", number, expected))
            }
        };
        if all.is_empty() {
            return Err(Error::config("layers", "all", "the model has no layers of a transformer"));
        }
        chosen.iter().map(layer).collect()
    }

    /// The rank behind a layer.
    pub(crate) fn rank_at(&self, site: &Site) -> Result<usize> {
        let d = site.d_out();
        if self.orthogonality && self.rank >= d {
            let expected = format!("must be below {d}, the width of {site}, with orthogonality");
            return Err(Error::config("r", self.rank, expected));
        }
        Ok(self.rank)
    }
}

/// The path of the layer that a sublayer is of: up to its number.
fn path_of_layer(site: &Site) -> String {
    let number = site.layer.map(|layer| layer.to_string()).unwrap_or_default();
    let parts: Vec<&str> = site.path.split('.').collect();
    let end = parts.iter().position(|part| *part == number).map_or(parts.len(), |place| place + 1);
    parts[..end].join(".")
}

impl MethodConfig for ReftConfig {
    const NAME: &'static str = "loreft";
    const PEFT_TYPE: &'static str = "REFT";
    const ABOUT: &'static str = "states changed at some positions, in a subspace (Wu et al. 2024)";
    // The paper's, for RoBERTa-base, are between 2e-4 and 6e-4 for thousands of steps.
    const LEARNING_RATE: f64 = 3e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("rank", "r")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Function],
        sites: "states behind each layer, at the first 3 tokens",
        trainable: "L (2 d r + r), with suffix positions of their own twice that",
        merges: "no: it acts at some positions",
        formats: "adapters",
    };
    type Method = Reft;

    fn to_adapters(&self, _base: &Base) -> Result<Value> {
        adapters_format::write(self)
    }

    fn from_adapters(config: &Map<String, Value>, _base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config)
    }

    fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("r", 0, "the rank must be at least 1"));
        }
        if self.prefix_positions + self.suffix_positions == 0 {
            let expected = "or suffix_positions must be at least 1: nothing changes";
            return Err(Error::config("prefix_positions", 0, expected));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("dropout", self.dropout, "must be at least 0, below 1"));
        }
        if self.layers == ReftLayers::List(Vec::new()) {
            return Err(Error::config("layers", "[]", "must name a layer, or be \"all\""));
        }
        Ok(())
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let units = if self.tied_weights { 1.0 } else { 2.0 };
        let of = |(site, _): (&Site, String)| {
            let d = site.d_out() as f64;
            let base = if self.orthogonality { d * d } else { 0.0 };
            Size::new("r", self.rank, units * (2.0 * d * self.rank as f64 + base))
        };
        Ok(self.layers(base)?.into_iter().map(of).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Reft> {
        self.validate()?;
        Reft::new(self, context)
    }
}

/// Names of variants: each with what it is, and the fields that differ from LoReFT's defaults.
pub fn reft_presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        (
            "noreft",
            "LoReFT whose directions need not be orthonormal (Wu et al. 2024)",
            json!({"orthogonality": false}),
        ),
        (
            "direft",
            "NoReFT without the projection of the states (Wu et al. 2024)",
            json!({"orthogonality": false, "subtract_projection": false}),
        ),
    ]
}
