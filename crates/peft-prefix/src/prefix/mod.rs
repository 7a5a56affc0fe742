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
/// `P_K` and `P_V` of a layer are `[heads, L, d / heads]`, two slices of a table
/// `[L, 2 · layers · d]`. With `prefix_projection` the table is the output of an MLP in training,
///
/// ```text
/// table = tanh(E W₁ + b₁) W₂ + b₂    E: [L, d], W₁: [d, m], W₂: [m, 2 · layers · d]
/// ```
///
/// and [`finish`](Method::finish) keeps the table alone.
///
/// Created with [`PrefixTuningConfig`].
#[derive(Module, Debug)]
pub struct PrefixTuning {
    source: Source,
    dropout: Dropout,
    /// The layer's slice of the table, by [`Site::index`].
    #[module(skip)]
    slices: Vec<Option<usize>>,
    #[module(skip)]
    shift_positions: bool,
}

/// Where keys and values come from.
// There is one in a model, so its size costs nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum Source {
    /// The table itself, `[L, 2 · layers · d]`.
    Table(Param<Tensor<2>>),
    /// What is trained in its place.
    Encoder(Encoder),
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
        let d = sites[0].d_out();
        ModelDimensions::check("token_dim", config.model.token_dim, d)?;
        let layers = base.sites().filter(|site| site.role == Role::SelfAttention).count();
        ModelDimensions::check("num_layers", config.model.num_layers, layers)?;
        let mut slices = vec![None; base.len()];
        for (slice, site) in sites.iter().enumerate() {
            slices[site.index] = Some(slice);
        }
        let (length, columns) = (config.num_virtual_tokens, 2 * sites.len() * d);
        let zero = config.init_weights == Some(PrefixInit::Zero);
        let source = if config.prefix_projection {
            let width = config.encoder_hidden_size.unwrap_or(d);
            let outer = if zero { start::zero_linear } else { start::linear };
            Source::Encoder(Encoder {
                embedding: start::normal([length, d], device),
                inner: start::linear(d, width, device),
                outer: outer(width, columns, device),
                activation: config.non_linearity,
            })
        } else if zero {
            Source::Table(Param::from_tensor(Tensor::zeros([length, columns], device)))
        } else {
            Source::Table(start::normal([length, columns], device))
        };
        let dropout = DropoutConfig::new(config.dropout).init();
        Ok(Self { source, dropout, slices, shift_positions: config.shift_positions })
    }

    /// The length `L` of the prefix.
    pub fn length(&self) -> usize {
        let table = match &self.source {
            Source::Table(table) => table,
            Source::Encoder(encoder) => &encoder.embedding,
        };
        table.lazy_shape().dims::<2>()[0]
    }

    /// Whether a site gets a prefix.
    pub fn acts_at(&self, site: &Site) -> bool {
        self.slice(site).is_some()
    }

    /// The keys and the values put before those of an attention, each
    /// `[batch, heads, L, d / heads]`; `None` where the site gets none.
    ///
    /// # Panics
    /// If `heads` does not divide the hidden size.
    pub fn prefix(
        &self,
        site: &Site,
        batch: usize,
        heads: usize,
    ) -> Option<(Tensor<4>, Tensor<4>)> {
        let (first, d) = (2 * self.slice(site)? * site.d_out(), site.d_out());
        let both = match &self.source {
            Source::Table(table) => table.val().narrow(1, first, 2 * d),
            Source::Encoder(encoder) => encoder.columns(first, 2 * d),
        };
        let (length, head) = (self.length(), d / heads);
        let states = |from: usize| {
            let states = both.clone().narrow(1, from, d).reshape([1, length, heads, head]);
            let states = states.swap_dims(1, 2).expand([batch, heads, length, head]);
            self.dropout.forward(states)
        };
        Some((states(0), states(d)))
    }

    fn slice(&self, site: &Site) -> Option<usize> {
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

    fn embed(&self, _site: &Site, embedded: Embedded) -> Embedded {
        // HF PEFT passes the prefix as past keys and values, behind which positions go on.
        if self.shift_positions { embedded.shifted(self.length()) } else { embedded }
    }
}

impl Method for PrefixTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        let model = base.model_prefix();
        let hub =
            |name: &str| format!("{model}prefix_tuning.prefix_tunings.{{}}.self_prefix.{name}");
        let encoder = match &mut self.source {
            Source::Table(table) => {
                let values = table.lazy_shape().num_elements();
                let key = Key::from("prompt_embeddings").hub(hub("control_trans"));
                return file.param(key.hub_shape([values]), table, Layout::AsIs);
            }
            Source::Encoder(encoder) => encoder,
        };
        let key =
            |peft: &str, name: &str| Key::from(format!("prompt_encoder.{peft}")).hub(hub(name));
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

    fn change(&self, _site: &Site) -> Change {
        Change::default()
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it adds keys and values to attentions, which no weight or bias can express".into())
    }

    fn finish(&mut self) {
        if let Source::Encoder(encoder) = &self.source {
            let table = encoder.valid().table();
            self.source = Source::Table(start::computed(table, &encoder.embedding));
        }
    }

    fn virtual_tokens(&self) -> usize {
        // Without the shift, the prefix takes no positions of the model.
        if self.shift_positions { self.length() } else { 0 }
    }
}
