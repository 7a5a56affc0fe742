//! `peft compose`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use peft::format::{Adapter, AdapterSetup};
use serde_json::json;

use crate::options::{AdapterOptions, adapter_name};
use crate::output::{print_json, refuse_used, shown, stdout, write_new};

/// Put several adapters, and how they are composed, into one directory.
///
/// The directory is given to `--adapter` as one adapter is, without `--compose`. It has copies of the
/// adapters, and adapter_setup.json, as adapter-hub/adapters writes it; that library reads it where the
/// adapters are in its layout (`peft convert`).
#[derive(Args)]
pub struct Compose {
    #[command(flatten)]
    adapters: AdapterOptions,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Compose {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if !self.adapters.leave_out.is_empty() {
            bail!("--leave-out is for using adapters, and is not kept in a file");
        }
        let paths = self.adapters.paths()?;
        let Some(composition) = paths.composition else {
            bail!("how are they composed? give --compose");
        };
        for path in paths.adapters.iter().chain(&paths.fusion) {
            // Something that is no adapter is an error.
            Adapter::made_for(path)?;
        }
        refuse_used(&self.out)?;
        let mut names: Vec<String> = Vec::new();
        for path in &paths.adapters {
            let name = adapter_name(path);
            let same = names.iter().filter(|known| **known == name).count();
            names.push(if same == 0 { name } else { format!("{name}-{}", names.len()) });
        }
        let setup = AdapterSetup { composition, adapters: names };
        let fusion = match (setup.fusion(), &paths.fusion) {
            (Some(name), Some(path)) => Some((name, path)),
            (Some(_), None) => bail!("a fusion is trained: give --fusion"),
            (None, _) => None,
        };
        let all = setup.adapters.iter().cloned().zip(&paths.adapters).chain(fusion);
        write_new(&self.out, || {
            for (name, path) in all {
                copy(path, &self.out.join(name))?;
            }
            // Last: a directory that says it is a composition has all of it.
            Ok(setup.save(&self.out)?)
        })?;
        let (out, adapters) = (shown(&self.out), &setup.adapters);
        if self.json {
            print_json(&json!({"out": out, "adapters": adapters}))?;
        } else {
            writeln!(stdout(), "{}: {}", self.out.display(), adapters.join(", "))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let place = |path: &Path| path.display().to_string();
    std::fs::create_dir_all(to).with_context(|| place(to))?;
    for entry in from.read_dir().with_context(|| place(from))? {
        let path = entry.with_context(|| place(from))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name)).with_context(|| place(&path))?;
        }
    }
    Ok(())
}
