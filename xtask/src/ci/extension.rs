//! The proof that a method can live outside the workspace: one that does.

use anyhow::Result;

use crate::manifest::Manifest;
use crate::workspace::Workspace;

/// The manifest of the outside crate.
pub const MANIFEST: &str = "examples/custom-method/Cargo.toml";

/// What an outside method may depend on.
const ENOUGH: &[&str] = &["burn", "peft-core", "serde"];

/// Lints and tests the outside crate, with its own lock file.
pub fn check(workspace: &Workspace) -> Result<()> {
    let lint = ["clippy", "--locked", "--all-targets", "--manifest-path", MANIFEST];
    workspace.cargo().args(lint).args(["--", "-D", "warnings"]).run()?;
    workspace.cargo().args(["test", "--locked", "--manifest-path", MANIFEST]).run()?;
    Ok(())
}

/// Dependencies of the outside crate beyond what a method needs.
pub fn problems(workspace: &Workspace) -> Result<Vec<String>> {
    let dependencies = Manifest::read(&workspace.root.join(MANIFEST))?.normal_dependencies()?;
    let more = dependencies.keys().filter(|name| !ENOUGH.contains(&name.as_str()));
    let problem = |name: &String| {
        format!("{MANIFEST}: depends on {name}; a method must need only {}", ENOUGH.join(", "))
    };
    Ok(more.map(problem).collect())
}
