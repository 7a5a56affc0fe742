//! What PiSSA started from is kept with the adapter.

use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use peft_core::{Base, FrozenWeight, PackedWeight, Role, TensorMap};
use peft_format::{
    ADAPTER_CONFIG, ADAPTER_START, ADAPTER_WEIGHTS, Adapter, AdapterConfig, Error, Registry,
    Result, merged_tensors, read_safetensors, unmerged_tensors, write_safetensors,
};
use peft_lora::{LoraConfig, LoraInit};
use tempfile::{TempDir, tempdir};

const SHAPE: [usize; 2] = [6, 4];
const A: &str = "base_model.model.layer.query.lora_A.weight";
const B: &str = "base_model.model.layer.query.lora_B.weight";

/// A weight of the right shape that nobody reads.
#[derive(Debug)]
struct Sealed;

impl PackedWeight for Sealed {
    fn dims(&self) -> [usize; 2] {
        SHAPE
    }
    fn num_bytes(&self) -> usize {
        0
    }
    fn device(&self) -> Device {
        Device::default()
    }
    fn dense(&self) -> Tensor<2> {
        panic!("it was read")
    }
    fn transpose(&self) -> Arc<dyn PackedWeight> {
        Arc::new(Self)
    }
    fn product(&self, _input: Tensor<2>) -> Tensor<2> {
        panic!("it was read")
    }
    fn rows(&self, _indices: Tensor<1, Int>) -> Tensor<2> {
        panic!("it was read")
    }
}

fn base(weight: impl Into<FrozenWeight>) -> Base {
    let mut base = Base::new(&Device::default());
    base.linear("layer.query", Role::Query, Some(0), weight, None);
    base
}

fn random() -> Tensor<2> {
    Tensor::random(SHAPE, Distribution::Normal(0.1, 0.5), &Device::default())
}

fn adapter(init: LoraInit, base: &Base) -> Adapter {
    let config = LoraConfig { rank: 2, alpha: 3.0, init, ..LoraConfig::default() };
    let config = AdapterConfig::new(Box::new(config));
    let mut adapter = Adapter::new(config, base, &Device::default()).expect("it fits");
    adapter.method = adapter.method.map(&mut Trained);
    adapter
}

/// Moves what is trained away from where it started.
struct Trained;

impl ModuleMapper for Trained {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.is_require_grad() {
            true => param.map(|tensor| (tensor + 0.125).detach().require_grad()),
            false => param,
        }
    }
}

fn load(directory: &Path, base: &Base) -> Result<Adapter> {
    let mut registry = Registry::new();
    registry.register::<LoraConfig>();
    let device = Device::default();
    let loaded = Adapter::load(directory, &registry, base, &device);
    // A check finds the same.
    let checked = Adapter::check(directory, &registry, base, &device);
    let checked = checked.map_err(|error| error.to_string());
    match &loaded {
        Ok(_) => assert!(checked.expect("it can be read").ok),
        Err(error) => assert_eq!(checked.expect_err("it does not fit"), error.to_string()),
    }
    loaded
}

fn saved(adapter: &Adapter, base: &Base) -> TempDir {
    let directory = tempdir().expect("a directory");
    adapter.save(directory.path(), base).expect("it is saved");
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn start_in(directory: &TempDir) -> TensorMap {
    read_safetensors(&directory.path().join(ADAPTER_START)).expect("it is whole")
}

#[test]
fn a_saved_adapter_is_loaded_with_its_start_and_no_weight_is_read() {
    let base = base(random());
    let adapter = adapter(LoraInit::Pissa, &base);
    let directory = saved(&adapter, &base);
    assert_eq!(names(directory.path()), [ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_START]);
    // The reference's file has its keys and no more.
    let weights = read_safetensors(&directory.path().join(ADAPTER_WEIGHTS)).expect("it is whole");
    assert_eq!(weights.keys().collect::<Vec<_>>(), [A, B]);
    let start = start_in(&directory);
    assert_eq!(start.keys().collect::<Vec<_>>(), [A, B]);
    assert_ne!(start, weights);

    let sealed = self::base(FrozenWeight::Packed(Arc::new(Sealed)));
    let loaded = load(directory.path(), &sealed).expect("it fits");
    assert_eq!(loaded.tensors(&sealed), weights);
    assert_eq!(loaded.start(&sealed), start);
    // Written again, and over another weight, it is the same.
    let again = saved(&loaded, &sealed);
    assert_eq!(start_in(&again), start);
    let other = self::base(random());
    assert_eq!(load(again.path(), &other).expect("it fits").start(&other), start);
}

#[test]
fn of_files_without_a_start_it_is_computed_again() {
    let base = base(random());
    let adapter = adapter(LoraInit::Pissa, &base);
    let directory = saved(&adapter, &base);
    std::fs::remove_file(directory.path().join(ADAPTER_START)).expect("it is there");
    let loaded = load(directory.path(), &base).expect("it fits");
    assert_eq!(loaded.start(&base), adapter.start(&base));
    assert_eq!(loaded.tensors(&base), adapter.tensors(&base));
}

#[test]
fn a_start_that_is_damaged_or_of_another_adapter_is_an_error_that_names_its_file() {
    let base = base(random());
    let directory = saved(&adapter(LoraInit::Pissa, &base), &base);
    let path = directory.path().join(ADAPTER_START);
    let fails = |what: &str| match load(directory.path(), &base).expect_err(what) {
        Error::File { path: named, reason } if named == path => reason,
        Error::Keys { path: named, problems } if named == path => problems,
        other => panic!("{what}: {other}"),
    };
    let bytes = std::fs::read(&path).expect("it is there");
    for end in [0, 7, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..end]).expect("written");
        assert!(fails("cut off").contains("not a whole safetensors file"), "{end}");
    }
    std::fs::write(&path, &bytes).expect("written");
    let start = start_in(&directory);
    let with = |change: &dyn Fn(&mut TensorMap)| {
        let mut changed = start.clone();
        change(&mut changed);
        write_safetensors(&path, &changed).expect("written");
        fails("it does not fit")
    };
    let zeros = |shape: [usize; 2]| TensorData::zeros::<f32, _>(shape);
    let without = |start: &mut TensorMap| start.remove(B);
    assert_eq!(with(&|start| drop(without(start))), format!("missing {B} [4, 2]"));
    assert_eq!(
        with(&|start| drop(start.insert(A.into(), zeros([3, 6])))),
        format!("{A} has shape [3, 6], should have [2, 6]")
    );
    assert_eq!(
        with(&|start| drop(start.insert("other".into(), zeros([1, 1])))),
        "unexpected other [1, 1]"
    );
    // A method without a start has no use for one.
    adapter(LoraInit::Kaiming, &base).save(directory.path(), &base).expect("it is saved");
    write_safetensors(&path, &start).expect("written");
    assert_eq!(fails("another method"), format!("unexpected {A} [2, 6]; unexpected {B} [4, 2]"));
}

#[test]
fn an_adapter_without_a_start_leaves_none_of_another_behind() {
    let base = base(random());
    let directory = saved(&adapter(LoraInit::Pissa, &base), &base);
    adapter(LoraInit::Kaiming, &base).save(directory.path(), &base).expect("it is saved");
    assert_eq!(names(directory.path()), [ADAPTER_CONFIG, ADAPTER_WEIGHTS]);
    load(directory.path(), &base).expect("it fits");
}

#[test]
fn a_merged_adapter_is_taken_out_by_its_saved_start_and_by_no_other() {
    let weight = random();
    let base = base(weight.clone());
    let adapter = adapter(LoraInit::Pissa, &base);
    let merged = merged_tensors(&adapter, &base).expect("it merges");
    let merged = Tensor::from_data(merged["layer.query.weight"].clone(), &Device::default());
    let merged = self::base(Tensor::<2>::transpose(merged));
    let directory = saved(&adapter, &base);
    let unmerged = |directory: &Path| {
        let loaded = load(directory, &merged).expect("it fits");
        unmerged_tensors(&loaded, &merged).map(|(tensors, _)| tensors["layer.query.weight"].clone())
    };
    let found = unmerged(directory.path()).expect("its start is known");
    let found = Tensor::<2>::from_data(found, &Device::default()).transpose();
    let far: f32 = (found - weight).abs().max().into_scalar();
    assert!(far < 1e-6, "{far}");
    std::fs::remove_file(directory.path().join(ADAPTER_START)).expect("it is there");
    let error = unmerged(directory.path()).expect_err("its start is not known").to_string();
    assert!(error.contains("that it started from"), "{error}");
}
