//! The suites that every backend must pass, on one of them.

use anyhow::{Result, ensure};
use clap::Args as ClapArgs;

use crate::manifest::Manifest;
use crate::workspace::Workspace;

/// Run the parity and conformance suites on one device.
///
/// The backend is compiled in by the Cargo feature of its name, and chosen through the environment
/// variable BURN_DEVICE. Method crates with a `tests/conformance.rs` are found by themselves.
#[derive(ClapArgs)]
pub struct Args {
    /// The backend: flex, ndarray, cpu, wgpu, vulkan, metal, cuda, rocm.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Passed to the tests: a part of their names, or flags.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    // The list of backends is that of the tests' own features, so that none is forgotten here.
    let mut devices = Manifest::read(&workspace.root.join("tests/Cargo.toml"))?.features()?;
    devices.retain(|feature| feature != "default");
    ensure!(
        devices.contains(&args.device),
        "no backend {:?}; there are {}",
        args.device,
        devices.join(", ")
    );
    let mut flags = vec!["--package".to_string(), "peft-tests".into()];
    for member in workspace.crates()?.iter().filter(|member| member.has_conformance()) {
        flags.extend(["--package".into(), member.name.clone()]);
    }
    // Several packages in one call share their features: the backend that the parity tests ask for
    // is there for the conformance tests too, beside the one that these always have.
    flags.extend(["--no-default-features".into(), "--features".into()]);
    flags.push(format!("peft-tests/{}", args.device));
    flags.extend(["--test", "parity", "--test", "conformance", "--"].map(String::from));
    flags.extend(args.rest.iter().cloned());
    workspace.cargo().arg("test").args(flags).env("BURN_DEVICE", &args.device).run()?;
    Ok(())
}
