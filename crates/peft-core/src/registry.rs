//! Methods by name: what turns a name on the command line, or a tag in a file, into a method.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::{Map, Value};

use crate::{
    Base, BoxedMethod, Dialect, Error, InitContext, MethodCard, MethodConfig, Result, Size, sizes,
};

/// A configuration whose type is known at run time only.
pub trait AnyConfig: Debug + Send + Sync {
    /// What the command line calls the method.
    fn name(&self) -> &'static str;
    /// The tag in `adapter_config.json`.
    fn peft_type(&self) -> &'static str;
    /// The learning rate to start from.
    fn learning_rate(&self) -> f64;
    /// What a table of methods says about it.
    fn card(&self) -> MethodCard;
    /// The layout of its file.
    fn dialect(&self) -> Dialect;
    /// As HF PEFT's file has it; see [`MethodConfig::for_file`].
    ///
    /// # Errors
    /// As there.
    fn for_file(&self, base: &Base) -> Result<Box<dyn AnyConfig>>;
    /// As adapter-hub/adapters writes it; see [`MethodConfig::to_adapters`].
    ///
    /// # Errors
    /// As there.
    fn to_adapters(&self, base: &Base) -> Result<Value>;
    /// The fields as the file holds them.
    fn to_fields(&self) -> Map<String, Value>;
    /// Parts that select nothing; see [`MethodConfig::unmatched`].
    ///
    /// # Errors
    /// As [`MethodConfig::init`].
    fn unmatched(&self, base: &Base) -> Result<Vec<Error>>;
    /// The fields that say how large the method is; see [`MethodConfig::sizes`].
    ///
    /// # Errors
    /// As [`MethodConfig::init`].
    fn sizes(&self, base: &Base) -> Result<Vec<Size>>;
    /// A freshly initialised method; see [`MethodConfig::init`].
    ///
    /// # Errors
    /// As [`MethodConfig::init`], and if it would be absurdly large.
    fn init(&self, context: &InitContext<'_>) -> Result<BoxedMethod>;
    /// The same configuration in a new box.
    fn boxed_clone(&self) -> Box<dyn AnyConfig>;
}

impl Clone for Box<dyn AnyConfig> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

impl<C: MethodConfig> AnyConfig for C {
    fn name(&self) -> &'static str {
        C::NAME
    }
    fn peft_type(&self) -> &'static str {
        C::PEFT_TYPE
    }
    fn learning_rate(&self) -> f64 {
        MethodConfig::learning_rate(self)
    }
    fn card(&self) -> MethodCard {
        MethodConfig::card(self)
    }
    fn dialect(&self) -> Dialect {
        if C::PROMPT_LEARNING { Dialect::PeftPrompt } else { Dialect::Peft }
    }
    fn for_file(&self, base: &Base) -> Result<Box<dyn AnyConfig>> {
        Ok(Box::new(MethodConfig::for_file(self, base)?))
    }
    fn to_adapters(&self, base: &Base) -> Result<Value> {
        MethodConfig::to_adapters(self, base)
    }
    fn to_fields(&self) -> Map<String, Value> {
        to_fields(self)
    }
    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        MethodConfig::unmatched(self, base)
    }
    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        MethodConfig::sizes(self, base)
    }
    fn init(&self, context: &InitContext<'_>) -> Result<BoxedMethod> {
        self.validate()?;
        sizes::check(&MethodConfig::sizes(self, context.base)?, context.base)?;
        // Parameters are always created where gradients are; a plain view of them is `valid()`.
        let device = context.device.clone().autodiff();
        Ok(BoxedMethod::new(MethodConfig::init(self, &context.on(&device))?))
    }
    fn boxed_clone(&self) -> Box<dyn AnyConfig> {
        Box::new(self.clone())
    }
}

/// A configuration as a JSON object.
fn to_fields<C: MethodConfig>(config: &C) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        other => panic!("a method's configuration must be a struct with named fields: {other:?}"),
    }
}

/// Turns fields into a configuration.
type BuildConfig = fn(Map<String, Value>) -> Result<Box<dyn AnyConfig>>;

/// One registered method.
#[derive(Clone)]
pub struct MethodEntry {
    /// What the command line calls it.
    pub name: &'static str,
    /// The tag in `adapter_config.json`.
    pub peft_type: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Fields that differ from the configuration's own defaults under this name.
    preset: Map<String, Value>,
    /// What a table of methods says about it.
    pub card: MethodCard,
    /// The type of the configuration, which a tag belongs to.
    config: TypeId,
    fields: fn() -> Vec<String>,
    build: BuildConfig,
    from_adapters: FromAdapters,
}

/// Turns `adapters`' configuration into one of ours.
type FromAdapters = fn(&Map<String, Value>, &Base) -> Option<Result<Box<dyn AnyConfig>>>;

/// Methods by name. No enum lists them: an outside crate registers its own.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, MethodEntry>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the method that `C` configures.
    ///
    /// # Panics
    /// As [`preset`](Self::preset).
    pub fn register<C: MethodConfig>(&mut self) -> &mut Self {
        self.preset::<C>(C::NAME, C::ABOUT, Value::Object(Map::new()))
    }

    /// Registers the method under another name with other defaults: `dora` is `lora` with
    /// `use_dora`.
    ///
    /// # Panics
    /// If `preset` is not an object of fields that the configuration has, or the name, or the tag
    /// under another configuration, is taken.
    pub fn preset<C: MethodConfig>(
        &mut self,
        name: &'static str,
        about: &'static str,
        preset: Value,
    ) -> &mut Self {
        let Value::Object(preset) = preset else { panic!("a preset is an object of fields") };
        assert!(!self.entries.contains_key(name), "there is a method {name} already");
        let (tag, type_id) = (C::PEFT_TYPE, TypeId::of::<C>());
        let mut others = self.entries.values().filter(|entry| entry.config != type_id);
        if let Some(other) = others.find(|entry| entry.peft_type == tag) {
            panic!("{name} and {} have the same tag, {tag}", other.name);
        }
        let config = configure::<C>(preset.clone());
        let config = config.unwrap_or_else(|e| panic!("the preset {name} is wrong: {e}"));
        let entry = MethodEntry {
            name,
            peft_type: tag,
            about,
            preset,
            card: MethodConfig::card(&config),
            config: type_id,
            fields: field_names::<C>,
            build: build::<C>,
            from_adapters: |config, base| {
                let config = C::from_adapters(config, base)?;
                Some(config.map(|config| Box::new(config) as Box<dyn AnyConfig>))
            },
        };
        self.entries.insert(name, entry);
        self
    }

    /// The registered methods, by name.
    pub fn methods(&self) -> impl Iterator<Item = &MethodEntry> {
        self.entries.values()
    }

    /// The configuration of the method `name` with `fields` set and defaults elsewhere.
    ///
    /// # Errors
    /// An unknown name, an unknown field, or a value that cannot be right.
    pub fn configure(&self, name: &str, fields: Map<String, Value>) -> Result<Box<dyn AnyConfig>> {
        let entry = self.entries.get(name).ok_or_else(|| self.unknown(name))?;
        let mut all = entry.preset.clone();
        all.extend(fields);
        (entry.build)(all)
    }

    /// The configuration in a file whose tag is `peft_type`.
    ///
    /// # Errors
    /// As [`configure`](Self::configure).
    pub fn configure_type(
        &self,
        peft_type: &str,
        fields: Map<String, Value>,
    ) -> Result<Box<dyn AnyConfig>> {
        (self.of_type(peft_type)?.build)(fields)
    }

    /// The configuration in a file of adapter-hub/adapters, or `None` if no registered method is
    /// the one that it describes.
    ///
    /// # Errors
    /// If the method is here, but not with these fields.
    pub fn configure_adapters(
        &self,
        config: &Map<String, Value>,
        base: &Base,
    ) -> Result<Option<Box<dyn AnyConfig>>> {
        let mut refused = None;
        for entry in self.entries.values() {
            match (entry.from_adapters)(config, base) {
                Some(Ok(found)) => return Ok(Some(found)),
                // Another method may have what this one lacks: a gate beside it.
                Some(Err(error)) => refused = refused.or(Some(error)),
                None => {}
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The fields that the configuration of the tag `peft_type` has.
    pub(crate) fn field_names(&self, peft_type: &str) -> Result<Vec<String>> {
        Ok((self.of_type(peft_type)?.fields)())
    }

    fn of_type(&self, peft_type: &str) -> Result<&MethodEntry> {
        let mut of_type = self.entries.values().filter(|entry| entry.peft_type == peft_type);
        of_type.next().ok_or_else(|| self.unknown(peft_type))
    }

    fn unknown(&self, name: &str) -> Error {
        let known = self.entries.values().map(|e| format!("{} ({})", e.name, e.peft_type));
        Error::UnknownMethod { name: name.into(), known: known.collect::<Vec<_>>().join(", ") }
    }
}

/// The fields of a configuration: those of its defaults, and those that an alias names (a field
/// that is not written while it is not set).
fn field_names<C: MethodConfig>() -> Vec<String> {
    let mut names: Vec<String> = to_fields(&defaults::<C>()).keys().cloned().collect();
    for (_, field) in C::ALIASES {
        if !names.iter().any(|name| name == field) {
            names.push(field.to_string());
        }
    }
    names
}

fn defaults<C: MethodConfig>() -> C {
    serde_json::from_value(Value::Object(Map::new()))
        .unwrap_or_else(|e| panic!("{} has a field without a default: {e}", C::NAME))
}

/// Turns fields into a checked configuration: defaults for what is not given, aliases resolved.
///
/// # Errors
/// A field that the method does not have, or a value that cannot be right.
pub fn configure<C: MethodConfig>(fields: Map<String, Value>) -> Result<C> {
    let defaults = defaults::<C>();
    let names = field_names::<C>();
    let mut all = to_fields(&defaults);
    for (field, value) in fields {
        let field = match C::ALIASES.iter().find(|(alias, _)| *alias == field) {
            Some((_, field)) => field.to_string(),
            None => field,
        };
        if !names.contains(&field) {
            let known = names.iter().map(|key| match C::ALIASES.iter().find(|(_, of)| of == key) {
                Some((alias, _)) => format!("{alias} ({key})"),
                None => key.clone(),
            });
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownField { method: C::NAME.into(), field, known });
        }
        // One field at a time, so that the error names it.
        let mut one = to_fields(&defaults);
        one.insert(field.clone(), value.clone());
        serde_json::from_value::<C>(Value::Object(one))
            .map_err(|e| Error::config(&field, &value, e.to_string()))?;
        all.insert(field, value);
    }
    let config: C = serde_json::from_value(Value::Object(all))
        .map_err(|e| Error::config(C::NAME, "(all fields)", e.to_string()))?;
    config.validate()?;
    Ok(config)
}

fn build<C: MethodConfig>(fields: Map<String, Value>) -> Result<Box<dyn AnyConfig>> {
    Ok(Box::new(configure::<C>(fields)?))
}
