//! SAID has the properties that every method must have.

use burn::tensor::Device;
use peft_conformance::{Expect, Host, conformance};
use peft_core::{InitContext, MethodConfig, ModuleNames, Targets};
use peft_subspace::SaidConfig;

fn trains(dimension: usize) -> Expect {
    Expect { trainable: Some(dimension), ..Expect::default() }
}

conformance!(said, SaidConfig::default(), trains(1000));

conformance!(
    did_of_few,
    SaidConfig {
        intrinsic_dimension: 50,
        structure_aware: false,
        projection_seed: 4_000_000_000,
        ..SaidConfig::default()
    },
    trains(50)
);

conformance!(
    said_of_all_linear_layers,
    SaidConfig {
        intrinsic_dimension: 30,
        targets: Targets {
            target_modules: Some(ModuleNames::Pattern("all-linear".into())),
            ..Targets::default()
        },
        ..SaidConfig::default()
    },
    trains(30)
);

#[test]
fn the_values_of_layers_are_part_of_the_dimension() {
    let (host, device) = (Host::new(&Device::default()), Device::default().autodiff());
    let context = InitContext::new(host.model.base(), &device);
    // Two layers, and the pooler.
    let config = SaidConfig { intrinsic_dimension: 3, ..SaidConfig::default() };
    let error = config.init(&context).expect_err("nothing is left").to_string();
    let expected = "intrinsic_dimension = 3: must be above 3, which are one for each layer";
    assert_eq!(error, expected);
    let config = SaidConfig { structure_aware: false, ..config };
    assert_eq!(peft_core::num_trainable(&config.init(&context).expect("it fits")), 3);
}
