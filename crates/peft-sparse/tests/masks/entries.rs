//! Which entries are chosen, and what their files hold.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use peft_conformance::{Host, HostKind};
use peft_core::{
    BoxedMethod, Calibration, Exchange, Hooks, InitContext, Method, MethodConfig, ModuleNames,
    Result, Site, Stack, Targets, TensorMap, base_gradients,
};
use peft_sparse::{FarConfig, FishMaskConfig, MagnitudeMaskConfig};

use crate::{changes, file, numbers, places};

/// The entries of all linear layers of BERT but the head.
const ENTRIES: usize = 2 * (4 * 24 * 24 + 2 * 24 * 40) + 24 * 24;

fn fish(keep_ratio: f64) -> FishMaskConfig {
    FishMaskConfig { keep_ratio, ..FishMaskConfig::default() }
}

fn host() -> Host {
    Host::new(&Device::default())
}

/// The places of the `count` highest scores, by sorting all of them.
fn by_sorting(scores: Vec<(String, Vec<f32>)>, count: usize) -> Vec<(String, Vec<i64>)> {
    let of_each = scores.iter().enumerate();
    let all = of_each.flat_map(|(at, (_, s))| s.iter().enumerate().map(move |(i, s)| (*s, at, i)));
    let mut all: Vec<(f32, usize, usize)> = all.collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut places: Vec<_> = scores.into_iter().map(|(path, _)| (path, Vec::new())).collect();
    all[..count].iter().for_each(|(_, at, i)| places[*at].1.push(*i as i64));
    places.iter_mut().for_each(|(_, places)| places.sort_unstable());
    places
}

/// One example of some data as the only batch.
struct Alone<'c>(&'c dyn Calibration, usize);

impl Calibration for Alone<'_> {
    fn len(&self) -> usize {
        1
    }
    fn loss(&self, _batch: usize, hooks: &dyn Hooks) -> Result<Tensor<1>> {
        self.0.example_loss(self.1, hooks)
    }
    fn num_examples(&self) -> usize {
        1
    }
    fn example_loss(&self, _example: usize, hooks: &dyn Hooks) -> Result<Tensor<1>> {
        self.0.example_loss(self.1, hooks)
    }
}

#[test]
fn a_fish_mask_is_where_squared_gradients_of_single_examples_are_largest() {
    for kind in HostKind::ALL {
        let host = Host::of(kind, &Device::default());
        let (base, device) = (host.model.base(), Device::default());
        let calibration = host.calibration();
        let config = FishMaskConfig { num_samples: 3, ..fish(0.03) };
        let context = InitContext::new(base, &device).with_calibration(&calibration);
        let mut mask = config.init(&context).expect("it fits");
        let found = places(&file(&mut mask, base), base);

        let sites: Vec<&Site> = base.linears().map(|site| &**site).collect();
        let sites: Vec<&Site> =
            sites.into_iter().filter(|site| found.iter().any(|f| f.0 == site.path)).collect();
        let mut scores: Vec<(String, Vec<f32>)> = Vec::new();
        for site in &sites {
            scores.push((site.path.clone(), vec![0.0; site.d_in() * site.d_out()]));
        }
        for example in 0..3 {
            let alone = Alone(&calibration, example);
            let gradients = base_gradients(&alone, base, &sites, 1).expect("it fits");
            for (site, (_, scores)) in sites.iter().zip(&mut scores) {
                let squares = numbers(gradients[&site.index].clone()).into_iter().map(|g| g * g);
                scores.iter_mut().zip(squares).for_each(|(score, square)| *score += square / 3.0);
            }
        }
        let count = found.iter().map(|(_, places)| places.len()).sum();
        assert_eq!(found, by_sorting(scores, count), "{kind:?}");
        assert!(count > 100, "{kind:?}: {count}");
    }
}

#[test]
fn a_magnitude_mask_is_over_all_weights_together() {
    let (host, device) = (host(), Device::default());
    let base = host.model.base();
    for select_top in [true, false] {
        let config = MagnitudeMaskConfig { select_top, keep_ratio: 0.02, ..Default::default() };
        let mut mask = config.init(&InitContext::new(base, &device)).expect("it fits");
        let found = places(&file(&mut mask, base), base);
        let sign = if select_top { 1.0 } else { -1.0 };
        let of = |site: &Arc<Site>| {
            let weight = numbers(base.weight(site).dense());
            (site.path.clone(), weight.into_iter().map(|w| sign * w.abs()).collect())
        };
        let scores = base.linears().filter(|site| site.name() != "classifier").map(of).collect();
        let count = (ENTRIES as f64 * 0.02).round() as usize;
        assert_eq!(found, by_sorting(scores, count));
    }
}

#[test]
fn changes_of_a_stack_add_up() {
    let (host, device) = (host(), Device::default());
    let base = host.model.base();
    // Overlapping masks: the smaller one is within the larger one.
    let made = |keep_ratio: f64, scale: f32| {
        let config = MagnitudeMaskConfig { keep_ratio, ..Default::default() };
        let mut mask = config.init(&InitContext::new(base, &device)).expect("it fits");
        let mut tensors = file(&mut mask, base);
        let values = tensors.iter_mut().filter(|(key, _)| key.ends_with("values"));
        for (number, (_, data)) in values.enumerate() {
            let size = data.num_elements();
            let value = |i: usize| scale * ((3 * i + number) % 7) as f32 - 1.5;
            let values = (0..size).map(value).collect::<Vec<f32>>();
            *data = TensorData::new(values, [size]);
        }
        let mut read = Exchange::read(&mut tensors);
        mask.exchange(&mut read, base);
        assert!(read.into_problems().is_empty());
        mask
    };
    let (language, task) = (made(0.1, 0.4), made(0.02, -0.7));
    let sums = changes(&language, base).into_iter().zip(changes(&task, base));
    let members = [language, task].map(BoxedMethod::new);
    let stack = Stack::new(members.into());
    for (found, (language, task)) in changes(&stack, base).into_iter().zip(sums) {
        let expected = language.iter().zip(&task).map(|(a, b)| a + b);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}

#[test]
fn a_file_says_how_many_entries_each_weight_has() {
    let (host, device) = (host(), Device::default());
    let base = host.model.base();
    let calibration = host.calibration();
    let context = InitContext::new(base, &device);
    let config = fish(0.01);
    let seen = context.clone().with_calibration(&calibration);
    let mut mask = config.init(&seen).expect("it fits");
    let tensors = file(&mut mask, base);
    let sizes: Vec<usize> = places(&tensors, base).iter().map(|(_, places)| places.len()).collect();
    assert!(sizes.iter().any(|size| *size != sizes[0]), "{sizes:?}");
    // Two numbers for each entry.
    let numbers: usize = tensors.values().map(|data| data.num_elements()).sum();
    assert_eq!(numbers, 2 * (ENTRIES as f64 * 0.01).round() as usize);

    let mut read = config.init(&context.clone().read()).expect("it fits");
    let mut given = tensors.clone();
    let mut exchange = Exchange::read(&mut given);
    read.exchange(&mut exchange, base);
    assert!(exchange.into_problems().is_empty() && given.is_empty());
    assert_eq!(file(&mut read, base), tensors);

    let problems = |change: &dyn Fn(&mut TensorMap)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        let mut exchange = Exchange::read(&mut tensors);
        config.init(&context.clone().read()).expect("it fits").exchange(&mut exchange, base);
        exchange.into_problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let key = "base_model.model.bert.pooler.dense";
    let ints = |values: Vec<i64>| {
        let size = values.len();
        TensorData::new(values, [size])
    };
    let found = problems(&|tensors| {
        let size = tensors[&format!("{key}.sparse_values")].num_elements();
        tensors.insert(format!("{key}.sparse_indices"), ints(vec![576; size]));
    });
    assert_eq!(found, format!("{key}.sparse_indices has values that are not from 0 to 575"));
    let found = problems(&|tensors| {
        tensors.insert(format!("{key}.sparse_values"), ints(vec![1, 2, 3]));
        tensors.insert(format!("{key}.sparse_indices"), ints(vec![4, 5]));
    });
    assert_eq!(found, format!("{key}.sparse_indices has shape [2], should have [3]"));
    let found = problems(&|tensors| {
        tensors.remove(&format!("{key}.sparse_values"));
    });
    assert!(found.starts_with(&format!("missing {key}.sparse_values")), "{found}");
}

#[test]
fn shares_that_are_none_are_refused() {
    let (host, device) = (host(), Device::default());
    let context = InitContext::new(host.model.base(), &device);
    let error = |keep_ratio: f64| fish(keep_ratio).init(&context).expect_err("one").to_string();
    assert_eq!(error(0.0), "keep_ratio = 0: must be above 0, at most 1");
    let left =
        format!("keep_ratio = 0.00001: leaves nothing of the {ENTRIES} entries of the targets");
    assert_eq!(error(1e-5), left);
    let names = ModuleNames::list(["intermediate.dense"]);
    let targets = Targets { target_modules: Some(names), ..Targets::default() };
    let far = FarConfig { targets, ..FarConfig::default() };
    let error = far.init(&context).expect_err("no whole network").to_string();
    assert_eq!(
        error,
        "target_modules = bert.encoder.layer.0.intermediate.dense: must be all layers of a \
         feed-forward network, and nothing else"
    );
}
