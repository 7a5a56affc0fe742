//! The configuration of KronA^B.

use std::sync::Arc;

use peft_core::{
    Base, ComputationFunction, Error, InitContext, KroneckerShape, MethodCard, MethodConfig,
    Result, Role, Site, Size, whole_if_it_is,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::KronaAdapter;

/// Configuration of [`KronaAdapter`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `a_inputs`, `a_outputs` | none | the sides of `A`, see [`KroneckerShape`] |
/// | `scale` | 1 | `s` |
/// | `residual` | false | whether `s_res x` is added (KronA^B_res) |
/// | `residual_start` | 1 | where `s_res` starts; at 0 the start is the base |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KronaAdapterConfig {
    /// The sides of `A`.
    #[serde(flatten)]
    pub shape: KroneckerShape,
    /// The scale of the product.
    #[serde(serialize_with = "whole_if_it_is")]
    pub scale: f64,
    /// Whether a share of the network's input is added.
    pub residual: bool,
    /// Where that share starts.
    #[serde(serialize_with = "whole_if_it_is")]
    pub residual_start: f64,
}

impl Default for KronaAdapterConfig {
    fn default() -> Self {
        Self { shape: KroneckerShape::default(), scale: 1.0, residual: false, residual_start: 1.0 }
    }
}

/// Names of configurations, a line about each, and the fields in which it differs from the defaults.
///
/// ```
/// use peft_adapter::{KronaAdapterConfig, krona_presets};
/// let (_, _, fields) = krona_presets().remove(0);
/// let config: KronaAdapterConfig = serde_json::from_value(fields)?;
/// assert!(config.residual);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn krona_presets() -> Vec<(&'static str, &'static str, Value)> {
    let about = "krona-b, with a trained share of the network's input (Edalati et al. 2022)";
    vec![("krona-b-res", about, json!({ "residual": true }))]
}

impl KronaAdapterConfig {
    /// The feed-forward networks that get a product.
    ///
    /// # Errors
    /// If the model has none.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Arc<Site>>> {
        let sites = base.sites().filter(|site| site.role == Role::FeedForwardSublayer);
        let sites: Vec<_> = sites.collect();
        if sites.is_empty() {
            let others = base.sites().map(|site| site.path.clone()).take(5);
            return Err(Error::NoMatch {
                field: Self::NAME.into(),
                pattern: "feed-forward sublayers".into(),
                what: "sublayer".into(),
                available: others.collect::<Vec<_>>().join(", "),
            });
        }
        Ok(sites)
    }
}

impl MethodConfig for KronaAdapterConfig {
    const NAME: &'static str = "krona-b";
    const PEFT_TYPE: &'static str = "KRONA_B";
    const ABOUT: &'static str =
        "a Kronecker product beside the feed-forward network (Edalati et al. 2022)";
    // That of the other adapters, and of Kronecker products in weights.
    const LEARNING_RATE: f64 = 1e-3;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Function],
        sites: "feed-forward sublayers",
        trainable: "about 2 L d; krona-b-res: L more",
        merges: "no: there is no weight beside the network",
        formats: "",
    };
    type Method = KronaAdapter;

    fn validate(&self) -> Result<()> {
        if !(self.scale.is_finite() && self.scale != 0.0) {
            return Err(Error::config("scale", self.scale, "must be a number other than 0"));
        }
        if !self.residual_start.is_finite() {
            return Err(Error::config("residual_start", self.residual_start, "must be a number"));
        }
        Ok(())
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Arc<Site>| {
            let [[m, k], [n, l]] = self.shape.at(site)?;
            let values = m as f64 * k as f64 + n as f64 * l as f64;
            Ok(Size::new("a_inputs, a_outputs", format!("{m}, {k}"), values))
        };
        self.sites(base)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<KronaAdapter> {
        self.validate()?;
        KronaAdapter::new(self, context)
    }
}
