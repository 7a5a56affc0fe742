//! The blocks that hosts share, each with its hooks wired once.

mod attention;
mod embedding;
mod feed_forward;
mod frozen;
mod pass;
mod unembedding;

pub use attention::SelfAttention;
pub use embedding::{Embeddings, Positions};
pub use feed_forward::FeedForward;
pub use frozen::{FrozenEmbedding, FrozenLinear, FrozenNorm, Sublayer};
pub use pass::Pass;
pub use unembedding::Unembedding;
