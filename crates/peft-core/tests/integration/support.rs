//! Small bases with random tensors, and what tests ask of methods over them.

use std::cell::Cell;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use peft_core::{
    AnyConfig, Base, BoxedMethod, Change, Edit, Edits, EmptyPass, Gate, GateOn, Hooks, InitContext,
    LinearLayer, Memo, Method, MethodConfig, Mode, ModuleNames, NormEdit, OutputMap, Pass, Role,
    Rows, Site, SiteKind, Slots, Targets, change_at,
};
use peft_lora::{LoraConfig, LoraInit};

pub const HIDDEN: usize = 6;
pub const INNER: usize = 10;
pub const LABELS: usize = 3;

pub fn device() -> Device {
    Device::default()
}

thread_local! {
    /// Of each test its own, so that others do not disturb it.
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// A number from `[0, 1)`, by SplitMix64.
fn draw() -> f64 {
    let drawn = DRAWN.get() + 1;
    DRAWN.set(drawn);
    let mut z = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Values from `N(0.3, 0.7²)`.
pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let normal = || {
        let (radius, angle) = ((-2.0 * (1.0 - draw()).ln()).sqrt(), std::f64::consts::TAU * draw());
        (0.3 + 0.7 * radius * angle.cos()) as f32
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// The values of a tensor, row by row.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("floats")
}

/// A gate on what changes, of vectors of width `d`.
pub fn gate(d: usize) -> Gate {
    let (weight, bias) = (random([d, 1]), random([1]));
    Gate { weight, bias, on: GateOn::Change, name: "gate".into() }
}

#[track_caller]
pub fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    assert_within(1e-5, found, expected);
}

#[track_caller]
pub fn assert_within<const D: usize>(tolerance: f32, found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    // Small sums of large terms are no nearer than these.
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let far = (found - expected).abs();
        assert!(far <= tolerance * (1.0 + largest), "{found} is not {expected}");
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

/// What belongs to a pass.
pub struct Parts {
    pub rows: Rows,
    pub slots: Slots,
    pub memo: Memo,
}

impl Parts {
    /// A pass over texts of these lengths, packed.
    pub fn packed(lengths: &[usize]) -> Self {
        Self::over(Rows::packed(lengths, &device()))
    }

    /// A pass over these rows.
    pub fn over(rows: Rows) -> Self {
        Self { rows, slots: Slots::default(), memo: Memo::new() }
    }

    /// With the slot of each row.
    pub fn in_slots(self, slots: &[Option<usize>]) -> Self {
        Self { slots: Slots::new(slots.to_vec()), ..self }
    }

    pub fn pass(&self) -> Pass<'_> {
        let Self { rows, slots, memo } = self;
        Pass { rows, slots, mode: Mode::Infer, memo, probe: None }
    }

    /// The pass of a training step.
    pub fn training(&self, step: u64) -> Pass<'_> {
        Pass { mode: Mode::Train { seed: 7, step }, ..self.pass() }
    }
}

/// A method that says the same of a linear layer, a norm and a table each time.
#[derive(Module, Debug)]
pub struct Fixed {
    #[module(skip)]
    edits: Vec<(usize, Edits)>,
    #[module(skip)]
    norms: Vec<(usize, NormEdit)>,
}

impl Fixed {
    pub fn linear(site: &Site, edits: impl Into<Edits>) -> BoxedMethod {
        let norms = Vec::new();
        BoxedMethod::new(Self { edits: vec![(site.index, edits.into())], norms })
    }

    pub fn norm(site: &Site, edit: NormEdit) -> BoxedMethod {
        let edits = Vec::new();
        BoxedMethod::new(Self { edits, norms: vec![(site.index, edit)] })
    }
}

fn at<T: Clone + Default>(known: &[(usize, T)], site: &Site) -> T {
    known.iter().find(|(index, _)| *index == site.index).map_or_else(T::default, |(_, x)| x.clone())
}

impl Hooks for Fixed {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        at(&self.edits, site)
    }
    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        at(&self.norms, site)
    }
}

impl Method for Fixed {}

/// `2 y + 1`.
#[derive(Debug)]
pub struct Doubled;

impl OutputMap for Doubled {
    fn forward(&self, _x: &Tensor<2>, y: Tensor<2>, _pass: &Pass<'_>) -> Tensor<2> {
        y * 2.0 + 1.0
    }
    fn obstacle(&self) -> &'static str {
        "it doubles the output"
    }
}

impl Doubled {
    pub fn edit() -> Edits {
        Edits::from(Edit::Output(Arc::new(Self)))
    }
}

/// A fresh method over a base.
pub fn init(config: &dyn AnyConfig, base: &Base) -> BoxedMethod {
    config.init(&InitContext::new(base, &device())).expect("it fits")
}

/// The linear layer at a site.
pub fn layer<'b>(base: &'b Base, site: &'b Site) -> LinearLayer<'b> {
    LinearLayer::new(site, base.weight(site), base.at(site).bias.as_ref())
}

/// The weight of a layer under a method.
pub fn weight(hooks: &dyn Hooks, base: &Base, site: &Site) -> Tensor<2> {
    let edits = hooks.linear(site, &EmptyPass::new(&device()).pass());
    edits.dense(&layer(base, site)).0
}

/// What merging a method changes at a site.
pub fn change(hooks: &dyn Hooks, site: &Site) -> Change {
    change_at(hooks, site, &EmptyPass::new(&device()).pass())
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
