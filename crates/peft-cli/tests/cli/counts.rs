//! `peft counts`.

use crate::workbench::{Workbench, text};

#[test]
fn counts_of_methods_stand_beside_those_of_papers() {
    let bench = Workbench::new();
    let all = bench.json("counts --model model --json");
    let all = all["counts"].as_array().unwrap();
    let of = |name: &str| all.iter().find(|line| line["name"] == name);
    // Two layers of width 32: queries and values at rank 8, and a head of two labels.
    let lora = of("lora").unwrap();
    let head = 2 * (32 + 1);
    assert_eq!(lora["counts"]["trainable"], 2 * 2 * 8 * (32 + 32) + head);
    assert_eq!(lora["counts"]["changed"], 2 * 2 * 32 * 32 + head);
    assert_eq!(lora["counts"]["rank"], 2 * 2 * 8 + 2);
    assert_eq!(lora["published"]["changed"], "~0.5 or ~30");
    // 256 does not divide 32.
    assert!(of("c3a").is_none());
    let table = text(&bench.run("counts --model model --method lora,prompt --set rank=4").stdout);
    assert!(table.is_empty(), "rank is no setting of prompt tuning: {table}");
    let table = text(&bench.run("counts --model model --method lora,bitfit").stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("method") && lines[0].contains("papers"), "{table}");
    assert!(lines[1].starts_with("lora ") && lines[2].starts_with("bitfit "), "{table}");
    assert!(table.contains("\nlora: differs from the papers"), "{table}");
}

#[test]
fn what_an_adapter_changed_is_measured() {
    let bench = Workbench::new();
    let train = "train --model model --train train.tsv --epochs 1 --json";
    for (method, settings) in [("lora", "--set rank=3"), ("bitfit", ""), ("prompt", "")] {
        bench.json(&format!("{train} --method {method} {settings} --out {method}"));
    }
    let three = "--adapter lora --adapter bitfit/adapter --adapter prompt";
    let found = bench.json(&format!("counts {three} --json"));
    let [lora, bitfit, prompt] = [0, 1, 2].map(|i| &found["counts"][i]);
    assert_eq!(lora["name"], "lora");
    // The head is new, and is no change of another.
    let (rank, can) = (&lora["measured"]["rank"], &lora["counts"]["rank"]);
    assert_eq!(rank, can);
    assert!(lora["measured"]["changed"].as_u64() <= lora["counts"]["changed"].as_u64());
    assert!(lora["measured"]["changed"].as_u64() > lora["counts"]["trainable"].as_u64());
    assert!(bitfit["measured"]["changed"].as_u64() <= bitfit["counts"]["trainable"].as_u64());
    assert_eq!(bitfit["measured"]["rank"], bitfit["counts"]["rank"]);
    assert!(prompt["measured"].is_null());
    // At a tolerance of one half, only what is nearly as large as the largest counts.
    let coarse = bench.json("counts --adapter lora --tolerance 0.99 --json");
    assert!(coarse["counts"][0]["measured"]["rank"].as_u64() < rank.as_u64());
    let table = text(&bench.run(&format!("counts {three}")).stdout);
    assert!(table.contains("rank, measured") && table.contains("not mergeable"), "{table}");
    let error = bench.error("counts --adapter lora --tolerance 1");
    assert!(error.contains("--tolerance must be"), "{error}");
}
