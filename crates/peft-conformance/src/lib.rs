#![doc = include_str!("../README.md")]

mod host;
mod numbers;
mod parameters;
pub mod properties;
mod subject;

pub use host::Host;
pub use subject::{Expect, Subject};

/// A module of tests, one for each property of [`properties`], for a method's configuration:
/// `conformance!(name, config)` or `conformance!(name, config, expect)` with an [`Expect`].
///
/// Both expressions are evaluated anew for each test and see what is in scope around the macro.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $config:expr $(,)?) => {
        $crate::conformance!($name, $config, $crate::Expect::default());
    };
    ($name:ident, $config:expr, $expect:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::conformance! {
                @each $config, $expect;
                the_start_is_the_base
                every_trained_parameter_gets_a_gradient
                a_step_changes_only_what_is_trained
                training_leaves_the_base_alone
                off_is_the_base
                merged_equals_unmerged
                unmerging_gives_the_base_back
                a_saved_adapter_loads_as_it_was
                counts_match_the_tensors
                changes_what_it_says
                weight_agrees_with_linear
                gradient_checkpointing_changes_nothing
                a_packed_base_is_its_numbers
            }
        }
    };
    (@each $config:expr, $expect:expr; $($property:ident)*) => {
        $crate::conformance! { @tests { $crate::Subject::new($config, $expect) } $($property)* }
    };
    (@tests $subject:block $($property:ident)*) => {
        fn subject() -> $crate::Subject $subject

        $(
            #[test]
            fn $property() {
                $crate::properties::$property(&subject());
            }
        )*
    };
}
