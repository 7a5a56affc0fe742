//! New method crates.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args as ClapArgs;

use crate::manifest::Manifest;
use crate::workspace::Workspace;

/// Start a new method crate, from a template that works as it is.
///
/// The crate crates/peft-NAME learns one factor for each output of the layers that it adapts. It
/// compiles, merges, saves and loads, and passes the conformance suite; from there, replace the
/// factors with what the method is about.
#[derive(ClapArgs)]
pub struct Args {
    /// What the command line will call the method: lower-case letters, digits and hyphens.
    name: String,
}

/// The files of the new crate, with placeholders.
const TEMPLATES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../templates/method/Cargo.toml.tmpl")),
    ("README.md", include_str!("../templates/method/README.md.tmpl")),
    ("src/lib.rs", include_str!("../templates/method/lib.rs.tmpl")),
    ("src/config.rs", include_str!("../templates/method/config.rs.tmpl")),
    ("src/{{module}}.rs", include_str!("../templates/method/method.rs.tmpl")),
    ("tests/conformance.rs", include_str!("../templates/method/conformance.rs.tmpl")),
];

/// Words that no module can be called.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// One method's name in the forms in which it appears.
struct Names {
    /// `my-method`.
    name: String,
    /// `my_method`.
    module: String,
    /// `MyMethod`.
    type_name: String,
    /// `MY_METHOD`.
    tag: String,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let names = Names::new(&args.name)?;
    let workspace = Workspace::find()?;
    let facade = Manifest::read(&workspace.root.join("crates/peft/Cargo.toml"))?;
    ensure!(
        !facade.features()?.contains(&names.name),
        "{:?} is already a feature of the crate peft",
        names.name
    );
    let folder = workspace.root.join("crates").join(format!("peft-{}", names.name));
    ensure!(!folder.exists(), "{} exists already", workspace.shown(&folder));
    write(&workspace, &folder, &names)?;
    print!("{}", next_steps(&workspace.shown(&folder), &names));
    Ok(())
}

fn write(workspace: &Workspace, folder: &Path, names: &Names) -> Result<()> {
    for (file, template) in TEMPLATES {
        workspace.shell.write_file(folder.join(names.fill(file)), names.fill(template))?;
    }
    // A name's length decides where lines break.
    let files = [folder.join("src/lib.rs"), folder.join("tests/conformance.rs")];
    let mut format = workspace.shell.cmd("rustfmt").args(["--edition", "2024"]);
    if workspace.root.join("rustfmt.toml").is_file() {
        format = format.arg("--config-path").arg(&workspace.root);
    }
    format.args(files).quiet().run()?;
    Ok(())
}

impl Names {
    fn new(name: &str) -> Result<Self> {
        let parts: Vec<&str> = name.split('-').collect();
        let is_word = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        ensure!(
            parts.iter().all(is_word) && name.starts_with(|c: char| c.is_ascii_lowercase()),
            "{name:?} is not a name: lower-case letters and digits, with single hyphens between \
             words, such as \"my-method\""
        );
        let type_name: String = parts
            .iter()
            .map(|part| format!("{}{}", part[..1].to_ascii_uppercase(), &part[1..]))
            .collect();
        let module = name.replace('-', "_");
        ensure!(!KEYWORDS.contains(&module.as_str()), "{name:?} is a keyword of Rust");
        // The method's type and module stand beside everything that the template already uses.
        let words = |text: &'static str| text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let taken = TEMPLATES
            .iter()
            .filter(|(file, _)| file.ends_with(".rs"))
            .flat_map(|(_, template)| words(template))
            .any(|word| word == type_name || word == module);
        ensure!(!taken, "{name:?} would clash with a name that every method uses; choose another");
        let tag = module.to_ascii_uppercase();
        Ok(Self { name: name.into(), module, type_name, tag })
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{{name}}", &self.name)
            .replace("{{module}}", &self.module)
            .replace("{{type}}", &self.type_name)
            .replace("{{tag}}", &self.tag)
    }
}

fn next_steps(folder: &str, names: &Names) -> String {
    names.fill(&format!(
        "\
{folder} is there: one learned factor for each output, to be replaced.

    cargo test --package peft-{{{{name}}}}

runs the conformance suite, which passes. The method itself is in src/{{{{module}}}}.rs, its fields
in src/config.rs. To have it in the command and in `peft::registry()`, add

  to Cargo.toml, under [workspace.dependencies]:
    peft-{{{{name}}}} = {{ path = \"crates/peft-{{{{name}}}}\", version = \"0.1.0\" }}

  to crates/peft/Cargo.toml, under [features] and [dependencies]:
    {{{{name}}}} = [\"dep:peft-{{{{name}}}}\"], and its name in `methods`
    peft-{{{{name}}}} = {{ workspace = true, optional = true }}

  to crates/peft/src/registry.rs, in `registry`:
    #[cfg(feature = \"{{{{name}}}}\")]
    registry.register::<peft_{{{{module}}}}::{{{{type}}}}Config>();

  to crates/peft/src/lib.rs:
    #[cfg(feature = \"{{{{name}}}}\")]
    pub use peft_{{{{module}}}} as {{{{module}}}};
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_four_forms() {
        let names = Names::new("my-method2").unwrap();
        assert_eq!(
            names.fill("{{name}} {{module}} {{type}} {{tag}}"),
            "my-method2 my_method2 MyMethod2 MY_METHOD2"
        );
    }

    #[test]
    fn names_that_would_not_compile_are_refused() {
        for name in ["", "Lora", "2lora", "-a", "a--b", "a_b", "a/b", "type", "config", "base", "é"]
        {
            assert!(Names::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let names = Names::new("vera").unwrap();
        let texts = TEMPLATES.iter().map(|(_, template)| names.fill(template));
        for text in texts.chain([next_steps("crates/peft-vera", &names)]) {
            assert!(!text.contains("{{") || text.contains("{{ "), "{text}");
        }
    }
}
