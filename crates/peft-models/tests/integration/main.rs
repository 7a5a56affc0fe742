//! The crate's promises, by subject.

mod broken_gguf;
mod broken_tokenizer;
mod checkpoint;
mod generation;
mod gguf;
mod outline;
mod support;
mod tokenizer;
mod unreadable;
mod word_piece;
