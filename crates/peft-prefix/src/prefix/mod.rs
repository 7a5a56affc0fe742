//! Prefix tuning.

mod adapters_format;
mod config;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use peft_core::{
    Activation, Base, Error, Exchange, ExtraKeys, Hooks, InitContext, Key, KeyValues, Layout,
    MemoKey, Method, Pass, Result, Role, Site, Stage, Tokens,
};

use crate::model::ModelDimensions;
use crate::start;

pub use config::{PrefixInit, PrefixTuningConfig};

/// Prefix tuning (Li and Liang 2021, arXiv 2101.00190): in every attention, `L` learned keys and
/// values before those of the text,
///
/// ```text
/// K' = [P_K; K]    V' = [P_V; V]
/// ```
///
/// `P_K` and `P_V` of a layer are `[L, d]`, two slices of a table `[L, 2 · layers · d]`,
/// where `d` is the width of all keys. With `prefix_projection` the table is the output of an MLP in
/// training,
///
/// ```text
/// table = tanh(E W₁ + b₁) W₂ + b₂    E: [L, d], W₁: [d, m], W₂: [m, 2 · layers · d]
/// ```
///
/// and [`finish`](Method::finish) keeps the table alone. `E` is as wide as the hidden states where
/// positions are not shifted, as in adapter-hub/adapters. Each kind of attention has a table.
///
/// Created with [`PrefixTuningConfig`].
#[derive(Module, Debug)]
pub struct PrefixTuning {
    tables: Vec<Source>,
    #[module(skip)]
    dropout: f64,
    /// What kind of attention each table is for.
    #[module(skip)]
    roles: Vec<Role>,
    /// The table, and the layer's slice of it, by [`Site::index`].
    #[module(skip)]
    slices: Vec<Option<[usize; 2]>>,
    #[module(skip)]
    length: usize,
    /// Where the positions of the text are shifted, if anywhere.
    #[module(skip)]
    shifted: Option<Role>,
}

/// Where keys and values come from.
// There are few in a model, so its size costs nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum Source {
    /// The table itself, `[L, 2 · layers · d]`.
    Table(Param<Tensor<2>>),
    /// What is trained in its place.
    Encoder(Encoder),
}

impl Source {
    /// For `layers` attentions like `site`.
    fn new(
        config: &PrefixTuningConfig,
        site: &Site,
        layers: usize,
        context: &InitContext<'_>,
    ) -> Self {
        let (length, columns) = (config.num_virtual_tokens, 2 * layers * site.d_out());
        let zero = config.init_weights == Some(PrefixInit::Zero);
        if !config.prefix_projection {
            let shape = [length, columns];
            return Self::Table(match zero {
                true => Param::from_tensor(Tensor::zeros(shape, context.device)),
                false => start::normal(shape, context),
            });
        }
        let d = if config.shift_positions { site.d_out() } else { site.d_in() };
        let width = config.encoder_hidden_size.unwrap_or(d);
        let outer = if zero { start::zero_linear } else { start::linear };
        Self::Encoder(Encoder {
            embedding: start::normal([length, d], context),
            inner: start::linear(d, width, context),
            outer: outer(width, columns, context),
            activation: config.non_linearity,
        })
    }

    /// The table, which a network makes once a pass.
    fn table(&self, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Table(table) => table.val(),
            Self::Encoder(encoder) => {
                let key = MemoKey { of: encoder.embedding.id, name: "table", site: None };
                pass.memo.get(key, || encoder.table())
            }
        }
    }

    /// HF PEFT's keys begin with `own`, adapter-hub/adapters' with `adapters`.
    fn exchange(&mut self, file: &mut Exchange<'_>, own: &str, adapters: &str) {
        let encoder = match self {
            Self::Table(table) => {
                let values = table.lazy_shape().num_elements();
                let key = Key::from(format!("{own}prompt_embeddings"));
                let key =
                    key.adapters(format!("{adapters}.control_trans")).adapters_shape([values]);
                return file.param(key, table, Layout::AsIs);
            }
            Self::Encoder(encoder) => encoder,
        };
        let key = |peft: &str, name: &str| {
            Key::from(format!("{own}prompt_encoder.{peft}")).adapters(format!("{adapters}.{name}"))
        };
        file.param(key("embedding.weight", "wte.weight"), &mut encoder.embedding, Layout::AsIs);
        for (index, layer) in [(0, &mut encoder.inner), (2, &mut encoder.outer)] {
            let key = |name: &str| {
                key(&format!("transform.{index}.{name}"), &format!("control_trans.{index}.{name}"))
            };
            file.param(key("weight"), &mut layer.weight, Layout::Transposed);
            if let Some(bias) = &mut layer.bias {
                file.param(key("bias"), bias, Layout::AsIs);
            }
        }
    }
}

/// An embedding and the MLP above it.
#[derive(Module, Debug)]
struct Encoder {
    /// `[L, d]`.
    embedding: Param<Tensor<2>>,
    /// `d → m`.
    inner: Linear,
    /// `m → 2 · layers · d`.
    outer: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Encoder {
    /// The table, `[L, 2 · layers · d]`.
    fn table(&self) -> Tensor<2> {
        let inner = self.activation.forward(self.inner.forward(self.embedding.val()));
        self.outer.forward(inner)
    }
}

impl PrefixTuning {
    fn new(config: &PrefixTuningConfig, context: &InitContext<'_>) -> Result<Self> {
        let base = context.base;
        let sites = config.sites(base)?;
        ModelDimensions::check("token_dim", config.model.token_dim, sites[0].d_out())?;
        if let Some(heads) = config.model.num_attention_heads
            && (heads == 0 || !sites[0].d_out().is_multiple_of(heads))
        {
            let expected = format!("must divide the hidden size, {}", sites[0].d_out());
            return Err(Error::config("num_attention_heads", heads, expected));
        }
        let count = |role| base.sites().filter(|site| site.role == role).count();
        // HF PEFT hands a decoder layer the slices of two layers, one for each of its attentions,
        // and drops the second; and the layers that it counts are the encoder's.
        let step = if config.shift_positions { config.model.submodules(base)? } else { 1 };
        let layers = if step == 2 { Role::EncoderAttention } else { Role::SelfAttention };
        ModelDimensions::check("num_layers", config.model.num_layers, count(layers))?;
        let mut slices = vec![None; base.len()];
        let (mut tables, mut roles) = (Vec::new(), Vec::new());
        for role in config.roles() {
            let sites: Vec<&Site> =
                sites.iter().copied().filter(|site| site.role == role).collect();
            let Some(first) = sites.first() else { continue };
            let count = if step == 2 { count(Role::EncoderAttention) } else { sites.len() };
            for (layer, site) in sites.iter().enumerate() {
                slices[site.index] = Some([tables.len(), step * layer % count]);
            }
            tables.push(Source::new(config, first, count, context));
            roles.push(role);
        }
        let dropout = config.dropout;
        let text =
            if base.is_encoder_decoder() { Role::DecoderEmbeddings } else { Role::Embeddings };
        let shifted = config.shift_positions.then_some(text);
        Ok(Self { tables, dropout, roles, slices, length: config.num_virtual_tokens, shifted })
    }

    /// The length `L` of the prefix.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The table, and the layer's slice of it.
    fn slice(&self, site: &Site) -> Option<[usize; 2]> {
        *self.slices.get(site.index)?
    }
}

impl Hooks for PrefixTuning {
    fn attention(&self, site: &Site, pass: &Pass<'_>) -> ExtraKeys {
        let Some([table, slice]) = self.slice(site) else { return ExtraKeys::None };
        let (table, d) = (self.tables[table].table(pass), site.d_out());
        let part = |which: usize| table.clone().narrow(1, (2 * slice + which) * d, d);
        ExtraKeys::Some(KeyValues {
            key: part(0),
            value: part(1),
            dropout: self.dropout,
            gates: Vec::new(),
        })
    }

    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, _pass: &Pass<'_>) -> Tokens {
        // HF PEFT passes the prefix as past keys and values, behind which positions go on.
        let shifts = stage == Stage::Embedded && self.shifted == Some(site.role);
        if shifts { tokens.shifted(self.length) } else { tokens }
    }
}

impl Method for PrefixTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        let model = base.model_prefix();
        for (table, role) in self.tables.iter_mut().zip(&self.roles) {
            // HF PEFT has a prefix for self-attention only.
            let (own, adapters) = match role {
                Role::EncoderAttention => ("encoder_", "encoder_prefix"),
                Role::CrossAttention => ("cross_", "cross_prefix"),
                _ => ("", base.adapters_self_prefix()),
            };
            let adapters = format!("{model}prefix_tuning.prefix_tunings.{{}}.{adapters}");
            table.exchange(file, own, &adapters);
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it adds keys and values to attentions, which no weight or bias can express".into())
    }

    fn finish(&mut self) {
        for source in &mut self.tables {
            if let Source::Encoder(encoder) = source {
                let table = encoder.valid().table();
                *source = Source::Table(start::computed(table, &encoder.embedding));
            }
        }
    }

    fn virtual_tokens(&self) -> usize {
        // Without the shift, the prefix takes no positions of the model.
        if self.shifted.is_some() { self.length } else { 0 }
    }
}
