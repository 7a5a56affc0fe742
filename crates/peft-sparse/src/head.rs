//! Nothing but the task head.

use burn::module::Module;
use peft_core::{Hooks, InitContext, Method, MethodCard, MethodConfig, Result};
use serde::{Deserialize, Serialize};

/// Configuration of [`HeadOnly`]; it has no fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeadOnlyConfig {}

impl MethodConfig for HeadOnlyConfig {
    const NAME: &'static str = "head";
    const PEFT_TYPE: &'static str = "HEAD";
    const ABOUT: &'static str = "nothing but the task head, to compare with";
    // One new layer on fixed features is close to a convex problem, and bears far larger steps than
    // weights under which other layers lie.
    const LEARNING_RATE: f64 = 3e-2;
    const CARD: MethodCard = MethodCard {
        functions: &[],
        sites: "none",
        trainable: "0",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = HeadOnly;

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn init(&self, _context: &InitContext<'_>) -> Result<HeadOnly> {
        Ok(HeadOnly {})
    }
}

/// The base as it is. What is trained is the head, which an adapter for a task saves beside any
/// method: a baseline that every method has to beat.
///
/// Created with [`HeadOnlyConfig`].
#[derive(Module, Debug)]
pub struct HeadOnly {}

impl Hooks for HeadOnly {}

impl Method for HeadOnly {}
