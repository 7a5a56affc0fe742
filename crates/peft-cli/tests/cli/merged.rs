//! What merging and converting write beside tensors.

use serde_json::{Value, json};

use crate::workbench::{Workbench, text};

const TRAIN: &str = "train --model model --train train.tsv --epochs 1 --limit 32 --max-length 24 \
                     --set rank=2 --json";

/// What belongs to every model that is made from one.
const KEPT: [&str; 7] = [
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "LICENSE",
];

#[test]
fn what_belongs_to_a_model_is_kept_and_no_other_weights() {
    let bench = Workbench::new();
    for name in KEPT.iter().filter(|name| **name != "vocab.txt") {
        bench.write(&format!("model/{name}"), "{}");
    }
    for name in ["pytorch_model.bin", "notes.md", "optimizer.pt"] {
        bench.write(&format!("model/{name}"), "other");
    }
    bench.json(&format!("{TRAIN} --out run"));
    bench.json("merge --adapter run --out merged --json");
    bench.json("unmerge --model merged --adapter run --out unmerged --json");
    for out in ["merged", "unmerged"] {
        for name in KEPT {
            let read = |of: &str| std::fs::read(bench.path(of).join(name)).ok();
            assert_eq!(read(out), read("model"), "{out}/{name}");
        }
        for name in ["pytorch_model.bin", "notes.md", "optimizer.pt"] {
            assert!(!bench.path(out).join(name).exists(), "{out}/{name}");
        }
    }
    // An adapter may carry them too.
    bench.write("run/adapter/chat_template.jinja", "{{ messages }}");
    for to in ["peft", "adapters"] {
        bench.json(&format!("convert --adapter run --to {to} --out {to} --json"));
        assert!(bench.path(to).join("chat_template.jinja").exists(), "{to}");
    }
}

#[test]
fn a_merged_configuration_says_the_type_that_the_tensors_have() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --out run"));
    let path = bench.path("model/config.json");
    let plain: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let said = [
        json!({"torch_dtype": "float16"}),
        json!({"dtype": "float16"}),
        json!({"dtype": "float16", "torch_dtype": "float16"}),
        json!({}),
    ];
    for (number, said) in said.iter().enumerate() {
        let mut config = plain.clone();
        let fields = config.as_object_mut().unwrap();
        fields.retain(|field, _| !field.contains("dtype"));
        fields.extend(said.as_object().unwrap().clone());
        std::fs::write(&path, config.to_string()).unwrap();
        for (flag, name, stored) in [
            ("", "float32", "F32"),
            ("--dtype f32", "float32", "F32"),
            ("--dtype f16", "float16", "F16"),
            ("--dtype bf16", "bfloat16", "BF16"),
        ] {
            let out = format!("merged{number}{}", flag.replace("--dtype ", "-"));
            bench.json(&format!("merge --adapter run {flag} --out {out} --json"));
            let config = std::fs::read(bench.path(&out).join("config.json")).unwrap();
            let config: Value = serde_json::from_slice(&config).unwrap();
            let says = ["dtype", "torch_dtype"].map(|field| config.get(field).cloned());
            let says: Vec<Value> = says.into_iter().flatten().collect();
            assert_eq!(says, [json!(name)], "{said} {flag}");
            let weights = std::fs::read(bench.path(&out).join("model.safetensors")).unwrap();
            let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
            let header: Value = serde_json::from_slice(&weights[8..8 + length]).unwrap();
            let tensors =
                header.as_object().unwrap().iter().filter(|(key, _)| *key != "__metadata__");
            let types = tensors.filter_map(|(_, tensor)| tensor["dtype"].as_str());
            assert!(types.clone().all(|found| found == stored || found == "I64"), "{flag}");
            assert!(types.clone().any(|found| found == stored), "{flag}");
            let predicted = bench.run(&format!("predict --model {out} hello"));
            assert!(predicted.status.success(), "{}", text(&predicted.stderr));
        }
    }
}

#[test]
fn a_conversion_that_fails_leaves_nothing_and_one_that_was_cut_off_is_no_adapter() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --method bitfit --out run").replace(" --set rank=2", ""));
    for there in [false, true] {
        if there {
            std::fs::create_dir(bench.path("out")).unwrap();
        }
        let error = bench.error("convert --adapter run --to adapters --out out");
        assert!(!error.contains("not empty"), "{error}");
        assert_eq!(bench.path("out").exists(), there);
    }
    // What a killed command had not named yet is in nobody's way.
    bench.write("out/.writing-abc", "half");
    bench.json("convert --adapter run --to peft --out out --json");
    assert!(!bench.path("out/.writing-abc").exists());
    // The configuration, without which it is none, is the youngest file.
    let written = |name: &str| {
        let path = bench.path("out").join(name);
        std::fs::metadata(path).unwrap().modified().unwrap()
    };
    for name in ["task.json", "adapter_model.safetensors"] {
        assert!(written(name) <= written("adapter_config.json"), "{name}");
    }
}

#[test]
fn a_file_of_a_model_that_is_there_and_cannot_be_read_is_an_error_that_names_it() {
    let bench = Workbench::new();
    bench.json(&format!("{TRAIN} --out run"));
    for (content, shown) in [
        (&b"{\"do_lower_case\": \"false\"}"[..], "do_lower_case = \"false\""),
        (b"{\"strip_accents\": 1}", "strip_accents = 1"),
        (b"{\"do_lower_case\": \xff}", "UTF-8"),
        (b"{", "EOF"),
    ] {
        bench.write("model/tokenizer_config.json", content);
        let error = bench.error("predict --adapter run hello");
        let named = error.contains("model/tokenizer_config.json");
        assert!(named && error.contains(shown), "{error}");
    }
    std::fs::remove_file(bench.path("model/tokenizer_config.json")).unwrap();
    // A directory of this name cannot be read, whoever runs this.
    std::fs::create_dir(bench.path("model/tokenizer_config.json")).unwrap();
    let error = bench.error("predict --adapter run hello");
    assert!(error.contains("model/tokenizer_config.json"), "{error}");
}

#[test]
fn a_model_is_fetched_as_a_whole_or_not_at_all() {
    let bench = Workbench::new();
    let fetched = bench.run("fetch model");
    assert_eq!(text(&fetched.stdout), "model\n");
    std::fs::remove_file(bench.path("model/model.safetensors")).unwrap();
    let error = bench.error("fetch model");
    assert!(error.contains("no checkpoint"), "{error}");
    let index = json!({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}});
    bench.write("model/model.safetensors.index.json", index.to_string());
    bench.write("model/one.safetensors", "");
    let error = bench.error("fetch model");
    assert!(error.contains("not there: two.safetensors"), "{error}");
    std::fs::create_dir(bench.path("nothing")).unwrap();
    let error = bench.error("fetch nothing");
    assert!(error.contains("no config.json"), "{error}");
}
