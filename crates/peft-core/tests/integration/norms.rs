//! Edits of norms.

use burn::tensor::{Tensor, module::layer_norm};
use peft_core::{Base, Change, NormEdit, NormLayer, Role, Route, Site, VectorEdit};

use crate::support::{Parts, assert_close, device, random};

const D: usize = 5;
const EPSILON: f64 = 1e-5;

fn base() -> Base {
    let mut base = Base::new(&device());
    base.norm("layer", Role::FinalNorm, None, random([D]), Some(random([D])));
    base.norm("rms", Role::FinalNorm, None, random([D]), None);
    base
}

/// The norm at a site, with its gain and its bias.
fn norm<'b>(base: &'b Base, site: &'b Site) -> (NormLayer<'b>, Tensor<1>, Option<Tensor<1>>) {
    let entry = base.at(site);
    let (gain, bias) = (entry.gain.as_ref().expect("a gain"), entry.bias.as_ref());
    let layer = match bias {
        Some(_) => NormLayer::new(site, gain, bias, EPSILON),
        None => NormLayer::rms(site, gain, EPSILON),
    };
    (layer, gain.clone(), bias.cloned())
}

/// The equation of the norm at a site.
fn equation(x: Tensor<2>, gain: Tensor<1>, bias: Option<Tensor<1>>, site: &Site) -> Tensor<2> {
    if site.has_bias {
        return layer_norm(x, gain, bias, EPSILON);
    }
    let rms = (x.clone().square().mean_dim(1) + EPSILON).sqrt();
    let y = x / rms * gain.unsqueeze();
    bias.map_or(y.clone(), |bias| y + bias.unsqueeze())
}

#[track_caller]
fn computes(
    edit: &NormEdit,
    gain: impl Fn(Tensor<1>) -> Tensor<1>,
    bias: impl Fn(Option<Tensor<1>>) -> Option<Tensor<1>>,
) {
    let base = base();
    let (parts, x) = (Parts::packed(&[2, 3]), random::<2>([5, D]));
    for site in base.sites() {
        let (layer, own_gain, own_bias) = norm(&base, site);
        let expected = equation(x.clone(), gain(own_gain), bias(own_bias), site);
        assert_close(layer.forward(edit, x.clone(), &parts.pass()), expected);
    }
}

#[test]
fn gain_and_bias_are_replaced_each_on_its_own() {
    let (gain, bias) = (random::<1>([D]), random::<1>([D]));
    computes(&NormEdit::default(), |g| g, |b| b);
    computes(&NormEdit::set(gain.clone(), None), |_| gain.clone(), |b| b);
    // One that has no bias gets one.
    computes(&NormEdit::bias(bias.clone()), |g| g, |_| Some(bias.clone()));
    let both = NormEdit::set(gain.clone(), Some(bias.clone()));
    computes(&both, |_| gain.clone(), |_| Some(bias.clone()));
}

#[test]
fn the_last_of_a_stack_decides_and_a_mean_is_one() {
    let [first, second]: [Tensor<1>; 2] = [random([D]), random([D])];
    let set = |v: &Tensor<1>| VectorEdit::Set(v.clone());
    let stack = VectorEdit::Stack(vec![set(&first), VectorEdit::Keep, set(&second)]);
    let edit = NormEdit { gain: stack, bias: VectorEdit::Keep };
    computes(&edit, |_| second.clone(), |b| b);
    let mean = VectorEdit::Mean(vec![(0.25, set(&first)), (0.75, VectorEdit::Keep)]);
    let edit = NormEdit { gain: mean.clone(), bias: mean };
    let mixed = |own: Tensor<1>| first.clone() * 0.25 + own * 0.75;
    let zeros = Tensor::zeros([D], &device());
    computes(&edit, mixed, |b| Some(mixed(b.unwrap_or(zeros.clone()))));
}

#[test]
fn each_row_of_a_batch_is_under_the_norm_of_its_slot() {
    let base = base();
    let members = [
        NormEdit::set(random([D]), Some(random([D]))),
        NormEdit::bias(random([D])),
        NormEdit::default(),
    ];
    let by_slot = |of: &dyn Fn(&NormEdit) -> VectorEdit| {
        VectorEdit::Routed(Route::Rows, members.iter().map(of).collect())
    };
    let routed =
        NormEdit { gain: by_slot(&|m| m.gain.clone()), bias: by_slot(&|m| m.bias.clone()) };
    let shared = NormEdit::set(random([D]), None);
    // By slot, and by slot over what all rows have.
    let over = NormEdit {
        gain: VectorEdit::Stack(vec![shared.gain.clone(), routed.gain.clone()]),
        bias: routed.bias.clone(),
    };
    let slots = [Some(1), None, Some(0), Some(2), Some(0)];
    let parts = Parts::packed(&[2, 1, 3, 1, 2]).in_slots(&slots);
    let x: Tensor<2> = random([9, D]);
    for site in base.sites() {
        let (layer, ..) = norm(&base, site);
        for (edit, below) in [(&routed, VectorEdit::Keep), (&over, shared.gain.clone())] {
            let together = layer.forward(edit, x.clone(), &parts.pass());
            for (row, slot) in slots.iter().enumerate() {
                let own = slot.map_or_else(NormEdit::default, |slot| members[slot].clone());
                let gain = VectorEdit::Stack(vec![below.clone(), own.gain]);
                let alone = Parts::over(parts.rows.subset(&[row]));
                let own = NormEdit { gain, bias: own.bias };
                let x = parts.rows.take(x.clone(), &[row]);
                let expected = layer.forward(&own, x, &alone.pass());
                assert_close(parts.rows.take(together.clone(), &[row]), expected);
            }
        }
    }
}

#[test]
fn counts_and_refusals_are_of_what_is_replaced() {
    let base = base();
    let site = base.sites().next().expect("one");
    let both = NormEdit::set(random([D]), Some(random([D])));
    let bias = NormEdit::bias(random([D]));
    assert_eq!(NormEdit::default().change(site), Change::default());
    assert_eq!(both.change(site), Change { weight: D, bias: D, rank: 0 });
    assert_eq!(bias.change(site), Change { weight: 0, bias: D, rank: 0 });
    let reason = Some("it puts other values in the place of those that the other trains");
    let gain = NormEdit::set(random([D]), None);
    assert_eq!(gain.refuses(&bias), None);
    assert_eq!(bias.refuses(&gain), None);
    assert_eq!(both.refuses(&bias), reason);
    assert_eq!(bias.refuses(&both), reason);
    assert_eq!(NormEdit::default().refuses(&both), None);
}
