//! The sites of a base by stack, layer and sublayer.

use std::sync::Arc;

use peft_core::{AttentionHeads, Base, Error, Result, Role, Site, SiteKind};

/// A stack of layers: an encoder, a decoder, or the only one.
#[derive(Debug)]
pub(crate) struct Stack {
    /// Where its embeddings are.
    pub(crate) embeddings: Arc<Site>,
    /// In order.
    pub(crate) layers: Vec<Layer>,
    /// Behind the last layer.
    pub(crate) norm: Option<Arc<Site>>,
}

/// A layer.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Its [`Site::layer`].
    pub(crate) number: usize,
    /// In order.
    pub(crate) sublayers: Vec<Sublayer>,
}

/// A sublayer.
#[derive(Debug)]
pub(crate) struct Sublayer {
    pub(crate) linears: Vec<Arc<Site>>,
    pub(crate) norms: Vec<Arc<Site>>,
    /// Its attention, if that is what it is.
    pub(crate) attention: Option<(Role, AttentionHeads)>,
    /// Its end.
    pub(crate) end: Arc<Site>,
}

impl Stack {
    /// Those of a base, in the order in which they run.
    ///
    /// # Errors
    /// If the base is no transformer.
    pub(crate) fn all(base: &Base) -> Result<Vec<Self>> {
        let mut stacks: Vec<Self> = Vec::new();
        let (mut linears, mut norms, mut attention) = (Vec::new(), Vec::new(), None);
        for entry in base.iter() {
            let site = &entry.site;
            match (site.kind, site.role, site.layer) {
                (_, Role::Embeddings | Role::DecoderEmbeddings, _) => {
                    let (layers, norm) = (Vec::new(), None);
                    stacks.push(Self { embeddings: site.clone(), layers, norm });
                }
                (_, Role::FinalNorm, _) => {
                    if let Some(stack) = stacks.last_mut() {
                        stack.norm = Some(site.clone());
                    }
                }
                (_, _, None) => {}
                (SiteKind::Linear, ..) => linears.push(site.clone()),
                (SiteKind::Norm, ..) => norms.push(site.clone()),
                (SiteKind::Attention, role, _) => {
                    attention = entry.heads.map(|heads| (role, heads));
                }
                (SiteKind::Sublayer, _, Some(number)) => {
                    let Some(stack) = stacks.last_mut() else { continue };
                    if stack.layers.last().is_none_or(|layer| layer.number != number) {
                        stack.layers.push(Layer { number, sublayers: Vec::new() });
                    }
                    let (linears, norms) =
                        (std::mem::take(&mut linears), std::mem::take(&mut norms));
                    let (attention, end) = (attention.take(), site.clone());
                    let sublayers = &mut stack.layers.last_mut().expect("it was pushed").sublayers;
                    sublayers.push(Sublayer { linears, norms, attention, end });
                }
                (SiteKind::Embedding, ..) => {}
            }
        }
        match stacks.iter().all(|stack| !stack.layers.is_empty()) && !stacks.is_empty() {
            true => Ok(stacks),
            false => {
                let expected =
                    "needs a transformer: layers over embeddings, which there are none of";
                Err(Error::config("reduction_factor", "(given)", expected))
            }
        }
    }
}
