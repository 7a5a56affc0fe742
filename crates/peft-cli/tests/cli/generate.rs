//! Language models: trained, measured, and generating.

use serde_json::{Value, json};

use crate::workbench::{Workbench, text};

/// Which word belongs to which letter.
const WORDS: [(&str, &str); 6] =
    [("a", "ox"), ("b", "elk"), ("c", "hen"), ("d", "cow"), ("e", "ant"), ("f", "bee")];

fn table(bench: &Workbench) {
    let rows: String = WORDS.map(|(letter, word)| format!("{letter},{word}\n")).concat();
    bench.write("train.csv", format!("sign,animal\n{}", rows.repeat(6)));
    bench.write("test.csv", format!("sign,animal\n{rows}"));
}

#[test]
fn decoders_and_encoder_decoders_learn_what_to_write() {
    // The norms are trained too: with those of a random model, scores hardly differ.
    for (base, task) in [("mistral", "clm"), ("t5-left", "seq2seq")] {
        let bench = Workbench::new();
        bench.model_of_letters(base, None);
        table(&bench);
        let train = format!(
            "train --model model --task {task} --train train.csv --test test.csv --template {{sign}}= \
             --columns animal --method lora --set target_modules=all-linear --set r=8 --set alpha=16 --set modules_to_save=norm \
             --epochs 200 --batch-size 9 --lr 2e-2 --weight-decay 0 --json --out words"
        );
        let trained = bench.json(&train);
        let test = &trained["test"];
        // 61 before training; a random model of width 16 does not learn all of it.
        assert!(test["perplexity"].as_f64().unwrap() < 6.0, "{task}: {test}");
        let adapter = "--model model --adapter words/adapter";
        let evaluated = bench.json(&format!("eval {adapter} --data test.csv --json"));
        assert_eq!(evaluated["tokens"], test["tokens"], "{task}");

        let generate = format!("generate {adapter} --max-new-tokens 8 --json");
        let written = bench.json(&format!("{generate} --data test.csv"));
        let right = written["metrics"]["exact_match"].as_f64().unwrap();
        assert!(right > 0.3, "{task}: {written}");
        assert_eq!(written["texts"][1]["text"], "b=", "{task}");
        // One at a time, and in beams, it writes the same.
        let one = bench.json(&format!("{generate} --data test.csv --batch-size 1"));
        assert_eq!(one, written, "{task}");
        let beams = bench.json(&format!("{generate} --data test.csv --num-beams 3"));
        assert!(beams["metrics"]["exact_match"].as_f64().unwrap() > 0.3, "{task}: {beams}");
        let typed = bench.json(&format!("{generate} b="));
        assert_eq!(typed["texts"][0]["generated"], written["texts"][1]["generated"]);
        assert!(typed["metrics"].is_null());
        let twice = format!("{adapter} --adapter words/adapter --compose parallel");
        let both = bench.json(&format!("generate {twice} --max-new-tokens 8 --json b="));
        for written in both["adapters"].as_array().unwrap() {
            assert_eq!(
                (&written["adapter"], &written["texts"]),
                (&json!("words/adapter"), &typed["texts"])
            );
        }
        assert_eq!(both["adapters"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn adapters_side_by_side_write_what_each_writes_alone() {
    let bench = Workbench::new();
    bench.model_of_letters("mistral", None);
    table(&bench);
    // Methods that lengthen the text, and one that does not.
    for (name, method) in [
        ("a", "prefix --set num_virtual_tokens=2"),
        ("b", "lora"),
        ("c", "prompt --set num_virtual_tokens=3"),
    ] {
        let train = "train --model model --task clm --train train.csv --template {sign}= --columns \
                     animal --epochs 2 --lr 1e-1 --json";
        bench.json(&format!("{train} --method {method} --out {name}"));
    }
    let three = "--adapter a/adapter --adapter b/adapter --adapter c/adapter --compose parallel";
    let drawn = "--do-sample --temperature 2 --seed 5";
    for settings in ["", drawn, "--num-beams 2", "--stop x --stop o"] {
        let generate = format!("generate --model model --max-new-tokens 6 --json {settings}");
        let rest = "--data test.csv a= to";
        let together = bench.json(&format!("{generate} {three} --batch-size 5 {rest}"));
        let together = together["adapters"].as_array().unwrap();
        assert_eq!(together.len(), 3);
        for (found, name) in together.iter().zip(["a", "b", "c"]) {
            let adapter = format!("--adapter {name}/adapter");
            let alone = bench.json(&format!("{generate} {adapter} {rest}"));
            assert_eq!(found["adapter"], json!(format!("{name}/adapter")), "{settings}");
            assert_eq!(found["texts"], alone["texts"], "{name} {settings}");
            assert_eq!(found["metrics"], alone["metrics"], "{name} {settings}");
        }
        assert_ne!(together[0]["texts"], together[1]["texts"], "{settings}");
    }
}

#[test]
fn both_texts_of_a_pair_are_read() {
    let bench = Workbench::new();
    bench.model_of_letters("mistral", None);
    let generate = "generate --model model --max-new-tokens 6 --json";
    // Without special tokens, a pair is one text after the other.
    let alone = bench.json(&format!("{generate} ab ac a"))["texts"].clone();
    assert_ne!(alone[0]["generated"], alone[2]["generated"]);
    for (name, columns, rows) in [
        (
            "words.csv",
            "sentence1,sentence2,score",
            "score,sentence2,sentence1\nx,b,a\ny,c,a\nz,b,a\n",
        ),
        ("names.csv", "p,q,l", "p,q,l\na,b,x\na,c,y\na,b,z\n"),
        ("texts.csv", "p,q,l", "p,q\na,b\na,c\na,b\n"),
        ("places.tsv", "1,2,3", "a\tb\tx\na\tc\ty\na\tb\tz\n"),
    ] {
        bench.write(name, rows);
        let written = bench.json(&format!("{generate} --data {name} --columns {columns}"));
        let texts = written["texts"].as_array().unwrap();
        assert_eq!(texts.len(), 2, "{name}: {written}");
        for (row, (pair, alone)) in texts.iter().zip([("b", &alone[0]), ("c", &alone[1])]) {
            assert_eq!((&row["text"], &row["pair"]), (&json!("a"), &json!(pair)), "{name}");
            assert_eq!(row["generated"], alone["generated"], "{name}: {pair}");
        }
        assert_eq!(written["metrics"].is_null(), name == "texts.csv", "{name}");
    }
    // What is wrong with a row is an error, whether or not the file has references.
    bench.write("short.csv", "p,q,l\na,b,x\na,b\n");
    let error = bench.error(&format!("{generate} --data short.csv --columns p,q,l"));
    assert!(error.contains("short.csv, line 3"), "{error}");
}

#[test]
fn texts_are_drawn_stopped_and_refused() {
    let bench = Workbench::new();
    bench.model_of_letters("mistral", None);
    let generate = "generate --model model --json --max-new-tokens 6";
    let drawn = |seed: u32| {
        let more = format!("--do-sample --top-k 0 --temperature 3 --seed {seed}");
        bench.json(&format!("{generate} {more} ab"))["texts"][0]["generated"].clone()
    };
    assert_eq!(drawn(1), drawn(1));
    assert!((2..12).any(|seed| drawn(seed) != drawn(1)));
    let whole = bench.json(&format!("{generate} ab"))["texts"][0]["generated"].clone();
    let whole = whole.as_str().unwrap();
    let second = whole.chars().nth(1).unwrap();
    let stopped = bench.json(&format!("{generate} --stop {second} ab"));
    let end = whole.find(second).unwrap();
    assert_eq!(stopped["texts"][0]["generated"], whole[..end]);
    for (arguments, part) in [
        ("generate --model model", "no prompts"),
        ("generate --model model ab --do-sample --temperature 0", "temperature"),
        ("generate --model model ab --temperature nan", "temperature"),
        ("generate --model model ab --length-penalty inf", "--length-penalty"),
        ("generate --model model ab --num-beams 2 --do-sample", "do_sample"),
        ("generate --model model ab --max-new-tokens 0", "max_new_tokens"),
    ] {
        let error = bench.error(arguments);
        assert!(error.contains(part), "{arguments}: {error}");
    }
    table(&bench);
    let train = "train --model model --task clm --train train.csv --columns animal --out never";
    let error = bench.error(&format!("{train} --template {{sign}}={{colour}}"));
    assert!(error.contains("colour") && error.contains("sign"), "{error}");
    let error = bench.error(&format!("{train} --template {{sign"));
    assert!(error.contains("character 1"), "{error}");
    assert!(!bench.path("never").exists());
}

#[test]
fn a_text_that_cannot_be_continued_is_named_and_the_others_are() {
    let bench = Workbench::new();
    bench.model_of_letters("mistral", None);
    let path = bench.path("model/tokenizer.json");
    let mut tokenizer: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    // An index that no model has.
    tokenizer["model"]["vocab"]["z"] = json!(1u64 << 31);
    bench.write("model/tokenizer.json", tokenizer.to_string());
    let generate = "generate --model model --json --max-new-tokens 3";
    let alone = bench.json(&format!("{generate} ab cd"));
    for more in ["", "--num-beams 2", "--batch-size 1"] {
        let output = bench.run(&format!("{generate} ab xz cd z {more}"));
        assert_eq!(output.status.code(), Some(1), "{more}");
        let stderr = text(&output.stderr);
        for part in ["text 2 (\"xz\")", "text 4 (\"z\")", "token 2147483648"] {
            assert!(stderr.contains(part), "{more}: {stderr}");
        }
        let written: Value = serde_json::from_slice(&output.stdout).unwrap();
        let texts = written["texts"].as_array().unwrap();
        assert_eq!(texts.len(), 4);
        for failed in [&texts[1], &texts[3]] {
            assert!(failed["generated"].is_null(), "{failed}");
            assert!(failed["error"].as_str().unwrap().contains("2147483648"), "{failed}");
        }
        if more != "--num-beams 2" {
            assert_eq!(json!([texts[0], texts[2]]), alone["texts"], "{more}");
        }
    }
}

#[test]
fn a_long_prompt_leaves_room_for_new_tokens() {
    let bench = Workbench::new();
    bench.model_of_letters("gpt2-left", None);
    let generate = "generate --model model --json";
    // Of 12 positions, the last new token takes none.
    for (new, kept) in [(1, 12), (5, 8), (100, 6)] {
        let long = bench.json(&format!("{generate} --max-new-tokens {new} {}", "ab".repeat(20)));
        let begin = &"ab".repeat(20)[..kept];
        let short = bench.json(&format!("{generate} --max-new-tokens {new} {begin}"));
        let [long, short] = [long, short].map(|it| it["texts"][0]["generated"].clone());
        assert_eq!(long, short, "{new} new tokens");
    }
}
