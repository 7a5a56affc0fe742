//! Prefix tuning.

mod config;
mod hub;

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor, module::linear};
use peft_core::{
    Activation, Base, Change, Embedded, Exchange, Hooks, Key, KeyValue, Layout, Method, Result,
    Role, Site,
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
/// `P_K` and `P_V` of a layer are `[heads, L, d_head]`, two slices of a table `[L, 2 · layers · d]`,
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
    dropout: Dropout,
    /// What kind of attention each table is for.
    #[module(skip)]
    roles: Vec<Role>,
    /// The table, and the layer's slice of it, by [`Site::index`].
    #[module(skip)]
    slices: Vec<Option<[usize; 2]>>,
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
    fn new(config: &PrefixTuningConfig, site: &Site, layers: usize, device: &Device) -> Self {
        let (length, columns) = (config.num_virtual_tokens, 2 * layers * site.d_out());
        let zero = config.init_weights == Some(PrefixInit::Zero);
        if !config.prefix_projection {
            let shape = [length, columns];
            return Self::Table(match zero {
                true => Param::from_tensor(Tensor::zeros(shape, device)),
                false => start::normal(shape, device),
            });
        }
        let d = if config.shift_positions { site.d_out() } else { site.d_in() };
        let width = config.encoder_hidden_size.unwrap_or(d);
        let outer = if zero { start::zero_linear } else { start::linear };
        Self::Encoder(Encoder {
            embedding: start::normal([length, d], device),
            inner: start::linear(d, width, device),
            outer: outer(width, columns, device),
            activation: config.non_linearity,
        })
    }

    /// HF PEFT's keys begin with `own`, adapter-hub's with `hub`.
    fn exchange(&mut self, file: &mut Exchange<'_>, own: &str, hub: &str) {
        let encoder = match self {
            Self::Table(table) => {
                let values = table.lazy_shape().num_elements();
                let key = Key::from(format!("{own}prompt_embeddings"));
                let key = key.hub(format!("{hub}.control_trans")).hub_shape([values]);
                return file.param(key, table, Layout::AsIs);
            }
            Self::Encoder(encoder) => encoder,
        };
        let key = |peft: &str, name: &str| {
            Key::from(format!("{own}prompt_encoder.{peft}")).hub(format!("{hub}.{name}"))
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
    /// `columns` columns of the table from `first` on, and no others: each attention asks for its
    /// own.
    fn columns(&self, first: usize, columns: usize) -> Tensor<2> {
        let weight = self.outer.weight.val().narrow(1, first, columns);
        let bias = self.outer.bias.as_ref().map(|bias| bias.val().narrow(0, first, columns));
        let inner = self.activation.forward(self.inner.forward(self.embedding.val()));
        linear(inner, weight, bias)
    }

    fn table(&self) -> Tensor<2> {
        self.columns(0, self.outer.weight.lazy_shape().dims::<2>()[1])
    }
}

impl PrefixTuning {
    fn new(config: &PrefixTuningConfig, base: &Base, device: &Device) -> Result<Self> {
        let sites = config.sites(base)?;
        ModelDimensions::check("token_dim", config.model.token_dim, sites[0].d_out())?;
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
            tables.push(Source::new(config, first, count, device));
            roles.push(role);
        }
        let dropout = DropoutConfig::new(config.dropout).init();
        let text =
            if base.is_encoder_decoder() { Role::DecoderEmbeddings } else { Role::Embeddings };
        let shifted = config.shift_positions.then_some(text);
        Ok(Self { tables, dropout, roles, slices, length: config.num_virtual_tokens, shifted })
    }

    /// The length `L` of the prefix.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether a site gets a prefix.
    pub fn acts_at(&self, site: &Site) -> bool {
        self.slice(site).is_some()
    }

    /// The keys and the values put before those of an attention, each
    /// `[batch, heads, L, d / heads]`; `None` where the site gets none.
    ///
    /// # Panics
    /// If `heads` does not divide the width of the keys.
    pub fn prefix(
        &self,
        site: &Site,
        batch: usize,
        heads: usize,
    ) -> Option<(Tensor<4>, Tensor<4>)> {
        let [table, slice] = self.slice(site)?;
        let d = site.d_out();
        let both = match &self.tables[table] {
            Source::Table(table) => table.val().narrow(1, 2 * slice * d, 2 * d),
            Source::Encoder(encoder) => encoder.columns(2 * slice * d, 2 * d),
        };
        let (length, head) = (self.length(), d / heads);
        let states = |from: usize| {
            let states = both.clone().narrow(1, from, d).reshape([1, length, heads, head]);
            let states = states.swap_dims(1, 2).expand([batch, heads, length, head]);
            self.dropout.forward(states)
        };
        Some((states(0), states(d)))
    }

    fn slice(&self, site: &Site) -> Option<[usize; 2]> {
        *self.slices.get(site.index)?
    }
}

impl Hooks for PrefixTuning {
    fn key_value(&self, site: &Site, _hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        let [batch, heads, ..] = states.key.dims();
        match self.prefix(site, batch, heads) {
            Some((key, value)) => states.prepend(key, value),
            None => states,
        }
    }

    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        // HF PEFT passes the prefix as past keys and values, behind which positions go on.
        if self.shifted == Some(site.role) { embedded.shifted(self.length) } else { embedded }
    }
}

impl Method for PrefixTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        let model = base.model_prefix();
        for (table, role) in self.tables.iter_mut().zip(&self.roles) {
            // HF PEFT has a prefix for self-attention only.
            let (own, hub) = match role {
                Role::EncoderAttention => ("encoder_", "encoder_prefix"),
                Role::CrossAttention => ("cross_", "cross_prefix"),
                _ => ("", "self_prefix"),
            };
            let hub = format!("{model}prefix_tuning.prefix_tunings.{{}}.{hub}");
            table.exchange(file, own, &hub);
        }
    }

    fn change(&self, _site: &Site) -> Change {
        Change::default()
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
