//! The factors of LoRA at one site.

use std::ops::Range;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{
    Edit, Edits, Error, InitContext, LowRank, Magnitude, MemoKey, Result, Site, SiteKind,
    TableEdit, trained_copy,
};

use super::invocation::Invoked;
use super::starts::Rounded;
use super::{LoraConfig, LoraInit};

/// The factors at one site: `A` is `[entries, r]` and `B` `[r, d]` at an embedding. Where `n` parts of a fused projection are adapted on their own, theirs
/// are side by side: `A` is `[d_in, n r]`, `B` is `[r, n d_out / 3]`.
#[derive(Module, Debug)]
pub struct LoraLayer {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// `c`, `[d_out]`, a bias of the factors (HF PEFT's `lora_bias`).
    pub bias: Option<Param<Tensor<1>>>,
    /// The columns of each part of a fused projection; none for the whole.
    #[module(skip)]
    pub(super) parts: Vec<Range<usize>>,
    /// DoRA's magnitude `m`, `[d_out]`; of an embedding `[d]`.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// Whether the magnitude is in the form of adapter-hub/adapters.
    #[module(skip)]
    adapters_dora: bool,
    /// What a text must hold for the factors to act, if not always.
    #[module(skip)]
    invocation: Option<Arc<[usize]>>,
    /// `A₀` and `B₀`, that PiSSA or OLoRA started from.
    pub(super) start: Option<[Param<Tensor<2>>; 2]>,
    /// `Q`, the frozen weight as LoftQ rounds it.
    #[module(skip)]
    pub(super) rounded: Option<Arc<Rounded>>,
    /// Whether it is the saved one.
    #[module(skip)]
    restored: bool,
    #[module(skip)]
    pub(super) scaling: f64,
    /// Of LoRA-FA, made at the first step.
    #[module(skip)]
    pub(super) inverse: Option<Tensor<3>>,
}

impl LoraLayer {
    /// The rank `r`.
    pub fn rank(&self) -> usize {
        self.lora_b.val().dims()[0]
    }

    pub(super) fn new(
        config: &LoraConfig,
        site: &Site,
        factors: Option<[Tensor<2>; 2]>,
        context: &InitContext<'_>,
    ) -> Result<Self> {
        let InitContext { base, device, restored, .. } = *context;
        let rank = config.rank_at(&site.path)?;
        let scaling = config.scaling(&site.path)?;
        let [d_in, d_out] = site.shape;
        if site.kind == SiteKind::Embedding {
            return Self::of_table(config, site, context);
        }
        if config.init.keeps_start() && rank > d_in.min(d_out) {
            let most = d_in.min(d_out);
            let expected =
                format!("must be at most {most} at {site} where it starts from the weight");
            return Err(Error::config("r", rank, expected));
        }
        if config.init.keeps_start()
            && config.init.looks_at_data()
            && context.is_read()
            && !restored
        {
            let expected = "the weights that the adapter was trained over are the base's less a start \
                            that its file does not have: convert it with \
                            path_initial_model_for_weight_conversion, as HF PEFT's documentation has it";
            let start = format!("{:?}", config.init.name().unwrap_or_default());
            return Err(Error::config("init_lora_weights", start, expected));
        }
        let parts = config.attn_matrices.columns(site);
        let shapes = match parts.len() {
            0 => [[d_in, rank], [rank, d_out]],
            n => [[d_in, n * rank], [rank, n * d_out / 3]],
        };
        let weight = || base.weight(site).dense();
        let read = context.is_read() && !config.init.keeps_start();
        let rounded = match config.init {
            LoraInit::Loftq => {
                let own = config.loftq_config.clone().unwrap_or_default();
                Some(Arc::new(Rounded::new(own, rank, scaling)))
            }
            _ => None,
        };
        let [a, b] = match (restored || read, factors, &rounded) {
            (true, ..) => shapes.map(|shape| Tensor::zeros(shape, device)),
            (false, Some(factors), _) => factors,
            (false, None, Some(rounded)) => rounded
                .factors(weight())
                .map(|factor| Tensor::from_data(factor.into_data(), device)),
            (false, None, None) => config.init.factors(shapes, scaling, weight, context),
        };
        let start = (config.init.keeps_start())
            .then(|| [&a, &b].map(|t| Param::from_tensor(t.clone()).set_require_grad(false)));
        let magnitude = config.use_dora.then(|| column_norms(weight(), device));
        let bias =
            config.lora_bias.then(|| Param::from_tensor(Tensor::zeros([shapes[1][1]], device)));
        let [a, b] = [a, b].map(Param::from_tensor);
        let lora_a = a.set_require_grad(!config.lora_fa);
        let invocation = config.alora_invocation_tokens.as_deref().map(Arc::from);
        let adapters_dora = config.adapters_dora;
        Ok(Self {
            bias,
            parts,
            magnitude,
            adapters_dora,
            invocation,
            start,
            rounded,
            ..Self::of(lora_a, b, scaling, restored)
        })
    }

    /// Factors, and nothing else.
    fn of(
        lora_a: Param<Tensor<2>>,
        lora_b: Param<Tensor<2>>,
        scaling: f64,
        restored: bool,
    ) -> Self {
        Self {
            lora_a,
            lora_b,
            bias: None,
            parts: Vec::new(),
            magnitude: None,
            adapters_dora: false,
            invocation: None,
            start: None,
            rounded: None,
            restored,
            scaling,
            inverse: None,
        }
    }

    /// The factors of an embedding, which start as HF PEFT's: `A = 0`, `B ~ N(0, 1)`.
    fn of_table(config: &LoraConfig, site: &Site, context: &InitContext<'_>) -> Result<Self> {
        let unsupported = [
            ("adapters_dora", config.adapters_dora),
            ("lora_bias", config.lora_bias),
            ("lora_fa", config.lora_fa),
            ("init_lora_weights", config.init.is_of_weight()),
            ("alora_invocation_tokens", config.alora_invocation_tokens.is_some()),
        ];
        if let Some((field, _)) = unsupported.into_iter().find(|(_, is_set)| *is_set) {
            let expected = format!("is for linear layers, and {site} is an embedding");
            return Err(Error::config(field, "(given)", expected));
        }
        let (rank, scaling) = (config.rank_at(&site.path)?, config.scaling(&site.path)?);
        let ([entries, d], device) = (site.shape, context.device);
        let normal = |shape: [usize; 2]| {
            Param::from_tensor(context.random(shape, Distribution::Normal(0.0, 1.0)))
        };
        let lora_a = match config.init {
            LoraInit::Random => normal([entries, rank]),
            _ => Param::from_tensor(Tensor::zeros([entries, rank], device)),
        };
        let table = || context.base.weight(site).dense();
        let magnitude = config.use_dora.then(|| column_norms(table(), device));
        let lora_b = normal([rank, d]);
        Ok(Self { magnitude, ..Self::of(lora_a, lora_b, scaling, context.restored) })
    }

    fn factors(&self) -> LowRank {
        LowRank::new(self.lora_a.val(), self.lora_b.val(), self.scaling)
    }

    /// The magnitude over the factors.
    fn magnitude(&self) -> Option<Magnitude> {
        let values = self.magnitude.as_ref()?;
        let key = MemoKey { of: values.id, name: "norms", site: None };
        // Their norm is of `W + A B`, which is `W + s A B` and so much of the factors beside it.
        let beside = || Box::new(LowRank { scale: 1.0 - self.scaling, ..self.factors() });
        let beside = self.adapters_dora.then(beside);
        Some(Magnitude { beside, ..Magnitude::new(values.val(), key) })
    }

    /// The table of an embedding under the factors.
    pub(super) fn table(&self) -> TableEdit {
        let factors = TableEdit::LowRank(Box::new(self.factors()));
        match self.magnitude() {
            Some(magnitude) => TableEdit::Stack(vec![factors, TableEdit::Magnitude(magnitude)]),
            None => factors,
        }
    }

    pub(super) fn edits(&self, dropout: f64) -> Edits {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        if let Some(tokens) = &self.invocation {
            let (bias, scale) = (self.bias.as_ref().map(Param::val), self.scaling);
            let tokens = tokens.clone();
            return Edit::Output(Arc::new(Invoked { a, b, bias, scale, dropout, tokens })).into();
        }
        let factors = |a, b| {
            let bias = self.bias.as_ref().map(Param::val);
            LowRank::new(a, b, self.scaling).with_dropout(dropout).with_bias(bias)
        };
        if !self.parts.is_empty() {
            let rank = b.dims()[0];
            let of = |(place, columns): (usize, &Range<usize>)| {
                let a = a.clone().narrow(1, place * rank, rank);
                let b = b.clone().narrow(1, place * columns.len(), columns.len());
                factors(a, b).of_columns(columns.clone()).into()
            };
            return self.parts.iter().enumerate().map(of).collect();
        }
        if let Some(rounded) = &self.rounded {
            let edits = Edits::from(Edit::Weight(rounded.clone())).then(factors(a, b));
            return edits.without_inverse("what rounding took from the weight is no longer there");
        }
        let edits = Edits::from(factors(a, b));
        if let Some([a, b]) = &self.start {
            let edits = edits.then(LowRank::new(a.val(), b.val(), -self.scaling));
            return match self.restored {
                true => edits,
                false => edits.without_inverse(
                    "the factors that it started from are those of a weight which is no longer there",
                ),
            };
        }
        match self.magnitude() {
            None => edits,
            Some(magnitude) => edits.then(magnitude),
        }
    }
}

/// The norm of each column of a weight `[d_in, d_out]`, or of a table `[entries, d]`, to be trained.
fn column_norms(weight: Tensor<2>, device: &Device) -> Param<Tensor<1>> {
    trained_copy(&weight.square().sum_dim(0).sqrt().squeeze_dim::<1>(0), device)
}
