//! Functions at the end of a sublayer.

use burn::tensor::{Tensor, activation::sigmoid};
use peft_core::{
    Base, Gate, Insert, NormLayer, Pass, Role, Route, Site, SiteKind, SublayerEnd, SublayerFunction,
};

use crate::support::{Fixed, Parts, assert_close, device, gate, random};

const D: usize = 5;

fn base() -> Base {
    let mut base = Base::new(&device());
    base.norm("norm", Role::FeedForwardNorm, Some(0), random([D]), Some(random([D])));
    base.place("sublayer", SiteKind::Sublayer, Role::FeedForwardSublayer, Some(0), D);
    base
}

fn sites(base: &Base) -> [&Site; 2] {
    ["norm", "sublayer"].map(|path| crate::support::site(base, path))
}

/// `output + x A`, where `x` is the normalised sum.
#[derive(Debug, Clone)]
struct Added(Tensor<2>);

impl SublayerFunction for Added {
    fn update(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        end.normalized(pass).matmul(self.0.clone())
    }
}

/// The same with the sublayer's input, in parallel to it.
#[derive(Debug, Clone)]
struct Parallel(Tensor<2>);

impl SublayerFunction for Parallel {
    fn update(&self, end: &SublayerEnd<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        end.input.clone().matmul(self.0.clone())
    }
    fn reads(&self, end: &SublayerEnd<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        end.input.clone()
    }
}

/// `input + tanh(update)`, where the output is lost.
#[derive(Debug, Clone)]
struct Joined(Parallel);

impl SublayerFunction for Joined {
    fn update(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.0.update(end, pass)
    }
    fn join(&self, update: Tensor<2>, end: &SublayerEnd<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        end.input.clone() + update.tanh()
    }
    fn reads(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.0.reads(end, pass)
    }
}

/// A sublayer over rows of these lengths, with its norm at the end.
struct Setting {
    base: Base,
    parts: Parts,
    states: [Tensor<2>; 3],
}

impl Setting {
    fn new(lengths: &[usize], slots: &[Option<usize>]) -> Self {
        let tokens = lengths.iter().sum();
        let states = [0, 1, 2].map(|_| random([tokens, D]));
        Self { base: base(), parts: Parts::packed(lengths).in_slots(slots), states }
    }

    /// What is made of the end of the sublayer.
    fn end<T>(&self, of: impl FnOnce(&SublayerEnd<'_>, &Pass<'_>) -> T) -> T {
        let [norm, sublayer] = sites(&self.base);
        let entry = self.base.at(norm);
        let gain = entry.gain.as_ref().expect("a gain");
        let layer = NormLayer::new(norm, gain, entry.bias.as_ref(), 1e-5);
        let end = SublayerEnd::new(sublayer, Some(&layer), &(), self.states.clone());
        of(&end, &self.parts.pass())
    }

    fn forward(&self, insert: &Insert<'_>) -> Tensor<2> {
        self.end(|end, pass| insert.forward(end, pass))
    }

    /// The normalised sum over another output.
    fn normalized(&self, output: &Tensor<2>) -> Tensor<2> {
        self.end(|end, pass| end.with_output(output.clone()).normalized(pass))
    }
}

fn added() -> Added {
    Added(random([D, D]))
}

fn parallel() -> Parallel {
    Parallel(random([D, D]))
}

#[test]
fn nothing_leaves_the_output() {
    let setting = Setting::new(&[3, 2], &[]);
    let [_, output, _] = setting.states.clone();
    assert_close(setting.forward(&Insert::None), output.clone());
    assert_close(setting.forward(&Insert::Stack(Vec::new())), output);
    assert!(Insert::default().is_none() && !Insert::of(added()).is_none());
}

#[test]
fn the_norm_is_that_of_the_whole_model() {
    let setting = Setting::new(&[3, 2], &[]);
    let [norm, sublayer] = sites(&setting.base);
    let gain = random::<1>([D]);
    let hooks = Fixed::norm(norm, peft_core::NormEdit::set(gain.clone(), None));
    let entry = setting.base.at(norm);
    let layer = NormLayer::new(norm, entry.gain.as_ref().expect("a gain"), None, 1e-5);
    let end = SublayerEnd::new(sublayer, Some(&layer), &hooks, setting.states.clone());
    let [_, output, residual] = setting.states.clone();
    let plain = NormLayer::new(norm, &gain, None, 1e-5);
    let pass = &setting.parts.pass();
    let expected = plain.forward(&Default::default(), output.clone() + residual.clone(), pass);
    assert_close(end.normalized(pass), expected);
    // Without a norm at the end, it is the sum.
    let end = SublayerEnd::new(sublayer, None, &hooks, setting.states.clone());
    assert_close(end.normalized(pass), output + residual);
}

#[test]
fn each_function_of_a_stack_has_the_output_of_those_below() {
    let setting = Setting::new(&[3, 2], &[]);
    let (first, second, third) = (added(), parallel(), added());
    let [input, output, _] = setting.states.clone();
    let once = output.clone() + setting.normalized(&output).matmul(first.0.clone());
    let twice = once.clone() + input.matmul(second.0.clone());
    let thrice = twice.clone() + setting.normalized(&twice).matmul(third.0.clone());
    let stack = Insert::Stack(vec![Insert::of(first), Insert::of(second), Insert::of(third)]);
    assert_close(setting.forward(&stack), thrice);
    // What the last one reads is over those below it.
    let reads = setting.end(|end, pass| stack.reads(end, pass));
    assert_close(reads, setting.normalized(&twice));
}

#[test]
fn what_a_stack_of_one_or_two_reads_is_what_its_last_function_reads() {
    let setting = Setting::new(&[3, 2], &[]);
    let (first, second) = (added(), added());
    let [input, output, _] = setting.states.clone();
    let once = output.clone() + setting.normalized(&output).matmul(first.0.clone());
    let reads = |insert: &Insert<'_>| setting.end(|end, pass| insert.reads(end, pass));
    let one = Insert::Stack(vec![Insert::of(parallel())]);
    assert_close(reads(&one), input.clone());
    let two = Insert::Stack(vec![Insert::of(first.clone()), Insert::of(second)]);
    assert_close(reads(&two), setting.normalized(&once));
    let two = Insert::Stack(vec![Insert::of(first), Insert::of(parallel())]);
    assert_close(reads(&two), input);
}

#[test]
fn a_mean_is_of_outputs() {
    let setting = Setting::new(&[3, 2], &[]);
    let (first, second) = (added(), parallel());
    let [one, other] =
        [Insert::of(first.clone()), Insert::of(second.clone())].map(|part| setting.forward(&part));
    let mean = Insert::Mean(vec![(0.25, Insert::of(first)), (0.75, Insert::of(second))]);
    assert_close(setting.forward(&mean), one * 0.25 + other * 0.75);
    let with_nothing = Insert::Mean(vec![(0.5, Insert::None), (0.5, Insert::of(added()))]);
    let [_, output, _] = setting.states.clone();
    let Insert::Mean(members) = &with_nothing else { unreachable!("a mean") };
    let expected = output * 0.5 + setting.forward(&members[1].1) * 0.5;
    assert_close(setting.forward(&with_nothing), expected);
}

#[test]
fn a_gate_reads_what_its_function_reads() {
    for in_parallel in [false, true] {
        let setting = Setting::new(&[3, 2], &[]);
        let insert = match in_parallel {
            false => Insert::of(added()),
            true => Insert::of(parallel()),
        };
        let gate = gate(D);
        let [input, output, _] = setting.states.clone();
        let open = open(&gate, if in_parallel { input } else { setting.normalized(&output) });
        let full = setting.forward(&insert);
        let expected = output.clone() + (full - output) * open;
        assert_close(setting.forward(&Insert::Gated(gate, Box::new(insert))), expected);
    }
}

/// What a gate gives for `[5, d]`, of texts of 3 and 2 tokens: one value for each.
fn open(gate: &Gate, read: Tensor<2>) -> Tensor<2> {
    let open = sigmoid(read.matmul(gate.weight.clone()) + gate.bias.clone().unsqueeze());
    let of_row = |from, tokens| open.clone().narrow(0, from, tokens).mean_dim(0);
    Tensor::cat(vec![of_row(0, 3).expand([3, 1]), of_row(3, 2).expand([2, 1])], 0)
}

#[test]
fn a_gate_multiplies_the_update_and_not_what_it_is_joined_with() {
    let setting = Setting::new(&[3, 2], &[]);
    let [input, output, _] = setting.states.clone();
    let (function, [first, second]) = (Joined(parallel()), [gate(D), gate(D)]);
    let update = input.clone().matmul(function.0.0.clone());
    let [one, other] = [&first, &second].map(|gate| open(gate, input.clone()));
    let gated = Insert::Gated(first, Box::new(Insert::of(function.clone())));
    let once = update.clone() * one.clone();
    assert_close(setting.forward(&gated), input.clone() + once.clone().tanh());
    assert_close(setting.end(|end, pass| gated.update(end, pass)), once.clone());
    let ungated = setting.end(|end, pass| gated.ungated().update(end, pass));
    assert_close(ungated, update.clone());
    // A gate beside a gate.
    let twice = Insert::Gated(second, Box::new(gated));
    assert_close(setting.forward(&twice), input.clone() + (once * other).tanh());
    // Of several functions it is the change of the output.
    let stack = Insert::Stack(vec![Insert::of(function), Insert::of(added())]);
    let update = setting.end(|end, pass| stack.update(end, pass));
    assert_close(update, setting.forward(&stack) - output);
}

#[test]
fn each_row_of_a_batch_is_under_the_function_of_its_slot() {
    let slots = [Some(1), None, Some(0), Some(1), Some(2)];
    let setting = Setting::new(&[2, 1, 3, 2, 1], &slots);
    let (first, second) = (added(), parallel());
    let members = || {
        vec![
            Insert::of(first.clone()),
            Insert::Stack(vec![Insert::of(second.clone()), Insert::of(first.clone())]),
            Insert::None,
        ]
    };
    let routed = Insert::Routed(Route::Rows, members());
    let together = setting.forward(&routed);
    let reads = setting.end(|end, pass| routed.reads(end, pass));
    for (row, slot) in slots.iter().enumerate() {
        let none = Insert::None;
        let members = members();
        let own = slot.map_or(&none, |slot| &members[slot]);
        let rows = &setting.parts.rows;
        let take = |tensor: Tensor<2>| rows.take(tensor, &[row]);
        assert_close(take(together.clone()), take(setting.forward(own)));
        let expected = setting.end(|end, pass| own.reads(end, pass));
        assert_close(take(reads.clone()), take(expected));
    }
}
