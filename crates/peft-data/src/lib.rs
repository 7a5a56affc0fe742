#![doc = include_str!("../README.md")]

mod batches;
mod conll;
mod dataset;
mod error;
mod label_list;
mod labels;
mod lines;
mod masking;
pub mod metrics;
mod questions;
mod sample;
mod split;
mod table;
mod tags;
mod template;
mod words;

pub use batches::{Batch, Batches, TokenizedSet, mix};
pub use conll::{Sentence, TagColumn, WordFormat, read_sentences};
pub use dataset::{Dataset, Example, Target, Text};
pub use error::{Error, Result};
pub use labels::{Goal, Labels};
pub use questions::{Answer, Question, read_questions};
pub use sample::Window;
pub use split::{split, subset};
pub use table::{Columns, LabelColumn, Layout, Record, read_records};
pub use tags::{Converted, TagScheme, to_bio, to_io};
pub use template::Template;
