//! Configurations whose type is known at run time only, and how they are made from fields.

use std::fmt::Debug;

use serde_json::{Map, Value};

use super::{BoxedMethod, MethodCard, MethodConfig, Size, size};
use crate::{Base, Dialect, Error, InitContext, Result};

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
    /// With what the start of a new method decided; see [`MethodConfig::settled`].
    ///
    /// # Errors
    /// As there.
    fn settled(&self, method: &BoxedMethod, base: &Base) -> Result<Box<dyn AnyConfig>>;
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
        size::check(&MethodConfig::sizes(self, context.base)?, context.base)?;
        // Parameters are always created where gradients are; a plain view of them is `valid()`.
        let device = context.device.clone().autodiff();
        Ok(BoxedMethod::new(MethodConfig::init(self, &context.on(&device))?))
    }
    fn settled(&self, method: &BoxedMethod, base: &Base) -> Result<Box<dyn AnyConfig>> {
        match method.downcast_ref::<C::Method>() {
            Some(method) => Ok(Box::new(MethodConfig::settled(self, method, base)?)),
            None => Ok(self.boxed_clone()),
        }
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

/// The fields of a configuration: those of its defaults, and those that an alias names (a field
/// that is not written while it is not set).
pub fn field_names<C: MethodConfig>() -> Vec<String> {
    names_of::<C>(&to_fields(&defaults::<C>()))
}

fn names_of<C: MethodConfig>(defaults: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<String> = defaults.keys().cloned().collect();
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
    let defaults = to_fields(&defaults::<C>());
    let names = names_of::<C>(&defaults);
    let (mut given, mut all) = (Map::new(), defaults.clone());
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
        given.insert(field.clone(), value.clone());
        all.insert(field, value);
    }
    let config: C = serde_json::from_value(Value::Object(all)).map_err(|e| {
        let together = || Error::config(C::NAME, "(all fields)", e.to_string());
        wrong::<C>(&defaults, given).unwrap_or_else(together)
    })?;
    config.validate()?;
    Ok(config)
}

/// What is wrong with the first field that cannot be read beside the others' defaults.
fn wrong<C: MethodConfig>(
    defaults: &Map<String, Value>,
    given: Map<String, Value>,
) -> Option<Error> {
    given.into_iter().find_map(|(field, value)| {
        let mut one = defaults.clone();
        one.insert(field.clone(), value.clone());
        let error = serde_json::from_value::<C>(Value::Object(one)).err()?;
        Some(Error::config(&field, &value, error.to_string()))
    })
}
