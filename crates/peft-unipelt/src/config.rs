//! The configuration of hybrids.

use peft_adapter::BottleneckConfig;
use peft_core::{
    Base, BoxedMethod, ComputationFunction, Error, GateNames, Gated, InitContext, MethodCard,
    MethodConfig, Result, Site, Size, Stack, configure,
};
use peft_lora::{LoraBias, LoraConfig};
use peft_prefix::PrefixTuningConfig;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use crate::adapters_format;

const PREFIX_GATE: GateNames =
    GateNames { peft: "prefix_gate", adapters: "prefix_tuning.prefix_gates.{}" };
const ADAPTER_GATE: GateNames = GateNames { peft: "adapter_gate", adapters: "adapters.{}.gate" };
const LORA_GATE: GateNames = GateNames { peft: "lora_gate", adapters: "loras.{}.gate" };

/// Configuration of a hybrid of up to three methods, each with a gate or none: UniPELT (Mao et al.
/// 2022, arXiv 2110.07577) by default, MAM (He et al. 2022, arXiv 2110.04366) as a preset.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `prefix` | 10 tokens through an MLP of 512, in every attention | a prefix, or `null` |
/// | `adapter` | Pfeiffer's, `reduction_factor` 16 | bottleneck adapters, or `null` |
/// | `lora` | rank 8 on queries and values | LoRA, or `null` |
/// | `use_gating` | true | a learned gate beside each; see [`Gated`] |
///
/// Each field is the configuration of that method, with its own defaults for what it does not name.
/// With gates, the gate takes the place of LoRA's `alpha / r`, as in the paper's code and in
/// adapter-hub/adapters; parts of a fused projection (`attn_matrices`) have a gate each. What a part
/// does where it has no gate (invertible adapters, trained norms, biases) is refused.
///
/// The method is a [`Stack`] of its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UniPeltConfig {
    /// The prefix.
    #[serde(deserialize_with = "part")]
    pub prefix: Option<PrefixTuningConfig>,
    /// The bottleneck adapters.
    #[serde(deserialize_with = "part")]
    pub adapter: Option<BottleneckConfig>,
    /// LoRA.
    #[serde(deserialize_with = "part")]
    pub lora: Option<LoraConfig>,
    /// Whether each has a gate.
    pub use_gating: bool,
}

/// A part's configuration, or null; a field that it does not have is an error.
fn part<'de, D: Deserializer<'de>, C: MethodConfig>(
    deserializer: D,
) -> std::result::Result<Option<C>, D::Error> {
    let fields: Option<Map<String, Value>> = Option::deserialize(deserializer)?;
    fields.map(configure).transpose().map_err(D::Error::custom)
}

impl Default for UniPeltConfig {
    fn default() -> Self {
        Self {
            prefix: Some(PrefixTuningConfig {
                num_virtual_tokens: 10,
                prefix_projection: true,
                encoder_hidden_size: Some(512),
                // As in adapter-hub/adapters, which the settings are from.
                shift_positions: false,
                encoder_prefix: true,
                cross_prefix: true,
                ..PrefixTuningConfig::default()
            }),
            adapter: Some(BottleneckConfig::default()),
            lora: Some(LoraConfig { alpha: 2.0, ..LoraConfig::default() }),
            use_gating: true,
        }
    }
}

impl UniPeltConfig {
    /// LoRA as it is under its gate: with a scale of 1.
    fn gated_lora(lora: &LoraConfig) -> LoraConfig {
        LoraConfig { alpha: lora.rank as f64, use_rslora: false, ..lora.clone() }
    }

    /// Refuses what would lie outside of the gates, or need a scale beside them.
    fn check_gates(&self) -> Result<()> {
        let (adapter, lora) = (self.adapter.as_ref(), self.lora.as_ref());
        let wrong = [
            (
                adapter.is_some_and(|adapter| adapter.inv_adapter.is_some()),
                "adapter.inv_adapter",
                "acts at the embeddings, where there is no gate",
            ),
            (
                adapter.is_some_and(|adapter| adapter.train_norms),
                "adapter.train_norms",
                "acts at norms, where there is no gate",
            ),
            (
                lora.is_some_and(|lora| lora.bias != LoraBias::None),
                "lora.bias",
                "trains biases, which have no gate",
            ),
            (
                lora.is_some_and(|lora| !lora.rank_pattern.is_empty()),
                "lora.rank_pattern",
                "not with gates, which take the place of a scale that depends on the rank",
            ),
        ];
        match wrong.into_iter().find(|(given, ..)| *given) {
            Some((_, field, reason)) => Err(Error::config(field, "(given)", reason)),
            None => Ok(()),
        }
    }
}

impl MethodConfig for UniPeltConfig {
    const NAME: &'static str = "unipelt";
    const PEFT_TYPE: &'static str = "UNIPELT";
    const ABOUT: &'static str =
        "prefix, adapter and LoRA, each with a learned gate (Mao et al. 2022)";
    // That of its parts on a small encoder; gates start at one half, which the rate makes up for.
    const LEARNING_RATE: f64 = 1e-3;
    const CARD: MethodCard = MethodCard {
        functions: &[
            ComputationFunction::Parameter,
            ComputationFunction::Input,
            ComputationFunction::Function,
        ],
        sites: "self-attention; query, value; feed-forward sublayer",
        trainable: "that of its parts; with gates + d + 1 at each of their sites",
        merges: "no",
        formats: "adapters",
    };
    type Method = Stack;

    /// 3e-4 without gates: the parts act at full strength from the first step on, and the wide
    /// adapter of MAM is scaled by 4; at 1e-3, a small encoder's output collapses.
    fn learning_rate(&self) -> f64 {
        if self.use_gating { Self::LEARNING_RATE } else { 3e-4 }
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config, base)
    }

    fn validate(&self) -> Result<()> {
        if self.prefix.is_none() && self.adapter.is_none() && self.lora.is_none() {
            return Err(Error::config(
                "lora",
                "null",
                "one of prefix, adapter and lora must be there",
            ));
        }
        self.prefix.as_ref().map_or(Ok(()), MethodConfig::validate)?;
        self.adapter.as_ref().map_or(Ok(()), MethodConfig::validate)?;
        self.lora.as_ref().map_or(Ok(()), MethodConfig::validate)?;
        if self.use_gating { self.check_gates() } else { Ok(()) }
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let mut unmatched = Vec::new();
        if let Some(prefix) = &self.prefix {
            unmatched.extend(MethodConfig::unmatched(prefix, base)?);
        }
        if let Some(adapter) = &self.adapter {
            unmatched.extend(MethodConfig::unmatched(adapter, base)?);
        }
        if let Some(lora) = &self.lora {
            unmatched.extend(MethodConfig::unmatched(lora, base)?);
        }
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        let mut add = |part: &str, of_part: Vec<Size>| {
            sizes.extend(of_part.into_iter().map(|size| size.within(part)));
        };
        if let Some(prefix) = &self.prefix {
            add("prefix", MethodConfig::sizes(prefix, base)?);
        }
        if let Some(adapter) = &self.adapter {
            add("adapter", MethodConfig::sizes(adapter, base)?);
        }
        if let Some(lora) = &self.lora {
            add("lora", MethodConfig::sizes(lora, base)?);
        }
        Ok(sizes)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Stack> {
        self.validate()?;
        let InitContext { base, device, .. } = *context;
        let gated = |name, method, names, sites: Vec<(&Site, usize)>, bias| -> Result<_> {
            if !self.use_gating {
                return Ok(method);
            }
            let gated = Gated::new((name, method), names, sites, bias, base, device)?;
            Ok(BoxedMethod::new(gated))
        };
        let mut methods = Vec::new();
        if let Some(prefix) = &self.prefix {
            let method = BoxedMethod::new(prefix.init(context)?);
            let sites = prefix.sites(base)?.into_iter().map(|site| (site, 1));
            methods.push(gated("prefix", method, PREFIX_GATE, sites.collect(), None)?);
        }
        if let Some(adapter) = &self.adapter {
            let method = BoxedMethod::new(adapter.init(context)?);
            let sites = adapter.adapted_sites(base)?.into_iter().map(|site| (site.as_ref(), 1));
            methods.push(gated("adapter", method, ADAPTER_GATE, sites.collect(), Some(0.0))?);
        }
        if let Some(lora) = &self.lora {
            let scaled = if self.use_gating { Self::gated_lora(lora) } else { lora.clone() };
            let method = BoxedMethod::new(scaled.init(context)?);
            // One for each part of a fused projection.
            let gates = |site| (site, lora.attn_matrices.columns(site).len().max(1));
            let sites = lora.sites(base)?.into_iter().map(gates);
            methods.push(gated("lora", method, LORA_GATE, sites.collect(), None)?);
        }
        Ok(Stack::new(methods))
    }
}
