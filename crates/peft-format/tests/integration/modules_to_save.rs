//! Modules trained as a whole beside a method.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use peft_core::{
    AdaptersModel, Base, Change, EmptyPass, Hooks, Method, ModulesToSave, TableEdit, TokenIndices,
    num_trainable,
};
use peft_format::{Adapter, AdapterConfig, Composition, Error, Registry, TaskType};
use peft_lora::LoraConfig;

use crate::support::{
    HIDDEN, INNER, LABELS, bert, change, device, linears, names, pattern, random_lora, site,
    values, weight,
};

/// The paths of what is saved under these names.
fn saved(base: &Base, modules: &[&str]) -> Vec<String> {
    let modules: Vec<String> = modules.iter().map(ToString::to_string).collect();
    let saved = ModulesToSave::new(base, &modules, &device()).expect("no embedding is meant");
    let changed = base.sites().filter(|site| change(&saved, site) != Change::default());
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
    assert_eq!(change(&saved, head), expected);
    let norm = site(&base, "bert.encoder.layer.1.output.LayerNorm");
    assert_eq!(change(&saved, norm), Change { weight: HIDDEN, bias: HIDDEN, rank: 0 });

    let copy = weight(&saved, &base, head);
    assert!(copy.device().is_autodiff() && copy.is_require_grad());
    assert_eq!(values(copy), values(base.weight(head).dense()));
    assert!(!weight(&saved.valid(), &base, head).device().is_autodiff());
}

#[test]
fn an_embedding_is_saved_whole_or_by_rows() {
    let base = bert();
    let words = site(&base, "bert.embeddings.word_embeddings");
    let [entries, d] = words.shape;
    let table = base.weight(words);
    let under = |saved: &ModulesToSave| {
        let edit = saved.table(words, &EmptyPass::new(&device()).pass());
        edit.dense(table.dense())
    };
    let whole = ModulesToSave::new(&base, &["word_embeddings".into()], &device()).expect("it fits");
    assert!(whole.has_embeddings());
    assert_eq!(num_trainable(&whole), entries * d);
    assert_eq!(
        change(&whole, words),
        Change { weight: entries * d, bias: 0, rank: d.min(entries) }
    );
    let copy = under(&whole);
    assert!(copy.device().is_autodiff() && copy.is_require_grad());

    let none = || ModulesToSave::new(&base, &[], &device()).expect("nothing is asked for");
    let indices = TokenIndices::Words(vec![entries - 1, 2]);
    let mut rows = none().with_tokens(&base, &indices, &device()).expect("it fits");
    assert!(rows.has_embeddings());
    assert_eq!(num_trainable(&rows), 2 * d);
    assert_eq!(change(&rows, words), Change { weight: 2 * d, bias: 0, rank: 2 });
    assert_eq!(values(under(&rows)), values(table.dense()));
    // What a file holds takes the place of the rows, in the order of the indices.
    let key =
        "base_model.model.bert.embeddings.word_embeddings.token_adapter.trainable_tokens_delta";
    let read: Vec<f32> = (0..2 * d).map(|i| i as f32 / 3.0).collect();
    let mut file = peft_core::TensorMap::new();
    file.insert(key.into(), TensorData::new(read.clone(), [2, d]));
    let mut exchange = peft_core::Exchange::read(&mut file);
    rows.exchange(&mut exchange, &base);
    assert!(exchange.into_problems().is_empty());
    let mut expected = values(table.dense());
    expected[(entries - 1) * d..].copy_from_slice(&read[..d]);
    expected[2 * d..3 * d].copy_from_slice(&read[d..]);
    let under = under(&rows);
    assert_eq!(values(under.clone()), expected);
    // Each row's gradient is its own row's.
    let weights = Tensor::<1, Int>::arange(0..entries as i64, &device()).float().unsqueeze_dim(1);
    let gradients = (under * weights).sum().backward();
    struct Find(GradientsParams, Vec<f32>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1 = values(self.0.get::<D>(param.id).expect("rows are trained"));
        }
    }
    let mut find = Find(GradientsParams::from_grads(gradients, &rows), Vec::new());
    rows.visit(&mut find);
    assert_eq!(find.1.len(), 2 * d);
    assert!(find.1[..d].iter().all(|g| *g == (entries - 1) as f32));
    assert!(find.1[d..].iter().all(|g| *g == 2.0));
}

#[test]
fn rows_that_are_not_there_or_twice_are_refused() {
    let base = bert();
    let words = "bert.embeddings.word_embeddings".to_string();
    let entries = site(&base, &words).shape[0];
    let refused = |names: &[String], tokens: &TokenIndices| {
        let saved = ModulesToSave::new(&base, names, &device()).expect("it fits");
        saved.with_tokens(&base, tokens, &device()).expect_err("must be refused").to_string()
    };
    let error = refused(&[], &TokenIndices::Words(vec![1, entries]));
    assert!(error.contains(&format!("trainable_token_indices = {entries}")), "{error}");
    let error = refused(&[], &TokenIndices::Words(vec![1, 2, 1]));
    assert!(error.contains("= 1: is there twice"), "{error}");
    let error = refused(&[words], &TokenIndices::Words(vec![1]));
    assert!(error.contains("modules_to_save"), "{error}");
    let modules = [("shared".to_string(), vec![1])].into();
    let error = refused(&[], &TokenIndices::Modules(modules));
    assert!(error.contains("word_embeddings"), "{error}");
}

#[test]
fn a_saved_module_is_no_target() {
    let base = bert();
    let adapter = |targets, task: Option<TaskType>| {
        let config = AdapterConfig::new(Box::new(random_lora(2, 3.0, targets)));
        let config = match task {
            Some(task) => config.with_task(task, &base),
            None => config,
        };
        Adapter::new(config, &base, &device())
    };
    // Without a task, nothing is saved, and the head is a layer like any other.
    let free = adapter(pattern(".*(query|classifier)"), None).expect("it fits");
    let head = site(&base, "classifier");
    assert_eq!(change(&free.method, head).rank, 2);
    let task = Some(TaskType::SequenceClassification);
    let saved = adapter(pattern(".*(query|classifier)"), task).expect("it fits");
    assert_eq!(change(&saved.method, head).rank, LABELS);
    let keys: Vec<String> = saved.specs(&base).into_iter().map(|spec| spec.key).collect();
    assert!(keys.contains(&"base_model.model.classifier.weight".to_string()));
    assert!(!keys.iter().any(|key| key.contains("classifier.lora_A")), "{keys:?}");
    // A list may name it beside others, as one that was written for `all-linear` does.
    let listed = adapter(names(&["query", "classifier"]), task).expect("it means something");
    assert_eq!(change(&listed.method, head).rank, LABELS);
    assert!(adapter(names(&["query", "clasifier"]), task).is_err(), "it means nothing");
    let only = adapter(names(&["classifier"]), task);
    assert!(matches!(only, Err(Error::Core(peft_core::Error::NoMatch { .. }))), "{only:?}");
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

#[test]
fn rows_go_with_the_adapter_and_with_no_other() {
    let base = bert();
    let words = site(&base, "bert.embeddings.word_embeddings");
    let mut config = AdapterConfig::new(Box::new(random_lora(2, 3.0, names(&["query"]))));
    config.trainable_token_indices = TokenIndices::Words(vec![4, 1]);
    let adapter = Adapter::new(config, &base, &device()).expect("it fits");
    let directory = tempfile::tempdir().expect("a directory");
    adapter.save(directory.path(), &base).expect("written");
    let mut registry = Registry::new();
    registry.register::<LoraConfig>();
    let read = Adapter::load(directory.path(), &registry, &base, &device()).expect("it is whole");
    assert_eq!(read.config.trainable_token_indices, adapter.config.trainable_token_indices);
    assert_eq!(read.tensors(&base), adapter.tensors(&base));
    assert_eq!(change(&read.method, words).weight, 2 * words.d_out());
    // Under another adapter's head, the rows are the base's.
    let method = Adapter::load_method(directory.path(), &registry, &base, &device());
    let method = method.expect("the rows are passed over");
    assert_eq!(change(&method.method, words), Change::default());

    // Side by side, each has its own.
    let pool = Composition::Parallel.of(vec![method.clone(), read.clone()], None, &base);
    let pool = pool.expect("each has its own rows").method;
    let parts = EmptyPass::new(&device());
    let TableEdit::Routed(_, tables) = pool.table(words, &parts.pass()) else { panic!("by slot") };
    assert!(tables[0].is_keep() && matches!(tables[1], TableEdit::Rows(_)), "{tables:?}");
    let model = AdaptersModel {
        model_class: "BertForSequenceClassification".into(),
        model_name: "bert".into(),
        model_type: "bert".into(),
        hidden_size: HIDDEN,
    };
    let refused = read.save_as_adapters(&directory.path().join("adapters"), "a", &model, &base);
    let error = refused.expect_err("it has no rows").to_string();
    assert!(error.contains("embeddings trained beside"), "{error}");
}
