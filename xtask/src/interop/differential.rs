//! Configurations changed at random: what the command makes of them, beside the reference libraries.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::python::python;
use crate::workspace::Workspace;

/// How many, and which.
#[derive(Args)]
pub struct Differential {
    /// Change configurations at random instead, and compare what the command `peft` makes of this
    /// many with transformers and PEFT.
    #[arg(long, value_name = "VARIANTS", conflicts_with_all = ["model", "filter", "keep"])]
    differential: Option<usize>,
    /// The seed of the changes.
    #[arg(long, requires = "differential", default_value_t = 0)]
    seed: u64,
    /// One kind of file alone: `config`, `generation`, `adapter`.
    #[arg(long, requires = "differential")]
    only: Option<String>,
    /// Where to write a line of JSON about each variant.
    #[arg(long, value_name = "FILE", requires = "differential")]
    report: Option<PathBuf>,
}

/// Runs it, if it is asked for; returns whether it is.
pub fn run(args: &Differential) -> Result<bool> {
    let Some(variants) = args.differential else { return Ok(false) };
    let workspace = Workspace::find()?;
    let python = python(&workspace)?;
    let report = args.report.as_ref().map(std::path::absolute).transpose()?;
    workspace.cargo().args(["build", "--package", "peft-cli"]).quiet().run()?;
    let program =
        workspace.target.join("debug").join(format!("peft{}", std::env::consts::EXE_SUFFIX));
    let script = workspace.root.join("tests/interop/fuzz_configs.py");
    let mut command = workspace.shell.cmd(python).arg(script).arg("--peft").arg(program);
    command = command.arg("--fixtures").arg(workspace.root.join("tests/fixtures"));
    command = command.arg("--variants").arg(variants.to_string());
    command = command.arg("--seed").arg(args.seed.to_string());
    if let Some(only) = &args.only {
        command = command.arg("--only").arg(only);
    }
    if let Some(report) = report {
        command = command.arg("--report").arg(report);
    }
    command.quiet().run()?;
    Ok(true)
}
