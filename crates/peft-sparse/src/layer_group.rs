//! Layer groups: whole layers.

use burn::module::Module;
use peft_core::{
    Base, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Method, MethodCard,
    MethodConfig, ModulesToSave, NormEdit, Pass, Result, Role, Site, SiteKind,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// Which layers are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerChoice {
    /// `"all"`: every layer, and what is outside of the layers too (the norm of the embeddings, a
    /// pooler), but no embeddings and no head.
    All,
    /// The last `n` layers, or with `-n` the first.
    Count(i64),
}

impl Serialize for LayerChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Count(count) => serializer.serialize_i64(*count),
        }
    }
}

impl<'de> Deserialize<'de> for LayerChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) if name == "all" => Ok(Self::All),
            Value::Number(count) if count.is_i64() => {
                Ok(Self::Count(count.as_i64().unwrap_or_default()))
            }
            other => Err(D::Error::custom(format!("{other} is neither a number nor \"all\""))),
        }
    }
}

/// Which modules of a layer are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleChoice {
    /// `"all"`.
    All,
    /// Those with one of these names among the components of their path (`attention`,
    /// `output.dense`).
    Names(Vec<String>),
}

impl Serialize for ModuleChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Names(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ModuleChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Choice {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Choice::deserialize(deserializer)? {
            Choice::One(name) if name == "all" => Self::All,
            Choice::One(name) => Self::Names(vec![name]),
            Choice::Many(names) => Self::Names(names),
        })
    }
}

impl ModuleChoice {
    fn contains(&self, site: &Site) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.iter().any(|name| has_component(site, name)),
        }
    }
}

fn has_component(site: &Site, name: &str) -> bool {
    format!(".{}.", site.path).contains(&format!(".{name}."))
}

/// Configuration of [`LayerGroup`], with LLaMA-Factory's fields.
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `freeze_trainable_layers` (`layers`) | 2 | `n`: the last `n` layers; `-n`: the first; `"all"`: everything but embeddings and head |
/// | `freeze_trainable_modules` (`modules`) | `"all"` | names of modules within them, see [`ModuleChoice`] |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerGroupConfig {
    /// The layers that are trained.
    #[serde(rename = "freeze_trainable_layers")]
    pub layers: LayerChoice,
    /// The modules of these layers that are trained.
    #[serde(rename = "freeze_trainable_modules")]
    pub modules: ModuleChoice,
}

impl Default for LayerGroupConfig {
    fn default() -> Self {
        Self { layers: LayerChoice::Count(2), modules: ModuleChoice::All }
    }
}

/// Other names under which [`LayerGroupConfig`] is registered: name, description, fields.
pub fn presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![(
        "full",
        "full fine-tuning of everything but the embeddings, to compare with",
        json!({"freeze_trainable_layers": "all"}),
    )]
}

impl LayerGroupConfig {
    /// The linear layers and norms in the chosen layers, whatever their names.
    fn in_layers<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let count = base.sites().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        let chosen = match self.layers {
            LayerChoice::All => 0..count,
            LayerChoice::Count(n) => {
                let many = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
                if many > count {
                    let expected = format!("the model has {count} layers");
                    return Err(Error::config("freeze_trainable_layers", n, expected));
                }
                if n > 0 { count - many..count } else { 0..many }
            }
        };
        let all = self.layers == LayerChoice::All;
        let meant = |site: &Site| {
            let has_weights = matches!(site.kind, SiteKind::Linear | SiteKind::Norm);
            has_weights
                && site.role != Role::Head
                && site.layer.map_or(all, |layer| chosen.contains(&layer))
        };
        Ok(base.sites().map(|site| site.as_ref()).filter(|site| meant(site)).collect())
    }
}

fn no_module(pattern: String, sites: &[&Site]) -> Error {
    let mut names: Vec<&str> = sites.iter().map(|site| site.name()).collect();
    names.sort_unstable();
    names.dedup();
    Error::NoMatch {
        field: "freeze_trainable_modules".into(),
        pattern,
        what: "module of the chosen layers".into(),
        available: names.join(", "),
    }
}

impl MethodConfig for LayerGroupConfig {
    const NAME: &'static str = "layer-group";
    const PEFT_TYPE: &'static str = "LAYER_GROUP";
    const ABOUT: &'static str = "whole layers, the last two by default";
    // Dense weights: the upper half of the rates that full fine-tuning of encoders is done with.
    const LEARNING_RATE: f64 = 1e-4;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("layers", "freeze_trainable_layers"), ("modules", "freeze_trainable_modules")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "linear layers and norms of the last two layers",
        trainable: "all of a layer",
        merges: "yes, bit for bit",
        formats: "ours, in the layout of peft",
    };
    type Method = LayerGroup;

    fn validate(&self) -> Result<()> {
        if self.layers == LayerChoice::Count(0) {
            return Err(Error::config(
                "freeze_trainable_layers",
                0,
                "must be a number of last layers, a negative one of first layers, or \"all\"",
            ));
        }
        if let ModuleChoice::Names(names) = &self.modules
            && names.is_empty()
        {
            let expected = "must be \"all\" or names of modules";
            return Err(Error::config("freeze_trainable_modules", "[]", expected));
        }
        Ok(())
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.in_layers(base)?;
        let ModuleChoice::Names(names) = &self.modules else { return Ok(Vec::new()) };
        let missed = |name: &&String| !sites.iter().any(|site| has_component(site, name));
        Ok(names.iter().filter(missed).map(|name| no_module(format!("{name:?}"), &sites)).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<LayerGroup> {
        self.validate()?;
        let sites = self.in_layers(context.base)?;
        let chosen = sites.iter().filter(|site| self.modules.contains(site));
        let paths: Vec<String> = chosen.map(|site| site.path.clone()).collect();
        if paths.is_empty() {
            let names = serde_json::to_string(&self.modules).unwrap_or_default();
            return Err(no_module(names, &sites));
        }
        // The copies that are kept of a saved module are what is wanted here, too. A whole path
        // selects the module itself.
        Ok(LayerGroup { modules: ModulesToSave::new(context.base, &paths, context.device)? })
    }
}

/// Layer-group tuning: full trained copies of the linear layers and norms of some layers, and
/// frozen values elsewhere. `W'` is `[d_in, d_out]` and starts at the base's `W`.
///
/// Created with [`LayerGroupConfig`].
#[derive(Module, Debug)]
pub struct LayerGroup {
    modules: ModulesToSave,
}

impl Hooks for LayerGroup {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        self.modules.linear(site, pass)
    }

    fn norm(&self, site: &Site, pass: &Pass<'_>) -> NormEdit {
        self.modules.norm(site, pass)
    }
}

impl Method for LayerGroup {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        self.modules.exchange(file, base);
    }
}
