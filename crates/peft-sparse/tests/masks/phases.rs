//! Methods that are trained in phases.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::gelu, module::linear};
use peft_conformance::{Host, HostKind};
use peft_core::{
    EmptyPass, Hooks, InitContext, LinearLayer, LossContext, Method, MethodConfig, Progress, Site,
    StepContext,
};
use peft_sparse::{DiffPruningConfig, FarConfig, HardConcrete, LotteryScore, LotteryTicketConfig};

use crate::{changes, file, places, weights};

/// A training run on a host's batch.
struct Run<'h, M> {
    host: &'h Host,
    method: M,
    optimizer: ModuleOptimizer,
    step: usize,
    total: usize,
}

impl<'h, M: Method + Module> Run<'h, M> {
    fn new<C: MethodConfig<Method = M>>(config: &C, host: &'h Host, total: usize) -> Self {
        let device = Device::default().autodiff();
        let context = InitContext::new(host.model.base(), &device).with_seed(3);
        let method = config.init(&context).expect("it fits");
        Self { host, method, optimizer: AdamWConfig::new().init(), step: 0, total }
    }

    /// A step of the optimizer, without what the method does after it.
    fn update(&mut self) -> GradientsParams {
        let loss = self.host.loss(&self.method);
        let gradients = GradientsParams::from_grads(loss.backward(), &self.method);
        self.method = self.optimizer.step(1e-2, self.method.clone(), gradients);
        self.step += 1;
        GradientsParams::new()
    }

    fn step(&mut self) {
        let gradients = self.update();
        self.after(&gradients);
    }

    fn after(&mut self, gradients: &GradientsParams) {
        let progress = Progress { step: self.step, total: self.total };
        self.method.after_step(&StepContext { progress, gradients });
    }

    fn changes(&self) -> Vec<Vec<f32>> {
        changes(&self.method.valid(), self.host.model.base())
    }
}

/// Where something changes, of each weight.
fn changed(changes: &[Vec<f32>]) -> Vec<Vec<usize>> {
    let of = |change: &Vec<f32>| {
        let places = change.iter().enumerate().filter(|(_, value)| **value != 0.0);
        places.map(|(place, _)| place).collect()
    };
    changes.iter().map(of).collect()
}

fn num(places: &[Vec<usize>]) -> usize {
    places.iter().map(Vec::len).sum()
}

/// The smallest of some values, and the largest.
fn bounds(values: impl Iterator<Item = f32>) -> [f32; 2] {
    values.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
}

#[test]
fn a_lottery_ticket_keeps_what_moved_furthest_rewinds_and_moves_that_alone() {
    for kind in HostKind::ALL {
        let host = Host::of(kind, &Device::default());
        let config = LotteryTicketConfig { keep_ratio: 0.1, ..Default::default() };
        let mut run = Run::new(&config, &host, 8);
        (0..3).for_each(|_| run.step());
        let gradients = run.update();
        let moved = run.changes();
        run.after(&gradients);
        // Rewound: the base again.
        assert_eq!(num(&changed(&run.changes())), 0);
        run.step();
        let kept = changed(&run.changes());
        let (inside, outside): (Vec<f32>, Vec<f32>) = {
            let (mut inside, mut outside) = (Vec::new(), Vec::new());
            for (moved, kept) in moved.iter().zip(&kept) {
                for (place, value) in moved.iter().enumerate() {
                    let side = if kept.contains(&place) { &mut inside } else { &mut outside };
                    side.push(value.abs());
                }
            }
            (inside, outside)
        };
        // Up to how the difference of two weights is rounded.
        let ([least, _], [_, most]) = (bounds(inside.into_iter()), bounds(outside.into_iter()));
        assert!(least >= most - 1e-6, "{kind:?}: {least} is kept, {most} is not");
        (5..8).for_each(|_| run.step());
        let end = changed(&run.changes());
        assert!(end.iter().zip(&kept).all(|(end, kept)| end.iter().all(|p| kept.contains(p))));
        let total: usize = moved.iter().map(Vec::len).sum();
        let files = places(&file(&mut run.method.clone(), host.model.base()), host.model.base());
        let count: usize = files.iter().map(|(_, places)| places.len()).sum();
        assert!(count >= num(&end) && count < total / 5, "{kind:?}: {count} of {total}");
    }
}

/// A new parameter has new moments: the first step after rewinding is as long as any first step.
#[test]
fn moments_begin_again_with_the_rewound_values() {
    let host = Host::new(&Device::default());
    let config = LotteryTicketConfig { keep_ratio: 0.3, ..Default::default() };
    let mut run = Run::new(&config, &host, 20);
    (0..11).for_each(|_| run.step());
    // AdamW's first step is the rate, whatever the gradient, unless that is hardly there.
    let steps: Vec<f32> = run.changes().concat().into_iter().filter(|step| *step != 0.0).collect();
    let whole = steps.iter().filter(|step| (step.abs() - 1e-2).abs() < 5e-4).count();
    let longest = steps.iter().fold(0.0f32, |longest, step| longest.max(step.abs()));
    assert!(longest < 1.001e-2 && whole > steps.len() * 9 / 10, "{whole} of {}", steps.len());
}

#[test]
fn rounds_of_pruning_keep_ever_fewer_of_the_largest() {
    let host = Host::new(&Device::default());
    let config = LotteryTicketConfig {
        keep_ratio: 0.04,
        rounds: 2,
        full_share: 0.8,
        score: LotteryScore::Magnitude,
        ..Default::default()
    };
    let mut run = Run::new(&config, &host, 10);
    let mut sets = Vec::new();
    for step in 1..=10 {
        run.step();
        if [3, 5, 10].contains(&step) {
            sets.push(changed(&run.changes()));
        }
    }
    let [all, first, last] = &sets[..] else { panic!("three") };
    for (larger, smaller) in [(all, first), (first, last)] {
        assert!(num(smaller) < num(larger) / 2, "{} of {}", num(smaller), num(larger));
        for (larger, smaller) in larger.iter().zip(smaller) {
            assert!(smaller.iter().all(|place| larger.contains(place)));
        }
    }
    // The largest weights, which a few steps do not change.
    let base = host.model.base();
    let sites: Vec<_> = base.linears().filter(|site| site.name() != "classifier").collect();
    let mut kept = Vec::new();
    let mut dropped = Vec::new();
    for (site, places) in sites.iter().zip(last) {
        let [_, weight] = weights(&run.method.valid(), base, site);
        let weight: Vec<f32> = weight.transpose().into_data().try_into_vec().expect("floats");
        for (place, value) in weight.into_iter().enumerate() {
            if places.contains(&place) { kept.push(value.abs()) } else { dropped.push(value.abs()) }
        }
    }
    let ([least, _], [_, most]) = (bounds(kept.into_iter()), bounds(dropped.into_iter()));
    assert!(least > most - 0.2, "{least} is kept, {most} is not");
}

#[test]
fn diff_pruning_meets_its_target_and_says_how_many_gates_are_open() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let config = DiffPruningConfig {
        keep_ratio: 0.05,
        alpha_init: 0.7,
        sparsity_pen: 0.01,
        concrete_lower: -1.2,
        concrete_upper: 1.4,
        structured: true,
        gate_share: 0.5,
        ..Default::default()
    };
    let mut run = Run::new(&config, &host, 6);
    let total: usize = run.changes().iter().map(Vec::len).sum::<usize>() - 24 * 3;
    let progress = Progress { step: 0, total: 6 };
    let none = || unreachable!("it asks for no logits");
    let again = || unreachable!("nor for a second pass");
    let context = LossContext { progress, logits: &none, again: &again };
    let penalty = run.method.loss(&context).expect("no pass").expect("there is one");
    let open = 1.0 / (1.0 + (-(0.7 - (1.2f64 / 1.4).ln())).exp());
    let expected = 0.01 * total as f64 * open * open;
    let found = f64::from(penalty.into_scalar::<f32>());
    assert!((found / expected - 1.0).abs() < 1e-5, "{found}, {expected}");

    (0..3).for_each(|_| run.step());
    let target = (total as f64 * 0.05).round() as usize;
    let kept = changed(&run.changes());
    assert_eq!(num(&kept), target);
    // From there on without gates.
    assert!(run.method.loss(&context).expect("no pass").is_none());
    (3..6).for_each(|_| run.step());
    let (end, before) = (changed(&run.changes()), run.changes());
    assert!(end.iter().zip(&kept).all(|(end, kept)| end.iter().all(|p| kept.contains(p))));
    run.method.finish();
    assert_eq!(run.changes(), before);
    let files = places(&file(&mut run.method, base), base);
    assert_eq!(files.iter().map(|(_, places)| places.len()).sum::<usize>(), target);
    assert_eq!(config_gates(&config), HardConcrete { lower: -1.2, upper: 1.4 });
}

fn config_gates(config: &DiffPruningConfig) -> HardConcrete {
    HardConcrete { lower: config.concrete_lower, upper: config.concrete_upper }
}

/// The first site of the model whose path ends so.
fn site<'h>(host: &'h Host, end: &str) -> &'h Site {
    host.model.base().linears().find(|site| site.path.ends_with(end)).expect("it is there")
}

#[test]
fn a_reconfigured_network_is_the_sum_of_its_learners_and_of_a_frozen_one() {
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let config = FarConfig { keep_ratio: 0.2, priming_share: 0.4, ..Default::default() };
    let mut run = Run::new(&config, &host, 5);
    (0..5).for_each(|_| run.step());
    let [up, down] = ["0.intermediate.dense", "0.output.dense"].map(|end| {
        let end = if end.starts_with("0.o") { "layer.0.output.dense" } else { end };
        site(&host, end)
    });
    run.method.finish();
    let tensors = file(&mut run.method.clone(), base);
    let nodes: Vec<i64> = tensors[&down.key("far_nodes")]
        .clone()
        .convert::<i64>()
        .try_into_vec()
        .expect("whole numbers");
    let m = up.d_out();
    assert_eq!(nodes.len(), 8);
    let others: Vec<i64> = (0..m as i64).filter(|node| !nodes.contains(node)).collect();

    // Only learners have changed, and all of them; the file has nothing else.
    let method = run.method.valid();
    let [[w_up, old_up], [w_down, old_down]] = [up, down].map(|site| weights(&method, base, site));
    let moved = |found: &Tensor<2>, old: &Tensor<2>, axis: usize| -> Vec<i64> {
        let size = (found.clone() - old.clone()).abs().sum_dim(axis).into_data();
        let size: Vec<f32> = size.try_into_vec().expect("floats");
        (0..m as i64).filter(|node| size[*node as usize] != 0.0).collect()
    };
    assert_eq!(moved(&w_up, &old_up, 0), nodes);
    assert_eq!(moved(&w_down, &old_down, 1), nodes);
    for (site, shape) in [(up, [8, up.d_in()]), (down, [down.d_out(), 8])] {
        assert_eq!(tensors[&site.key("far_values")].shape().to_vec(), shape);
    }

    // The two networks by themselves, with weights of their own.
    let device = base.device();
    let index = |nodes: &[i64]| {
        Tensor::<1, Int>::from_data(TensorData::new(nodes.to_vec(), [nodes.len()]), device)
    };
    let [b_up, b_down] = [up, down].map(|site| base.at(site).bias.clone().expect("it has one"));
    let x = (0..5 * up.d_in()).map(|i| ((7 * i) % 13) as f32 * 0.2 - 1.1).collect::<Vec<f32>>();
    let x = Tensor::<2>::from_data(TensorData::new(x, [5, up.d_in()]), device);
    let part = |w_up: Tensor<2>, w_down: Tensor<2>, nodes: &[i64]| {
        let bias = Some(b_up.clone().select(0, index(nodes)));
        let inner = gelu(linear(x.clone(), w_up.select(1, index(nodes)), bias));
        linear(inner, w_down.select(0, index(nodes)), None)
    };
    let learners = part(w_up, w_down, &nodes);
    let frozen = part(old_up, old_down, &others);
    let expected = learners + frozen + b_down.clone().unsqueeze();

    let parts = EmptyPass::new(device);
    let apply = |site: &Site, bias: &Tensor<1>, x: Tensor<2>| {
        let layer = LinearLayer::new(site, base.weight(site), Some(bias));
        method.linear(site, &parts.pass()).apply(&layer, x, &parts.pass())
    };
    let found = apply(down, &b_down, gelu(apply(up, &b_up, x.clone())));
    let distance = (found - expected).abs().max().into_scalar::<f32>();
    assert!(distance < 1e-4, "{distance}");
}

#[test]
fn learners_are_the_nodes_that_priming_moves_most() {
    for kind in HostKind::ALL {
        let host = Host::of(kind, &Device::default());
        let base = host.model.base();
        let mut run = Run::new(&FarConfig { keep_ratio: 0.25, ..FarConfig::default() }, &host, 4);
        let gradients = run.update();
        let primed = run.method.valid();
        run.after(&gradients);
        let tensors = file(&mut run.method.clone(), base);
        for down in base.linears().filter(|site| tensors.contains_key(&site.key("far_nodes"))) {
            let nodes = tensors[&down.key("far_nodes")].clone().convert::<i64>();
            let nodes: Vec<i64> = nodes.try_into_vec().expect("whole numbers");
            let mut scores = vec![0.0f64; down.d_in()];
            for part in base.linears().filter(|site| site.layer == down.layer) {
                if !tensors.contains_key(&part.key("far_values")) {
                    continue;
                }
                let [new, old] = weights(&primed, base, part);
                let axis = usize::from(part.path == down.path);
                let sums: Vec<f32> =
                    (new - old).abs().sum_dim(axis).into_data().try_into_vec().expect("floats");
                scores.iter_mut().zip(sums).for_each(|(score, sum)| *score += f64::from(sum));
            }
            let of = |is_learner: bool| {
                let nodes =
                    (0..scores.len()).filter(|n| nodes.contains(&(*n as i64)) == is_learner);
                bounds(nodes.map(|node| scores[node] as f32))
            };
            let ([least, _], [_, most]) = (of(true), of(false));
            assert!(least >= most - 1e-5, "{kind:?} {down}: {least} learns, {most} does not");
        }
    }
}
