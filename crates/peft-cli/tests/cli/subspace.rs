//! `peft subspace`, and prompts in what it finds.

use crate::workbench::Workbench;

const TRAIN: &str = "train --model model --train train.tsv --test test.tsv --epochs 1 --batch-size 32 \
                     --max-length 24 --limit 64 --json --set num_virtual_tokens=4";

#[test]
fn a_prompt_is_trained_in_the_subspace_of_others() {
    let bench = Workbench::new();
    for (seed, out) in [(1, "first"), (2, "second"), (3, "third")] {
        bench.json(&format!("{TRAIN} --method prompt --seed {seed} --out {out}"));
    }
    let adapters = "first/adapter second/adapter third/adapter";
    let settings = "--intrinsic-dimension 5 --hidden 16 --steps 60 --lr 1e-2 --json";
    let found = bench.json(&format!("subspace {adapters} {settings} --out subspace"));
    let (before, after) = (found["loss_before"].as_f64().unwrap(), found["loss"].as_f64().unwrap());
    assert!(after < before / 2.0, "{before} to {after}");
    assert_eq!(
        (found["prompts"].as_u64(), found["num_virtual_tokens"].as_u64()),
        (Some(3), Some(4))
    );

    let trained = bench.json(&format!(
        "{TRAIN} --method ipt --set intrinsic_dimension=5 --set decoder=subspace --out run"
    ));
    // Beside a head of ten labels.
    assert_eq!(trained["trainable"], 5 + 32 * 10 + 10);
    let config = std::fs::read_to_string(bench.path("run/adapter/adapter_config.json")).unwrap();
    assert!(config.contains("PROMPT_TUNING"), "{config}");
    assert!(!config.contains("decoder") && !config.contains("intrinsic_dimension"), "{config}");
    // The file needs no subspace.
    std::fs::remove_dir_all(bench.path("subspace")).unwrap();
    let evaluated =
        bench.json("eval --model model --adapter run/adapter --data test.tsv --json")["loss"]
            .clone();
    let distance = evaluated.as_f64().unwrap() - trained["test"]["loss"].as_f64().unwrap();
    assert!(distance.abs() < 1e-5, "{evaluated} from its file, {} in training", trained["test"]);

    let error = bench.error(&format!("{TRAIN} --method ipt --out other"));
    assert!(error.contains("intrinsic_dimension = 250: needs a decoder"), "{error}");
    assert!(error.contains("peft subspace"), "{error}");
    let error = bench.error("subspace first/adapter --intrinsic-dimension 5 --out another");
    assert!(error.contains("there must be at least two"), "{error}");
    bench.json(
        "train --model model --train train.tsv --test test.tsv --epochs 1 --limit 8 --json --out lora",
    );
    let error = bench.error("subspace first/adapter lora/adapter --out another");
    assert!(error.contains("it is LORA, and not of prompt tuning"), "{error}");
    let error = bench.error("subspace first/adapter second/adapter --out run");
    assert!(error.contains("run"), "{error}");
}
