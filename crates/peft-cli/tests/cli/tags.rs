//! Labels for words.

use crate::workbench::Workbench;

/// Sentences in which names, which begin with `z`, are entities of one or two words.
fn sentences(bench: &Workbench, name: &str, from: usize) {
    let words = ["we", "saw", "the", "sea", "and", "rain", "over", "hills"];
    let mut text = String::new();
    for number in from..from + 60 {
        for place in 0..4 + number % 5 {
            let word = words[(number * 3 + place * 5) % words.len()];
            text += &format!("{word}\tO\n");
            if (number + place) % 3 == 0 {
                text += "zo\tB-PER\n";
                if number % 2 == 0 {
                    text += "za\tI-PER\n";
                }
            }
        }
        text += "\n";
    }
    bench.write(name, text);
}

#[test]
fn words_are_tagged_measured_and_predicted() {
    let bench = Workbench::new();
    sentences(&bench, "train.conll", 0);
    sentences(&bench, "test.conll", 1000);
    let train = "train --model model --task tag --train train.conll --test test.conll --epochs 40 \
                 --batch-size 8 --lr 1e-2 --seed 1 --method lora --set target_modules=all-linear --json";
    let trained = bench.json(&format!("{train} --out tagger"));
    assert_eq!(trained["trainable"].as_u64().unwrap() % 2, 1, "three labels: {trained}");
    let test = &trained["test"];
    assert!(test["f1"].as_f64().unwrap() > 0.9, "{test}");
    assert!(test["accuracy"].as_f64().unwrap() > 0.9, "{test}");
    let evaluated =
        bench.json("eval --model model --adapter tagger/adapter --data test.conll --json");
    assert_eq!(evaluated["f1"], test["f1"]);
    assert_eq!(evaluated["words"], test["words"]);

    let both = "predict --model model --adapter tagger/adapter";
    let found = bench.json(&format!("{both} --data test.conll --json"));
    let rows = found["predictions"].as_array().unwrap();
    let wanted = std::fs::read_to_string(bench.path("test.conll")).unwrap();
    let words: usize = rows.iter().map(|row| row["words"].as_array().unwrap().len()).sum();
    assert_eq!((rows.len(), words), (60, wanted.lines().filter(|l| !l.is_empty()).count()));
    // Objects with lists of words and tags are other files of the same.
    let lines = rows.iter().map(|row| {
        let tags = row["tags"].as_array().unwrap();
        assert_eq!(tags.len(), row["words"].as_array().unwrap().len());
        format!("{row}\n")
    });
    bench.write("found.jsonl", lines.collect::<String>());
    let own = bench.json("eval --model model --adapter tagger/adapter --data found.jsonl --json");
    assert_eq!((own["f1"].as_f64(), &own["words"]), (Some(1.0), &test["words"]));
    // The printed form is that of the files, and counts the same.
    let printed = bench.run(&format!("{both} --data test.conll"));
    bench.write("found.conll", &printed.stdout);
    let own = bench.json("eval --model model --adapter tagger/adapter --data found.conll --json");
    assert_eq!(own["f1"], 1.0);
}

#[test]
fn long_sentences_are_cut_and_counted() {
    let bench = Workbench::new();
    sentences(&bench, "train.conll", 0);
    let train = "train --model model --task tag --train train.conll --test train.conll --epochs 1 \
                 --max-length 8 --json";
    let output = bench.run(&format!("{train} --out short"));
    let stderr = crate::workbench::text(&output.stderr);
    assert!(output.status.success() && stderr.contains("were cut to max_length"), "{stderr}");
    let found =
        bench.json("predict --model model --adapter short/adapter --json --data train.conll");
    let tags = found["predictions"][4]["tags"].as_array().unwrap();
    assert!(tags[0].is_string() && tags.last().unwrap().is_null(), "{tags:?}");
    bench.write("other.conll", "we\tO\nzo\tB-LOC\n");
    let error = bench.error("eval --model model --adapter short/adapter --data other.conll");
    assert!(error.contains("other.conll") && error.contains("B-LOC"), "{error}");
}
