//! Runs that keep what frozen layers compute.

use peft_core::{MethodConfig, OneOrMany, Targets};
use peft_lora::LoraConfig;
use peft_side::LadderSideConfig;
use peft_sparse::HeadOnlyConfig;
use peft_train::{Error, Observer, RunDirectory, TrainSettings};

use super::{Bench, StopAfter, adapter_of, settings, six_steps};

/// LoRA in the second of two layers, with dropout of its own.
fn upper() -> LoraConfig {
    let layers_to_transform = Some(OneOrMany::One(1));
    let targets = Targets { layers_to_transform, ..Targets::default() };
    LoraConfig { targets, dropout: 0.3, ..LoraConfig::default() }
}

fn kept(memory: usize, disk: Option<usize>) -> TrainSettings {
    TrainSettings { cache_frozen: Some(memory), cache_frozen_disk: disk, ..six_steps() }
}

fn trained(
    bench: &Bench,
    name: &str,
    method: impl MethodConfig,
    how: TrainSettings,
) -> RunDirectory {
    let run = RunDirectory::new(bench.path(name));
    bench.train(method, false, how, &run, false, ()).expect("trained");
    run
}

#[test]
fn a_run_is_the_same_with_kept_states() {
    let bench = Bench::new();
    let entries = |run: &RunDirectory| run.entries().expect("a log");
    let plain = trained(&bench, "plain", upper(), six_steps());
    let with = trained(&bench, "with", upper(), kept(1, None));
    assert_eq!(entries(&with), entries(&plain));
    assert!(adapter_of(&with) == adapter_of(&plain));
    // What enters the first layer that runs is where recomputing begins.
    let again = |how| TrainSettings { gradient_checkpointing: true, ..how };
    let plain = trained(&bench, "plain-again", upper(), again(six_steps()));
    let with = trained(&bench, "again", upper(), again(kept(1, None)));
    assert!(adapter_of(&with) == adapter_of(&plain));
    // Of a head alone, all layers are frozen.
    let plain = trained(&bench, "plain-head", HeadOnlyConfig {}, six_steps());
    let with = trained(&bench, "head", HeadOnlyConfig {}, kept(1, Some(1)));
    assert_eq!(entries(&with), entries(&plain));
    assert!(adapter_of(&with) == adapter_of(&plain));
}

/// Of a network beside the layers, what leaves every one of them is kept.
#[test]
fn a_side_network_is_the_same_with_kept_states() {
    let bench = Bench::new();
    let side = || LadderSideConfig { reduction_factor: 4, ..LadderSideConfig::default() };
    let plain = trained(&bench, "plain", side(), six_steps());
    for (name, how) in [
        ("memory", kept(1, None)),
        ("disk", kept(1, Some(1))),
        ("again", TrainSettings { gradient_checkpointing: true, ..six_steps() }),
    ] {
        let with = trained(&bench, name, side(), how);
        assert_eq!(with.entries().expect("a log"), plain.entries().expect("a log"), "{name}");
        assert!(adapter_of(&with) == adapter_of(&plain), "{name}");
    }
}

#[test]
fn of_a_head_alone_the_state_that_it_reads_is_kept() {
    let Bench { model, data, .. } = Bench::new();
    let batch = data.train.batch(&[0, 1, 2, 3], 0, model.base().device()).expect("a batch");
    let kept = |layer| model.layer_input(layer, &batch.input, &()).expect("states").into_texts();
    let (inner, last) = (kept(1), kept(2));
    assert_eq!(inner.iter().map(|text| text.row.len()).sum::<usize>(), batch.tokens);
    for text in last {
        assert_eq!((text.row.len(), text.values.len()), (1, model.config().hidden_size));
    }
}

#[test]
fn a_run_that_is_stopped_with_kept_states_goes_on_to_the_same_adapter() {
    let bench = Bench::new();
    let whole = trained(&bench, "whole", upper(), kept(1, None));
    let train = |run: &RunDirectory, resume, observer: StopAfter| {
        bench.train(upper(), resume, kept(1, None), run, resume, observer)
    };
    for after in [1, 2, 5] {
        let run = RunDirectory::new(bench.path(&format!("after-{after}")));
        let error = train(&run, false, StopAfter(after)).expect_err("stopped");
        assert!(matches!(error, Error::Stopped { .. }), "{error}");
        train(&run, true, StopAfter(usize::MAX)).expect("resumed");
        assert!(adapter_of(&run) == adapter_of(&whole), "stopped after {after}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let refused = |method: LoraConfig, how: TrainSettings| {
        let run = RunDirectory::new(bench.path("run"));
        let error = bench.train(method, false, how, &run, false, ()).expect_err("refused");
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        assert!(!run.path().exists(), "{error}");
        error.to_string()
    };
    let error = refused(LoraConfig::default(), kept(1, None));
    assert!(error.starts_with("cache_frozen = 1: the first layer"), "{error}");
    let error = refused(upper(), kept(0, None));
    assert!(error.starts_with("cache_frozen = 0: must be at least 1"), "{error}");
    let disk = TrainSettings { cache_frozen_disk: Some(1), ..settings(1) };
    let error = refused(upper(), disk);
    assert!(error.starts_with("cache_frozen_disk = 1: needs cache_frozen"), "{error}");
}

/// Nothing but the run's own files is ever in its directory.
#[test]
fn states_on_disk_leave_no_file() {
    struct Looks(RunDirectory);
    impl Observer for Looks {
        fn entry(&mut self, _: &peft_train::Entry) {
            let names = std::fs::read_dir(self.0.path()).expect("a directory").flatten();
            for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
                let known = ["metrics.jsonl", "run.lock", "checkpoint", "best"];
                assert!(known.contains(&name.as_str()), "{name}");
            }
        }
    }
    let bench = Bench::new();
    let run = RunDirectory::new(bench.path("run"));
    let looks = Looks(RunDirectory::new(run.path()));
    bench.train(upper(), false, kept(1, Some(1)), &run, false, looks).expect("trained");
}
