//! The properties, each a function that panics where it does not hold.

mod agreement;
mod cache;
mod change;
mod composites;
mod dropout;
mod file;
mod gradient;
mod merge;
mod packed;
mod padding;
mod resume;
mod slots;
mod start;
mod train;

pub use agreement::weight_agrees_with_linear;
pub use cache::token_by_token_equals_all_at_once;
pub use change::{changes_what_it_says, counts_match_the_tensors};
pub use composites::acts_the_same_inside_composites;
pub use dropout::dropout_acts_at_every_site_and_never_in_inference;
pub use file::a_saved_adapter_loads_as_it_was;
pub use gradient::an_edits_gradient_matches_finite_differences;
pub use merge::{merged_equals_unmerged, unmerging_gives_the_base_back};
pub use packed::a_packed_base_is_its_numbers;
pub use padding::packed_equals_padded;
pub use resume::resumes_to_the_same_bits;
pub use slots::mixed_slots_equal_each_alone;
pub use start::the_start_is_the_base;
pub use train::{
    a_step_changes_only_what_is_trained, every_trained_parameter_gets_a_gradient,
    gradient_checkpointing_changes_nothing, off_is_the_base, training_leaves_the_base_alone,
};
