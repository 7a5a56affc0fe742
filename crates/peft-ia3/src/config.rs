//! The configuration of (IA)³, with HF PEFT's fields.

use peft_core::{
    AttentionMatrices, Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig,
    ModuleNames, Result, Role, Site, Targets,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Ia3, adapters_format};

/// The linear layers that are scaled unless told otherwise.
const DEFAULT_ROLES: &[Role] =
    &[Role::Key, Role::Value, Role::QueryKeyValue, Role::FeedForwardDown];

/// Configuration of [`Ia3`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | key, value, feed-forward down | see [`Targets`] |
/// | `feedforward_modules` (`feedforward`) | feed-forward down | the targets whose input is scaled, not their output: names for the end of a path, or a regular expression for the whole of it |
/// | `init_ia3_weights` (`init`) | true | start at ones; false: at values from `N(0, 1)`, which is not the base; for tests |
/// | `attn_matrices` (`matrices`) | none | of a projection that is query, key and value in one: which of `q`, `k`, `v` are scaled, as in adapter-hub/adapters; none: all, as in HF PEFT |
/// | `ia3_alpha` (`alpha`) | 1 | a constant factor on the scales, as in adapter-hub/adapters, and on the parts that have none beside `attn_matrices`; under a gate it has no effect |
/// | `fan_in_fan_out` | false | says that the checkpoint stores `[d_in, d_out]`; the model knows, so it is written, not needed |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ia3Config {
    /// What is scaled.
    #[serde(flatten)]
    pub targets: Targets,
    /// The targets whose input is scaled.
    pub feedforward_modules: Option<ModuleNames>,
    /// The parts of a fused projection that are scaled.
    #[serde(skip_serializing_if = "AttentionMatrices::is_empty")]
    pub attn_matrices: AttentionMatrices,
    /// A constant factor on the scales.
    #[serde(rename = "ia3_alpha", skip_serializing_if = "is_one")]
    pub alpha: f64,
    /// Whether the checkpoint stores the weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
    /// Whether the scales start at one.
    #[serde(rename = "init_ia3_weights")]
    pub init: bool,
}

impl Default for Ia3Config {
    fn default() -> Self {
        Self {
            targets: Targets::default(),
            feedforward_modules: None,
            attn_matrices: AttentionMatrices::default(),
            alpha: 1.0,
            fan_in_fan_out: false,
            init: true,
        }
    }
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

impl Ia3Config {
    /// The layers that are scaled, each with whether its input is.
    ///
    /// # Errors
    /// If the targets select nothing, or `feedforward_modules` is not a regular expression.
    pub fn layers<'b>(&self, base: &'b Base) -> Result<Vec<(&'b Site, bool)>> {
        let sites = self.targets.resolve(base, DEFAULT_ROLES)?;
        let pattern = match &self.feedforward_modules {
            Some(ModuleNames::Pattern(_)) => Some(self.matching_pattern(base)?),
            _ => None,
        };
        let of_input = |site: &Site| match (&self.feedforward_modules, &pattern) {
            (None, _) => site.role == Role::FeedForwardDown,
            (Some(ModuleNames::List(names)), _) => names.iter().any(|n| site.path.ends_with(n)),
            (Some(_), pattern) => pattern.iter().flatten().any(|index| *index == site.index),
        };
        Ok(sites.into_iter().map(|site| (site, of_input(site))).collect())
    }

    /// The linear sites that match the expression in `feedforward_modules`, by [`Site::index`].
    fn matching_pattern(&self, base: &Base) -> Result<Vec<usize>> {
        let matched = self.feedforward_targets().resolve(base, &[]);
        match matched {
            Ok(sites) => Ok(sites.iter().map(|site| site.index).collect()),
            // HF PEFT takes an expression that matches nothing, too.
            Err(Error::NoMatch { .. }) => Ok(Vec::new()),
            Err(error) => Err(in_feedforward(error)),
        }
    }

    /// `feedforward_modules` in the place of targets, to be matched as they are.
    fn feedforward_targets(&self) -> Targets {
        Targets { target_modules: self.feedforward_modules.clone(), ..Targets::default() }
    }
}

/// The same error, of the field that the user wrote.
fn in_feedforward(error: Error) -> Error {
    match error {
        Error::Pattern { pattern, reason, .. } => {
            Error::Pattern { field: "feedforward_modules".into(), pattern, reason }
        }
        other => other,
    }
}

impl MethodConfig for Ia3Config {
    const NAME: &'static str = "ia3";
    const PEFT_TYPE: &'static str = "IA3";
    const ABOUT: &'static str = "learned scales of keys, values and feed-forward (Liu et al. 2022)";
    // The paper's.
    const LEARNING_RATE: f64 = 3e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("feedforward", "feedforward_modules"),
        ("init", "init_ia3_weights"),
        ("matrices", "attn_matrices"),
        ("alpha", "ia3_alpha"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "key, value, feed-forward down",
        trainable: "d_out per layer, d_in for a feed-forward one",
        merges: "yes",
        formats: "peft, adapters",
    };
    type Method = Ia3;

    fn card(&self) -> MethodCard {
        let is_pefts = self.attn_matrices.is_empty() && self.alpha == 1.0;
        let formats = if is_pefts { Self::CARD.formats } else { "adapters" };
        MethodCard { formats, ..Self::CARD }
    }

    /// By path: HF PEFT's own choice for BERT has the attention's output too, and it does not know
    /// `layers_to_transform`.
    fn for_file(&self, base: &Base) -> Result<Self> {
        let layers = self.layers(base)?;
        let fan_in_fan_out = layers.iter().any(|(site, _)| site.fan_in_fan_out);
        let config = Self { fan_in_fan_out, ..self.clone() };
        if self.targets.target_modules.is_some() && self.targets.layers_to_transform.is_none() {
            return Ok(config);
        }
        let of_input = layers.iter().filter(|(_, of_input)| *of_input);
        let inputs = ModuleNames::list(of_input.map(|(site, _)| site.path.clone()));
        let paths = ModuleNames::list(layers.iter().map(|(site, _)| site.path.clone()));
        let targets = Targets { target_modules: Some(paths), ..Targets::default() };
        Ok(Self { targets, feedforward_modules: Some(inputs), ..config })
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config, base)
    }

    fn validate(&self) -> Result<()> {
        let lists = (&self.feedforward_modules, &self.targets.target_modules);
        if let (Some(ModuleNames::List(inner)), Some(ModuleNames::List(targets))) = lists
            && let Some(name) = inner.iter().find(|name| !targets.contains(name))
        {
            return Err(Error::config(
                "feedforward_modules",
                format!("{name:?}"),
                "must be one of target_modules too",
            ));
        }
        if !self.alpha.is_finite() {
            return Err(Error::config("ia3_alpha", self.alpha, "must be a number"));
        }
        self.targets.validate()?;
        if let Some(ModuleNames::Pattern(_)) = &self.feedforward_modules {
            self.feedforward_targets().validate().map_err(in_feedforward)?;
        }
        Ok(())
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let mut unmatched = self.targets.unmatched(base, DEFAULT_ROLES)?;
        let of_output = self.layers(base)?.into_iter().filter(|(_, of_input)| !of_input);
        let of_output: Vec<&Site> = of_output.map(|(site, _)| site).collect();
        unmatched.extend(self.attn_matrices.unmatched(&of_output));
        Ok(unmatched)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Ia3> {
        self.validate()?;
        Ia3::new(self, context)
    }
}
