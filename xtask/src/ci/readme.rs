//! The test command in the README.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Stands in a line of its own above the fenced block with the command.
const MARKER: &str = "<!-- test command -->";

/// The arguments that the README's test command gives to cargo.
pub fn test_command(readme: &Path) -> Result<Vec<String>> {
    let shown = readme.display();
    let text =
        std::fs::read_to_string(readme).with_context(|| format!("{shown} cannot be read"))?;
    arguments(&text).with_context(|| shown.to_string())
}

fn arguments(text: &str) -> Result<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| line.trim() != MARKER).skip(1);
    let mut lines = lines.by_ref().skip_while(|line| line.trim().is_empty());
    match lines.next() {
        Some(line) if line.starts_with("```") => {}
        _ => bail!("a fenced block must follow a line {MARKER}"),
    }
    let block: Vec<&str> = lines.take_while(|line| !line.starts_with("```")).collect();
    let [command] = block[..] else {
        bail!("the block after {MARKER} must hold one command");
    };
    let mut words = command.split_whitespace();
    if words.next() != Some("cargo") || command.contains(['\'', '"', '\\', '&', '|', ';', '$']) {
        bail!("the test command must be a plain call of cargo, not {command:?}");
    }
    Ok(words.map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn the_block_after_the_marker_is_the_command() {
        let text = "```sh\ncargo build\n```\n<!-- test command -->\n\n```sh\ncargo test --workspace\n```\n";
        assert_eq!(arguments(text).unwrap(), ["test", "--workspace"]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "```sh\ncargo test\n```",
            "<!-- test command -->\ncargo test",
            "<!-- test command -->\n```sh\nmake test\n```",
            "<!-- test command -->\n```sh\ncargo test && cargo test --doc\n```",
            "<!-- test command -->\n```sh\ncargo test\ncargo test --doc\n```",
        ] {
            assert!(arguments(text).is_err(), "{text}");
        }
    }
}
