//! The floors of a crate: its modules in groups, each of which uses only the groups above it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::tidy::rust_files;
use crate::workspace::{Crate, Workspace};

/// How a crate's `lib.rs` says that its groups of `mod` lines are floors.
const MARK: &str = "// The floors of the crate";

/// Every use of a module by one of a floor that is not below it.
pub fn problems(workspace: &Workspace, member: &Crate) -> Result<Vec<String>> {
    let source = member.folder.join("src");
    let Ok(root) = std::fs::read_to_string(source.join("lib.rs")) else { return Ok(Vec::new()) };
    if !root.contains(MARK) {
        return Ok(Vec::new());
    }
    let floors = Floors::read(&root);
    let mut problems = Vec::new();
    for file in rust_files(&source)? {
        let text = std::fs::read_to_string(&file)?;
        let module = module_of(&source, &file)?;
        let broken = floors.broken(&module, &text);
        let shown = workspace.shown(&file);
        problems.extend(broken.into_iter().map(|problem| format!("{shown}: {problem}")));
    }
    Ok(problems)
}

/// The module of the crate's root that a file is, or is in.
fn module_of(source: &Path, file: &Path) -> Result<String> {
    let inside = file.strip_prefix(source)?.components().next().context("a file in src")?;
    let name = inside.as_os_str().to_string_lossy();
    Ok(name.strip_suffix(".rs").unwrap_or(&name).to_string())
}

struct Floors {
    /// The floor of each module, counted from the first.
    floor_of: BTreeMap<String, usize>,
    /// The module that each name of the crate's root comes from.
    module_of: BTreeMap<String, String>,
}

impl Floors {
    fn read(root: &str) -> Self {
        let mut floor_of = BTreeMap::new();
        for (floor, group) in root.split("\n\n").enumerate() {
            let modules = group.lines().filter_map(|line| line.strip_prefix("mod "));
            floor_of.extend(modules.map(|name| (name.trim_end_matches(';').to_string(), floor)));
        }
        let mut module_of = BTreeMap::new();
        for statement in root.split("pub use ").skip(1) {
            let statement = statement.split(';').next().unwrap_or_default();
            if let Some((module, names)) = statement.split_once("::") {
                let names = words(names).map(|name| (name.to_string(), module.to_string()));
                module_of.extend(names);
            }
        }
        Self { floor_of, module_of }
    }

    /// What a file of `module` uses from its own floor or from one below.
    fn broken(&self, module: &str, text: &str) -> Vec<String> {
        let Some(own) = self.floor_of.get(module) else { return Vec::new() };
        let mut problems = Vec::new();
        for name in used(text) {
            let used = self.module_of.get(&name).unwrap_or(&name);
            let is_above = self.floor_of.get(used).is_none_or(|floor| floor < own);
            if used != module && !is_above {
                problems.push(format!("uses {name} of `{used}`, which is on no floor above"));
            }
        }
        problems
    }
}

/// The names after `crate::` in a file's code, tests and comments left out.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                let first = |item: &str| words(item).next().map(str::to_string);
                names.extend(list.split(',').filter_map(first));
            }
            None => names.extend(words(path).next().map(str::to_string)),
        }
    }
    names
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "// The floors of the crate: below\n\nmod error;\nmod site;\n\nmod base;\n\n\
                        pub use base::{Base, BaseSite};\npub use error::Error;\n\
                        pub use site::Site;\n";

    #[test]
    fn a_module_uses_floors_above_it_alone() {
        let floors = Floors::read(ROOT);
        assert!(floors.broken("base", "use crate::{Error, Site};").is_empty());
        assert!(floors.broken("base", "use crate::site::Role;\nuse crate::BaseSite;").is_empty());
        let up = floors.broken("site", "use crate::{\n    Base,\n};");
        assert_eq!(up, ["uses Base of `base`, which is on no floor above"]);
        let beside = floors.broken("site", "fn f() -> crate::Error {}");
        assert_eq!(beside, ["uses Error of `error`, which is on no floor above"]);
    }

    #[test]
    fn comments_and_tests_may_speak_of_any_module() {
        let text = "/// As [`Base`](crate::Base).\nstruct S;\n#[cfg(test)]\nuse crate::Base;";
        assert!(Floors::read(ROOT).broken("site", text).is_empty());
    }
}
