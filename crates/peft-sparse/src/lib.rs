#![doc = include_str!("../README.md")]

mod bitfit;
mod diff_pruning;
mod entries;
mod far;
mod fish_mask;
mod head;
mod layer_group;
mod ln_tuning;
mod lottery;
mod magnitude_mask;
mod masked;
mod once;
mod selection;
mod shira;
mod super_tuning;
mod trainable_tokens;

pub use bitfit::{BiasTerms, BitFit, BitFitConfig};
pub use diff_pruning::{DiffPruning, DiffPruningConfig, DiffPruningLayer, HardConcrete};
pub use entries::SelectedEntries;
pub use far::{Far, FarConfig, FarNetwork};
pub use fish_mask::FishMaskConfig;
pub use head::{HeadOnly, HeadOnlyConfig};
pub use layer_group::{LayerChoice, LayerGroup, LayerGroupConfig, ModuleChoice, presets};
pub use ln_tuning::{LnTuning, LnTuningConfig};
pub use lottery::{LotteryScore, LotteryTicket, LotteryTicketConfig, lottery_presets};
pub use magnitude_mask::MagnitudeMaskConfig;
pub use masked::MaskedDelta;
pub use shira::{Shira, ShiraConfig, ShiraLayer, ShiraMask};
pub use super_tuning::{SuperTuning, SuperTuningConfig, SuperTuningLayer};
pub use trainable_tokens::{TrainableTokens, TrainableTokensConfig};

use peft_core::{Base, Role};

/// The linear layers in which single entries are trained unless told otherwise: queries and values, or
/// the projection that is both and keys.
const DEFAULT_ROLES: &[Role] = &[Role::Query, Role::Value, Role::QueryKeyValue];

/// Every role that a site of `base` has, but the head's: what is trained by default.
fn all_but_the_head(base: &Base) -> Vec<Role> {
    base.sites().map(|site| site.role).filter(|role| *role != Role::Head).collect()
}
