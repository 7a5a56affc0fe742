//! The properties, each a function that panics where it does not hold.

mod change;
mod file;
mod merge;
mod packed;
mod start;
mod train;

pub use change::{changes_what_it_says, counts_match_the_tensors};
pub use file::a_saved_adapter_loads_as_it_was;
pub use merge::{merged_equals_unmerged, unmerging_gives_the_base_back, weight_agrees_with_linear};
pub use packed::a_packed_base_is_its_numbers;
pub use start::the_start_is_the_base;
pub use train::{
    a_step_changes_only_what_is_trained, every_trained_parameter_gets_a_gradient,
    gradient_checkpointing_changes_nothing, off_is_the_base, training_leaves_the_base_alone,
};
