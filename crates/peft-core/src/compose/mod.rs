//! Methods made of methods.

mod adapters;
mod average;
mod fuse;
mod fusion_config;
mod gated;
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
pub use per_layer::PerLayer;
pub use per_row::PerRow;
pub use stack::Stack;

use crate::{BoxedMethod, Hooks};

/// The members of a composite as [`Hooks::for_rows`](crate::Hooks::for_rows) has them; `None` where
/// all rows are alike to each.
fn members_for_rows(members: &[BoxedMethod], rows: &[usize]) -> Option<Vec<BoxedMethod>> {
    let of_rows: Vec<_> = members.iter().map(|member| member.for_rows(rows)).collect();
    of_rows.iter().any(Option::is_some).then(|| {
        let members = of_rows.into_iter().zip(members);
        members.map(|(of_rows, member)| of_rows.unwrap_or_else(|| member.clone())).collect()
    })
}

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
