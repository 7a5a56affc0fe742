//! Methods made of methods.

mod adapters;
mod average;
mod fuse;
mod fusion_config;
mod gated;
mod parallel;
mod per_layer;
mod per_row;
mod rows;
mod stack;

pub use adapters::Composition;
pub use average::Average;
pub use fuse::Fuse;
pub(crate) use fusion_config::FUSION_PATHS;
pub use fusion_config::FusionConfig;
pub use gated::{GateNames, Gated};
pub use parallel::Parallel;
pub use per_layer::PerLayer;
pub use per_row::PerRow;
pub use stack::Stack;

/// The part of [`Method`](crate::Method) that a composite passes on to each of its members.
macro_rules! each_member {
    ($members:ident) => {
        fn exchange(&mut self, file: &mut $crate::Exchange<'_>, base: &$crate::Base) {
            for method in &mut self.$members {
                method.exchange(file, base);
            }
        }

        each_member!(@life $members);
    };
    (@life $members:ident) => {
        fn prepare(&mut self, batches: &mut dyn $crate::Calibration) {
            for method in &mut self.$members {
                method.prepare(batches);
            }
        }

        fn penalty(&self) -> Option<burn::tensor::Tensor<1>> {
            self.$members.iter().filter_map(|m| m.penalty()).reduce(|sum, term| sum + term)
        }

        fn after_step(&mut self, progress: $crate::Progress) {
            for method in &mut self.$members {
                method.after_step(progress);
            }
        }

        fn finish(&mut self) {
            for method in &mut self.$members {
                method.finish();
            }
        }

        fn observe(&mut self, probe: &$crate::Probe) {
            for method in &mut self.$members {
                method.observe(probe);
            }
        }

        fn lr_factors(&self) -> Vec<(String, f64)> {
            self.$members.iter().flat_map(|m| m.lr_factors()).collect()
        }
    };
}
use each_member;
