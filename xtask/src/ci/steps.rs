//! The steps, in the order in which they run.

use anyhow::Result;

use super::{extension, readme, tidy};
use crate::workspace::Workspace;

/// One step.
pub struct Step {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it checks.
    pub title: &'static str,
    /// The check.
    pub run: fn(&Workspace) -> Result<()>,
}

/// All of them. What needs no compiler comes first, then what needs no generated code.
pub const STEPS: &[Step] = &[
    Step { name: "format", title: "every file is formatted", run: format },
    Step { name: "tidy", title: "the workspace's own rules", run: tidy::check },
    Step { name: "clippy", title: "no lint, no public item without docs", run: clippy },
    Step { name: "test", title: "the README's test command", run: test },
    Step { name: "portable", title: "the same numbers without SIMD", run: portable },
    Step { name: "docs", title: "the API's documentation, links included", run: docs },
    Step { name: "extension", title: "a method outside the workspace", run: extension::check },
    Step { name: "wgpu", title: "type-check with the backend wgpu", run: |w| backend(w, "wgpu") },
    Step { name: "cuda", title: "type-check with the backend cuda", run: |w| backend(w, "cuda") },
];

fn format(workspace: &Workspace) -> Result<()> {
    workspace.cargo().args(["fmt", "--all", "--check"]).run()?;
    let example = ["fmt", "--check", "--manifest-path", extension::MANIFEST];
    workspace.cargo().args(example).run()?;
    Ok(())
}

fn clippy(workspace: &Workspace) -> Result<()> {
    // The lint for missing documentation is a warning of every crate, so this denies it too;
    // RUSTFLAGS would do so only after building every dependency a second time.
    let flags = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    workspace.cargo().args(flags).run()?;
    Ok(())
}

fn test(workspace: &Workspace) -> Result<()> {
    // Taken from the README, so that what it tells its readers is what is run here.
    let arguments = readme::test_command(&workspace.root.join("README.md"))?;
    workspace.cargo().args(arguments).run()?;
    Ok(())
}

/// What computes, on the path of any processor.
fn portable(workspace: &Workspace) -> Result<()> {
    // All packages, so that nothing is compiled again.
    let command = workspace.cargo().args(["test", "--workspace", "--locked", "--tests"]);
    command.env("PEFT_SIMD", "none").run()?;
    Ok(())
}

fn docs(workspace: &Workspace) -> Result<()> {
    let flags = ["doc", "--workspace", "--no-deps", "--locked"];
    workspace.cargo().args(flags).env("RUSTDOCFLAGS", "-D warnings").run()?;
    Ok(())
}

/// A backend compiles; running it takes the device.
fn backend(workspace: &Workspace, backend: &str) -> Result<()> {
    let features = format!("lora,{backend}");
    let flags = ["check", "--package", "peft", "--no-default-features", "--locked", "--features"];
    // Burn's CUDA compiler is a download of its build script, except where documentation is built;
    // a type-check does not need it.
    workspace.cargo().args(flags).arg(features).env("DOCS_RS", "1").run()?;
    Ok(())
}
