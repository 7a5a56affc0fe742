//! The workspace's own rules, those that no other tool checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{extension, floors};
use crate::manifest::Manifest;
use crate::workspace::{Crate, Workspace};

/// The longest source file.
const MAX_LINES: usize = 600;
/// How a crate's first file takes its README as its documentation.
const README_AS_DOCS: &str = "#![doc = include_str!(\"../README.md\")]";
/// Burn's features that compile a backend in.
const BACKENDS: &[&str] = &[
    "flex", "ndarray", "cpu", "wgpu", "webgpu", "vulkan", "metal", "cuda", "rocm", "tch", "remote",
];
/// The crates whose users choose a backend by their features.
const MAY_ENABLE_BACKENDS: &[&str] = &["peft", "peft-cli"];

/// Checks every rule and lists everything that breaks one.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut results = vec![
        Ok(licenses(workspace)),
        dependencies_are_explained(workspace),
        extension::problems(workspace),
    ];
    for member in workspace.crates()? {
        results.push(documented(&member));
        results.push(small_files(workspace, &member));
        results.push(layered(&member));
        results.push(floors::problems(workspace, &member));
    }
    // A file that cannot be read is one more problem and hides none of the others.
    let problems = results.into_iter().flat_map(|result| match result {
        Ok(problems) => problems,
        Err(error) => vec![format!("{error:#}")],
    });
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn licenses(workspace: &Workspace) -> Vec<String> {
    let files = ["LICENSE-MIT", "LICENSE-APACHE"].into_iter();
    let missing = files.filter(|file| !workspace.root.join(file).is_file());
    missing.map(|file| format!("{file} is missing")).collect()
}

/// Every dependency on somebody else's crate has its reason written down.
fn dependencies_are_explained(workspace: &Workspace) -> Result<Vec<String>> {
    const FILE: &str = "docs/dependencies.md";
    let text = std::fs::read_to_string(workspace.root.join(FILE))
        .with_context(|| format!("{FILE} cannot be read"))?;
    let manifest = Manifest::read(&workspace.root.join("Cargo.toml"))?;
    let dependencies = manifest.dependencies(&["workspace", "dependencies"])?;
    let foreign = dependencies.iter().filter(|(_, dependency)| !dependency.is_path);
    let unexplained = foreign.filter(|(name, _)| !text.contains(&format!("`{name}`")));
    Ok(unexplained.map(|(name, _)| format!("{FILE} does not say why `{name}` is here")).collect())
}

/// A crate's README is its documentation.
fn documented(member: &Crate) -> Result<Vec<String>> {
    let name = &member.name;
    if !member.folder.join("README.md").is_file() {
        return Ok(vec![format!("{name}: no README.md")]);
    }
    let files = ["src/lib.rs", "src/main.rs"].map(|file| member.folder.join(file));
    let Some(first) = files.iter().find(|file| file.is_file()) else {
        return Ok(vec![format!("{name}: neither src/lib.rs nor src/main.rs")]);
    };
    let includes = std::fs::read_to_string(first)?.contains(README_AS_DOCS);
    Ok(if includes { vec![] } else { vec![format!("{name}: needs {README_AS_DOCS}")] })
}

/// A file has one subject.
fn small_files(workspace: &Workspace, member: &Crate) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in rust_files(&member.folder.join("src"))? {
        let lines = std::fs::read_to_string(&file)?.lines().count();
        if lines > MAX_LINES {
            let file = workspace.shown(&file);
            problems.push(format!("{file}: {lines} lines, {MAX_LINES} are the most"));
        }
    }
    Ok(problems)
}

/// All source files in a folder.
pub(super) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Libraries leave the backend to their users, and methods know sites and hooks, not models.
fn layered(member: &Crate) -> Result<Vec<String>> {
    let name = &member.name;
    let dependencies = Manifest::read(&member.folder.join("Cargo.toml"))?.normal_dependencies()?;
    let mut problems = Vec::new();
    let features = dependencies.get("burn").map_or(&[][..], |burn| &burn.features);
    let backends = features.iter().filter(|feature| BACKENDS.contains(&feature.as_str()));
    if !MAY_ENABLE_BACKENDS.contains(&name.as_str()) {
        problems.extend(backends.map(|backend| {
            format!("{name}: enables the backend {backend}, which is for its users to choose")
        }));
    }
    if member.is_method() {
        if dependencies.contains_key("peft-models") {
            problems.push(format!("{name}: a method must not depend on peft-models"));
        }
        if !member.has_conformance() {
            problems.push(format!("{name}: no tests/conformance.rs, which every method has"));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_with(name: &str, manifest: &str) -> (tempfile::TempDir, Crate) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        let member = Crate { name: name.into(), folder: folder.path().into() };
        (folder, member)
    }

    #[test]
    fn a_library_that_chooses_a_backend_is_found() {
        let manifest = "[dependencies]\nburn = { workspace = true, features = [\"wgpu\"] }";
        let (_folder, library) = crate_with("peft-core", manifest);
        assert_eq!(layered(&library).unwrap().len(), 1);
        let (_folder, facade) = crate_with("peft", manifest);
        assert!(layered(&facade).unwrap().is_empty());
        let tests_only = manifest.replace("dependencies", "dev-dependencies");
        let (_folder, library) = crate_with("peft-core", &tests_only);
        assert!(layered(&library).unwrap().is_empty());
    }

    #[test]
    fn a_method_that_knows_a_model_is_found() {
        let manifest = "[target.'cfg(unix)'.dependencies]\npeft-models.workspace = true";
        let (_folder, method) = crate_with("peft-new", manifest);
        // The second problem is that it has no conformance suite.
        assert_eq!(layered(&method).unwrap().len(), 2);
        let (_folder, host) = crate_with("peft-train", manifest);
        assert!(layered(&host).unwrap().is_empty());
    }
}
