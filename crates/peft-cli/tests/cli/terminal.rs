//! What reaches a terminal, or a file in its place.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::workbench::{Workbench, text};

const TRAIN: &str = "train --model model --train train.tsv --epochs 2 --batch-size 64 --limit 64 \
                     --max-length 24 --set rank=2";

/// What a command says whose standard input is `input`.
fn fed(bench: &Workbench, arguments: &str, input: &str) -> Output {
    let mut child = bench
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

#[test]
fn control_characters_of_files_and_arguments_are_escaped() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --out run --json"));
    let task = bench.path("run/adapter/task.json");
    let content = std::fs::read_to_string(&task).unwrap();
    let labels: Value = serde_json::from_str(&content).unwrap();
    let first = labels["names"][0].as_str().expect("a label").to_string();
    let named = content.replace(&format!("\"{first}\""), "\"\\u001b]0;T\\u0007\\u009b31m\"");
    std::fs::write(&task, named).unwrap();
    bench.write("v.tsv", "text\tlabel\nx\tnone of these\n");
    bench.write("w.tsv", "text\tlabel\nx\t\u{1b}[31m\n");
    let config = bench.path("run/adapter/adapter_config.json");
    let plain = std::fs::read_to_string(&config).unwrap();
    let adapter = "--adapter run/adapter";
    let check = |arguments: &str, more: &[&str]| {
        let output = bench.command(arguments).args(more).output().expect("it starts");
        for shown in [text(&output.stdout), text(&output.stderr)] {
            let raw = shown.chars().find(|c| c.is_control() && !"\n\t".contains(*c));
            assert_eq!(raw, None, "{arguments}: {shown:?}");
        }
        output
    };
    check(&format!("predict {adapter}"), &["\u{1b}[31mred", "plain"]);
    let output = check(&format!("predict {adapter} --json"), &["\u{1b}[31mred\u{9b}"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["predictions"][0]["text"], "\u{1b}[31mred\u{9b}");
    check(&format!("eval {adapter} --data v.tsv"), &[]);
    check(&format!("eval {adapter} --data w.tsv"), &[]);
    check("eval --adapter", &["\u{1b}[31mdir", "--data", "v.tsv"]);
    check("fetch", &["\u{1b}[31mmodel"]);
    check("\u{1b}[31msubcommand", &[]);
    std::fs::write(&config, plain.replacen('{', "{\"\\u001b[31mfield\": 1,", 1)).unwrap();
    check(&format!("check {adapter} --model model"), &[]);
}

#[test]
fn no_file_in_the_working_directory_or_above_changes_what_is_written() {
    let bench = Workbench::new();
    let settings = "[autodiff.logger]\nlevel = \"full\"\nstdout = true\nfile = \"log.txt\"\n\
                    [fusion.logger]\nlevel = \"full\"\nstdout = true\nfile = \"log.txt\"\n";
    for (name, content) in [("burn.toml", settings), ("Burn.toml", "[[["), ("cubecl.toml", "[[[")] {
        bench.write(name, content);
        let output = bench.run(&format!("{TRAIN} --out {name}-run --json"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let stdout = text(&output.stdout);
        assert_eq!(stdout.lines().count(), 1, "{name}: {stdout}");
        serde_json::from_str::<Value>(&stdout).expect("JSON");
        assert!(!text(&output.stderr).contains(".toml"), "{name}: {}", text(&output.stderr));
        assert!(!bench.path("log.txt").exists(), "{name}");
        std::fs::remove_file(bench.path(name)).unwrap();
    }
}

#[test]
fn without_a_terminal_there_is_a_line_for_each_epoch_and_no_colour() {
    let bench = Workbench::new();
    let lines = |more: &str| {
        let output = bench.run(&format!("{TRAIN} {more}"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let shown = text(&output.stderr);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        let lines = shown.lines().filter(|line| line.starts_with("epoch ")).map(String::from);
        lines.collect::<Vec<_>>()
    };
    let plain = lines("--out plain");
    assert_eq!(plain.len(), 2);
    assert!(plain[0].starts_with("epoch 1 of 2: loss "), "{plain:?}");
    let judged = lines("--out judged --valid test.tsv");
    assert!(judged.len() == 2 && judged[1].contains(", accuracy "), "{judged:?}");
    assert_eq!(lines("--out json --json"), Vec::<String>::new());
    // Warnings too: this text is cut.
    let shown = text(&bench.run("predict --adapter plain - -v").stderr);
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn standard_input_stands_for_a_file_in_any_of_its_formats() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --out run --json"));
    let tsv = std::fs::read_to_string(bench.path("test.tsv")).unwrap();
    let rows: Vec<(&str, &str)> =
        tsv.lines().skip(1).map(|line| line.split_once('\t').expect("two columns")).collect();
    let jsonl: String = rows
        .iter()
        .map(|(text, label)| serde_json::json!({"text": text, "label": label}).to_string() + "\n")
        .collect();
    let csv: String = std::iter::once("text,label\n".to_string())
        .chain(rows.iter().map(|(text, label)| format!("\"{text}\",{label}\n")))
        .collect();
    let whole = bench.json("eval --adapter run --data test.tsv --json");
    for input in [&tsv, &jsonl, &csv] {
        let output = fed(&bench, "eval --adapter run --data - --json", input);
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found, whole, "{}", text(&output.stderr));
    }
    let texts: String = rows.iter().map(|(text, _)| format!("{text}\n")).collect();
    let whole = text(&bench.run("predict --adapter run --data test.tsv").stdout);
    assert_eq!(whole.lines().count(), rows.len());
    for (arguments, input) in
        [("--data -", &tsv), ("--data -", &texts), ("-", &texts), ("-", &jsonl)]
    {
        let output = fed(&bench, &format!("predict --adapter run {arguments}"), input);
        assert_eq!(text(&output.stdout), whole, "{}", text(&output.stderr));
    }
    let output = fed(&bench, "eval --adapter run --data -", "text\tlabel\nx\tother\n");
    let error = text(&output.stderr);
    assert!(error.contains("error: standard input, line 2: unknown label"), "{error}");
    let output = fed(&bench, "predict --adapter run -", "");
    assert!(text(&output.stderr).contains("standard input: no rows"), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error_of_every_command() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --out run --json"));
    bench.write("v.tsv", "text\nhello\n");
    for arguments in [
        "methods",
        "devices",
        "--help",
        "train --help",
        "--version",
        "fetch model",
        "inspect --model model",
        "check --adapter run",
        "eval --adapter run --data test.tsv",
        "predict --adapter run hello",
        &format!("{TRAIN} --out new"),
        "merge --adapter run --out merged",
        "convert --adapter run --to adapters --out converted",
    ] {
        for more in ["", " --json"] {
            if arguments.starts_with("--") && !more.is_empty() {
                continue;
            }
            let arguments =
                format!("{arguments}{more}").replace("--out ", &format!("--out o{}", more.len()));
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
            let output = bench.command(&arguments).stdout(full).output().expect("it starts");
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments}: {stderr}");
            assert!(
                stderr.contains("error: standard output: No space left"),
                "{arguments}: {stderr}"
            );
        }
    }
    // What is written to files is written as ever.
    assert!(
        bench.path("o0new/result.json").exists() && bench.path("o7merged/config.json").exists()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_text_are_used_or_named_in_an_error() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let bench = Workbench::new();
    let strange = |name: &str| OsStr::from_bytes(&[name.as_bytes(), b"-\xff"].concat()).to_owned();
    let succeeds = |arguments: &str, more: &[&OsStr]| {
        let output = bench.command(arguments).args(more).output().expect("it starts");
        assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
    };
    let out = OsStr::new("--out");
    let (run, merged, converted) = (strange("run"), strange("merged"), strange("converted"));
    succeeds(TRAIN, &[out, &run, OsStr::new("--json")]);
    succeeds(TRAIN, &[out, &run, OsStr::new("--resume")]);
    for json in ["", "--json"] {
        let adapter = [OsStr::new("--adapter"), &run];
        let to = |name: &OsStr| {
            let mut name = name.to_owned();
            name.push(json);
            name
        };
        let (merged, converted) = (to(&merged), to(&converted));
        succeeds(&format!("predict {json} hello"), &adapter);
        succeeds(&format!("eval {json} --data test.tsv"), &adapter);
        succeeds(&format!("check {json}"), &adapter);
        succeeds(&format!("merge {json}"), &[&adapter[..], &[out, &merged]].concat());
        succeeds(
            &format!("convert --to peft {json}"),
            &[&adapter[..], &[out, &converted]].concat(),
        );
    }
    let data = strange("data");
    std::fs::copy(bench.path("train.tsv"), bench.path("").join(&data)).unwrap();
    let named = [OsStr::new("--train"), &data, out, OsStr::new("new")];
    let output = bench.command("train --model model").args(named).output().expect("it starts");
    let error = text(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("not UTF-8"), "{error}");
    assert!(!bench.path("new").exists());
}

#[test]
fn a_regression_is_predicted_as_a_number_and_the_text() {
    let bench = Workbench::new();
    bench.write("scores.tsv", "text\tscore\nabc\t1.5\ncab\t-0.5\nbca\t2\nacb\t0\n");
    bench.json(
        "train --model model --train scores.tsv --columns text,score --task regress --epochs 1 \
         --max-length 24 --out run --json",
    );
    for more in ["abc", "abc --json", "--data scores.tsv", "--data scores.tsv --json"] {
        let output = bench.run(&format!("predict --adapter run {more}"));
        assert!(output.status.success(), "{more}: {}", text(&output.stderr));
        if !more.contains("json") {
            for line in text(&output.stdout).lines() {
                let (number, _) = line.split_once('\t').expect("two columns");
                number.parse::<f64>().expect("a number");
            }
        }
    }
}
