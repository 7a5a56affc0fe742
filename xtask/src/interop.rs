//! Adapters that the library writes, loaded by Hugging Face PEFT.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use serde::Deserialize;

use crate::python::python;
use crate::table;
use crate::workspace::Workspace;

/// Write adapters and load them with Hugging Face PEFT.
///
/// The library writes adapters of many configurations, with all that is trained in them set to
/// noise, and records their outputs. PEFT must find every name that it expects in their files and
/// none more, and compute the same outputs, merged and not. See tests/interop/README.md.
///
/// The environment variable PEFT_PYTHON may name a Python that has the packages of
/// tests/interop/requirements.txt; without it, they are installed into a virtual environment.
#[derive(ClapArgs)]
pub struct Args {
    /// A base model's directory, instead of those of the fixtures; may be given several times.
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Keep the adapters, and say where they are.
    #[arg(long)]
    keep: bool,
}

/// One adapter, as `write-adapters` lists it.
#[derive(Deserialize)]
struct Case {
    name: String,
    model: PathBuf,
    adapter: PathBuf,
    io: PathBuf,
}

/// What `load_in_peft.py` prints.
#[derive(Deserialize)]
struct Report {
    missing: Vec<String>,
    unexpected: Vec<String>,
    max_abs_diff: Option<f64>,
    merged_max_abs_diff: Option<f64>,
    ok: bool,
    error: Option<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let python = python(&workspace)?;
    let folder = workspace.target.join("interop/adapters");
    workspace.shell.remove_path(&folder)?;
    let cases = write_adapters(&workspace, args, &folder)?;
    ensure!(!cases.is_empty(), "no case");

    let head = ["case", "missing", "unexpected", "difference", "merged", "result"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut problems = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        eprintln!("{}/{} {}", number + 1, cases.len(), case.name);
        let report = load(&workspace, &python, case)?;
        let shown = |distance: Option<f64>| distance.map_or("-".into(), |d| format!("{d:.1e}"));
        rows.push(vec![
            case.name.clone(),
            report.missing.len().to_string(),
            report.unexpected.len().to_string(),
            shown(report.max_abs_diff),
            shown(report.merged_max_abs_diff),
            if report.ok { "ok" } else { "FAILED" }.into(),
        ]);
        if !report.ok {
            problems.push(describe(case, &report));
        }
    }
    println!("{}", table::render(&rows));
    for problem in &problems {
        println!("{problem}");
    }
    println!("{} of {} adapters agree", cases.len() - problems.len(), cases.len());
    if args.keep {
        println!("the adapters are in {}", folder.display());
    } else {
        workspace.shell.remove_path(&folder)?;
    }
    ensure!(problems.is_empty(), "{} adapters do not agree", problems.len());
    Ok(())
}

fn write_adapters(workspace: &Workspace, args: &Args, folder: &Path) -> Result<Vec<Case>> {
    let mut models = args.model.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
    if models.is_empty() {
        models = workspace.shell.read_dir("tests/fixtures/bases")?;
        models.retain(|path| path.join("config.json").is_file());
    }
    let program = ["run", "--quiet", "--package", "peft-tests", "--bin", "write-adapters", "--"];
    let written = workspace.cargo().args(program).arg(folder).args(models).read()?;
    let mut cases: Vec<Case> =
        serde_json::from_str(&written).context("write-adapters lists its cases as JSON")?;
    if let Some(filter) = &args.filter {
        cases.retain(|case| case.name.contains(filter.as_str()));
    }
    Ok(cases)
}

fn load(workspace: &Workspace, python: &Path, case: &Case) -> Result<Report> {
    let command = workspace
        .shell
        .cmd(python)
        .arg(workspace.root.join("tests/interop/load_in_peft.py"))
        .arg("--model")
        .arg(&case.model)
        .arg("--adapter")
        .arg(&case.adapter)
        .arg("--io")
        .arg(&case.io);
    // The script fails with its status where the report says so too; what it said on the way
    // matters only where there is no report.
    let output = command.quiet().ignore_status().output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    match serde_json::from_str(&printed) {
        Ok(report) => Ok(report),
        Err(_) => bail!("{}: no report\n{}", case.name, String::from_utf8_lossy(&output.stderr)),
    }
}

fn describe(case: &Case, report: &Report) -> String {
    let mut text = format!("{}:", case.name);
    for (what, names) in [("missing", &report.missing), ("unexpected", &report.unexpected)] {
        for name in names {
            text.push_str(&format!("\n  {what}: {name}"));
        }
    }
    if let Some(error) = &report.error {
        text.push_str(&format!("\n  {error}"));
    }
    text
}
