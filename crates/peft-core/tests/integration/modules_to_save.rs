//! Modules trained as a whole beside a method.

use burn::module::Module;
use peft_core::{
    Adapter, AdapterConfig, Base, Change, Error, Hooks, LinearLayer, Method, ModulesToSave,
    TaskType, num_trainable,
};

use crate::support::{
    HIDDEN, INNER, LABELS, bert, device, linears, names, pattern, random_lora, site, values,
};

/// The paths of what is saved under these names.
fn saved(base: &Base, modules: &[&str]) -> Vec<String> {
    let modules: Vec<String> = modules.iter().map(ToString::to_string).collect();
    let saved = ModulesToSave::new(base, &modules, &device()).expect("no embedding is meant");
    let changed = base.sites().filter(|site| saved.change(site) != Change::default());
    changed.map(|site| site.path.clone()).collect()
}

#[test]
fn a_name_selects_what_ends_with_it_and_all_inside() {
    let base = linears(&[
        "roberta.encoder.dense",
        "classifier.dense",
        "classifier.out_proj",
        "pre_classifier",
        "classifiers",
    ]);
    let head = ["classifier.dense", "classifier.out_proj", "pre_classifier"];
    assert_eq!(saved(&base, &["classifier"]), head);
    assert_eq!(saved(&base, &["classifier.dense"]), ["classifier.dense"]);
    assert_eq!(saved(&base, &["roberta.encoder", "score"]), ["roberta.encoder.dense"]);
    assert!(saved(&base, &["score"]).is_empty());
    assert!(saved(&base, &[]).is_empty());
}

#[test]
fn copies_start_from_the_base_and_count_as_full() {
    let base = bert();
    let modules = ["classifier".to_string(), "layer.1.output.LayerNorm".to_string()];
    let saved = ModulesToSave::new(&base, &modules, &device()).expect("it fits");
    assert!(!saved.is_empty());
    assert_eq!(num_trainable(&saved), HIDDEN * LABELS + LABELS + 2 * HIDDEN);
    let head = site(&base, "classifier");
    let expected = Change { weight: HIDDEN * LABELS, bias: LABELS, rank: LABELS };
    assert_eq!(saved.change(head), expected);
    let norm = site(&base, "bert.encoder.layer.1.output.LayerNorm");
    assert_eq!(saved.change(norm), Change { weight: HIDDEN, bias: HIDDEN, rank: 0 });

    let weight = base.weight(head);
    let layer = LinearLayer::new(head, weight, None);
    let copy = saved.weight(&layer).expect("a copy");
    assert!(copy.device().is_autodiff() && copy.is_require_grad());
    assert_eq!(values(copy), values(weight.dense()));
    assert!(saved.valid().weight(&layer).is_some_and(|copy| !copy.device().is_autodiff()));
}

#[test]
fn an_embedding_is_refused() {
    for name in ["word_embeddings", "bert.embeddings"] {
        match ModulesToSave::new(&bert(), &[name.to_string()], &device()) {
            Err(Error::Config { field, value, .. }) => {
                assert_eq!(field, "modules_to_save");
                assert_eq!(value, "bert.embeddings.word_embeddings");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_saved_module_is_no_target() {
    let base = bert();
    let adapter = |targets, task: Option<TaskType>| {
        let config = AdapterConfig::new(Box::new(random_lora(2, 3.0, targets)));
        let config = match task {
            Some(task) => config.with_task(task),
            None => config,
        };
        Adapter::new(config, &base, &device())
    };
    // Without a task, nothing is saved, and the head is a layer like any other.
    let free = adapter(pattern(".*(query|classifier)"), None).expect("it fits");
    let head = site(&base, "classifier");
    assert_eq!(free.method.change(head).rank, 2);
    let task = Some(TaskType::SequenceClassification);
    let saved = adapter(pattern(".*(query|classifier)"), task).expect("it fits");
    assert_eq!(saved.method.change(head).rank, LABELS);
    let keys: Vec<String> = saved.specs(&base).into_iter().map(|spec| spec.key).collect();
    assert!(keys.contains(&"base_model.model.classifier.weight".to_string()));
    assert!(!keys.iter().any(|key| key.contains("classifier.lora_A")), "{keys:?}");
    let only = adapter(names(&["classifier"]), task);
    assert!(matches!(only, Err(Error::NoMatch { .. })), "{only:?}");
}

#[test]
fn the_copies_are_laid_out_as_the_checkpoint_is() {
    let base = bert();
    let saved = ModulesToSave::new(&base, &["intermediate.dense".into()], &device());
    let mut tensors = peft_core::TensorMap::new();
    saved.expect("it fits").exchange(&mut peft_core::Exchange::write(&mut tensors), &base);
    let path = "bert.encoder.layer.0.intermediate.dense";
    let stored = &tensors[&format!("base_model.model.{path}.weight")];
    assert_eq!(stored.shape().to_vec(), [INNER, HIDDEN]);
    let expected = base.weight(site(&base, path)).dense().transpose().into_data();
    assert_eq!(*stored, expected);
}
