//! Adapters that the library writes, loaded by Hugging Face PEFT and by adapter-hub/adapters.

mod differential;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

use crate::python::python;
use crate::table;
use crate::workspace::Workspace;

/// Write adapters and load them with the libraries whose layouts they have.
///
/// The library writes adapters of many methods and configurations, with all that is trained in
/// them set to noise, and records their outputs. Hugging Face PEFT, or adapter-hub/adapters, must
/// find every name that it expects in their files and none more, and compute the same outputs,
/// merged and not. With --differential, configurations that are changed at random are compared instead.
/// See tests/interop/README.md.
///
/// The environment variable PEFT_PYTHON may name a Python that has the packages of
/// tests/interop/requirements.txt; without it, they are installed into a virtual environment.
#[derive(ClapArgs)]
pub struct Args {
    /// A base model's directory, instead of those of the fixtures; may be given several times.
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Only cases whose name contains this: `adapters/`, `bert-dora`.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Keep the adapters, and say where they are.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    differential: differential::Differential,
}

/// The libraries, as `write-adapters` calls them, and the scripts that load with them.
const SCRIPTS: [(&str, &str); 2] =
    [("peft", "load_in_peft.py"), ("adapters", "load_in_adapters.py")];

/// One adapter, or one fusion of several, as `write-adapters` lists it.
#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    library: String,
    model: PathBuf,
    adapters: Vec<PathBuf>,
    fusion: Option<PathBuf>,
    io: PathBuf,
}

/// What a script prints about a case.
#[derive(Deserialize)]
struct Report {
    name: String,
    missing: Vec<String>,
    unexpected: Vec<String>,
    max_abs_diff: Option<f64>,
    merged_max_abs_diff: Option<f64>,
    notes: Vec<String>,
    ok: bool,
    error: Option<String>,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    if differential::run(&args.differential)? {
        return Ok(());
    }
    let workspace = Workspace::find()?;
    let python = python(&workspace)?;
    let folder = workspace.target.join("interop/adapters");
    workspace.shell.remove_path(&folder)?;
    let cases = write_adapters(&workspace, args, &folder)?;
    ensure!(!cases.is_empty(), "no case");

    let mut reports = HashMap::new();
    for (library, script) in SCRIPTS {
        let own: Vec<&Case> = cases.iter().filter(|case| case.library == library).collect();
        if !own.is_empty() {
            reports.extend(load(&workspace, &python, script, &own, &folder)?);
        }
    }
    let failed = print(&cases, &reports)?;
    if args.keep {
        println!("the adapters are in {}", folder.display());
    } else {
        workspace.shell.remove_path(&folder)?;
    }
    ensure!(failed == 0, "{failed} adapters do not agree");
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

/// Loads all cases of a library in one process: starting one takes longer than a case.
fn load(
    workspace: &Workspace,
    python: &Path,
    script: &str,
    cases: &[&Case],
    folder: &Path,
) -> Result<HashMap<String, Report>> {
    let list = folder.join(script).with_extension("json");
    workspace.shell.write_file(&list, serde_json::to_string(cases)?)?;
    let script = workspace.root.join("tests/interop").join(script);
    let command = workspace.shell.cmd(python).arg(script).arg("--cases").arg(list);
    // The script fails with its status where a report says so too.
    let printed = command.quiet().ignore_status().read()?;
    let reports = printed.lines().map(|line| {
        let report: Report = serde_json::from_str(line).context("a report is JSON")?;
        Ok((report.name.clone(), report))
    });
    reports.collect()
}

/// Prints the results; the number of adapters that do not agree.
fn print(cases: &[Case], reports: &HashMap<String, Report>) -> Result<usize> {
    let head = ["case", "missing", "unexpected", "difference", "merged", "result"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut remarks = Vec::new();
    let mut failed = 0;
    for case in cases {
        let name = &case.name;
        let report = reports.get(name).with_context(|| format!("{name}: no report"))?;
        let shown = |distance: Option<f64>| distance.map_or("-".into(), |d| format!("{d:.1e}"));
        rows.push(vec![
            name.clone(),
            report.missing.len().to_string(),
            report.unexpected.len().to_string(),
            shown(report.max_abs_diff),
            shown(report.merged_max_abs_diff),
            if report.ok { "ok" } else { "FAILED" }.into(),
        ]);
        if !report.ok {
            failed += 1;
        }
        if !report.ok || !report.notes.is_empty() {
            remarks.push(describe(report));
        }
    }
    println!("{}", table::render(&rows));
    for remark in &remarks {
        println!("{remark}");
    }
    println!("{} of {} adapters agree", cases.len() - failed, cases.len());
    Ok(failed)
}

fn describe(report: &Report) -> String {
    let mut text = format!("{}:", report.name);
    for (what, names) in [("missing", &report.missing), ("unexpected", &report.unexpected)] {
        for name in names {
            text.push_str(&format!("\n  {what}: {name}"));
        }
    }
    for line in report.error.iter().chain(&report.notes) {
        text.push_str(&format!("\n  {line}"));
    }
    text
}
