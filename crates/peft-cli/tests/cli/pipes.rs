//! Output that nobody reads.

use std::process::Stdio;

use crate::workbench::{Workbench, text};

const TRAIN: &str = "train --model model --train train.tsv --epochs 1 --batch-size 64 --limit 64";

/// The writing end of a pipe whose reading end is closed: whoever writes finds nobody there.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_command_whose_output_is_not_read_ends_as_if_it_were() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --set rank=2 --out run --json"));
    bench.json(&format!("{TRAIN} --method unipelt --max-length 24 --out gates --json"));
    bench.write("texts.tsv", "text\nmy card was charged twice\n");
    let adapter = "--model model --adapter run/adapter";
    for arguments in [
        "methods",
        "devices",
        "fetch model",
        "inspect --model model",
        &format!("check {adapter}"),
        &format!("eval {adapter} --data test.tsv"),
        &format!("predict {adapter} --data texts.tsv"),
        &format!("{TRAIN} --set rank=2 --out new"),
        &format!("merge {adapter} --out merged"),
        &format!("convert {adapter} --to adapters --out converted"),
        "observe --model model --adapter gates/adapter --data test.tsv",
    ] {
        for (out, json) in [("", ""), ("-json", " --json")] {
            let arguments = arguments.replace("--out ", &format!("--out out{out}/")) + json;
            let output = bench.command(&arguments).stdout(closed()).output().expect("it starts");
            let stderr = text(&output.stderr);
            assert!(output.status.success(), "{arguments}: {stderr}");
            assert!(!stderr.contains("panicked"), "{arguments}: {stderr}");
        }
    }
    // What is written to files is written as ever.
    for file in ["out/new/result.json", "out-json/merged/model.safetensors"] {
        assert!(bench.path(file).exists(), "{file} is missing");
    }
}

#[test]
fn errors_that_nobody_reads_are_still_errors() {
    let bench = Workbench::new();
    for arguments in ["fetch nonsense", "eval --model model --data nowhere.tsv"] {
        let status = bench.command(arguments).stderr(closed()).stdout(closed()).status();
        assert_eq!(status.expect("it starts").code(), Some(1), "{arguments}");
    }
    // A note, and warnings: texts are cut.
    let train = format!("{TRAIN} --max-length 8 --set rank=2 --out run");
    let output = bench.command(&train).stderr(closed()).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("adapter: run/adapter"));
}
