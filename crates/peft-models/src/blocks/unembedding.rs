//! From hidden states back to words.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{FrozenWeight, LinearLayer, Role, Site, Stage, Tokens};

use super::{Embeddings, FrozenEmbedding};
use crate::checkpoint::Loader;
use crate::forward::Run;
use crate::head::NewHead;

/// `s h W + b`: how like each word a hidden state is. `W` is the table of the embeddings, or of its
/// own.
#[derive(Debug, Clone)]
pub struct Unembedding {
    site: Arc<Site>,
    /// Where the embeddings meet methods, one of which may have changed them invertibly.
    embeddings: Arc<Site>,
    /// `[d, words]`.
    weight: FrozenWeight,
    /// The embeddings whose table it is, whatever a method makes of that.
    tied: Option<FrozenEmbedding>,
    bias: Option<Tensor<1>>,
    scale: f64,
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
        let site = loader.base().tied(path, Role::Head, weight.clone(), bias.clone());
        let (embeddings, tied) = (embeddings.site.clone(), Some(words));
        Self { site, embeddings, weight, tied, bias, scale: 1.0 }
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
        let embeddings = embeddings.site.clone();
        Self { site, embeddings, weight, tied: None, bias: None, scale: 1.0 }
    }

    /// With a factor on hidden states.
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// `[tokens, d]` to `[tokens, words]`.
    pub fn forward(&self, hidden: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        let hidden = if self.scale == 1.0 { hidden } else { hidden * self.scale };
        let tokens = Tokens::new(hidden, run.pass.rows.clone());
        let Tokens { hidden, .. } =
            run.hooks.tokens(Stage::Output, &self.embeddings, tokens, &run.pass);
        let edits = run.hooks.linear(&self.site, &run.pass);
        let layer = LinearLayer::new(&self.site, &self.weight, self.bias.as_ref());
        match &self.tied {
            Some(words) => edits.apply(&layer.tied(&words.edit(run)), hidden, &run.pass),
            None => edits.apply(&layer, hidden, &run.pass),
        }
    }
}
