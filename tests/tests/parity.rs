//! Parity with the reference libraries, case by case.
//!
//! Cases are read from `tests/fixtures`, and also from the directory that the environment variable
//! `PEFT_FIXTURES` names. Of the latter, those in `tests/fixtures/not-supported.json` may be
//! unsupported; anything else that is missing, broken or unsupported fails the run, and so does
//! one of these that passes. `BURN_DEVICE` chooses the device.

use std::path::Path;
use std::process::ExitCode;

use burn::tensor::Device;
use peft_format::Registry;
use peft_tests::case::{Case, Outcome};
use peft_tests::fixtures::Fixtures;
use peft_tests::known::Known;
use peft_tests::suite::Suite;
use peft_tests::{curve, logits};

/// The bar on the CPU, and on devices whose products round differently (docs/src/devices.md).
fn tolerance() -> f32 {
    match std::env::var("BURN_DEVICE").as_deref() {
        Ok("flex" | "ndarray") | Err(_) => 1e-4,
        Ok(_) => 1e-3,
    }
}

fn main() -> ExitCode {
    // `cargo test NAME` runs the cases whose name contains NAME; flags are libtest's, not ours.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut suite = Suite::default().with(Fixtures::whole(&own), Known::default()).only(filter);
    if let Some(more) = std::env::var_os("PEFT_FIXTURES") {
        match Known::load(&own.join("not-supported.json")) {
            Ok(known) => suite = suite.with(Fixtures::some(more), known),
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        }
    }
    let (device, registry) = (Device::default(), peft::registry());
    let tally = suite.run(
        |case| run(case, &registry, &device),
        |name, outcome| match outcome {
            Outcome::Passed(how) => println!("passed        {name}: {how}"),
            Outcome::Failed(why) => println!("FAILED        {name}: {why}"),
            Outcome::NotSupported(why) => println!("not supported {name}: {why}"),
        },
    );
    let (passed, failed, not_supported) = (tally.passed, tally.failed, tally.not_supported);
    println!("{passed} passed, {failed} failed, {not_supported} not supported, as is known");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(case: &Case, registry: &Registry, device: &Device) -> Outcome {
    // A panic is a failure of its case, not of the run.
    let result = std::panic::catch_unwind(|| {
        if case.name.starts_with("curves/") {
            curve::run(case, registry, device)
        } else {
            logits::run(case, registry, device, tolerance())
        }
    });
    result.unwrap_or_else(|_| Outcome::Failed("panicked".into()))
}
