//! A group of layers, with its methods.

use peft_adapter::BottleneckConfig;
use peft_core::{AnyConfig, MethodConfig, configure};
use peft_ia3::Ia3Config;
use peft_lora::LoraConfig;
use peft_prefix::PrefixTuningConfig;
use peft_sparse::BitFitConfig;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::LayerSet;

/// A group of layers, and the methods that act in them.
///
/// In a file: `layers`; the names of methods as a list `methods`; and under a method's name its fields,
/// where they are not its defaults. A method with fields need not be in the list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanGroup {
    /// Which layers, a decoder's counted on from its encoder's; where no group of a plan says it, the
    /// plan divides them.
    pub layers: Option<LayerSet>,
    /// Bottleneck adapters.
    pub adapter: Option<BottleneckConfig>,
    /// BitFit.
    pub bitfit: Option<BitFitConfig>,
    /// (IA)³.
    pub ia3: Option<Ia3Config>,
    /// LoRA.
    pub lora: Option<LoraConfig>,
    /// A prefix.
    pub prefix: Option<PrefixTuningConfig>,
}

/// The names of methods, biases first: a new bias cannot be put over other changes of a layer.
pub(crate) const NAMES: [&str; 5] = ["bitfit", "prefix", "lora", "ia3", "adapter"];

impl PlanGroup {
    /// The configuration of the method of a [name](NAMES).
    pub(crate) fn method(&self, name: &str) -> Option<&dyn AnyConfig> {
        fn any<C: MethodConfig>(config: &Option<C>) -> Option<&dyn AnyConfig> {
            config.as_ref().map(|config| config as &dyn AnyConfig)
        }
        match name {
            "adapter" => any(&self.adapter),
            "bitfit" => any(&self.bitfit),
            "ia3" => any(&self.ia3),
            "lora" => any(&self.lora),
            "prefix" => any(&self.prefix),
            _ => None,
        }
    }

    /// Its methods with their names.
    pub(crate) fn methods(&self) -> impl Iterator<Item = (&'static str, &dyn AnyConfig)> {
        NAMES.into_iter().filter_map(|name| Some((name, self.method(name)?)))
    }
}

impl Serialize for PlanGroup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(layers) = &self.layers {
            map.serialize_entry("layers", layers)?;
        }
        for (name, config) in self.methods() {
            map.serialize_entry(name, &config.to_fields())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for PlanGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        read(fields).map_err(D::Error::custom)
    }
}

fn read(mut fields: Map<String, Value>) -> Result<PlanGroup, String> {
    let known = || format!("there are {}", NAMES.join(", "));
    let layers = fields.remove("layers").filter(|value| !value.is_null());
    let layers = layers.map(|value| parsed("layers", value)).transpose()?;
    let methods = fields.remove("methods").unwrap_or(Value::Null);
    let methods: Option<Vec<String>> = parsed("methods", methods)?;
    for name in methods.into_iter().flatten() {
        if !NAMES.contains(&&*name) {
            return Err(format!("methods: no method {name:?} for a plan; {}", known()));
        }
        fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
    let group = PlanGroup {
        layers,
        adapter: part(&mut fields, "adapter")?,
        bitfit: part(&mut fields, "bitfit")?,
        ia3: part(&mut fields, "ia3")?,
        lora: part(&mut fields, "lora")?,
        prefix: part(&mut fields, "prefix")?,
    };
    match fields.keys().next() {
        Some(other) => {
            Err(format!("{other:?} is neither layers, methods, nor a method; {}", known()))
        }
        None => Ok(group),
    }
}

/// The method of a name, if it is there; a field that it does not have is an error.
fn part<C: MethodConfig>(fields: &mut Map<String, Value>, name: &str) -> Result<Option<C>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let fields = parsed(name, value)?;
            configure(fields).map(Some).map_err(|error| format!("{name}: {error}"))
        }
    }
}

fn parsed<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))
}
