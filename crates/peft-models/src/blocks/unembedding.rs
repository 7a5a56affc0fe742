//! From hidden states back to words.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{FrozenWeight, LinearLayer, Role, Site};

use super::{Embeddings, FrozenEmbedding, Pass};
use crate::checkpoint::Loader;
use crate::head::NewHead;

/// `s h W + b`: how like each word a hidden state is. `W` is the table of the embeddings, or of its
/// own.
#[derive(Debug, Clone)]
pub struct Unembedding {
    site: Arc<Site>,
    /// Where the embeddings meet methods, one of which may have changed them invertibly.
    embeddings: Arc<Site>,
    table: Table,
    bias: Option<Tensor<1>>,
    scale: f64,
}

#[derive(Debug, Clone)]
enum Table {
    /// That of the embeddings, whatever a method makes of it.
    Tied(FrozenEmbedding),
    /// `[d, words]`.
    Own(FrozenWeight),
}

impl Unembedding {
    /// With the table of `embeddings`; `path.bias` is its own.
    pub fn tied(
        loader: &mut Loader<'_>,
        path: &str,
        embeddings: &Embeddings,
        bias: Option<Tensor<1>>,
    ) -> Self {
        let words = embeddings.words.clone();
        let weight = words.weight().transpose();
        let site = loader.base().tied(path, Role::Head, weight, bias.clone());
        let table = Table::Tied(words);
        Self { site, embeddings: embeddings.site.clone(), table, bias, scale: 1.0 }
    }

    /// With a table of its own, `path.weight`.
    pub fn own(
        loader: &mut Loader<'_>,
        new: &mut NewHead,
        path: &str,
        embeddings: &Embeddings,
    ) -> Self {
        let [words, d] = embeddings.words.weight().dims();
        let weight = new.table(loader, path, [words, d]).transpose();
        let site = loader.base().linear(path, Role::Head, None, weight.clone(), None);
        let table = Table::Own(weight);
        Self { site, embeddings: embeddings.site.clone(), table, bias: None, scale: 1.0 }
    }

    /// With a factor on hidden states.
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// `[batch, tokens, d]` to `[batch, tokens, words]`.
    pub fn forward(&self, hidden: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        let hidden = pass.hooks.unembed(&self.embeddings, hidden);
        let hidden = if self.scale == 1.0 { hidden } else { hidden * self.scale };
        let weight = match &self.table {
            Table::Tied(words) => words.table(pass).transpose(),
            Table::Own(weight) => weight.clone(),
        };
        let layer = LinearLayer::new(&self.site, &weight, self.bias.as_ref());
        pass.hooks.linear(&layer, hidden)
    }
}
