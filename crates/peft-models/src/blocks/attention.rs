//! Multi-head attention.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor, activation::softmax};
use peft_core::{KeyValue, Role, Site};

use super::{Context, FrozenLinear, LinearForm, Pass};
use crate::Result;
use crate::checkpoint::Loader;

/// Far below any score, and finite, so that a row without tokens gives no NaN.
pub(super) const MASKED: f32 = -1e9;

/// `softmax(s Q Kᵀ + bias) V`, then the output projection. Queries are of the text itself, keys and
/// values too, or of what an encoder returned; several heads of queries may share keys and values.
#[derive(Debug, Clone)]
pub struct Attention {
    site: Arc<Site>,
    projections: Projections,
    output: FrozenLinear,
    heads: Heads,
    scale: f64,
    dropout: f64,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
enum Projections {
    /// One for each.
    Apart { query: FrozenLinear, key: FrozenLinear, value: FrozenLinear },
    /// One for all, side by side in its output.
    Fused(FrozenLinear),
}

/// The heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Of queries.
    pub count: usize,
    /// Of keys and values; a divisor of `count`.
    pub key_value: usize,
    /// The width of one.
    pub size: usize,
}

impl Heads {
    /// As many heads of keys as of queries, which share the hidden size `d`.
    pub fn equal(count: usize, d: usize) -> Self {
        Self { count, key_value: count, size: d / count }
    }

    /// The usual factor on scores, `1 / sqrt(size)`.
    pub fn scale(self) -> f64 {
        1.0 / (self.size as f64).sqrt()
    }
}

/// Where an attention's projections of its input are.
#[derive(Debug, Clone, Copy)]
pub enum ProjectionPaths<'a> {
    /// Of query, key and value.
    Apart([&'a str; 3]),
    /// Of the one that is all three.
    Fused(&'a str),
}

/// What an [`Attention`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSpec<'a> {
    /// The path of the attention itself.
    pub path: &'a str,
    /// Which attention it is; a [`Role::CrossAttention`] has its keys of the encoder's states.
    pub role: Role,
    /// The projections of the input.
    pub projections: ProjectionPaths<'a>,
    /// What they are in the checkpoint.
    pub form: LinearForm,
    /// The path of the output projection.
    pub output: &'a str,
    /// What it is in the checkpoint.
    pub output_form: LinearForm,
    /// The hidden size.
    pub d: usize,
    /// The heads.
    pub heads: Heads,
    /// The factor on scores.
    pub scale: f64,
    /// Dropout on the weights.
    pub dropout: f64,
}

impl Attention {
    /// Takes the projections.
    pub fn load(
        loader: &mut Loader<'_>,
        layer: Option<usize>,
        spec: &AttentionSpec<'_>,
    ) -> Result<Self> {
        let AttentionSpec { d, heads, form, .. } = *spec;
        let (width, key_width) = (heads.count * heads.size, heads.key_value * heads.size);
        let mut linear = |path: &str, role, shape, form| {
            FrozenLinear::load(loader, path, role, layer, shape, form)
        };
        let projections = match spec.projections {
            ProjectionPaths::Fused(path) => {
                let shape = [d, width + 2 * key_width];
                Projections::Fused(linear(path, Role::QueryKeyValue, shape, form)?)
            }
            ProjectionPaths::Apart([query, key, value]) => Projections::Apart {
                query: linear(query, Role::Query, [d, width], form)?,
                key: linear(key, Role::Key, [d, key_width], form)?,
                value: linear(value, Role::Value, [d, key_width], form)?,
            },
        };
        let output = linear(spec.output, Role::AttentionOutput, [width, d], spec.output_form)?;
        let site = loader.base().attention(spec.path, spec.role, layer, [d, key_width]);
        let (scale, dropout) = (spec.scale, spec.dropout);
        Ok(Self { site, projections, output, heads, scale, dropout })
    }

    /// `[batch, tokens, d]` to the same.
    pub fn forward(&self, hidden: Tensor<3>, context: &Context<'_>, pass: Pass<'_>) -> Tensor<3> {
        let [batch, tokens, _] = hidden.dims();
        let crosses = self.crosses();
        // What an encoder returned stays the same.
        let kept = pass.cache.filter(|_| crosses).and_then(|cache| cache.kept(&self.site));
        let (query, states) = match kept {
            Some(kept) => (self.project_query(hidden, pass), kept),
            None => {
                let (query, states) = self.project(hidden.clone(), context, pass);
                let begin = |states| pass.hooks.key_value(&self.site, &hidden, states);
                let states = match pass.cache {
                    Some(cache) => cache.extend(&self.site, states, begin),
                    None => begin(states),
                };
                (query, states)
            }
        };
        let KeyValue { key, value, mask, filled } = states;
        let positions = key.dims()[2];
        let (key, value) = (self.shared(key), self.shared(value));
        let mut scores = (query * self.scale).matmul(key.swap_dims(2, 3));
        let by_position = match crosses {
            true => None,
            false => context.position_bias(tokens, positions, filled),
        };
        let by_mask = mask.map(mask_bias);
        for bias in by_position.into_iter().chain(by_mask) {
            scores = scores + bias;
        }
        let weights = pass.dropout(softmax(scores, 3), self.dropout);
        let context = weights.matmul(value).swap_dims(1, 2);
        let context = context.reshape([batch, tokens, self.heads.count * self.heads.size]);
        self.output.forward(context, pass)
    }

    /// Queries, `[batch, heads, tokens, d_head]`, and the keys and values of the text, or of what an
    /// encoder returned.
    fn project(
        &self,
        hidden: Tensor<3>,
        context: &Context<'_>,
        pass: Pass<'_>,
    ) -> (Tensor<4>, KeyValue) {
        let Heads { count, key_value, size } = self.heads;
        let encoded = context.encoded.filter(|_| self.crosses());
        let [query, key, value] = match &self.projections {
            Projections::Apart { query, key, value } => {
                let source = encoded.map_or(&hidden, |encoded| &encoded.hidden).clone();
                let query = query.forward(hidden, pass);
                [query, key.forward(source.clone(), pass), value.forward(source, pass)]
            }
            Projections::Fused(all) => {
                let all = all.forward(hidden, pass);
                let part = |from, heads| all.clone().narrow(2, from * size, heads * size);
                [part(0, count), part(count, key_value), part(count + key_value, key_value)]
            }
        };
        let (query, key) = (self.split(query, count), self.split(key, key_value));
        let value = self.split(value, key_value);
        match (encoded, &context.angles) {
            (Some(encoded), _) => (query, KeyValue::new(key, value, encoded.mask.clone())),
            (None, angles) => {
                let turned = |states| match angles {
                    Some(angles) => angles.turn(states),
                    None => states,
                };
                let mask = context.mask.clone();
                (turned(query), KeyValue::new(turned(key), value, mask))
            }
        }
    }

    /// The queries alone, of an attention to what an encoder returned.
    fn project_query(&self, hidden: Tensor<3>, pass: Pass<'_>) -> Tensor<4> {
        let (Projections::Apart { query: layer, .. } | Projections::Fused(layer)) =
            &self.projections;
        let width = self.heads.count * self.heads.size;
        self.split(layer.forward(hidden, pass).narrow(2, 0, width), self.heads.count)
    }

    fn crosses(&self) -> bool {
        self.site.role == Role::CrossAttention
    }

    /// `[batch, positions, heads · d_head]` to `[batch, heads, positions, d_head]`.
    fn split(&self, states: Tensor<3>, heads: usize) -> Tensor<4> {
        let [batch, positions, _] = states.dims();
        states.reshape([batch, positions, heads, self.heads.size]).swap_dims(1, 2)
    }

    /// Keys or values, each head as often as queries share it.
    fn shared(&self, states: Tensor<4>) -> Tensor<4> {
        let times = self.heads.count / self.heads.key_value;
        if times == 1 {
            return states;
        }
        let [batch, heads, positions, size] = states.dims();
        let states = states.unsqueeze_dim::<5>(2).expand([batch, heads, times, positions, size]);
        states.reshape([batch, heads * times, positions, size])
    }
}

/// `[batch, 1, 1, positions]`: 0 where there is something to attend to, [`MASKED`] where not.
fn mask_bias(mask: Tensor<2, Bool>) -> Tensor<4> {
    let [batch, positions] = mask.dims();
    Tensor::<2>::zeros([batch, positions], &mask.device())
        .mask_fill(mask.bool_not(), MASKED)
        .reshape([batch, 1, 1, positions])
}
