//! Gradients beside finite differences.

use burn::module::Module;
use burn::tensor::Tensor;
use peft_core::{Base, Edit, Edits, EmptyPass, Hooks, Memo, MemoKey, SiteKind, Stack, TableEdit};
use peft_models::Forward;

use super::agreement::random;
use crate::numbers::{Normal, values};
use crate::parameters::{Parameter, gradients, shifted};
use crate::{Host, Subject};

/// The gradient of a sum of the model's outputs with respect to each trained parameter is, in a
/// random direction, how much that sum changes. What a method says that it holds constant in the
/// backward pass is held constant here too.
///
/// # Panics
/// If it is not.
pub fn an_edits_gradient_matches_finite_differences(subject: &Subject) {
    if !subject.expect.exact_gradient {
        return;
    }
    let host = &subject.host;
    let method = subject.in_training(1).method;
    let sum = Sum::new(host);
    let gradients = gradients(&method, &sum.tensor(host.outputs(Forward::infer(&method))));
    let method = method.valid();
    let constant = Constants::of(&method, host);
    let value = |method: &Stack| {
        let memo = constant.memo();
        sum.value(host.outputs(Forward::infer(method).with_memo(&memo)))
    };
    for (number, Parameter { path, values, .. }) in gradients.iter().enumerate() {
        let directions = (0..4).map(|seed| {
            let direction = Normal::new(4 * number as u64 + seed).take(values.len());
            let terms = values.iter().zip(&direction);
            let along: f64 = terms.map(|(g, v)| f64::from(*g) * f64::from(*v)).sum();
            (along, direction)
        });
        // Those first in which the sum changes most.
        let mut directions: Vec<(f64, Vec<f32>)> = directions.collect();
        directions.sort_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
        let differ = |(along, direction): &(f64, Vec<f32>)| {
            let at = |shift| value(&shifted(method.clone(), path, direction, shift));
            differs(at, *along).map(|differences| format!("{along:e}, and {differences:?}"))
        };
        // Kinks on both sides of where the model is may be in one direction, and not in all.
        let found: Option<Vec<String>> = directions.iter().map(differ).collect();
        let found = found.unwrap_or_default();
        assert!(found.is_empty(), "the gradient of {path} along directions: {}", found.join("; "));
    }
}

/// The derivatives of a function at 0 that differences give, if none of them is `derivative`: across
/// 0, and on both sides of it, one of which a kink leaves alone. Steps get shorter where the function
/// bends, as long as rounding lets them tell something about a derivative of this size.
fn differs(at: impl Fn(f64) -> f64, derivative: f64) -> Option<[Difference; 3]> {
    let mut step = LONGEST.min(CHANGE / derivative.abs());
    let begin = at(0.0);
    loop {
        let [above, below] =
            [1.0, -1.0].map(|side| [1.0, 2.0].map(|times| at(side * times * step)));
        let slopes = |[near, far]: [f64; 2]| [(near - begin) / step, (far - begin) / (2.0 * step)];
        let (right, left) = (slopes(above), slopes(below).map(|slope| -slope));
        let across = [0, 1].map(|at| (right[at] + left[at]) / 2.0);
        let rounding = ROUNDING / step;
        let found = [
            Difference::extrapolated(across, 4.0, rounding),
            Difference::extrapolated(right, 2.0, 3.0 * rounding),
            Difference::extrapolated(left, 2.0, 3.0 * rounding),
        ];
        if found.iter().any(|difference| difference.allows(derivative)) {
            return None;
        }
        step /= 4.0;
        if ROUNDING / step > 1e-2 * derivative.abs() {
            return Some(found);
        }
    }
}

/// A derivative as differences give it.
#[derive(Debug)]
struct Difference {
    value: f64,
    /// How far the right value may lie from it.
    tolerance: f64,
}

impl Difference {
    /// From the slopes of a step and of twice the step, whose errors are `1 : ratio`; how far the two
    /// lie apart tells how much is left.
    fn extrapolated([near, far]: [f64; 2], ratio: f64, rounding: f64) -> Self {
        let value = (ratio * near - far) / (ratio - 1.0);
        let tolerance = 1e-2 * value.abs() + 0.3 * (near - far).abs() + rounding;
        Self { value, tolerance }
    }

    fn allows(&self, derivative: f64) -> bool {
        (self.value - derivative).abs() <= self.tolerance
    }
}

/// The longest step: by how much a value of a parameter changes.
const LONGEST: f64 = 2e-3;
/// The most by which the sum should change in a step.
const CHANGE: f64 = 2e-2;
/// How much the sum of a model in `f32` is rounded.
const ROUNDING: f64 = 5e-7;

/// A sum of outputs with random factors.
struct Sum {
    factors: Tensor<2>,
}

impl Sum {
    fn new(host: &Host) -> Self {
        let [targets, outputs] = host.outputs(Forward::infer(&())).dims();
        let factors = random(&mut Normal::new(31), [targets, outputs], host.model.base().device());
        Self { factors: factors / ((targets * outputs) as f64).sqrt() }
    }

    fn tensor(&self, outputs: Tensor<2>) -> Tensor<1> {
        (outputs * self.factors.clone()).sum()
    }

    /// The same without rounding the sum.
    fn value(&self, outputs: Tensor<2>) -> f64 {
        let products = values(outputs).into_iter().zip(values(self.factors.clone()));
        products.map(|(output, factor)| f64::from(output) * f64::from(factor)).sum()
    }
}

/// What a method holds constant in the backward pass: the norms of the weights that
/// [`Magnitude`](peft_core::Magnitude) divides by.
struct Constants(Vec<(MemoKey, Tensor<1>)>);

impl Constants {
    fn of(method: &Stack, host: &Host) -> Self {
        let base: &Base = host.model.base();
        let parts = EmptyPass::new(base.device());
        let pass = parts.pass();
        let mut keys = Vec::new();
        for site in base.linears() {
            collect(&method.linear(site, &pass), &mut keys);
        }
        for site in base.sites().filter(|site| site.kind == SiteKind::Embedding) {
            collect_table(&method.table(site, &pass), &mut keys);
        }
        let memo = Memo::new();
        host.outputs(Forward::infer(method).with_memo(&memo));
        let kept = |key| (key, memo.get(key, || panic!("norms that no pass computed")));
        Self(keys.into_iter().map(kept).collect())
    }

    /// With nothing else in it.
    fn memo(&self) -> Memo {
        let memo = Memo::new();
        for (key, norms) in &self.0 {
            memo.get(*key, || norms.clone());
        }
        memo
    }
}

fn collect(edits: &Edits, keys: &mut Vec<MemoKey>) {
    for edit in edits.iter() {
        match edit {
            Edit::Magnitude(magnitude) if magnitude.beside.is_none() => keys.push(magnitude.key),
            Edit::Gated(_, edits) => collect(edits, keys),
            _ => {}
        }
    }
}

fn collect_table(edit: &TableEdit, keys: &mut Vec<MemoKey>) {
    match edit {
        TableEdit::Magnitude(magnitude) => keys.push(magnitude.key),
        TableEdit::Stack(edits) => edits.iter().for_each(|edit| collect_table(edit, keys)),
        _ => {}
    }
}
