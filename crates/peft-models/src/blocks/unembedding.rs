//! From hidden states back to words.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{LinearLayer, Role, Site};

use super::{FrozenEmbedding, Pass};
use crate::checkpoint::Loader;
use crate::head::NewHead;

/// `h Eᵀ + b`: how like each word's embedding a hidden state is. The table `E` is that of the
/// embeddings.
#[derive(Debug, Clone)]
pub struct Unembedding {
    site: Arc<Site>,
    /// Where the embeddings meet methods, one of which may have changed them invertibly.
    embeddings: Arc<Site>,
    /// `[d, words]`.
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Unembedding {
    /// Takes `path.bias`; the table is that of `words`.
    pub fn load(
        loader: &mut Loader<'_>,
        new: &mut NewHead,
        path: &str,
        words: &FrozenEmbedding,
        embeddings: &Arc<Site>,
    ) -> Self {
        let weight = words.weight().transpose();
        let bias = new.bias(loader, path, words.len());
        let site = loader.base().tied(path, Role::Head, weight.clone(), Some(bias.clone()));
        Self { site, embeddings: embeddings.clone(), weight, bias }
    }

    /// `[batch, tokens, d]` to `[batch, tokens, words]`.
    pub fn forward(&self, hidden: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        let hidden = pass.hooks.unembed(&self.embeddings, hidden);
        let layer = LinearLayer::new(&self.site, &self.weight, Some(&self.bias));
        pass.hooks.linear(&layer, hidden)
    }
}
