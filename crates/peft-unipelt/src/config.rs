//! The configuration of hybrids.

use peft_adapter::BottleneckConfig;
use peft_core::{
    AttentionMatrices, Base, BoxedMethod, ComputationFunction, Error, GateKind, Gated, InitContext,
    MethodCard, MethodConfig, Result, Site, Size, Stack,
};
use peft_ia3::Ia3Config;
use peft_lora::{LoraBias, LoraConfig};
use peft_prefix::PrefixTuningConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::part::{ADAPTER, IA3, LORA, PREFIX, any_number};
use crate::{Part, adapters_format};

/// Configuration of a hybrid of up to four methods, each with gates or none: UniPELT (Mao et al.
/// 2022, arXiv 2110.07577) by default, MAM (He et al. 2022, arXiv 2110.04366) as a preset.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `prefix` | 10 tokens through an MLP of 512, in every attention | a prefix, or `null` |
/// | `adapter` | Pfeiffer's, `reduction_factor` 16 | bottleneck adapters, `null`, or a list of those of different sublayers |
/// | `lora` | rank 8 on queries and values | LoRA, or `null` |
/// | `ia3` | `null` | (IA)³, or `null` |
/// | `use_gating` | true | learned gates beside each part, at each of its sites; see [`Gated`] |
/// | `shared_gating` | true | one gate for the keys and the values of a prefix; false: one for each |
///
/// Each part is the configuration of that method, with its own defaults for what it does not name,
/// and with a `use_gating` of its own, if it is to differ from the others.
///
/// A gate takes the place of a method's constant scale (LoRA's `alpha / r`, the `alpha` of (IA)³), as
/// in the paper's code and in adapter-hub/adapters; parts of a fused projection (`attn_matrices`)
/// have a gate each. The gate of (IA)³ multiplies its scales, `y ⊙ g l`. An invertible adapter acts
/// without a gate. Trained norms and biases beside gates are refused.
///
/// The method is a [`Stack`] of its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UniPeltConfig {
    /// The prefix.
    pub prefix: Option<Part<PrefixTuningConfig>>,
    /// The bottleneck adapters.
    #[serde(with = "any_number")]
    pub adapter: Vec<Part<BottleneckConfig>>,
    /// LoRA.
    pub lora: Option<Part<LoraConfig>>,
    /// (IA)³.
    pub ia3: Option<Part<Ia3Config>>,
    /// Whether parts have gates that do not say it themselves.
    pub use_gating: bool,
    /// Whether the keys and the values of a prefix have a gate together.
    pub shared_gating: bool,
}

impl Default for UniPeltConfig {
    fn default() -> Self {
        let prefix = PrefixTuningConfig {
            num_virtual_tokens: 10,
            prefix_projection: true,
            encoder_hidden_size: Some(512),
            // As in adapter-hub/adapters, which the settings are from.
            shift_positions: false,
            encoder_prefix: true,
            cross_prefix: true,
            ..PrefixTuningConfig::default()
        };
        Self {
            prefix: Some(prefix.into()),
            adapter: vec![BottleneckConfig::default().into()],
            lora: Some(LoraConfig { alpha: 2.0, ..LoraConfig::default() }.into()),
            ..Self::empty()
        }
    }
}

impl UniPeltConfig {
    /// A hybrid of nothing yet, with gates.
    pub fn empty() -> Self {
        Self {
            prefix: None,
            adapter: Vec::new(),
            lora: None,
            ia3: None,
            use_gating: true,
            shared_gating: true,
        }
    }

    /// Whether a part has gates.
    pub fn is_gated<C>(&self, part: &Part<C>) -> bool {
        part.use_gating.unwrap_or(self.use_gating)
    }

    /// The parts in their order: the field of each, whether it has gates, and its configuration.
    pub(crate) fn parts(&self) -> Vec<(&'static str, bool, &dyn peft_core::AnyConfig)> {
        let mut parts: Vec<(&'static str, bool, &dyn peft_core::AnyConfig)> = Vec::new();
        if let Some(prefix) = &self.prefix {
            parts.push(("prefix", self.is_gated(prefix), &prefix.config));
        }
        for adapter in &self.adapter {
            parts.push(("adapter", self.is_gated(adapter), &adapter.config));
        }
        if let Some(lora) = &self.lora {
            parts.push(("lora", self.is_gated(lora), &lora.config));
        }
        if let Some(ia3) = &self.ia3 {
            parts.push(("ia3", self.is_gated(ia3), &ia3.config));
        }
        parts
    }

    /// Refuses what would lie outside of the gates, or need a scale beside them.
    fn check_gates(&self) -> Result<()> {
        if !self.shared_gating && !self.prefix.as_ref().is_some_and(|part| self.is_gated(part)) {
            let expected = "is of a prefix with gates, and there is none";
            return Err(Error::config("shared_gating", false, expected));
        }
        let norms = self.adapter.iter().any(|part| self.is_gated(part) && part.config.train_norms);
        let lora = self.lora.as_ref().filter(|part| self.is_gated(part)).map(|part| &part.config);
        let wrong = [
            (norms, "adapter.train_norms", "acts at norms, where there is no gate"),
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

    /// Refuses adapters that would be in each other's place.
    fn check_adapters(&self, base: &Base) -> Result<()> {
        let several = |of: &dyn Fn(&BottleneckConfig) -> bool| {
            self.adapter.iter().filter(|part| of(&part.config)).count() > 1
        };
        let shares = |config: &BottleneckConfig| {
            config.phm_layer && (config.shared_phm_rule || config.shared_w_phm)
        };
        for (wrong, field) in [
            (several(&|config| config.inv_adapter.is_some()), "adapter.inv_adapter"),
            (several(&shares), "adapter.shared_phm_rule"),
        ] {
            if wrong {
                return Err(Error::config(field, "(given)", "only one of several adapters has it"));
            }
        }
        let mut taken = Vec::new();
        for part in &self.adapter {
            for site in part.config.adapted_sites(base)? {
                if taken.contains(&site.index) {
                    let expected = format!(
                        "two of them are at {}; tell them apart by mh_adapter, output_adapter and \
                         leave_out",
                        site.path
                    );
                    return Err(Error::config("adapter", "(a list)", expected));
                }
                taken.push(site.index);
            }
        }
        Ok(())
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
        trainable: "that of its parts; with gates + d + 1 for each of them",
        merges: "no",
        formats: "adapters",
    };
    type Method = Stack;

    /// 3e-4 if a part has no gates: it acts at full strength from the first step on, and the wide
    /// adapter of MAM is scaled by 4; at 1e-3, a small encoder's output collapses.
    fn learning_rate(&self) -> f64 {
        match self.parts().iter().all(|(_, gated, _)| *gated) {
            true => Self::LEARNING_RATE,
            false => 3e-4,
        }
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config, base)
    }

    fn validate(&self) -> Result<()> {
        if self.parts().is_empty() {
            let expected = "one of prefix, adapter, lora and ia3 must be there";
            return Err(Error::config("lora", "null", expected));
        }
        self.prefix.as_ref().map_or(Ok(()), |part| part.config.validate())?;
        self.adapter.iter().try_for_each(|part| part.config.validate())?;
        self.lora.as_ref().map_or(Ok(()), |part| part.config.validate())?;
        self.ia3.as_ref().map_or(Ok(()), |part| part.config.validate())?;
        self.check_gates()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let of_parts = self.parts().into_iter().map(|(.., config)| config.unmatched(base));
        Ok(of_parts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        for (field, _, config) in self.parts() {
            sizes.extend(config.sizes(base)?.into_iter().map(|size| size.within(field)));
        }
        Ok(sizes)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Stack> {
        self.validate()?;
        let base = context.base;
        self.check_adapters(base)?;
        // One gate for each part of a fused projection.
        let parts = |matrices: &AttentionMatrices, site| matrices.columns(site).len().max(1);
        let mut methods = Vec::new();
        if let Some(part) = &self.prefix {
            let method = BoxedMethod::new(part.config.init(context)?);
            let gates = if self.shared_gating { 1 } else { 2 };
            let sites = part.config.sites(base)?.into_iter().map(|site| (site, gates));
            methods.push(gated("prefix", method, PREFIX, sites, self.is_gated(part), context)?);
        }
        for part in &self.adapter {
            let method = BoxedMethod::new(part.config.init(context)?);
            let sites = part.config.adapted_sites(base)?.into_iter().map(|site| (&**site, 1));
            methods.push(gated("adapter", method, ADAPTER, sites, self.is_gated(part), context)?);
        }
        if let Some(part) = &self.lora {
            let mut lora = part.config.clone();
            if self.is_gated(part) {
                (lora.alpha, lora.use_rslora) = (lora.rank as f64, false);
            }
            let method = BoxedMethod::new(lora.init(context)?);
            let sites = lora.sites(base)?.into_iter();
            let sites = sites.map(|site| (site, parts(&lora.attn_matrices, site)));
            methods.push(gated("lora", method, LORA, sites, self.is_gated(part), context)?);
        }
        if let Some(part) = &self.ia3 {
            let mut ia3 = part.config.clone();
            if self.is_gated(part) {
                ia3.alpha = 1.0;
            }
            let method = BoxedMethod::new(ia3.init(context)?);
            let sites = ia3.layers(base)?.into_iter().map(|(site, of_input)| match of_input {
                true => (site, 1),
                false => (site, parts(&ia3.attn_matrices, site)),
            });
            methods.push(gated("ia3", method, IA3, sites, self.is_gated(part), context)?);
        }
        Ok(Stack::new(methods))
    }
}

/// A method with gates at its sites, if it is to have any.
fn gated<'s>(
    name: &str,
    method: BoxedMethod,
    kind: GateKind,
    sites: impl Iterator<Item = (&'s Site, usize)>,
    is_gated: bool,
    context: &InitContext<'_>,
) -> Result<BoxedMethod> {
    if !is_gated {
        return Ok(method);
    }
    let gated = Gated::new((name, method), kind, sites, context)?;
    Ok(BoxedMethod::new(gated))
}
