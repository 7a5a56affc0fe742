//! Parity with the reference libraries, case by case.
//!
//! Cases are read from `tests/fixtures`, and also from the directory that the environment variable
//! `PEFT_FIXTURES` names. With `PEFT_FIXTURES_STRICT=1`, a case that is not supported fails the
//! run. `BURN_DEVICE` chooses the device.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use peft_core::Registry;
use peft_tests::case::{Case, Outcome};
use peft_tests::{curve, logits};

/// The bar on the CPU, and on devices whose products round differently (docs/src/devices.md).
fn tolerance() -> f32 {
    match std::env::var("BURN_DEVICE").as_deref() {
        Ok("flex" | "ndarray") | Err(_) => 1e-4,
        Ok(_) => 1e-3,
    }
}

fn main() -> ExitCode {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let more = std::env::var_os("PEFT_FIXTURES").map(PathBuf::from);
    let strict = std::env::var("PEFT_FIXTURES_STRICT").is_ok_and(|value| value == "1");
    // `cargo test NAME` runs the cases whose name contains NAME; flags are libtest's, not ours.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let (device, registry) = (Device::default(), peft::registry());
    let (mut passed, mut failed, mut not_supported) = (0, 0, 0);
    for root in [Some(own), more].into_iter().flatten() {
        if !root.is_dir() {
            eprintln!("{} is not a directory", root.display());
            failed += 1;
        }
        for case in ["bases", "peft", "adapters", "curves"].iter().flat_map(|k| Case::all(&root, k))
        {
            if filter.as_ref().is_some_and(|filter| !case.name.contains(filter.as_str())) {
                continue;
            }
            match run(&case, &registry, &device) {
                Outcome::Passed(how) => {
                    passed += 1;
                    println!("passed        {}: {how}", case.name);
                }
                Outcome::Failed(why) => {
                    failed += 1;
                    println!("FAILED        {}: {why}", case.name);
                }
                Outcome::NotSupported(why) => {
                    not_supported += 1;
                    println!("not supported {}: {why}", case.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed, {not_supported} not supported");
    if failed > 0 || (strict && not_supported > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
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
