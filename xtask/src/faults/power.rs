//! Whether what a command wrote outlives a loss of power, by the order of its calls.
//!
//! Until a file is synced, its content may be lost, whatever its name; until a directory is synced,
//! so may be the names that were given in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::trace::{Call, Kind, stable};

/// What is not on the disk for sure, as calls follow one another.
#[derive(Default)]
struct Unsynced {
    /// Files that were made or written to.
    files: BTreeMap<PathBuf, Written>,
    /// Names that were given, each in its directory.
    names: BTreeSet<PathBuf>,
    /// Directories that were made, whose own names are not there for sure.
    made: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Opened,
    Written,
}

/// What a loss of power could take of what a command wrote, or did take the place of: a line for
/// each call that comes too early.
pub fn problems(calls: &[Call]) -> Vec<String> {
    let mut state = Unsynced::default();
    let mut problems = Vec::new();
    for call in calls.iter().filter(|call| call.is_done) {
        let Some(path) = call.paths.first() else { continue };
        match call.kind {
            Kind::Open => drop(state.files.entry(path.clone()).or_insert(Written::Opened)),
            Kind::Write => drop(state.files.insert(path.clone(), Written::Written)),
            Kind::Sync => {
                state.files.remove(path);
                state.names.retain(|name| name.parent() != Some(path));
                state.made.retain(|name| name.parent() != Some(path));
            }
            Kind::MakeDirectory => drop(state.made.insert(path.clone())),
            Kind::Rename => {
                let Some(to) = call.paths.get(1) else { continue };
                problems.extend(state.renamed(path, to));
            }
            Kind::Remove => {
                problems.extend(state.removed(path));
            }
            Kind::Read => {}
        }
    }
    let written = state.files.iter().filter(|(_, written)| **written == Written::Written);
    problems.extend(written.map(|(path, _)| format!("{} is never synced", path.display())));
    let named = state.names.iter().chain(&state.made);
    problems.extend(named.map(|path| format!("the name of {} is never synced", path.display())));
    problems
}

impl Unsynced {
    fn renamed(&mut self, from: &Path, to: &Path) -> Vec<String> {
        let shown = |path: &Path| stable(path).display().to_string();
        let mut problems = Vec::new();
        // A directory takes the place of what was there with all that belongs to it, the log too.
        let is_directory = self.made.contains(from);
        for path in self.files.keys().filter(|path| path.starts_with(from)) {
            problems.push(format!("{} is named {} before it is synced", shown(path), shown(to)));
        }
        let beside = self.files.iter().filter(|(path, written)| {
            is_directory && **written == Written::Written && !path.starts_with(from)
        });
        problems.extend(
            beside.map(|(path, _)| format!("{} is written before {}", shown(to), shown(path))),
        );
        // Names in one directory are synced together.
        let elsewhere = self.names.iter().filter(|name| name.parent() != to.parent());
        problems.extend(elsewhere.map(|name| {
            format!("{} is named before the name of {} is synced", shown(to), shown(name))
        }));
        self.files.retain(|path, _| !path.starts_with(from));
        self.names.retain(|name| !name.starts_with(from));
        self.made.remove(from);
        self.names.insert(to.into());
        problems
    }

    /// What was there before may be needed until the new is there for sure.
    fn removed(&mut self, path: &Path) -> Vec<String> {
        let is_temporary = stable(path) != path;
        let mut problems = Vec::new();
        if !is_temporary {
            problems.extend(self.names.iter().filter(|name| *name != path).map(|name| {
                let (path, name) = (path.display(), name.display());
                format!("{path} is removed before the name of {name} is synced")
            }));
        }
        self.files.remove(path);
        self.names.remove(path);
        self.made.remove(path);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::calls;
    use super::*;

    /// A file that is written as it should be.
    const ATOMIC: &str = r#"openat(AT_FDCWD</in>, "run/.writing-a", O_RDWR|O_CREAT|O_EXCL, 0666) = 3
write(3</in/run/.writing-a>, ""..., 5) = 5
fsync(3</in/run/.writing-a>) = 0
rename("run/.writing-a", "run/a") = 0
fsync(3</in/run>) = 0
"#;

    fn found(text: &str) -> Vec<String> {
        let text: String = text.lines().map(|line| format!("7 {line}\n")).collect();
        problems(&calls(&text, Path::new("/in")))
    }

    #[test]
    fn a_file_that_is_synced_named_and_synced_by_name_is_safe() {
        assert_eq!(found(ATOMIC), [""; 0]);
    }

    #[test]
    fn a_call_that_is_missing_or_failed_is_a_problem() {
        let lines: Vec<&str> = ATOMIC.lines().collect();
        for (line, expected) in [
            (2, "/in/run/.writing-* is named /in/run/a before it is synced"),
            (4, "the name of /in/run/a is never synced"),
        ] {
            let mut without = lines.clone();
            without.remove(line);
            assert_eq!(found(&without.join("\n")), [expected]);
            let failed = lines[line].replace("= 0", "= -1 EIO (Input/output error)");
            without.insert(line, &failed);
            assert_eq!(found(&without.join("\n")), [expected]);
        }
    }

    #[test]
    fn nothing_is_removed_before_the_new_is_there() {
        let early = ATOMIC
            .replace("fsync(3</in/run>) = 0\n", "unlink(\"run/old\") = 0\nfsync(3</in/run>) = 0\n");
        let expected = "/in/run/old is removed before the name of /in/run/a is synced";
        assert_eq!(found(&early), [expected]);
        assert_eq!(found(&format!("{ATOMIC}unlink(\"run/old\") = 0\n")), [""; 0]);
    }

    #[test]
    fn a_directory_takes_its_place_when_all_in_it_and_the_log_is_there() {
        let begin =
            "mkdir(\"run/next\", 0777) = 0\n".to_string() + &ATOMIC.replace("run", "run/next");
        let end = "rename(\"run/next\", \"run/kept\") = 0\nfsync(3</in/run>) = 0\n";
        assert_eq!(found(&(begin.clone() + end)), [""; 0]);
        let log = "write(4</in/run/log>, \"\"..., 5) = 5\n";
        let late = begin.clone() + log + end + "fdatasync(4</in/run/log>) = 0\n";
        assert_eq!(found(&late), ["/in/run/kept is written before /in/run/log"]);
        let synced = begin + log + "fdatasync(4</in/run/log>) = 0\n" + end;
        assert_eq!(found(&synced), [""; 0]);
    }

    #[test]
    fn a_directory_that_stays_needs_its_name() {
        let made = format!("mkdir(\"run\", 0777) = 0\n{ATOMIC}");
        assert_eq!(found(&made), ["the name of /in/run is never synced"]);
        assert_eq!(found(&format!("{made}fsync(3</in>) = 0\n")), [""; 0]);
    }
}
