//! The hooks at which a method meets a model.

mod attention;
mod beside;
mod closed;
mod sublayer;
mod tokens;

pub use attention::{Beside, ExtraKeys, KeyValues, RowKeys};
pub use beside::{SideNetwork, SideNetworks};
pub(crate) use closed::open_and_closed;
pub use sublayer::{Insert, Intervention, SublayerEnd, SublayerFunction};
pub use tokens::{Piece, Stage, Tokens};

use std::fmt::Debug;

use crate::{Edits, NormEdit, Pass, Site, TableEdit};

open_and_closed! {
    /// Where a method meets a model: one hook for each kind of place.
    ///
    /// A method does not compute at a place, it *says what it does there*, as data, and the model
    /// executes it. Every default is "unchanged", so a method implements only what it changes, and
    /// the unit type `()` is the base model itself. The trait is object safe: a model is compiled
    /// once, and the method is chosen at run time.
    ///
    /// | composition (Ruder et al. 2022) | hooks |
    /// |---|---|
    /// | of parameters | [`linear`](Self::linear), [`norm`](Self::norm), [`table`](Self::table) |
    /// | of inputs | [`tokens`](Self::tokens), [`attention`](Self::attention) |
    /// | of functions | [`sublayer`](Self::sublayer), [`beside`](Self::beside) |
    trait Hooks: Debug, Send, Sync;
    /// [`Hooks`] without defaults, for composites and boxes.
    trait AllHooks;
    use self;

    /// What happens at a linear layer: to its weight, bias, input and output.
    fn linear[&self](site: &Site, pass: &Pass<'_>) -> Edits {
        Edits::none()
    }

    /// What happens to the gain and the bias of a norm.
    fn norm[&self](site: &Site, pass: &Pass<'_>) -> NormEdit {
        NormEdit::default()
    }

    /// What happens to the table of an embedding. It is asked for the head of a language model too,
    /// whose weight is a table: a head that is tied to the embedding follows it only where the method
    /// says the same of both. [`linear`](Self::linear) acts above it there.
    fn table[&self](site: &Site, pass: &Pass<'_>) -> TableEdit {
        TableEdit::Keep
    }

    /// What happens to the tokens on their way into the layers, and out of them to a language-model
    /// head. `site` is that of the embeddings.
    fn tokens[&self](stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        tokens
    }

    /// Keys and values that an attention sees before those of the text, or beside them. Of a text that
    /// continues tokens kept in a cache, those before it are asked for at its beginning only.
    fn attention[&self](site: &Site, pass: &Pass<'_>) -> ExtraKeys {
        ExtraKeys::None
    }

    /// A function at the end of a sublayer: of its output, or of the states that leave it.
    fn sublayer<'a>[&'a self](site: &Site, pass: &Pass<'_>) -> Insert<'a> {
        Insert::None
    }

    /// A network beside the layers of a stack, whose embeddings are at `site`; of an encoder and a
    /// decoder both have one, or neither.
    fn beside<'a>[&'a self](site: &Site, pass: &Pass<'_>) -> SideNetworks<'a> {
        SideNetworks::default()
    }

    /// Whether what the method computes depends on the padding of a batch. It is then given batches
    /// with padding; otherwise there is none.
    fn needs_padding[&self]() -> bool {
        false
    }

    /// Whether every token must be given to every site. Otherwise a model whose head reads one token of
    /// each text may leave the others out of its last layer, where the sites behind its keys and values
    /// then see a batch of texts of one token.
    fn needs_every_token[&self]() -> bool {
        false
    }
}

/// The base model itself.
impl Hooks for () {}
