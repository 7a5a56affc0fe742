//! What is left of a run that was cut off.

mod failures;
mod files;
mod kills;
mod power;
mod subjects;
mod trace;
mod workbench;

use anyhow::{Result, ensure};
use clap::{Args as ClapArgs, ValueEnum};

use crate::workspace::Workspace;
use workbench::Workbench;

/// Kill runs, and let their writes fail: nothing may be lost, and nothing accepted that is not whole.
///
/// `kills`: runs of four methods are killed with SIGKILL at moments chosen by chance, some of them
/// again while they go on, and resumed to their end. `failures` (Linux, with strace): each call by
/// which a command changes its directory fails once, and once the process is killed before it; a run is
/// resumed, another command is run again; and the order of all calls is checked, so that a loss of power
/// too leaves what is whole. What ends otherwise than a command that nothing happened to is a problem, and
/// is kept under the target folder.
#[derive(ClapArgs)]
pub struct Args {
    /// Only one of the two.
    what: Option<What>,
    /// How many processes are killed.
    #[arg(long, default_value_t = 100, value_name = "N")]
    kills: usize,
    /// From which the moments are drawn.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// The build profile of `peft`.
    #[arg(long, default_value = "dev")]
    profile: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Kills,
    Failures,
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let bench = Workbench::new(&workspace, &args.profile)?;
    let is_asked = |what| args.what.is_none_or(|only| only == what);
    let mut problems = 0;
    if is_asked(What::Kills) {
        problems += kills::run(&bench, args.kills, args.seed)?;
    }
    if is_asked(What::Failures) {
        problems += failures::run(&bench)?;
    }
    ensure!(
        problems == 0,
        "{problems} problems; what they left is in {}",
        bench.path("").display()
    );
    bench.remove()
}
