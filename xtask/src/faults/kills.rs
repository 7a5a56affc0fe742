//! Runs that are killed at any moment, and resumed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::files::{Files, not_whole};
use super::workbench::Workbench;
use crate::table;

/// Methods of different families: what they keep of a run, and drop at its end, is not the same.
const METHODS: [&str; 4] = [
    "lora",
    "pfeiffer",
    "prefix --set prefix_projection=true --set encoder_hidden_size=8",
    "unipelt",
];

/// A run of several epochs with several checkpoints in each.
fn train(method: &str, out: &str) -> String {
    format!(
        "train --model model --train train.tsv --valid test.tsv --test test.tsv --max-length 24 \
         --epochs 6 --batch-size 8 --lr 1e-2 --checkpoint-every 2 --json --method {method} --out {out}"
    )
}

/// What became of a method's runs.
#[derive(Default)]
struct Counts {
    runs: usize,
    kills: usize,
    /// Of the kills, those of a process that resumed a run.
    of_resumed: usize,
    /// Of the kills, those that left a checkpoint.
    with_checkpoint: usize,
    problems: usize,
}

/// Kills runs, and prints what became of them; the number of problems.
pub fn run(bench: &Workbench, kills: usize, seed: u64) -> Result<usize> {
    let mut random = Random(seed);
    let heads =
        ["method", "runs", "kills", "of these while resuming", "with a checkpoint", "problems"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    let started = Instant::now();
    let mut problems = 0;
    for (place, method) in METHODS.iter().enumerate() {
        // As even as can be.
        let share = kills / METHODS.len() + usize::from(place < kills % METHODS.len());
        let counts = of_method(bench, method, share, &mut random, problems)?;
        problems += counts.problems;
        let name = method.split(' ').next().unwrap_or_default();
        let Counts { runs, kills, of_resumed, with_checkpoint, problems } = counts;
        let numbers = [runs, kills, of_resumed, with_checkpoint, problems].map(|n| n.to_string());
        rows.push([name.to_string()].into_iter().chain(numbers).collect());
    }
    print!("{}", table::render(&rows));
    println!("{kills} kills in {:.0} s, {problems} problems\n", started.elapsed().as_secs_f64());
    Ok(problems)
}

fn of_method(
    bench: &Workbench,
    method: &str,
    kills: usize,
    random: &mut Random,
    problems_before: usize,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let name = method.split(' ').next().unwrap_or_default();
    let whole = format!("{name}-whole");
    let started = Instant::now();
    bench.succeed(&train(method, &whole))?;
    let duration = started.elapsed();
    let finished = Files::of(&bench.path(&whole))?;
    finished.check_log().with_context(|| whole.clone())?;
    eprintln!("{name}: {kills} kills");
    let run = format!("{name}-killed");
    let arguments = train(method, &run) + " --resume";
    while counts.kills < kills {
        counts.runs += 1;
        ensure!(counts.runs < 20 * kills + 20, "{name}: its runs end before they are killed");
        let mut problems = Vec::new();
        let mut resumes = false;
        while counts.kills < kills {
            let mut child = bench.start(&mut bench.peft(&arguments))?;
            std::thread::sleep(duration.mul_f64(random.next()).max(Duration::from_millis(1)));
            if child.try_wait()?.is_some() {
                break;
            }
            // SIGKILL: the program gets no chance to tidy up.
            child.kill()?;
            // It may have ended just before.
            if child.wait()?.code().is_some() {
                break;
            }
            counts.kills += 1;
            counts.of_resumed += usize::from(resumes);
            let has_checkpoint = ["checkpoint", "checkpoint.old"]
                .iter()
                .any(|checkpoint| bench.path(&run).join(checkpoint).exists());
            counts.with_checkpoint += usize::from(has_checkpoint);
            problems.extend(not_whole(bench, &run, &finished)?);
            resumes = true;
            if random.next() < 0.5 {
                break;
            }
        }
        let ended = bench.run(&mut bench.peft(&arguments))?;
        problems.extend(ended.problem());
        if ended.is_success() {
            problems.extend(Files::of(&bench.path(&run))?.differences(&finished));
        } else {
            problems.push(format!("it cannot be resumed: {}", ended.said.trim()));
        }
        if problems.is_empty() {
            std::fs::remove_dir_all(bench.path(&run))?;
            continue;
        }
        counts.problems += 1;
        let number = problems_before + counts.problems;
        eprintln!("problem {number}: {name}, killed: {}", problems.join("; "));
        bench.keep(&run, number)?;
    }
    Ok(counts)
}

/// Numbers by SplitMix64.
struct Random(u64);

impl Random {
    /// The next one, from 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spread_and_follow_from_the_seed() {
        let draw = |seed| {
            let mut random = Random(seed);
            (0..1000).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for tenth in 0..10 {
            let within = |number: &&f64| (**number * 10.0) as usize == tenth;
            let count = draw(3).iter().filter(within).count();
            assert!((60..140).contains(&count), "{tenth}: {count}");
        }
    }
}
