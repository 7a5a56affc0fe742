//! The configuration of bottleneck adapters, with `adapters`' fields.

use std::sync::Arc;

use peft_core::{
    Activation, Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result,
    Role, Site, Size,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::projection::Position;
use crate::{
    Bottleneck, HypercomplexInit, InitWeights, InvertibleKind, PhmInit, ReductionFactor,
    ResidualBeforeNorm, Scaling, adapters_format, fields,
};

/// `inv_adapter_reduction_factor` where there is none: that of the reference's presets.
pub(crate) const DEFAULT_INVERTIBLE_REDUCTION: f64 = 2.0;

/// Configuration of [`Bottleneck`].
///
/// `norm` is the norm of the sublayer, `o` its output, `r` its residual.
///
/// | field (also) | default | meaning |
/// |---|---|---|
/// | `mh_adapter`, `output_adapter` | false, true | adapters after attention, after the feed-forward network |
/// | `reduction_factor` | 16 | `d / m`; a number, or a map from layers to numbers with a `default` |
/// | `bottleneck_size` (`bottleneck`) | none | `m` itself, in place of the factor; ours |
/// | `non_linearity` | `relu` | activation in the bottleneck |
/// | `is_parallel` | false | in parallel: the adapter is given `r`; the next two do not apply |
/// | `original_ln_before` | true | the adapter is given `norm(r + o)` instead of `o` |
/// | `residual_before_ln` | true | the residual connection around it begins at `o`; `false`: at what it is given; `"post_add"`: at `r + o` |
/// | `original_ln_after` | true | `norm(r + o')` follows; `false`: what leaves the sublayer is `h + s f(h)` with `h = norm(r + o)`, which takes `residual_before_ln = false` |
/// | `scaling` | 1 | `s`; a number, `"learned"` or `"channel"` |
/// | `ln_before`, `ln_after` | false | new norms of the adapter's input and output |
/// | `adapter_residual_before_ln` | false | with `ln_after`: the norm is taken after the residual connection, not before it |
/// | `stochastic_depth` | 0 | the probability that a text goes past the adapter, in training |
/// | `dropout` | 0 | dropout on the adapter's output, in training |
/// | `init_weights` | `bert` | see [`InitWeights`] |
/// | `leave_out` | none | layers without adapters, counted from zero (AdapterDrop) |
/// | `phm_layer` | false | projections are sums of Kronecker products; the next fields say how |
/// | `phm_dim` | 4 | the number `n` of products; it divides `d` and `m` |
/// | `shared_phm_rule`, `factorized_phm_rule`, `learn_phm` | true, false, true | whether the `A_i` are shared by all layers, of rank 1, trained |
/// | `shared_W_phm`, `factorized_phm_W`, `phm_rank` | false, true, 1 | whether the `W_i` are shared, factored; their rank |
/// | `phm_c_init`, `phm_init_range` | `normal`, 1e-4 | how the `A_i` start, see [`PhmInit`] |
/// | `hypercomplex_nonlinearity` | `glorot-uniform` | carried, see [`HypercomplexInit`] |
/// | `phm_bias` | true | whether the projections have biases |
/// | `inv_adapter`, `inv_adapter_reduction_factor` | none, none (2) | an invertible adapter at the embeddings, `nice` or `glow` |
/// | `inv_adapter_inverse` (`inverse`) | true | whether a language-model head is given its inverse; in adapter-hub's files the model's class says it |
/// | `train_norms` | false | also trains the norms of adapted layers, as Houlsby et al.; ours |
/// | `num_experts` (`experts`) | 1 | AdaMix: so many experts in the place of a projection, of which one is drawn in each pass of training; ours, as the next three |
/// | `share_down` (`sharing_down`), `share_up` (`sharing_up`) | false, true | whether there is one projection down, up, whatever the number of experts |
/// | `consistency_weight` (`consistency`) | 1 | the weight of the divergence between two passes with experts of their own; 0: one pass |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BottleneckConfig {
    /// Adapters after attention.
    pub mh_adapter: bool,
    /// Adapters after the feed-forward network.
    pub output_adapter: bool,
    /// The hidden size over that of the bottleneck.
    pub reduction_factor: ReductionFactor,
    /// The width of the bottleneck, in place of `reduction_factor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bottleneck_size: Option<usize>,
    /// Activation in the bottleneck.
    #[serde(deserialize_with = "fields::activation")]
    pub non_linearity: Activation,
    /// Whether the adapter is given the normalised sum of output and residual.
    pub original_ln_before: bool,
    /// Where the residual connection begins.
    pub residual_before_ln: ResidualBeforeNorm,
    /// Whether the sublayer's norm follows.
    pub original_ln_after: bool,
    /// A new norm of the adapter's input.
    pub ln_before: bool,
    /// A new norm of the adapter's output.
    pub ln_after: bool,
    /// Whether `ln_after` is taken after the residual connection.
    pub adapter_residual_before_ln: bool,
    /// In parallel to the sublayer, not after it.
    pub is_parallel: bool,
    /// The scale of the adapter's output.
    pub scaling: Scaling,
    /// How the projections start.
    pub init_weights: InitWeights,
    /// Layers without adapters.
    pub leave_out: Vec<usize>,
    /// The probability that a text goes past the adapter.
    pub stochastic_depth: f64,
    /// Dropout on the adapter's output.
    pub dropout: f64,
    /// Projections that are sums of Kronecker products.
    pub phm_layer: bool,
    /// The number of products.
    pub phm_dim: usize,
    /// The rank of the `W_i`, if they are factored.
    pub phm_rank: usize,
    /// Whether the `W_i` are factored.
    #[serde(rename = "factorized_phm_W")]
    pub factorized_phm_w: bool,
    /// Whether all layers share the `W_i`.
    #[serde(rename = "shared_W_phm")]
    pub shared_w_phm: bool,
    /// Whether all layers share the `A_i`.
    pub shared_phm_rule: bool,
    /// Whether the `A_i` have rank 1.
    pub factorized_phm_rule: bool,
    /// Whether the `A_i` are trained.
    pub learn_phm: bool,
    /// How the `A_i` start.
    pub phm_c_init: PhmInit,
    /// The standard deviation of shared `A_i` at the start.
    pub phm_init_range: f64,
    /// The reference's name for the start of the `W_i`.
    pub hypercomplex_nonlinearity: HypercomplexInit,
    /// Whether projections have biases.
    pub phm_bias: bool,
    /// An invertible adapter at the embeddings.
    pub inv_adapter: Option<InvertibleKind>,
    /// The input of its networks over their hidden layers.
    #[serde(serialize_with = "fields::serialize_whole")]
    pub inv_adapter_reduction_factor: Option<f64>,
    /// Whether a language-model head is given its inverse.
    #[serde(rename = "inv_adapter_inverse", skip_serializing_if = "is_true")]
    pub inverse: bool,
    /// Whether the norms of adapted layers are trained.
    pub train_norms: bool,
    /// The number of experts in the place of a projection.
    #[serde(skip_serializing_if = "is_one")]
    pub num_experts: usize,
    /// Whether the experts share the projection down.
    #[serde(skip_serializing_if = "is_false")]
    pub share_down: bool,
    /// Whether the experts share the projection up.
    #[serde(skip_serializing_if = "is_true")]
    pub share_up: bool,
    /// The weight of the divergence between two passes.
    #[serde(skip_serializing_if = "is_full")]
    pub consistency_weight: f64,
}

impl Default for BottleneckConfig {
    fn default() -> Self {
        Self {
            mh_adapter: false,
            output_adapter: true,
            reduction_factor: ReductionFactor::Same(16.0),
            bottleneck_size: None,
            non_linearity: Activation::Relu,
            original_ln_before: true,
            residual_before_ln: ResidualBeforeNorm::Output,
            original_ln_after: true,
            ln_before: false,
            ln_after: false,
            adapter_residual_before_ln: false,
            is_parallel: false,
            scaling: Scaling::Fixed(1.0),
            init_weights: InitWeights::Bert,
            leave_out: Vec::new(),
            stochastic_depth: 0.0,
            dropout: 0.0,
            phm_layer: false,
            phm_dim: 4,
            phm_rank: 1,
            factorized_phm_w: true,
            shared_w_phm: false,
            shared_phm_rule: true,
            factorized_phm_rule: false,
            learn_phm: true,
            phm_c_init: PhmInit::Normal,
            phm_init_range: 1e-4,
            hypercomplex_nonlinearity: HypercomplexInit::GlorotUniform,
            phm_bias: true,
            inv_adapter: None,
            inv_adapter_reduction_factor: None,
            inverse: true,
            train_norms: false,
            num_experts: 1,
            share_down: false,
            share_up: true,
            consistency_weight: 1.0,
        }
    }
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_full(value: &f64) -> bool {
    *value == 1.0
}

impl BottleneckConfig {
    /// The sublayers that get adapters.
    pub fn adapted_sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Arc<Site>>> {
        let wanted = |role| match role {
            Role::AttentionSublayer => self.mh_adapter,
            Role::FeedForwardSublayer => self.output_adapter,
            _ => false,
        };
        let sublayers: Vec<_> = base.sites().filter(|site| wanted(site.role)).collect();
        let left_out =
            |site: &Site| site.layer.is_some_and(|layer| self.leave_out.contains(&layer));
        let sites: Vec<_> = sublayers.iter().copied().filter(|site| !left_out(site)).collect();
        // An invertible adapter is something by itself.
        if !sites.is_empty() || self.inv_adapter.is_some() {
            return Ok(sites);
        }
        if !sublayers.is_empty() {
            let value = format!("{:?}", self.leave_out);
            return Err(Error::config("leave_out", value, "leaves no layer with an adapter"));
        }
        let others = base.sites().map(|site| site.path.clone()).take(5);
        Err(Error::NoMatch {
            field: "mh_adapter, output_adapter".into(),
            pattern: format!("{}, {}", self.mh_adapter, self.output_adapter),
            what: "sublayer".into(),
            available: others.collect::<Vec<_>>().join(", "),
        })
    }

    /// The width of the bottleneck at a site.
    pub(crate) fn bottleneck_at(&self, site: &Site) -> Result<usize> {
        if let Some(size) = self.bottleneck_size {
            return Ok(size);
        }
        let factor = self.reduction_factor.at(site.layer.unwrap_or(0)).ok_or_else(|| {
            let expected = format!("needs a \"default\", or a value for the layer of {site}");
            Error::config("reduction_factor", self.reduction_factor_text(), expected)
        })?;
        Ok(((site.d_out() as f64 / factor).floor() as usize).max(1))
    }

    /// How many experts there are in the place of a projection.
    pub(crate) fn experts_at(&self, position: Position) -> usize {
        let shared = match position {
            Position::Down => self.share_down,
            Position::Up => self.share_up,
        };
        if shared { 1 } else { self.num_experts }
    }

    /// Whether `phm_dim` fits an adapter's shape.
    pub(crate) fn check_phm(&self, site: &Site, shape: [usize; 2]) -> Result<()> {
        if self.phm_layer && shape.iter().any(|size| !size.is_multiple_of(self.phm_dim)) {
            let [d, bottleneck] = shape;
            return Err(Error::config(
                "phm_dim",
                self.phm_dim,
                format!(
                    "must divide the hidden size {d} and the bottleneck {bottleneck} at {site}"
                ),
            ));
        }
        Ok(())
    }

    /// The embeddings' site, for the invertible adapter.
    pub(crate) fn embeddings<'b>(&self, base: &'b Base) -> Result<&'b Arc<Site>> {
        base.sites().find(|site| site.role == Role::Embeddings).ok_or_else(|| Error::NoMatch {
            field: "inv_adapter".into(),
            pattern: "embeddings".into(),
            what: "place".into(),
            available: "no embeddings".into(),
        })
    }

    fn reduction_factor_text(&self) -> String {
        serde_json::to_string(&self.reduction_factor).unwrap_or_default()
    }
}

impl MethodConfig for BottleneckConfig {
    const NAME: &'static str = "pfeiffer";
    const PEFT_TYPE: &'static str = "BOTTLENECK";
    const ABOUT: &'static str =
        "bottleneck adapters after the feed-forward network (Pfeiffer et al. 2020)";
    // On a small encoder. The reference's documentation starts from 1e-4; Houlsby et al. choose
    // among 3e-5, 3e-4 and 3e-3.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("bottleneck", "bottleneck_size"),
        ("inverse", "inv_adapter_inverse"),
        ("experts", "num_experts"),
        ("sharing_down", "share_down"),
        ("sharing_up", "share_up"),
        ("consistency", "consistency_weight"),
    ];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Function],
        sites: "feed-forward sublayers; houlsby, compacter: attention sublayers too",
        trainable: "L (2 d r + d + r); houlsby: twice that; compacter: 2 L (2 (d + r) + d + r) + n³",
        merges: "no: it has a non-linearity",
        formats: "adapters",
    };
    type Method = Bottleneck;

    fn card(&self) -> MethodCard {
        // An invertible adapter changes the input too, trained norms change parameters.
        use ComputationFunction::{Function, Input, Parameter};
        let functions: &[_] = match (self.inv_adapter.is_some(), self.train_norms) {
            (false, false) => &[Function],
            (true, false) => &[Input, Function],
            (false, true) => &[Parameter, Function],
            (true, true) => &[Parameter, Input, Function],
        };
        let trainable = match self.num_experts {
            0 | 1 => Self::CARD.trainable,
            _ => "L (M (d r + r) + d r + d) with M experts; L (2 d r + d + r) in the file",
        };
        MethodCard { functions, trainable, ..Self::CARD }
    }

    /// 3e-3 with `phm_layer`, as Mahabadi et al.: the rule starts near zero, and its products with
    /// the other factors get small gradients. With a fixed scale above 1 it is divided by it: a step
    /// moves the adapter's output so many times as far, and at 1e-3 a scale of 4 learns badly.
    fn learning_rate(&self) -> f64 {
        let rate = if self.phm_layer { 3e-3 } else { Self::LEARNING_RATE };
        match self.scaling {
            Scaling::Fixed(scale) if scale > 1.0 => rate / scale,
            _ => rate,
        }
    }

    /// With one expert, the average that is left of them.
    fn for_file(&self, _base: &Base) -> Result<Self> {
        let Self { num_experts, share_down, share_up, consistency_weight, .. } = Self::default();
        Ok(Self { num_experts, share_down, share_up, consistency_weight, ..self.clone() })
    }

    fn to_adapters(&self, base: &Base) -> Result<Value> {
        adapters_format::write(self, base)
    }

    fn from_adapters(config: &Map<String, Value>, _base: &Base) -> Option<Result<Self>> {
        adapters_format::read(config)
    }

    fn validate(&self) -> Result<()> {
        crate::validate::validate(self)
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let layers: Vec<usize> = base.sites().filter_map(|site| site.layer).collect();
        let last = layers.iter().max().copied().unwrap_or(0);
        let absent = |field: &str, layer: String| Error::NoMatch {
            field: field.into(),
            pattern: layer,
            what: "layer".into(),
            available: format!("0 to {last}"),
        };
        let left_out = self.leave_out.iter().filter(|layer| !layers.contains(layer));
        let left_out = left_out.map(|layer| absent("leave_out", layer.to_string()));
        let factors = match &self.reduction_factor {
            ReductionFactor::Same(_) => Vec::new(),
            ReductionFactor::PerLayer(map) => map.keys().cloned().collect(),
        };
        let known = |key: &String| layers.iter().any(|layer| layer.to_string() == *key);
        let factors = factors.into_iter().filter(|key| key != "default" && !known(key));
        let factors = factors.map(|key| absent("reduction_factor", key));
        Ok(left_out.chain(factors).collect())
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let (field, value) = match self.bottleneck_size {
            Some(size) => ("bottleneck_size", size.to_string()),
            None => ("reduction_factor", self.reduction_factor_text()),
        };
        let mut sizes = Vec::new();
        for (number, site) in self.adapted_sites(base)?.into_iter().enumerate() {
            let (d, m) = (site.d_out() as f64, self.bottleneck_at(site)? as f64);
            let (n, rank) = (self.phm_dim as f64, self.phm_rank as f64);
            // What all layers share is there once.
            let (own_rule, own_weights) =
                (number == 0 || !self.shared_phm_rule, number == 0 || !self.shared_w_phm);
            if !self.phm_layer {
                sizes.push(Size::new(field, &value, 2.0 * d * m));
                let experts = |position| self.experts_at(position).saturating_sub(1) as f64;
                let others = experts(Position::Down) + experts(Position::Up);
                let others = Size::new("num_experts", self.num_experts, others * d * m);
                sizes.push(others.not_in_file());
                continue;
            }
            sizes.push(Size::new(field, &value, m));
            if own_rule {
                sizes.push(Size::new("phm_dim", self.phm_dim, n.powi(3)));
            }
            if own_weights {
                sizes.push(match self.factorized_phm_w {
                    true => Size::new("phm_rank", self.phm_rank, 2.0 * rank * (d + m)),
                    false => Size::new(field, &value, 2.0 * d * m / n),
                });
            }
        }
        if self.inv_adapter.is_some() {
            let d = self.embeddings(base)?.d_out() as f64;
            let factor = self.inv_adapter_reduction_factor.unwrap_or(DEFAULT_INVERTIBLE_REDUCTION);
            sizes.push(Size::new("inv_adapter_reduction_factor", factor, d * d / factor));
        }
        Ok(sizes)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Bottleneck> {
        self.validate()?;
        Bottleneck::new(self, context)
    }
}
