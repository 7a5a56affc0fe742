//! Small bases with random tensors.

use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Base, MethodConfig, ModuleNames, Role, Site, SiteKind, Targets};
use peft_lora::{LoraConfig, LoraInit};

pub const HIDDEN: usize = 6;
pub const INNER: usize = 10;
pub const LABELS: usize = 3;

pub fn device() -> Device {
    Device::default()
}

pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.3, 0.7), &device())
}

/// The values of a tensor, row by row.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("floats")
}

#[track_caller]
pub fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims());
    for (found, expected) in values(found).iter().zip(values(expected)) {
        let far = (found - expected).abs();
        assert!(far <= 1e-5 * (1.0 + expected.abs()), "{found} is not {expected}");
    }
}

/// A base of linear layers with these paths; the last component decides the role.
pub fn linears(paths: &[&str]) -> Base {
    let mut base = Base::new(&device());
    for path in paths {
        let role = match path.rsplit('.').next() {
            Some("query") => Role::Query,
            Some("value") => Role::Value,
            Some("classifier" | "lm_head") => Role::Head,
            _ => Role::Other,
        };
        base.linear(*path, role, None, random([HIDDEN, INNER]), Some(random([INNER])));
    }
    base
}

/// What a BERT classifier with two layers is made of.
pub fn bert() -> Base {
    let mut base = Base::new(&device());
    let linear = |base: &mut Base, path: &str, role, layer, shape: [usize; 2]| {
        base.linear(path, role, layer, random(shape), Some(random([shape[1]])));
    };
    base.embedding("bert.embeddings.word_embeddings", Role::WordEmbedding, random([11, HIDDEN]));
    let norm = |base: &mut Base, path: &str, role, layer| {
        base.norm(path, role, layer, random([HIDDEN]), Some(random([HIDDEN])));
    };
    norm(&mut base, "bert.embeddings.LayerNorm", Role::EmbeddingNorm, None);
    for layer in 0..2 {
        let path = |rest: &str| format!("bert.encoder.layer.{layer}.{rest}");
        let square = [HIDDEN, HIDDEN];
        let projections = [
            ("attention.self.query", Role::Query, square),
            ("attention.self.key", Role::Key, square),
            ("attention.self.value", Role::Value, square),
            ("attention.output.dense", Role::AttentionOutput, square),
            ("intermediate.dense", Role::FeedForwardUp, [HIDDEN, INNER]),
            ("output.dense", Role::FeedForwardDown, [INNER, HIDDEN]),
        ];
        for (rest, role, shape) in projections {
            linear(&mut base, &path(rest), role, Some(layer), shape);
        }
        let attention = path("attention.self");
        base.place(attention, SiteKind::Attention, Role::SelfAttention, Some(layer), HIDDEN);
        norm(&mut base, &path("output.LayerNorm"), Role::FeedForwardNorm, Some(layer));
    }
    linear(&mut base, "bert.pooler.dense", Role::Pooler, None, [HIDDEN, HIDDEN]);
    linear(&mut base, "classifier", Role::Head, None, [HIDDEN, LABELS]);
    base
}

/// The site at `path`.
pub fn site<'b>(base: &'b Base, path: &str) -> &'b Site {
    base.sites().find(|site| site.path == path).expect("there is such a site")
}

/// Targets given as a list of names.
pub fn names(names: &[&str]) -> Targets {
    Targets { target_modules: Some(ModuleNames::list(names.iter().copied())), ..Targets::default() }
}

/// Targets given as a string.
pub fn pattern(pattern: &str) -> Targets {
    Targets { target_modules: Some(ModuleNames::Pattern(pattern.into())), ..Targets::default() }
}

/// A LoRA that changes what it is put on from the start.
pub fn random_lora(rank: usize, alpha: f64, targets: Targets) -> LoraConfig {
    let config =
        LoraConfig { rank, alpha, targets, init: LoraInit::Random, ..LoraConfig::default() };
    config.validate().expect("it makes sense");
    config
}
