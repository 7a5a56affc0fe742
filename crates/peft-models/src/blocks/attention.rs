//! Multi-head self-attention.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor, activation::softmax};
use peft_core::{KeyValue, Role, Site, SiteKind};

use super::{FrozenLinear, Pass};
use crate::Result;
use crate::checkpoint::Loader;

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
    ///
    /// `mask` is `[batch, tokens]`, true where there is a token; `None` where that is everywhere.
    pub fn forward(
        &self,
        hidden: Tensor<3>,
        mask: Option<&Tensor<2, Bool>>,
        pass: Pass<'_>,
    ) -> Tensor<3> {
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
            mask: mask.cloned(),
        };
        let KeyValue { key, value, mask } = pass.hooks.key_value(&self.site, &hidden, states);
        let scores = split(query).matmul(key.swap_dims(2, 3));
        let scores = match mask {
            Some(mask) => scores + score_bias(mask),
            None => scores,
        };
        let weights = pass.dropout(softmax(scores, 3), self.dropout);
        let context = weights.matmul(value).swap_dims(1, 2).reshape([batch, tokens, d]);
        self.output.forward(context, pass)
    }
}

/// `[batch, 1, 1, positions]`: 0 where there is something to attend to, [`MASKED`] where not.
fn score_bias(mask: Tensor<2, Bool>) -> Tensor<4> {
    let [batch, positions] = mask.dims();
    Tensor::<2>::zeros([batch, positions], &mask.device())
        .mask_fill(mask.bool_not(), MASKED)
        .reshape([batch, 1, 1, positions])
}
