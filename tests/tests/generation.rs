//! What language models generate, against what transformers generates with them.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use peft_models::{GenerationConfig, Generator, Model};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What `tests/interop/record_generation.py` writes.
#[derive(Deserialize)]
struct Recorded {
    prompts: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    settings: Map<String, Value>,
    tokens: Vec<Vec<u32>>,
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    std::env::var_os("PEFT_FIXTURES").map_or(own, PathBuf::from)
}

#[test]
fn token_for_token_as_transformers() {
    let mut models = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(root().join("bases")).expect("the fixtures are there") {
        let directory = entry.expect("a folder").path();
        let Ok(text) = std::fs::read_to_string(directory.join("generation.json")) else { continue };
        let recorded: Recorded = serde_json::from_str(&text).expect("recorded cases");
        let (model, _) = Model::load(&directory, None, &Device::default()).expect("a base");
        let own = GenerationConfig::load(&directory, model.config()).expect("its settings");
        let prompts: Vec<&[u32]> = recorded.prompts.iter().map(Vec::as_slice).collect();
        models += 1;
        for case in recorded.cases {
            let config = own.with_fields(&case.settings).expect("known settings");
            let generator = Generator::new(&model, &(), &config).expect("a language model");
            let together = generator.generate(&prompts).expect("the prompts fit");
            let alone: Vec<Vec<u32>> = prompts
                .iter()
                .map(|prompt| generator.generate(&[prompt]).expect("it fits").remove(0))
                .collect();
            for (how, found) in [("together", together), ("alone", alone)] {
                if found != case.tokens {
                    let name = directory.file_name().unwrap_or_default().display();
                    let (settings, wanted) = (&case.settings, &case.tokens);
                    wrong.push(format!("{name} {how} {settings:?}:\n{found:?}\n{wanted:?}"));
                }
            }
        }
    }
    assert!(models >= 5, "{models} bases have recorded texts");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
