//! P-tuning.

mod config;
mod encoder;
mod template;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, EmptyPass, Exchange, Hooks, InitContext, Layout, MemoKey, Method, Pass, Piece, Result,
    Role, Site, Stage, Tokens,
};

use crate::model::{ModelDimensions, embeddings, words};
use crate::start;

use encoder::PromptEncoder;

pub use config::{EncoderType, PTuningConfig};
pub use template::PromptPart;

/// P-tuning (Liu et al. 2021, arXiv 2103.10385): `L` virtual tokens `P = encoder(E)`, both
/// `[L, d]`, among the embeddings of the text; in a model with an encoder and a decoder, of the
/// encoder's text, and `[2 L, d]` as in HF PEFT. `E` and the encoder are trained together;
/// [`finish`](Method::finish) keeps `P` alone.
///
/// Created with [`PTuningConfig`].
#[derive(Module, Debug)]
pub struct PTuning {
    source: Source,
    /// The frozen embeddings of all anchor tokens, `[anchors, d]`.
    anchors: Option<Param<Tensor<2>>>,
    #[module(skip)]
    parts: Vec<PromptPart>,
}

/// Where virtual tokens come from.
#[derive(Module, Debug)]
enum Source {
    /// The virtual tokens themselves, `[L, d]`.
    Table(Param<Tensor<2>>),
    /// What is trained in their place.
    Encoder(PromptEncoder),
}

impl PTuning {
    fn new(config: &PTuningConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let d = embeddings(base, "P-tuning")?.d_out();
        ModelDimensions::check("token_dim", config.model.token_dim, d)?;
        let parts = config.parts();
        let ids = template::anchors(&parts, base)?;
        let anchors = words(base)
            .filter(|_| !ids.is_empty())
            .map(|site| start::constant(start::rows(base, site, &ids, device)));
        let rows = config.num_virtual_tokens * config.model.submodules(base)?;
        let source = Source::Encoder(PromptEncoder::new(config, [rows, d], context));
        Ok(Self { source, anchors, parts })
    }

    /// The virtual tokens `P`, `[L, d]`, which the encoder makes once a pass.
    pub fn virtual_embeddings(&self, pass: &Pass<'_>) -> Tensor<2> {
        match &self.source {
            Source::Table(table) => table.val(),
            Source::Encoder(encoder) => {
                let key = MemoKey { of: encoder.embedding.id, name: "table", site: None };
                pass.memo.get(key, || encoder.forward(pass))
            }
        }
    }

    /// The parts of the sequence, in their order.
    pub fn parts(&self) -> &[PromptPart] {
        &self.parts
    }
}

/// Takes the next rows off a table.
fn take(table: &Tensor<2>, from: &mut usize, rows: usize) -> Piece {
    let taken = table.clone().narrow(0, *from, rows);
    *from += rows;
    Piece::Virtual(taken)
}

impl Hooks for PTuning {
    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        if stage != Stage::Embedded || site.role == Role::DecoderEmbeddings {
            return tokens;
        }
        let table = self.virtual_embeddings(pass);
        let anchors = self.anchors.as_ref().map(Param::val);
        let (mut token, mut anchor) = (0, 0);
        let pieces = self.parts.iter().filter_map(|part| match part {
            PromptPart::Virtual(rows) => Some(take(&table, &mut token, *rows)),
            PromptPart::Anchor(ids) => {
                anchors.as_ref().map(|table| take(table, &mut anchor, ids.len()))
            }
            PromptPart::Bos => Some(Piece::First),
            PromptPart::Text => Some(Piece::Text),
        });
        tokens.assembled(&pieces.collect::<Vec<_>>())
    }
}

impl Method for PTuning {
    fn exchange(&mut self, file: &mut Exchange<'_>, _base: &Base) {
        match &mut self.source {
            Source::Table(table) => file.param("prompt_embeddings", table, Layout::AsIs),
            Source::Encoder(encoder) => encoder.exchange(file),
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("it lengthens the input, which no weight or bias can express".into())
    }

    fn finish(&mut self) {
        if let Source::Encoder(encoder) = &self.source {
            let parts = EmptyPass::new(&encoder.embedding.lazy_device());
            let table = encoder.valid().forward(&parts.pass());
            self.source = Source::Table(start::computed(table, &encoder.embedding));
        }
    }

    fn virtual_tokens(&self) -> usize {
        let added = |part: &PromptPart| match part {
            PromptPart::Virtual(tokens) => *tokens,
            PromptPart::Anchor(ids) => ids.len(),
            PromptPart::Bos | PromptPart::Text => 0,
        };
        self.parts.iter().map(added).sum()
    }
}
