//! A Python that has Hugging Face PEFT.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Names a Python that already has the packages.
const VARIABLE: &str = "PEFT_PYTHON";

/// The Python that `PEFT_PYTHON` names, or one in a virtual environment under the target folder
/// with the packages of `tests/interop/requirements.txt`, which is made where it is missing or
/// the requirements have changed.
pub fn python(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(python) = std::env::var_os(VARIABLE) {
        return Ok(python.into());
    }
    let requirements = workspace.root.join("tests/interop/requirements.txt");
    let wanted = read(&requirements)?;
    let folder = workspace.target.join("interop/venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Written after the last package, so that an environment cut short is made anew.
    let installed = folder.join("installed.txt");
    if python.is_file() && read(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    eprintln!("making a virtual environment in {}", folder.display());
    let system = if cfg!(windows) { "python" } else { "python3" };
    workspace.shell.cmd(system).args(["-m", "venv", "--clear"]).arg(&folder).run()?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    workspace.shell.cmd(&python).args(pip).arg(&requirements).run().with_context(|| {
        format!("{VARIABLE} can name a Python that already has {}", requirements.display())
    })?;
    workspace.shell.write_file(&installed, wanted)?;
    Ok(python)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
