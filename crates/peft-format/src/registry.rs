//! Methods by name: what turns a name on the command line, or a tag in a file, into a method.

use std::any::TypeId;
use std::collections::BTreeMap;

use peft_core::{AnyConfig, Base, MethodCard, MethodConfig, configure, field_names};
use serde_json::{Map, Value};

use crate::{Error, Result};

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
    /// Other names of fields.
    aliases: &'static [(&'static str, &'static str)],
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
            aliases: C::ALIASES,
            fields: field_names::<C>,
            build: build::<C>,
            from_adapters: |config, base| {
                let config = C::from_adapters(config, base)?;
                Some(
                    config
                        .map(|config| Box::new(config) as Box<dyn AnyConfig>)
                        .map_err(Error::from),
                )
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

    /// The name that a field of the method `name` has in files: `r` for `rank`. Any other name as it
    /// is.
    pub fn canonical<'f>(&self, name: &str, field: &'f str) -> &'f str {
        let aliases = self.entries.get(name).map_or(&[][..], |entry| entry.aliases);
        aliases.iter().find(|(alias, _)| *alias == field).map_or(field, |(_, of)| of)
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
        let build = self.of_type(peft_type)?.build;
        let defaults = build(Map::new())?.to_fields();
        let value = |(field, value)| match defaults.get(&field) {
            Some(Value::Bool(_)) => (field, switch(value)),
            _ => (field, value),
        };
        build(fields.into_iter().map(value).collect())
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

    /// The fields that the configuration of the method `name` has.
    pub(crate) fn fields_of(&self, name: &str) -> Result<Vec<String>> {
        Ok((self.entries.get(name).ok_or_else(|| self.unknown(name))?.fields)())
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

/// The value of a switch in a file: `null` and 0 are off and 1 is on, as HF PEFT takes them; others as
/// they are.
fn switch(value: Value) -> Value {
    match value.as_f64() {
        _ if value.is_null() => Value::Bool(false),
        Some(0.0) => Value::Bool(false),
        Some(1.0) => Value::Bool(true),
        _ => value,
    }
}

fn build<C: MethodConfig>(fields: Map<String, Value>) -> Result<Box<dyn AnyConfig>> {
    Ok(Box::new(configure::<C>(fields)?))
}
