//! What is measured on: the processor, the day, the versions.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Instruction sets that products are fast with, as Linux calls them.
const RELEVANT: [&str; 8] =
    ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd"];

/// The processor's name, its cores and its relevant instruction sets.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    described(&info, cores)
}

fn described(info: &str, cores: usize) -> String {
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().map(str::trim) == Some(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string())
    };
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let family = field("cpu family").zip(field("model"));
    let family = family.map_or_else(String::new, |(f, m)| format!(" (family {f}, model {m})"));
    let flags = field("flags").or(field("Features")).unwrap_or_default();
    let has = |set: &&&str| flags.split_whitespace().any(|flag| flag == **set);
    let sets: Vec<&str> = RELEVANT.iter().filter(has).copied().collect();
    format!("{name}{family}, {cores} cores, {}", sets.join(" "))
}

/// Waits until nothing else runs, for a minute at most; whether that is so.
pub fn is_quiet() -> bool {
    for _ in 0..60 {
        let Some(before) = busy() else { return true };
        std::thread::sleep(Duration::from_secs(1));
        let Some(after) = busy() else { return true };
        // Of all cores together.
        if after - before < 0.1 {
            return true;
        }
    }
    false
}

/// Seconds that the cores have been busy; `None` where that is not known.
fn busy() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = text.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<f64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, ...; a hundred in a second.
    let [user, nice, system, ..] = ticks[..] else { return None };
    Some((user + nice + system) / 100.0)
}

/// Today, as `2026-01-31`.
pub fn today() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    day((now.as_secs() / 86_400) as i64)
}

/// The day with this number since 1970-01-01, in the Gregorian calendar.
fn day(since_1970: i64) -> String {
    // Years that begin in March have their leap day at the end.
    let days = since_1970 + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The commit that is checked out.
pub fn commit(workspace: &Workspace) -> String {
    let commit = workspace.shell.cmd("git").args(["rev-parse", "--short", "HEAD"]).quiet().read();
    commit.unwrap_or_else(|_| "unknown".into())
}

/// The versions of the packages that are compared with.
pub fn versions(python: &Path) -> Result<String> {
    let program = "from importlib.metadata import version as v\n\
                   print(', '.join(f'{p} {v(p)}' for p in ('torch', 'transformers', 'peft', 'adapters')))";
    let output = Command::new(python).args(["-c", program]).output().context("python")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(20_454), "2026-01-01");
    }

    #[test]
    fn a_processor_is_described() {
        let info = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse avx2 fma avx512f\n";
        assert_eq!(described(info, 4), "Some CPU, 4 cores, avx2 fma avx512f");
    }
}
