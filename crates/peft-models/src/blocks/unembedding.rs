//! From hidden states back to words.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{FrozenWeight, LinearLayer, Site, Stage, Tokens};

use super::Embeddings;
use crate::checkpoint::Loader;
use crate::forward::Run;
use crate::head::NewHead;
use crate::logits::{Logits, Product};

/// `s h W + b`: how like each word a hidden state is. `W` is the table of the embeddings, or one of its
/// own.
#[derive(Debug, Clone)]
pub struct Unembedding {
    site: Arc<Site>,
    /// Where the embeddings meet methods, one of which may have changed them invertibly.
    embeddings: Arc<Site>,
    /// `[d, words]`, as products want it.
    weight: FrozenWeight,
    bias: Option<Tensor<1>>,
    scale: f64,
}

impl Unembedding {
    /// With the table of `embeddings`; the bias is its own. `weight_path` is where the checkpoint would
    /// hold a table of its own, if the architecture can have one.
    pub fn tied(
        loader: &mut Loader<'_>,
        path: &str,
        weight_path: Option<&str>,
        embeddings: &Embeddings,
        bias: Option<Tensor<1>>,
    ) -> Self {
        let words = &embeddings.words;
        let weight = words.weight().transpose();
        let tied_to = Some(&**words.site());
        let site = loader.base().unembedding(path, weight.clone(), bias.clone(), tied_to);
        loader.base().set_weight_key(weight_path.map(|path| format!("{path}.weight")));
        let weight = loader.for_products(weight);
        Self { site, embeddings: embeddings.site.clone(), weight, bias, scale: 1.0 }
    }

    /// With a table of its own, `weight_path.weight`, and this bias.
    pub fn own(
        loader: &mut Loader<'_>,
        new: &mut NewHead,
        path: &str,
        weight_path: &str,
        embeddings: &Embeddings,
        bias: Option<Tensor<1>>,
    ) -> Self {
        let [words, d] = embeddings.words.weight().dims();
        let table = new.table(loader, weight_path, [words, d]);
        let weight = loader.for_products(table.transpose());
        let site = loader.base().unembedding(path, weight.clone(), bias.clone(), None);
        loader.base().set_weight_key(Some(format!("{weight_path}.weight")));
        Self { site, embeddings: embeddings.site.clone(), weight, bias, scale: 1.0 }
    }

    /// With a bias that the checkpoint holds elsewhere, and that no method sees.
    pub fn with_buffer(self, bias: Option<Tensor<1>>) -> Self {
        Self { bias, ..self }
    }

    /// With a factor on hidden states.
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// `[tokens, d]` to `[tokens, words]`: no more than what these are made of, where no method edits
    /// the weight.
    pub fn forward(&self, hidden: Tensor<2>, run: Run<'_>) -> Logits {
        let hidden = if self.scale == 1.0 { hidden } else { hidden * self.scale };
        let tokens = Tokens::new(hidden, run.pass.rows.clone());
        let Tokens { hidden, .. } =
            run.hooks.tokens(Stage::Output, &self.embeddings, tokens, &run.pass);
        let edits = run.hooks.linear(&self.site, &run.pass);
        let table = run.hooks.table(&self.site, &run.pass);
        if edits.is_none() && table.is_keep() {
            let (weight, bias) = (self.weight.clone(), self.bias.clone());
            return Product { states: hidden, weight, bias }.into();
        }
        let layer = LinearLayer::new(&self.site, &self.weight, self.bias.as_ref());
        edits.apply(&layer.of_table(&table), hidden, &run.pass).into()
    }
}
