//! The configuration of LLaMA-Adapter, with HF PEFT's fields.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Role, Site,
    Size,
};
use serde::{Deserialize, Serialize};

use super::AdaptionPrompt;
use crate::model::at_least_one;

/// Configuration of [`AdaptionPrompt`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `adapter_len` (`prompt_length`) | 10 | `L`, the tokens of each prompt |
/// | `adapter_layers` (`layers`) | none | how many layers have one, counted from the last; none: all |
/// | `target_modules` | none | for PEFT: what its model calls its attentions; written to files, where every attention of the model has this name |
///
/// HF PEFT has no defaults, and asks for both numbers; the paper has 10 tokens in the upper 30 of 32 layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaptionPromptConfig {
    /// The tokens of each prompt.
    pub adapter_len: usize,
    /// How many layers have one, from the last on.
    pub adapter_layers: Option<usize>,
    /// What the attentions are called.
    pub target_modules: Option<String>,
}

impl Default for AdaptionPromptConfig {
    fn default() -> Self {
        Self { adapter_len: 10, adapter_layers: None, target_modules: None }
    }
}

impl AdaptionPromptConfig {
    /// The self-attentions of `base` that get a prompt, in the order of the model; where there is an
    /// encoder and a decoder, those of both.
    ///
    /// # Errors
    /// If there is none, or there are fewer layers than asked for.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let attentions = base.sites().map(AsRef::as_ref).filter(|site: &&Site| {
            let name = site.path.rsplit('.').next().unwrap_or_default();
            let is_meant = self.target_modules.as_deref().is_none_or(|wanted| wanted == name);
            site.role == Role::SelfAttention && is_meant
        });
        let attentions: Vec<&Site> = attentions.collect();
        let layers =
            attentions.iter().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        if attentions.is_empty() {
            let name = self.target_modules.clone().unwrap_or_else(|| "(any)".into());
            let expected = "no attention of the model is called so";
            return Err(Error::config("target_modules", name, expected));
        }
        let count = self.adapter_layers.unwrap_or(layers);
        if !(1..=layers).contains(&count) {
            let expected = format!("must be from 1 to {layers}, the layers of the model");
            return Err(Error::config("adapter_layers", count, expected));
        }
        let first = layers - count;
        Ok(attentions.into_iter().filter(|site| site.layer.is_some_and(|l| l >= first)).collect())
    }
}

impl MethodConfig for AdaptionPromptConfig {
    const NAME: &'static str = "llama-adapter";
    const PEFT_TYPE: &'static str = "ADAPTION_PROMPT";
    const ABOUT: &'static str = "a gated prompt beside every attention (Zhang et al. 2023)";
    // The paper's, for LLaMA: its gates start closed.
    const LEARNING_RATE: f64 = 9e-3;
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("prompt_length", "adapter_len"), ("layers", "adapter_layers")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Input],
        sites: "self-attentions of the upper layers",
        trainable: "L d + 1 per layer",
        merges: "no",
        formats: "peft",
    };
    type Method = AdaptionPrompt;

    fn for_file(&self, base: &Base) -> Result<Self> {
        let sites = self.sites(base)?;
        let name = |site: &Site| site.path.rsplit('.').next().unwrap_or_default().to_string();
        let layers = sites.iter().filter_map(|site| site.layer);
        let count = layers.collect::<std::collections::BTreeSet<_>>().len();
        Ok(Self {
            target_modules: Some(name(sites[0])),
            adapter_layers: Some(count),
            ..self.clone()
        })
    }

    fn validate(&self) -> Result<()> {
        at_least_one("adapter_len", self.adapter_len)?;
        match self.adapter_layers {
            Some(layers) => at_least_one("adapter_layers", layers),
            None => Ok(()),
        }
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let values = self.sites(base)?.iter().map(|site| site.d_in() as f64).sum::<f64>();
        Ok(vec![Size::new("adapter_len", self.adapter_len, self.adapter_len as f64 * values)])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<AdaptionPrompt> {
        self.validate()?;
        AdaptionPrompt::new(self, context)
    }
}
