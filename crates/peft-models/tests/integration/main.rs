//! The crate's promises, by subject.

mod broken_gguf;
mod broken_tokenizer;
mod checkpoint;
mod generation;
mod gguf;
mod logits;
mod outline;
mod support;
mod tokenizer;
mod unreadable;
mod word_piece;
