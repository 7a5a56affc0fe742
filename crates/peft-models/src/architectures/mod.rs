//! Architectures: thin files that turn a checkpoint's configuration into blocks, and its key names
//! into paths.

mod bert;

pub(crate) use bert::BertConfig;

use crate::checkpoint::Loader;
use crate::config::Architecture;
use crate::encoder::Encoder;
use crate::head::{Head, NewHead};
use crate::{ModelConfig, Result, Task};

/// A model's body and head.
pub(crate) struct Parts {
    pub(crate) body: Encoder,
    pub(crate) head: Head,
}

/// Takes the parts of a model from a checkpoint; `own` is what the body is called in this model,
/// and a dot: `bert.`.
pub(crate) fn load(
    loader: &mut Loader<'_>,
    config: &ModelConfig,
    own: &str,
    task: Task,
    new: NewHead,
) -> Result<Parts> {
    match config.model_type {
        Architecture::Bert | Architecture::Roberta | Architecture::XlmRoberta => {
            bert::load(loader, config, own, task, new)
        }
    }
}
