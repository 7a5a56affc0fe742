//! Labelled texts: from files to batches of token indices.

mod batches;
mod conll;
mod dataset;
mod labels;
mod masking;
mod sample;
mod split;
mod table;
mod tags;
mod template;

pub(crate) use batches::mix;
pub use batches::{Batch, Batches, TokenizedSet};
pub use conll::{Sentence, TagColumn, WordFormat, read_sentences};
pub use dataset::{Dataset, Example, Target, Text};
pub use labels::{Goal, Labels};
pub use split::{split, subset};
pub use table::{Columns, LabelColumn, Layout, Record, read_records};
pub use tags::{Converted, TagScheme, to_bio, to_io};
pub use template::Template;
