//! The blocks that hosts share, each with its hooks wired once.

mod attention;
mod bias;
mod by_row;
mod context;
mod embedding;
mod feed_forward;
mod frozen;
mod relative;
mod rotary;
mod sublayer;
mod unembedding;

pub use attention::{Attention, AttentionSpec, Heads, ProjectionPaths};
pub use bias::KeyPlaces;
pub use context::{Causality, Context, EncodedText};
pub use embedding::{EmbeddedText, Embeddings, Positions};
pub use feed_forward::{FeedForward, FeedForwardSpec};
pub use frozen::{FrozenEmbedding, FrozenLinear, FrozenNorm, LinearForm, NormForm};
pub use relative::RelativeBias;
pub use rotary::{Angles, Rotary, RotaryScaling};
pub use sublayer::{FunctionSpec, Place, Sublayer, SublayerStyle};
pub use unembedding::Unembedding;
