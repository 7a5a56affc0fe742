//! A run that is killed at random moments and resumed ends as one that was not.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::workbench::{Workbench, text};

const TRAIN: &str = "train --model model --train train.tsv --valid test.tsv --test test.tsv \
                     --epochs 4 --batch-size 8 --lr 1e-2 --set rank=4 --set dropout=0.1 \
                     --checkpoint-every 3 --json";

#[test]
fn killed_ten_times_and_resumed_it_ends_with_the_same_adapter() {
    let bench = Workbench::new();
    let started = Instant::now();
    let whole = bench.json(&format!("{TRAIN} --out whole"));
    let duration = started.elapsed();
    let adapter = |run: &str| {
        std::fs::read(bench.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    };
    let read = |run: &str, name: &str| std::fs::read_to_string(bench.path(run).join(name)).unwrap();

    let mut random =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
            as u64;
    let mut next = move || {
        // SplitMix64: moments differ from run to run of this test, on purpose.
        random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z ^ (z >> 27)) as f64 / u64::MAX as f64
    };
    let (mut kills, mut round) = (0, 0);
    while kills < 10 {
        let run = format!("cut{round}");
        round += 1;
        // Kill each run until it ends; how often depends on the moments.
        loop {
            let mut child = bench
                .command(&format!("{TRAIN} --resume --out {run}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(duration.mul_f64(next()).max(Duration::from_millis(5)));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            // SIGKILL: the program gets no chance to tidy up.
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if kills >= 10 {
                break;
            }
        }
        let resumed = bench.json(&format!("{TRAIN} --resume --out {run}"));
        assert!(adapter("whole") == adapter(&run), "the resumed run has another adapter");
        for name in ["metrics.jsonl", "plot.svg"] {
            assert!(read("whole", name) == read(&run, name), "the resumed run has another {name}");
        }
        assert_eq!(whole["test"], resumed["test"]);
    }
}

/// What a finished adapter no longer has (the encoder of virtual tokens, the network of a prefix) is
/// in the checkpoint of a run, and so are gates and masks.
#[test]
fn runs_of_methods_that_drop_parameters_at_the_end_resume_too() {
    let bench = Workbench::new();
    let adapter = |run: &str| {
        std::fs::read(bench.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    };
    for (method, more) in [
        ("p-tuning", "--set num_virtual_tokens=4 --set encoder_reparameterization_type=LSTM"),
        ("mam", ""),
        ("unipelt", ""),
        // So is what it started from.
        ("pissa", ""),
        // Which expert a step is through, and which weights are left.
        ("adamix", "--set reduction_factor=4"),
        ("sparse-adapter", "--set reduction_factor=4"),
        // And which values are trained, before it is decided and after.
        ("fish-mask", ""),
        ("imp", "--set full_share=0.8"),
        ("diff-pruning", "--set gate_share=0.7"),
        ("far", "--set priming_share=0.4"),
    ] {
        let train = TRAIN.replace(" --set rank=4 --set dropout=0.1", "") + " --max-length 24";
        let train =
            format!("{train} --method {method} {more} --epochs 2").replace("--epochs 4 ", "");
        bench.json(&format!("{train} --out {method}"));
        let cut = format!("{method}-cut");
        let mut child = bench
            .command(&format!("{train} --out {cut}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // There is a checkpoint before the end of the first epoch.
        let best = bench.path(&cut).join("best/adapter_config.json");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !best.exists() {
            assert!(Instant::now() < deadline, "{method}: no adapter was written");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(bench.path(&cut).join("checkpoint").exists(), "{method}: it has ended");
        // What says that it is an adapter is one.
        let check = bench.run(&format!("check --model model --adapter {cut}/best"));
        assert!(check.status.success(), "{method}: {}", text(&check.stdout));
        bench.json(&format!("{train} --resume --out {cut}"));
        assert!(adapter(method) == adapter(&cut), "{method}: the resumed run has another adapter");
    }
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let bench = Workbench::new();
    let mut child = bench
        .command(&format!("{TRAIN} --epochs 50 --out run").replace("--epochs 4 ", ""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = bench.path("run/checkpoint/position.json");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !checkpoint.exists() {
        assert!(Instant::now() < deadline, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let error = bench.error("train --resume --out run --lr 0.5");
    assert!(error.contains("other settings"), "{error}");
    // So are other adapters below: the same run over another one.
    for (name, seed) in [("a", 1), ("b", 2)] {
        let train = TRAIN.replace("--epochs 4", "--epochs 1");
        bench.json(&format!("{train} --seed {seed} --out {name}"));
    }
    let over = |adapter: &str| {
        let below = format!("--adapter {adapter}/adapter --compose stack");
        format!("{TRAIN} {below} --epochs 50 --out over").replace("--epochs 4 ", "")
    };
    let mut child =
        bench.command(&over("a")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !bench.path("over/checkpoint/position.json").exists() {
        assert!(deadline + Duration::from_secs(60) > Instant::now(), "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let error = bench.error(&(over("b") + " --resume"));
    assert!(error.contains("other settings"), "{error}");
    // Without --resume, a used directory is left as it is.
    let error = bench.error(&format!("{TRAIN} --out run"));
    assert!(error.contains("already holds a run"), "{error}");
}

#[test]
fn a_directory_that_another_process_writes_to_is_refused() {
    let bench = Workbench::new();
    let train = format!("{TRAIN} --out run").replace("--epochs 4", "--epochs 500");
    let mut child =
        bench.command(&train).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bench.path("run/checkpoint/position.json").exists() {
        assert!(Instant::now() < deadline, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    let settings = std::fs::read(bench.path("run/run.toml")).unwrap();
    let other = train.replace("--lr 1e-2", "--lr 1e-3");
    let built_in = "train --model model --out run".to_string();
    for second in [&train, &other, &built_in] {
        for resume in ["", " --resume"] {
            let error = bench.error(&format!("{second}{resume}"));
            assert!(error.contains("another process is using"), "{second}{resume}: {error}");
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "the first run has ended");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read(bench.path("run/run.toml")).unwrap(), settings);
    // A process that is killed holds nothing any more.
    let error = bench.error(&format!("{other} --resume"));
    assert!(error.contains("other settings"), "{error}");
    let error = bench.error(&train);
    assert!(error.contains("already holds a run"), "{error}");
}

#[test]
fn a_finished_run_that_was_cut_off_before_its_plot_gets_it_when_it_is_resumed() {
    let bench = Workbench::new();
    let train = format!("{TRAIN} --out run").replace("--epochs 4", "--epochs 1");
    let outcome = bench.json(&train);
    let path = bench.path("run/plot.svg");
    let plot = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(bench.json(&format!("{train} --resume")), outcome);
    assert!(std::fs::read(&path).unwrap() == plot, "another plot of the same run");
    // Or while it tidied up, or wrote the plot.
    std::fs::remove_file(&path).unwrap();
    for left in ["run/checkpoint", "run/checkpoint.old", "run/best"] {
        std::fs::create_dir(bench.path(left)).unwrap();
        bench.write(&format!("{left}/method.bpk"), "left");
    }
    bench.write("run/.writing-plot", "<svg");
    assert_eq!(bench.json(&format!("{train} --resume")), outcome);
    assert!(std::fs::read(&path).unwrap() == plot, "another plot of the same run");
    let left = bench.path("run").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    let whole = ["SHA256SUMS", "adapter", "metrics.jsonl", "plot.svg", "result.json"];
    assert_eq!(left, [&whole[..], &["run.lock", "run.toml"]].concat());
    // One that is there stays as it is.
    std::fs::remove_file(bench.path("run/metrics.jsonl")).unwrap();
    assert_eq!(bench.json(&format!("{train} --resume")), outcome);
    assert!(std::fs::read(&path).unwrap() == plot, "the plot was drawn again");
}

/// Starts a command and waits until its run has a checkpoint.
fn started(bench: &Workbench, train: &str, run: &str) -> std::process::Child {
    let child = bench.command(train).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bench.path(run).join("checkpoint/position.json").exists() {
        assert!(Instant::now() < deadline, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_resume_that_is_refused_changes_nothing() {
    let bench = Workbench::new();
    let train = format!("{TRAIN} --out run").replace("--epochs 4", "--epochs 40");
    let mut child = started(&bench, &train, "run");
    child.kill().unwrap();
    child.wait().unwrap();
    let settings = std::fs::read_to_string(bench.path("run/run.toml")).unwrap();
    // It says what the method does by default, too.
    for whole in ["r = 4", "lora_alpha = 8", "lr = 0.01", "model = \"model\""] {
        assert!(settings.contains(whole), "{whole} is not in {settings}");
    }
    for (change, named) in [
        ("--lr 0.5", "train.lr = 0.5, which was 0.01"),
        ("--epochs 3", "train.epochs = 3, which was 40"),
        ("--set rank=8", "method_settings.r = 8, which was 4"),
        ("--method ia3", "method = \"ia3\", which was \"lora\""),
        ("--train test.tsv", "data.train = \"test.tsv\""),
        ("--metric pearson", "train.metric"),
        ("--metric pearson --epochs 40", "train.metric"),
        ("--load-in f32", "load_in"),
        ("--seed 7", "seed = 7, which was 0"),
    ] {
        let error = bench.error(&format!("train --out run --resume {change}"));
        assert!(error.contains("other settings") && error.contains(named), "{change}: {error}");
        let error = bench.error(&format!("train --out run {change}"));
        assert!(error.contains("already holds a run"), "{change}: {error}");
        assert_eq!(std::fs::read_to_string(bench.path("run/run.toml")).unwrap(), settings);
    }
    // What was the same is not another setting, under its other name neither.
    let same = "--lr 0.01 --set r=4 --train ./train.tsv --json";
    bench.json(&format!("train --out run --resume {same}"));
    assert_eq!(std::fs::read_to_string(bench.path("run/run.toml")).unwrap(), settings);
    // Nor does a finished run take others.
    let error = bench.error("train --out run --resume --lr 0.5");
    assert!(error.contains("train.lr = 0.5, which was 0.01"), "{error}");
    bench.json(&format!("train --out run --resume {same}"));
}

#[test]
fn a_mistake_that_is_found_late_leaves_no_run_behind() {
    let bench = Workbench::new();
    let train = "train --model model --train train.tsv --max-length 24 --out run";
    let built_in = "train --model model --max-length 24 --out run";
    for train in [train, built_in] {
        for mistake in ["--metric pearson", "--set target_modules=nothing", "--set r=0"] {
            bench.error(&format!("{train} {mistake}"));
            assert!(!bench.path("run").exists(), "{train} {mistake} left something behind");
        }
    }
    bench.error(&format!("{train} --early-stopping 1"));
    bench.error(&format!("{train} --metric accuracy"));
    assert!(!bench.path("run").exists());
}

#[test]
fn only_a_run_is_resumed() {
    let bench = Workbench::new();
    for name in ["typo", "empty"] {
        if name == "empty" {
            std::fs::create_dir(bench.path(name)).unwrap();
        }
        let error = bench.error(&format!("train --model model --resume --out {name}"));
        assert!(error.contains("no run to resume"), "{error}");
        let left = bench.path(name).read_dir().map_or(0, Iterator::count);
        assert_eq!(left, 0, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_does_so_at_a_checkpoint_and_says_how_to_go_on() {
    let bench = Workbench::new();
    let train = format!("{TRAIN} --checkpoint-every 1000").replace("--checkpoint-every 3 ", "");
    let train = train.replace("--epochs 4", "--epochs 12").replace(" --json", "");
    let whole = bench.run(&format!("{train} --out whole"));
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = format!("run {signal}");
        let mut command = bench.command(&train);
        let child = command
            .args(["--out", &run])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !bench.path(&run).join("checkpoint").exists() {
            assert!(Instant::now() < deadline, "no checkpoint was written");
            std::thread::sleep(Duration::from_millis(2));
        }
        let id = child.id().to_string();
        std::process::Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let go_on = format!("to go on: peft train --out 'run {signal}' --resume");
        assert!(said.contains(&go_on), "{said}");
        let resumed = bench.command("train --resume").args(["--out", &run]).output().unwrap();
        assert!(resumed.status.success(), "{}", text(&resumed.stderr));
        for file in ["adapter/adapter_model.safetensors", "metrics.jsonl"] {
            let read = |run: &str| std::fs::read(bench.path(run).join(file)).unwrap();
            assert!(read("whole") == read(&run), "{signal}: another {file}");
        }
    }
}
