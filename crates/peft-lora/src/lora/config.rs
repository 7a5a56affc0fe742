//! The configuration of LoRA, with HF PEFT's fields.

use std::collections::BTreeSet;

use peft_core::{
    AttentionMatrices, Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig,
    ModuleNames, PatternMap, Result, Role, Site, SiteKind, Size, Targets, pattern_value,
    unmatched_patterns,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::starts::settled;
use super::{
    CordaConfig, EvaConfig, LoftqConfig, Lora, LoraGaConfig, LoraInit, LoraLayer, adapters_format,
};
use crate::LoraBias;
use crate::checks::{self, DEFAULT_ROLES};

/// What LoRA can adapt.
const KINDS: &[SiteKind] = &[SiteKind::Linear, SiteKind::Embedding];

/// Configuration of [`Lora`].
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `r` (`rank`) | 8 | rank of the factors |
/// | `lora_alpha` (`alpha`) | 8 | scale: `alpha / r`, with `use_rslora` `alpha / sqrt(r)` |
/// | `lora_dropout` (`dropout`) | 0 | dropout on the input of the factors, in training |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | query and value | see [`Targets`] |
/// | `target_parameters` | none | weights that are adapted too, each the end of a path: `mlp.down_proj.weight`; alone, no other layer is |
/// | `rank_pattern`, `alpha_pattern` | empty | values for some modules, see [`PatternMap`] |
/// | `bias` | `none` | `none`, `all`, `lora_only` |
/// | `use_rslora`, `use_dora` | false | the variants |
/// | `adapters_dora` (`dora_of_adapters`) | false | DoRA as adapter-hub/adapters has it: the norm is of `W + A B`, without the scale, and has a gradient, and the bias is scaled too; not for HF PEFT's files |
/// | `alora_invocation_tokens` (`invocation`) | none | Activated LoRA: the words, by index, from whose last occurrence in a text on the factors act |
/// | `init_lora_weights` (`init`) | true | see [`LoraInit`] |
/// | `eva_config`, `corda_config`, `lora_ga_config`, `loftq_config` | none | of the starts of that name; see [`EvaConfig`], [`CordaConfig`], [`LoraGaConfig`], [`LoftqConfig`] |
/// | `lora_bias` | false | the factors have a bias of their own |
/// | `ensure_weight_tying` | false | an embedding and a head that is tied to it are adapted as one, if either is a target |
/// | `attn_matrices` (`matrices`) | none | for a fused projection of query, key and value: which of `q`, `k`, `v` are adapted, each with its own factors, as in adapter-hub/adapters; none: one pair of factors for all, as in HF PEFT |
/// | `fan_in_fan_out` | false | for PEFT: whether the checkpoint stores weights as `[d_in, d_out]`; written to files, not read, since the model knows |
/// | `loraplus_lr_ratio` (`lr_ratio`) | none | LoRA+: learning rate of `B` over that of `A` |
/// | `lora_fa` (`fa`) | false | LoRA-FA: only `B` is trained, by the gradient of the weight |
///
/// ```
/// use peft_lora::LoraConfig;
/// let config = LoraConfig { rank: 16, alpha: 32.0, ..Default::default() };
/// assert_eq!(config.scaling("encoder.layer.0.attention.self.query")?, 2.0);
/// # Ok::<(), peft_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of the factors.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the scale.
    #[serde(rename = "lora_alpha", serialize_with = "peft_core::whole_if_it_is")]
    pub alpha: f64,
    /// Dropout on the input of the factors.
    #[serde(rename = "lora_dropout")]
    pub dropout: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
    /// Weights of linear layers that are adapted too, by the ends of their paths.
    pub target_parameters: Option<Vec<String>>,
    /// Ranks of some modules.
    pub rank_pattern: PatternMap<usize>,
    /// Alphas of some modules.
    pub alpha_pattern: PatternMap<f64>,
    /// Which biases are trained.
    pub bias: LoraBias,
    /// Scale by `alpha / sqrt(r)` (Kalajdzievski 2023, arXiv 2312.03732).
    pub use_rslora: bool,
    /// Decompose into magnitude and direction (Liu et al. 2024, arXiv 2402.09353).
    pub use_dora: bool,
    /// DoRA as adapter-hub/adapters has it: `(x W + b + s (x A) B) ⊙ m / ‖W + A B‖`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adapters_dora: bool,
    /// Activated LoRA (Greenewald et al. 2025, arXiv 2504.12397): the words, by index in the vocabulary,
    /// from whose last occurrence in a text on the factors act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alora_invocation_tokens: Option<Vec<usize>>,
    /// How the factors start.
    #[serde(rename = "init_lora_weights")]
    pub init: LoraInit,
    /// Of a start by the directions of inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eva_config: Option<EvaConfig>,
    /// Of a start by the covariance of inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corda_config: Option<CordaConfig>,
    /// Of a start by gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_ga_config: Option<LoraGaConfig>,
    /// Of a start by rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loftq_config: Option<LoftqConfig>,
    /// The parts of a fused projection that are adapted, each with factors of its own.
    #[serde(skip_serializing_if = "AttentionMatrices::is_empty")]
    pub attn_matrices: AttentionMatrices,
    /// Whether the checkpoint stores the adapted weights as `[d_in, d_out]`.
    pub fan_in_fan_out: bool,
    /// Whether the factors have a bias of their own: `y + s ((x A) B + c)`.
    pub lora_bias: bool,
    /// Whether an embedding and the head that is tied to it are adapted as one, if either is a target.
    pub ensure_weight_tying: bool,
    /// LoRA+ (Hayou et al. 2024, arXiv 2402.12354): learning rate of `B`, of magnitudes and of
    /// biases over that of `A`; 16 is the paper's advice.
    #[serde(rename = "loraplus_lr_ratio", skip_serializing_if = "Option::is_none")]
    pub lr_ratio: Option<f64>,
    /// LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): `A` stays as it starts, and the gradient of `B`
    /// becomes `(Aᵀ A)⁻¹ g / s²`, for which the change of `W` is nearest to its own gradient.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lora_fa: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            targets: Targets::default(),
            target_parameters: None,
            rank_pattern: PatternMap::default(),
            alpha_pattern: PatternMap::default(),
            bias: LoraBias::None,
            use_rslora: false,
            use_dora: false,
            adapters_dora: false,
            alora_invocation_tokens: None,
            init: LoraInit::default(),
            eva_config: None,
            corda_config: None,
            lora_ga_config: None,
            loftq_config: None,
            attn_matrices: AttentionMatrices::default(),
            fan_in_fan_out: false,
            lora_bias: false,
            ensure_weight_tying: false,
            lr_ratio: None,
            lora_fa: false,
        }
    }
}

impl LoraConfig {
    /// The linear layers and embeddings of `base` that are adapted. An embedding is one only where it
    /// is named, and a head that is tied to it then not: it has the embedding's factors.
    ///
    /// # Errors
    /// If the targets select nothing.
    pub fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let mut sites = self.targeted(base)?;
        sites.retain(|site| site.role != Role::RelativePosition);
        if self.ensure_weight_tying {
            for head in base.sites() {
                let Some(embedding) = head.tied_to else { continue };
                let is_meant = |site: &&Site| [head.index, embedding].contains(&site.index);
                if sites.iter().any(is_meant) {
                    sites.retain(|site| !is_meant(site));
                    let embedding = base.sites().filter(|site| site.index == embedding);
                    sites.extend(embedding.map(|site| site.as_ref()));
                }
            }
        }
        Ok(sites)
    }

    /// What the targets select, modules and parameters.
    fn targeted<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let parameters = self.target_parameters.as_deref().unwrap_or_default();
        if parameters.is_empty() {
            return self.targets.resolve_kinds(base, KINDS, DEFAULT_ROLES);
        }
        let mut sites = match &self.targets.target_modules {
            Some(_) => self.targets.resolve_kinds(base, KINDS, DEFAULT_ROLES)?,
            None => Vec::new(),
        };
        for name in parameters {
            let found = with_weight(base, name);
            if found.is_empty() {
                let what = "weight of a linear layer".into();
                let available = base.linears().map(|site| format!("{}.weight", site.name()));
                let available: BTreeSet<String> = available.collect();
                let available = available.into_iter().collect::<Vec<_>>().join(", ");
                let (field, pattern) = ("target_parameters".into(), name.clone());
                return Err(Error::NoMatch { field, pattern, what, available });
            }
            for site in found {
                if !sites.iter().any(|known| known.index == site.index) {
                    sites.push(site);
                }
            }
        }
        sites.sort_by_key(|site| site.index);
        Ok(sites)
    }

    /// The rank at a module.
    ///
    /// # Errors
    /// If a key of `rank_pattern` is not a regular expression.
    pub fn rank_at(&self, path: &str) -> Result<usize> {
        pattern_value("rank_pattern", &self.rank_pattern, path, self.rank)
    }

    /// The scale at a module: `alpha / r`, or `alpha / sqrt(r)` with rsLoRA.
    ///
    /// # Errors
    /// If a key of `rank_pattern` or `alpha_pattern` is not a regular expression.
    pub fn scaling(&self, path: &str) -> Result<f64> {
        let rank = self.rank_at(path)? as f64;
        let alpha = pattern_value("alpha_pattern", &self.alpha_pattern, path, self.alpha)?;
        Ok(if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank })
    }
}

impl LoraConfig {
    fn validate_invocation(&self) -> Result<()> {
        let Some(tokens) = &self.alora_invocation_tokens else { return Ok(()) };
        let of_weight = self.init.keeps_start() || self.init == LoraInit::Loftq;
        let whole = self.use_dora || of_weight || !self.attn_matrices.is_empty();
        let expected = match (tokens.is_empty(), whole) {
            (true, _) => "must name at least one token",
            (_, true) => {
                "cannot be combined with use_dora, PiSSA, OLoRA or attn_matrices, which are of every \
                 token"
            }
            _ => return Ok(()),
        };
        Err(Error::config("alora_invocation_tokens", format!("{tokens:?}"), expected))
    }
}

/// The linear layers whose weight has a path that ends in `name`.
fn with_weight<'b>(base: &'b Base, name: &str) -> Vec<&'b Site> {
    let Some(path) = name.strip_suffix(".weight") else { return Vec::new() };
    let ends = |site: &&'b Site| {
        let before = site.path.strip_suffix(path);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    base.linears().map(AsRef::as_ref).filter(ends).collect()
}

impl MethodConfig for LoraConfig {
    const NAME: &'static str = "lora";
    const PEFT_TYPE: &'static str = "LORA";
    const ABOUT: &'static str = "low-rank updates of weight matrices (Hu et al. 2021)";
    // On a small encoder; the paper's 5e-4 for RoBERTa-base lies within a factor of two.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("rank", "r"),
        ("alpha", "lora_alpha"),
        ("dropout", "lora_dropout"),
        ("init", "init_lora_weights"),
        ("lr_ratio", "loraplus_lr_ratio"),
        ("fa", "lora_fa"),
        ("invocation", "alora_invocation_tokens"),
        ("dora_of_adapters", "adapters_dora"),
        ("matrices", "attn_matrices"),
        ("eva", "eva_config"),
        ("corda", "corda_config"),
        ("lora_ga", "lora_ga_config"),
        ("loftq", "loftq_config"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "query, value",
        trainable: "r (d_in + d_out) per matrix; DoRA: + d_out",
        merges: "yes",
        formats: "peft, adapters",
    };
    type Method = Lora;

    fn card(&self) -> MethodCard {
        let is_activated = self.alora_invocation_tokens.is_some();
        let of_peft = self.use_dora || self.use_rslora || self.init.is_of_weight() || is_activated;
        let formats = match self.adapters_dora || !self.attn_matrices.is_empty() {
            true => "adapters",
            false if of_peft => "peft",
            false => Self::CARD.formats,
        };
        let merges = if is_activated { "no" } else { Self::CARD.merges };
        MethodCard { formats, merges, ..Self::CARD }
    }

    fn for_file(&self, base: &Base) -> Result<Self> {
        let fan_in_fan_out = self.sites(base)?.iter().any(|site| site.fan_in_fan_out);
        let targets = match &self.target_parameters {
            // The same layers, as modules: the file is the same.
            Some(names) if !names.is_empty() => {
                let paths = self.targeted(base)?.into_iter().map(|site| site.path.clone());
                let target_modules = Some(ModuleNames::list(paths));
                Targets { target_modules, ..Targets::default() }
            }
            _ => self.targets.named(base, KINDS, DEFAULT_ROLES)?,
        };
        Ok(Self { fan_in_fan_out, targets, target_parameters: None, ..self.clone() })
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config, base)
    }

    fn validate(&self) -> Result<()> {
        checks::ranks(self.rank, &self.rank_pattern)?;
        checks::scales("lora_alpha", self.alpha, ("alpha_pattern", &self.alpha_pattern))?;
        checks::dropout("lora_dropout", self.dropout)?;
        if let Some(ratio) = self.lr_ratio
            && !(ratio.is_finite() && ratio > 0.0)
        {
            return Err(Error::config("loraplus_lr_ratio", ratio, "must be a positive number"));
        }
        if self.lora_fa && self.use_dora {
            let expected = "cannot be combined with use_dora: its gradient is that of a sum";
            return Err(Error::config("lora_fa", true, expected));
        }
        let start = serde_json::to_string(&self.init).unwrap_or_default();
        if self.use_dora && (self.init.keeps_start() || self.init == LoraInit::Loftq) {
            return Err(Error::config(
                "init_lora_weights",
                start,
                "cannot be combined with use_dora: the magnitudes would start from a weight that \
                 has already been split",
            ));
        }
        self.validate_invocation()?;
        if self.adapters_dora && !self.use_dora {
            let expected = "is a form of DoRA, and use_dora is false";
            return Err(Error::config("adapters_dora", true, expected));
        }
        let ranks = self.rank_pattern.iter().map(|(_, rank)| *rank).chain([self.rank]);
        if self.init == LoraInit::Orthogonal
            && let Some(odd) = ranks.into_iter().find(|rank| rank % 2 == 1)
        {
            let expected = "must be even, for init_lora_weights = \"orthogonal\"";
            return Err(Error::config("r", odd, expected));
        }
        let whole = self.use_dora || self.lora_bias || self.init.is_of_weight();
        if !self.attn_matrices.is_empty() && whole {
            let expected = "cannot be combined with use_dora, lora_bias or a start from the weight or from data, which are of whole weights";
            return Err(Error::config("attn_matrices", "(given)", expected));
        }
        self.eva_config.as_ref().map_or(Ok(()), EvaConfig::validate)?;
        self.lora_ga_config.as_ref().map_or(Ok(()), LoraGaConfig::validate)?;
        self.loftq_config.as_ref().map_or(Ok(()), LoftqConfig::validate)?;
        self.targets.validate()
    }

    fn settled(&self, method: &Lora, base: &Base) -> Result<Self> {
        if self.init != LoraInit::Eva {
            return Ok(self.clone());
        }
        let sites = self.sites(base)?;
        let ranks: Vec<usize> =
            sites.iter().map(|site| method.layer(site).map_or(0, LoraLayer::rank)).collect();
        settled(self, &sites, &ranks)
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let sites = self.targeted(base)?;
        let mut unmatched = match (&self.targets.target_modules, &self.target_parameters) {
            (None, Some(_)) => Vec::new(),
            _ => self.targets.unmatched_kinds(base, KINDS, DEFAULT_ROLES)?,
        };
        unmatched.extend(unmatched_patterns("rank_pattern", &self.rank_pattern, &sites)?);
        unmatched.extend(unmatched_patterns("alpha_pattern", &self.alpha_pattern, &sites)?);
        unmatched.extend(self.attn_matrices.unmatched(&sites));
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let at = |site: &Site| {
            let rank = self.rank_at(&site.path)?;
            let field = if rank == self.rank { "r" } else { "rank_pattern" };
            let width =
                (site.d_in() + site.d_out()) * self.attn_matrices.columns(site).len().max(1);
            Ok(Size::new(field, rank, rank as f64 * width as f64))
        };
        self.sites(base)?.into_iter().map(at).collect()
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Lora> {
        self.validate()?;
        Lora::new(self, context)
    }
}
