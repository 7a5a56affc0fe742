#![doc = include_str!("../README.md")]

mod adaption;
mod cpt;
mod model;
mod multitask;
mod p_tuning;
mod prefix;
mod prompt;
mod start;
mod subspace;

pub use adaption::{AdaptionPrompt, AdaptionPromptConfig, AdaptionPromptLayer};
pub use cpt::{Cpt, CptConfig};
pub use model::ModelDimensions;
pub use multitask::{MultitaskInit, MultitaskPrompt, MultitaskPromptConfig};
pub use p_tuning::{EncoderType, PTuning, PTuningConfig, PromptPart};
pub use prefix::{PrefixInit, PrefixTuning, PrefixTuningConfig};
pub use prompt::{Combine, PromptInit, PromptTuning, PromptTuningConfig, prompt_presets};
pub use subspace::{
    FoundSubspace, IntrinsicPrompt, PromptDecoder, PromptSubspace, SUBSPACE_FILE, SubspaceSettings,
    find_subspace,
};
