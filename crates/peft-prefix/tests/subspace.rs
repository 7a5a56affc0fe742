//! Intrinsic prompt tuning: a subspace between prompts, and a prompt in it.

use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use peft_conformance::{Expect, Host, conformance};
use peft_core::{Base, InitContext, Method, MethodConfig, TensorMap, num_trainable};
use peft_format::write_safetensors;
use peft_prefix::{
    FoundSubspace, PromptInit, PromptSubspace, PromptTuning, PromptTuningConfig, SUBSPACE_FILE,
    SubspaceSettings, find_subspace,
};

const HIDDEN: usize = 24;
const LENGTH: usize = 3;
const DIMENSION: usize = 4;

/// Prompts in a bent subspace of two dimensions, `[L, d]`.
fn prompts(count: usize) -> Vec<Tensor<2>> {
    let device = Device::default();
    let base = Base::new(&device);
    let random = InitContext::new(&base, &device).with_seed(11);
    let normal = Distribution::Normal(0.0, 1.0);
    let basis = random.random([2, LENGTH * HIDDEN], normal);
    let at = |_| {
        let numbers = random.random([1, 2], normal);
        (numbers.matmul(basis.clone()).tanh() * 0.8 + 0.1).reshape([LENGTH, HIDDEN])
    };
    (0..count).map(at).collect()
}

fn settings(steps: usize) -> SubspaceSettings {
    SubspaceSettings {
        intrinsic_dimension: DIMENSION,
        hidden: 16,
        steps,
        learning_rate: 1e-2,
        seed: 3,
    }
}

fn found(steps: usize) -> FoundSubspace {
    find_subspace(&prompts(9), &settings(steps), &Device::default()).expect("they are prompts")
}

fn write(directory: &Path, subspace: &PromptSubspace) {
    write_safetensors(&directory.join(SUBSPACE_FILE), &subspace.tensors()).expect("it is written");
}

/// A directory with a subspace.
fn decoder() -> String {
    static WRITTEN: std::sync::Once = std::sync::Once::new();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    WRITTEN.call_once(|| write(directory, &found(20).subspace));
    directory.display().to_string()
}

fn in_subspace() -> PromptTuningConfig {
    PromptTuningConfig {
        num_virtual_tokens: LENGTH,
        intrinsic_dimension: Some(DIMENSION),
        decoder: Some(decoder()),
        ..PromptTuningConfig::default()
    }
}

conformance!(
    ipt,
    in_subspace(),
    Expect { identity_at_init: false, trainable: Some(DIMENSION), ..Expect::default() }
);

#[test]
fn a_subspace_gives_the_prompts_back_that_it_is_found_between() {
    let FoundSubspace { subspace, losses: [begin, end] } = found(400);
    assert!(end < begin / 20.0, "from {begin} to {end}");
    let prompts = prompts(1);
    let flat = prompts[0].clone().reshape([1, LENGTH * HIDDEN]);
    let z = subspace.encode(flat.clone());
    assert_eq!(z.dims(), [1, DIMENSION]);
    let [once, twice] = [subspace.decoder.decode(z), subspace.reconstructed(flat)];
    assert_eq!(once.into_data(), twice.into_data());
    // The same seed gives the same subspace.
    let [first, second] = [(); 2].map(|()| {
        let prompts: Vec<_> =
            (1..4).map(|n| Tensor::<2>::ones([2, 3], &Device::default()) * n as f32).collect();
        find_subspace(&prompts, &settings(5), &Device::default()).expect("they are prompts").losses
    });
    assert_eq!(first, second);
}

fn method(host: &Host) -> PromptTuning {
    let device = Device::default().autodiff();
    in_subspace().init(&InitContext::new(host.model.base(), &device)).expect("it fits")
}

#[test]
fn only_the_numbers_of_the_subspace_are_trained_and_a_plain_prompt_is_left() {
    let host = Host::new(&Device::default());
    let mut ipt = method(&host);
    assert_eq!(num_trainable(&ipt), DIMENSION);
    let mut optimizer = AdamConfig::new().init();
    let before: f32 = host.loss(&ipt).into_scalar();
    for _ in 0..10 {
        let gradients = GradientsParams::from_grads(host.loss(&ipt).backward(), &ipt);
        assert_eq!(gradients.len(), 1, "one tensor gets a gradient");
        ipt = optimizer.step(0.1, ipt, gradients);
    }
    let after: f32 = host.loss(&ipt).into_scalar();
    assert!(after < before, "{before} to {after}");

    let during = host.logits(&ipt.valid());
    let prompt = ipt.prompt().into_data();
    ipt.finish();
    assert_eq!(num_trainable(&ipt), LENGTH * HIDDEN);
    ipt.prompt().into_data().assert_approx_eq::<f32>(&prompt, Tolerance::absolute(1e-7));
    let finished = host.logits(&ipt.valid());
    let distance = during.iter().zip(&finished).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance < 1e-6, "{distance:e}");

    // Its configuration for a file is that of a plain prompt.
    let plain = PromptTuningConfig { num_virtual_tokens: LENGTH, ..PromptTuningConfig::default() };
    let config = in_subspace().for_file(host.model.base()).expect("it fits");
    assert_eq!(config, plain);
}

#[test]
fn what_a_subspace_does_not_fit_is_refused_by_name() {
    let host = Host::new(&Device::default());
    let device = Device::default();
    let refused = |config: PromptTuningConfig| {
        let context = InitContext::new(host.model.base(), &device);
        config.init(&context).map(|_| ()).expect_err("it does not fit").to_string()
    };
    let without = refused(PromptTuningConfig { decoder: None, ..in_subspace() });
    assert!(without.starts_with("intrinsic_dimension = 4: needs a decoder"), "{without}");
    assert!(without.contains("peft subspace"), "{without}");
    let other = refused(PromptTuningConfig { intrinsic_dimension: Some(7), ..in_subspace() });
    assert!(other.starts_with("intrinsic_dimension = 7: the decoder "), "{other}");
    assert!(other.ends_with("is of 4 dimensions"), "{other}");
    let longer = refused(PromptTuningConfig { num_virtual_tokens: 5, ..in_subspace() });
    assert!(longer.starts_with("num_virtual_tokens = 5: the decoder "), "{longer}");
    assert!(longer.ends_with("makes prompts of 3 tokens"), "{longer}");
    let absent = refused(PromptTuningConfig { decoder: Some("absent".into()), ..in_subspace() });
    assert!(absent.starts_with("decoder = absent: cannot be read: "), "{absent}");
    let text = PromptTuningConfig {
        prompt_tuning_init: PromptInit::Text,
        prompt_tuning_init_text: Some("a b".into()),
        ..in_subspace()
    };
    assert!(refused(text).starts_with("prompt_tuning_init = \"TEXT\": must be RANDOM"));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(SUBSPACE_FILE);
    let broken = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("it is written");
        let decoder = Some(directory.path().display().to_string());
        refused(PromptTuningConfig { decoder, ..in_subspace() })
    };
    assert!(broken(b"no tensors").contains("is not a whole safetensors file of f32"));
    let mut tensors: TensorMap = found(1).subspace.tensors();
    tensors.remove("decoder.2.bias").expect("it is there");
    write_safetensors(&path, &tensors).expect("it is written");
    let bytes = std::fs::read(&path).expect("it is there");
    assert!(broken(&bytes).ends_with("missing decoder.2.bias [72]"));
    let mut tensors = found(1).subspace.tensors();
    tensors.remove("encoder.weight").expect("it is there");
    write_safetensors(&path, &tensors).expect("it is written");
    let bytes = std::fs::read(&path).expect("it is there");
    assert!(broken(&bytes).ends_with("must have an encoder.weight [4, 72], as its decoder is"));
    tensors.clear();
    write_safetensors(&path, &tensors).expect("it is written");
    let bytes = std::fs::read(&path).expect("it is there");
    assert!(broken(&bytes).contains("has no decoder.0.weight"));
}

#[test]
fn what_no_subspace_is_between_is_refused_by_name() {
    let refused = |prompts: &[Tensor<2>], settings: SubspaceSettings| {
        let found = find_subspace(prompts, &settings, &Device::default());
        found.map(|_| ()).expect_err("there is none").to_string()
    };
    let one = refused(&prompts(1), settings(1));
    assert_eq!(one, "prompts = 1: a subspace is between prompts: there must be at least two");
    let mut mixed = prompts(2);
    mixed.push(Tensor::zeros([2, HIDDEN], &Device::default()));
    let mixed = refused(&mixed, settings(1));
    assert_eq!(mixed, "prompts = [2, 24]: all must have one shape, and the first has [3, 24]");
    let none = refused(&prompts(2), SubspaceSettings { hidden: 0, ..settings(1) });
    assert_eq!(none, "hidden = 0: must be at least 1");
    let rate = refused(&prompts(2), SubspaceSettings { learning_rate: -1.0, ..settings(1) });
    assert_eq!(rate, "learning_rate = -1: must be a positive number");
}
