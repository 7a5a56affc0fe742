//! What a command leaves in a directory, and whether it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::workbench::Workbench;

/// The file that says that a directory is an adapter.
const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file that says that a run is finished.
const RESULT: &str = "result.json";
/// What of a result is another in each run.
const TIMES: [&str; 2] = ["train_seconds", "tokens_per_second"];

/// All files of a directory by their paths in it, without the times that they hold; a directory has
/// no content.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Files {
    /// Those of a directory; none of one that is not there.
    pub fn of(directory: &Path) -> Result<Self> {
        let mut files = Self::default();
        if directory.is_dir() {
            files.add(directory, Path::new(""))?;
        }
        Ok(files)
    }

    fn add(&mut self, directory: &Path, at: &Path) -> Result<()> {
        let shown = || directory.display().to_string();
        for entry in directory.read_dir().with_context(shown)? {
            let entry = entry.with_context(shown)?;
            let (path, at) = (entry.path(), at.join(entry.file_name()));
            if path.is_dir() {
                self.add(&path, &at)?;
                self.0.insert(at, None);
            } else {
                let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                let bytes = without_times(&at, bytes);
                self.0.insert(at, Some(bytes));
            }
        }
        Ok(())
    }

    /// Those of a directory in this one.
    pub fn within(&self, directory: &str) -> Self {
        let own = |(path, bytes): (&PathBuf, &Option<Vec<u8>>)| {
            Some((path.strip_prefix(directory).ok()?.to_path_buf(), bytes.clone()))
        };
        Self(self.0.iter().filter_map(own).filter(|(path, _)| path != Path::new("")).collect())
    }

    /// How these are not what was expected: a line for each file.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let missing = expected.0.keys().filter(|path| !self.0.contains_key(*path));
        let missing = missing.map(|path| format!("{} is missing", path.display()));
        let other = self.0.iter().filter_map(|(path, bytes)| match expected.0.get(path) {
            None => Some(format!("{} is left over", path.display())),
            Some(expected) if expected != bytes => Some(format!("{} differs", path.display())),
            Some(_) => None,
        });
        missing.chain(other).collect()
    }

    /// Checks that the log of a run has each step once, and in order.
    pub fn check_log(&self) -> Result<()> {
        let log = self.0.get(Path::new("metrics.jsonl")).context("there is no log")?;
        let mut steps = 0;
        for line in log.as_deref().unwrap_or_default().split(|&byte| byte == b'\n') {
            let entry: Value = serde_json::from_slice(line).unwrap_or_default();
            if entry["kind"] == "step" {
                steps += 1;
                ensure!(entry["step"] == steps, "line {entry} is not of step {steps}");
            }
        }
        ensure!(steps > 0, "the log has no steps");
        Ok(())
    }
}

/// A file without what time alone changes: seconds in a result, and with them its digest.
fn without_times(path: &Path, bytes: Vec<u8>) -> Vec<u8> {
    if path == Path::new(RESULT)
        && let Ok(Value::Object(mut result)) = serde_json::from_slice(&bytes)
    {
        TIMES.iter().for_each(|time| drop(result.remove(*time)));
        return Value::Object(result).to_string().into_bytes();
    }
    if path == Path::new("SHA256SUMS") {
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.ends_with(&format!("  {RESULT}")));
        return lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes();
    }
    bytes
}

/// What in the directory of a run that was cut off says that it is whole, and is not: adapters, by
/// their configuration, and the result.
pub fn not_whole(bench: &Workbench, run: &str, finished: &Files) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for name in ["adapter", "best"] {
        if !bench.path(run).join(name).join(ADAPTER_CONFIG).exists() {
            continue;
        }
        let check = format!("check --model model --adapter {run}/{name}");
        let ended = bench.run(&mut bench.peft(&check))?;
        if !ended.is_success() {
            problems.push(format!("{name} is not an adapter: {}", ended.said.trim()));
        }
    }
    let left = Files::of(&bench.path(run))?;
    let says_adapter = left.0.contains_key(&Path::new("adapter").join(ADAPTER_CONFIG));
    if says_adapter || left.0.contains_key(Path::new(RESULT)) {
        let differences = left.within("adapter").differences(&finished.within("adapter"));
        // A file that has no name yet is nobody's.
        let real = differences.into_iter().filter(|line| !line.starts_with(".writing-"));
        problems.extend(real.map(|line| format!("the adapter: {line}")));
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_compared_file_by_file_and_without_times() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (run, seconds) in [("a", "1.5"), ("b", "2.5")] {
            write(&format!("{run}/result.json"), &format!("{{\"train_seconds\": {seconds}}}"));
            write(&format!("{run}/SHA256SUMS"), &format!("{seconds}  result.json\n0  adapter/x\n"));
            write(&format!("{run}/adapter/x"), "same");
        }
        let of = |run: &str| Files::of(&folder.path().join(run)).unwrap();
        assert_eq!(of("a").differences(&of("b")), [""; 0]);
        assert_eq!(of("a").within("adapter").0.len(), 1);
        write("b/adapter/x", "other");
        std::fs::create_dir(folder.path().join("b/best")).unwrap();
        std::fs::remove_file(folder.path().join("b/result.json")).unwrap();
        let found = of("b").differences(&of("a"));
        assert_eq!(found, ["result.json is missing", "adapter/x differs", "best is left over"]);
        assert_eq!(of("none"), Files::default());
    }

    #[test]
    fn a_log_has_each_step_once_and_in_order() {
        let log = |steps: &[usize]| {
            let line = |step: &usize| format!("{{\"kind\":\"step\",\"step\":{step}}}\n");
            let text = steps.iter().map(line).collect::<String>() + "{\"kind\":\"valid\"}\n";
            Files([("metrics.jsonl".into(), Some(text.into_bytes()))].into()).check_log()
        };
        log(&[1, 2, 3]).unwrap();
        for broken in [&[][..], &[2], &[1, 1, 2], &[1, 3], &[2, 1]] {
            log(broken).unwrap_err();
        }
    }
}
