//! What strace says of a command: the calls by which it changes files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The calls that are watched; `?`: this machine may not have it. There are others that change
/// files, which nothing here calls.
pub const WATCHED: &str = "trace=write,pwrite64,writev,pwritev,?ftruncate,fsync,fdatasync,openat,\
                           ?open,?creat,?mkdir,mkdirat,?rename,?renameat,renameat2,?unlink,unlinkat,\
                           ?rmdir,?link,linkat,?symlink,symlinkat,copy_file_range,sendfile";

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// The how many of this name it is in its thread, from 1.
    pub number: usize,
    /// The file, or the files in their order, that it is about.
    pub paths: Vec<PathBuf>,
    /// What is done.
    pub kind: Kind,
    /// Whether it did it.
    pub is_done: bool,
    /// Whether strace made it fail, or killed the process there.
    pub is_injected: bool,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Changes the content of a file.
    Write,
    /// Opens a file to write to it, and may make it.
    Open,
    /// Makes sure that a file, or the names in a directory, outlive a loss of power.
    Sync,
    /// Makes a directory.
    MakeDirectory,
    /// Gives a file another name.
    Rename,
    /// Removes a name.
    Remove,
    /// Changes nothing.
    Read,
}

impl Kind {
    fn of(name: &str, arguments: &str) -> Self {
        match name {
            "openat" | "open" => {
                let flags = ["O_CREAT", "O_WRONLY", "O_RDWR"];
                match flags.iter().any(|flag| arguments.contains(flag)) {
                    true => Self::Open,
                    false => Self::Read,
                }
            }
            "creat" => Self::Open,
            "fsync" | "fdatasync" => Self::Sync,
            "mkdir" | "mkdirat" => Self::MakeDirectory,
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => Self::Rename,
            "unlink" | "unlinkat" | "rmdir" => Self::Remove,
            _ => Self::Write,
        }
    }

    /// How it fails where a disk is full, or broken.
    pub fn error(self) -> &'static str {
        match self {
            Self::Write | Self::Open | Self::MakeDirectory => "ENOSPC",
            Self::Sync | Self::Rename | Self::Remove | Self::Read => "EIO",
        }
    }
}

/// The calls in what `strace -f -y -s 0` wrote of a process in `folder`, in the order in which they
/// ended.
pub fn calls(text: &str, folder: &Path) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut counts: HashMap<(u32, String), usize> = HashMap::new();
    // Calls during which another thread's was written.
    let mut begun: HashMap<u32, (String, usize)> = HashMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let (Ok(thread), rest) = (thread.parse(), rest.trim_start()) else { continue };
        let resumed = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let (whole, number) = match resumed {
            Some((_, end)) => match begun.remove(&thread) {
                Some((start, number)) => (start + end, number),
                None => continue,
            },
            None => {
                let Some((name, _)) = rest.split_once('(') else { continue };
                let count = counts.entry((thread, name.into())).or_default();
                *count += 1;
                if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
                    begun.insert(thread, (start.into(), *count));
                    continue;
                }
                (rest.to_string(), *count)
            }
        };
        calls.extend(call(&whole, thread, number, folder));
    }
    calls
}

/// `NAME(ARGUMENTS) = RESULT`.
fn call(line: &str, thread: u32, number: usize, folder: &Path) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    Some(Call {
        thread,
        name: name.into(),
        number,
        paths: paths(arguments, folder),
        kind: Kind::of(name, arguments),
        is_done: !result.starts_with('-') && !result.starts_with('?'),
        is_injected: result.ends_with("(INJECTED)") || result == "?",
    })
}

/// The files in a call's arguments: names, under the directory before them where there is one, or
/// else what is open.
fn paths(arguments: &str, folder: &Path) -> Vec<PathBuf> {
    let (mut names, mut open) = (Vec::new(), Vec::new());
    let mut directory = folder.to_path_buf();
    let mut rest = arguments;
    while let Some(start) = rest.find(['<', '"']) {
        let end = if rest[start..].starts_with('<') { '>' } else { '"' };
        let Some((found, after)) = rest[start + 1..].split_once(end) else { break };
        rest = after;
        match end {
            '>' => {
                directory = PathBuf::from(found);
                open.push(directory.clone());
            }
            // What is written is not shown.
            _ if found.is_empty() => {}
            _ => names.push(std::mem::replace(&mut directory, folder.to_path_buf()).join(found)),
        }
    }
    if names.is_empty() { open } else { names }
}

/// A path whose name does not differ from run to run: temporary names are drawn by chance.
pub fn stable(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_temporary = name.starts_with(".writing-") || name.ends_with(".tmp");
    // Burn's have the name of the file, a process and a number.
    let own = name.split_once(".bpk.").map_or(".writing-", |(own, _)| own);
    if is_temporary { path.with_file_name(format!("{own}*")) } else { path.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(line: &str) -> Call {
        let calls = calls(line, Path::new("/in"));
        assert_eq!(calls.len(), 1, "{line}");
        calls.into_iter().next().unwrap()
    }

    #[test]
    fn each_call_has_its_files() {
        for (line, kind, paths) in [
            (r#"7 write(4</in/run/log>, ""..., 74) = 74"#, Kind::Write, &["/in/run/log"][..]),
            ("7 fsync(5</in/run>)     = 0", Kind::Sync, &["/in/run"]),
            (r#"7 mkdir("run", 0777) = 0"#, Kind::MakeDirectory, &["/in/run"]),
            (
                r#"7 openat(AT_FDCWD</in>, "run/a", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</in/run/a>"#,
                Kind::Open,
                &["/in/run/a"],
            ),
            (
                r#"7 openat(AT_FDCWD</in>, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>"#,
                Kind::Read,
                &["/etc/passwd"],
            ),
            (
                r#"7 renameat(AT_FDCWD</in>, "/in/run/.writing-a", AT_FDCWD</in>, "run/a") = 0"#,
                Kind::Rename,
                &["/in/run/.writing-a", "/in/run/a"],
            ),
            (r#"7 rename("run/a", "run/b") = 0"#, Kind::Rename, &["/in/run/a", "/in/run/b"]),
            (r#"7 unlinkat(5</in/run>, "a", 0) = 0"#, Kind::Remove, &["/in/run/a"]),
        ] {
            let call = only(line);
            assert_eq!(call.kind, kind, "{line}");
            assert_eq!(call.paths, paths.iter().map(PathBuf::from).collect::<Vec<_>>(), "{line}");
            assert!(call.is_done && !call.is_injected, "{line}");
        }
    }

    #[test]
    fn what_failed_is_told_from_what_strace_made_fail() {
        let failed = only(r#"7 mkdir("run", 0777) = -1 EEXIST (File exists)"#);
        assert!(!failed.is_done && !failed.is_injected);
        let line =
            r#"7 write(4</in/a>, ""..., 74) = -1 ENOSPC (No space left on device) (INJECTED)"#;
        let injected = only(line);
        assert!(!injected.is_done && injected.is_injected);
        let killed = only(r#"7 write(4</in/a>, ""..., 74) = ?"#);
        assert!(!killed.is_done && killed.is_injected);
    }

    #[test]
    fn calls_are_counted_by_thread_and_put_together_again() {
        let text = r#"7 write(4</in/a>, ""..., 1) = 1
7 write(4</in/a>, ""..., 1 <unfinished ...>
8 write(5</in/b>, ""..., 1) = 1
8 +++ exited with 0 +++
7 <... write resumed>) = 1
7 --- SIGCHLD {si_signo=SIGCHLD} ---
"#;
        let calls = calls(text, Path::new("/in"));
        let found: Vec<_> = calls.iter().map(|call| (call.thread, call.number)).collect();
        assert_eq!(found, [(7, 1), (8, 1), (7, 2)]);
        assert_eq!(calls[2].paths, [PathBuf::from("/in/a")]);
    }

    #[test]
    fn temporary_names_are_the_same_in_each_run() {
        for (name, expected) in [
            ("run/.writing-Qdtskx", "run/.writing-*"),
            ("run/method.bpk.321-0.tmp", "run/method*"),
            ("run/method.bpk", "run/method.bpk"),
        ] {
            assert_eq!(stable(Path::new(name)), Path::new(expected));
        }
    }
}
