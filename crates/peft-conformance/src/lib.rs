#![doc = include_str!("../README.md")]

mod dropout;
mod expect;
mod host;
mod numbers;
mod parameters;
mod plain;
pub mod properties;
mod subject;

pub use expect::Expect;
pub use host::{Host, HostKind};
pub use subject::Subject;

/// A module of tests, one for each property of [`properties`], for a method's configuration:
/// `conformance!(name, config)` or `conformance!(name, config, expect)` with an [`Expect`]. In it is
/// a module for each further host, with the properties for which it matters what the model is.
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

            fn subject(host: $crate::HostKind) -> ::core::option::Option<$crate::Subject> {
                $crate::Subject::new($config, $expect).at(host)
            }

            $crate::conformance! {
                @tests Bert;
                the_start_is_the_base
                every_trained_parameter_gets_a_gradient
                an_edits_gradient_matches_finite_differences
                a_step_changes_only_what_is_trained
                training_leaves_the_base_alone
                off_is_the_base
                resumes_to_the_same_bits
                dropout_acts_at_every_site_and_never_in_inference
                gradient_checkpointing_changes_nothing
                merged_equals_unmerged
                unmerging_gives_the_base_back
                weight_agrees_with_linear
                a_packed_base_is_its_numbers
                a_saved_adapter_loads_as_it_was
                counts_match_the_tensors
                changes_what_it_says
                packed_equals_padded
                mixed_slots_equal_each_alone
                acts_the_same_inside_composites
            }

            mod gpt2 {
                $crate::conformance! { @host Gpt2 }
            }

            mod llama {
                $crate::conformance! { @host Llama }
            }

            mod t5 {
                $crate::conformance! { @host T5 }
            }
        }
    };
    (@host $host:ident) => {
        use super::subject;

        $crate::conformance! {
            @tests $host;
            the_start_is_the_base
            every_trained_parameter_gets_a_gradient
            an_edits_gradient_matches_finite_differences
            resumes_to_the_same_bits
            dropout_acts_at_every_site_and_never_in_inference
            gradient_checkpointing_changes_nothing
            merged_equals_unmerged
            unmerging_gives_the_base_back
            weight_agrees_with_linear
            a_packed_base_is_its_numbers
            a_saved_adapter_loads_as_it_was
            changes_what_it_says
            packed_equals_padded
            token_by_token_equals_all_at_once
            mixed_slots_equal_each_alone
            acts_the_same_inside_composites
        }
    };
    (@tests $host:ident; $($property:ident)*) => {
        $(
            #[test]
            fn $property() {
                if let Some(subject) = subject($crate::HostKind::$host) {
                    $crate::properties::$property(&subject);
                }
            }
        )*
    };
}
