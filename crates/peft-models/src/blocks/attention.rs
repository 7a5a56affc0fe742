//! Multi-head self-attention.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor, activation::softmax};
use peft_core::{KeyValue, Role, Site, SiteKind};

use super::{FrozenLinear, Pass};
use crate::Result;
use crate::checkpoint::Loader;

/// What tokens may look at: `None` where every position of the batch is a token.
#[derive(Debug, Clone)]
pub struct AttentionMask {
    /// `[batch, 1, 1, positions]`, 0 where there is a token, very negative where there is not.
    bias: Option<Tensor<4>>,
}

impl AttentionMask {
    /// From `[batch, tokens]`, true where there is a token.
    pub fn new(mask: Tensor<2, Bool>, full: bool) -> Self {
        let bias = (!full).then(|| {
            let [batch, tokens] = mask.dims();
            let device = mask.device();
            Tensor::<2>::zeros([batch, tokens], &device)
                .mask_fill(mask.bool_not(), MASKED)
                .reshape([batch, 1, 1, tokens])
        });
        Self { bias }
    }

    /// The bias for `positions` keys: those that a method put in front are seen by every token.
    fn over(&self, positions: usize) -> Option<Tensor<4>> {
        let bias = self.bias.clone()?;
        let [batch, _, _, tokens] = bias.dims();
        if tokens == positions {
            return Some(bias);
        }
        let front = Tensor::zeros([batch, 1, 1, positions - tokens], &bias.device());
        Some(Tensor::cat(vec![front, bias], 3))
    }
}

/// Far below any score, and finite, so that a row without tokens gives no NaN.
const MASKED: f32 = -1e9;

/// `softmax(Q Kᵀ / sqrt(d_head)) V`, then the output projection.
#[derive(Debug, Clone)]
pub struct SelfAttention {
    site: Arc<Site>,
    query: FrozenLinear,
    key: FrozenLinear,
    value: FrozenLinear,
    output: FrozenLinear,
    heads: usize,
    dropout: f64,
}

impl SelfAttention {
    /// Loads the projections at `path.query`, `path.key`, `path.value` and `output_path`.
    pub fn load(
        loader: &mut Loader<'_>,
        path: &str,
        output_path: &str,
        layer: usize,
        d: usize,
        heads: usize,
        dropout: f64,
    ) -> Result<Self> {
        let mut projection =
            |name: &str, role| FrozenLinear::load(loader, name, role, Some(layer), [d, d]);
        let query = projection(&format!("{path}.query"), Role::Query)?;
        let key = projection(&format!("{path}.key"), Role::Key)?;
        let value = projection(&format!("{path}.value"), Role::Value)?;
        let output = projection(output_path, Role::AttentionOutput)?;
        let site =
            loader.base().place(path, SiteKind::Attention, Role::SelfAttention, Some(layer), d);
        Ok(Self { site, query, key, value, output, heads, dropout })
    }

    /// `[batch, tokens, d]` to the same.
    pub fn forward(&self, hidden: Tensor<3>, mask: &AttentionMask, pass: Pass<'_>) -> Tensor<3> {
        let [batch, tokens, d] = hidden.dims();
        let d_head = d / self.heads;
        let split = |x: Tensor<3>| {
            let [batch, positions, _] = x.dims();
            x.reshape([batch, positions, self.heads, d_head]).swap_dims(1, 2)
        };
        let query = self.query.forward(hidden.clone(), pass) / (d_head as f64).sqrt();
        let states = KeyValue {
            key: split(self.key.forward(hidden.clone(), pass)),
            value: split(self.value.forward(hidden.clone(), pass)),
        };
        let KeyValue { key, value } = pass.hooks.key_value(&self.site, &hidden, states);
        let positions = key.dims()[2];
        let scores = split(query).matmul(key.swap_dims(2, 3));
        let scores = match mask.over(positions) {
            Some(bias) => scores + bias,
            None => scores,
        };
        let weights = pass.dropout(softmax(scores, 3), self.dropout);
        let context = weights.matmul(value).swap_dims(1, 2).reshape([batch, tokens, d]);
        self.output.forward(context, pass)
    }
}
