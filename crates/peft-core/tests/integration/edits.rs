//! Each form of an edit: what it computes, the weight that it makes, and the way back.

use std::ops::Range;
use std::sync::Arc;

use burn::module::ParamId;
use burn::tensor::{Int, Tensor, module::linear};
use peft_core::{
    Base, Block, Change, Edit, Edits, Gate, GateOn, LinearLayer, LowRank, Magnitude, MemoKey,
    Replaced, Role, Rotate, Row, Rows, Scale, Side, Site, Sparse, WeightMap,
};

use crate::support::{Doubled, Parts, assert_close, assert_within, device, random, values};

pub(crate) const IN: usize = 6;
pub(crate) const OUT: usize = 10;

/// A layer `[6, 10]` with a bias, and one without.
fn base() -> Base {
    let mut base = Base::new(&device());
    base.linear("biased", Role::Other, None, random([IN, OUT]), Some(random([OUT])));
    base.linear("unbiased", Role::Other, None, random([IN, OUT]), None);
    base
}

/// The layer at a site, with its dense weight and its bias.
fn layer<'b>(base: &'b Base, site: &'b Site) -> (LinearLayer<'b>, Tensor<2>, Option<Tensor<1>>) {
    let (weight, bias) = (base.weight(site), base.at(site).bias.as_ref());
    (LinearLayer::new(site, weight, bias), weight.dense(), bias.cloned())
}

/// Edits compute what their weight and bias say, over a layer with a bias and over one without.
#[track_caller]
fn agree(edits: &Edits) {
    agree_within(1e-5, edits);
}

#[track_caller]
fn agree_within(tolerance: f32, edits: &Edits) {
    let base = base();
    let x = random([6, IN]);
    for site in base.sites() {
        // What is kept of one layer is not another's.
        let parts = Parts::packed(&[3, 1, 2]);
        let (layer, ..) = layer(&base, site);
        let (weight, bias) = edits.dense(&layer);
        let output = edits.apply(&layer, x.clone(), &parts.pass());
        assert_within(tolerance, output, linear(x.clone(), weight, bias));
    }
}

/// Edits of both layers make this weight of `W`, compute it, and turn it back, unless there is a
/// reason why not.
#[track_caller]
pub(crate) fn make(
    edits: &Edits,
    expected: impl Fn(Tensor<2>) -> Tensor<2>,
    no_inverse: Option<&str>,
) {
    let base = base();
    for site in base.sites() {
        let (layer, frozen, _) = layer(&base, site);
        let (weight, _) = edits.dense(&layer);
        assert_close(weight.clone(), expected(frozen.clone()));
        match (edits.invert(site, weight), no_inverse) {
            (Ok(back), None) => assert_close(back, frozen),
            (found, expected) => assert_eq!(found.err(), expected),
        }
    }
    agree(edits);
}

/// The bias that edits make of `b`; `None` where the layer has none.
#[track_caller]
pub(crate) fn make_bias(edits: &Edits, expected: impl Fn(Option<Tensor<1>>) -> Option<Tensor<1>>) {
    let base = base();
    for site in base.sites() {
        let (layer, _, bias) = layer(&base, site);
        match (edits.dense(&layer).1, expected(bias)) {
            (Some(found), Some(expected)) => assert_close(found, expected),
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{site}"),
        }
    }
    agree(edits);
}

fn low_rank(rank: usize, scale: f64) -> LowRank {
    LowRank::new(random([IN, rank]), random([rank, OUT]), scale)
}

fn scale() -> Scale {
    // Away from zero, so that there is a way back.
    let away = |size| random::<1>([size]).abs() + 0.5;
    Scale { output: Some(away(OUT)), ..Scale::input(away(IN)) }
}

fn magnitude() -> Magnitude {
    let key = MemoKey { of: ParamId::new(), name: "norms", site: None };
    Magnitude::new(random::<1>([OUT]).abs() + 0.5, key)
}

/// Two blocks of a side's width; orthogonal ones are reflections, `I - 2 v vᵀ / ‖v‖²`.
pub(crate) fn rotate(side: Side, orthogonal: bool) -> Rotate {
    let size = if side == Side::Input { IN / 2 } else { OUT / 2 };
    let v = random::<3>([2, size, 1]);
    let blocks = match orthogonal {
        false => random([2, size, size]),
        true => {
            let square = v.clone().square().sum_dim(1);
            let outer = v.clone().matmul(v.swap_dims(1, 2));
            Tensor::<2>::eye(size, &device()).unsqueeze() - outer * 2.0 / square
        }
    };
    Rotate { orthogonal, ..Rotate::blocks(blocks, side) }
}

fn ints<const N: usize>(values: [i64; N]) -> Tensor<1, Int> {
    Tensor::from_data(values, &device())
}

/// `2 W + 1`, whose rank and counts it says.
#[derive(Debug)]
struct Affine {
    has_inverse: bool,
}

impl WeightMap for Affine {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        weight() * 2.0 + 1.0
    }
    fn invert(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        self.has_inverse.then(|| (weight - 1.0) / 2.0)
    }
    fn change(&self, _site: &Site) -> Change {
        Change { weight: 7, bias: 0, rank: 3 }
    }
}

fn affine(has_inverse: bool) -> Edit {
    Edit::Weight(Arc::new(Affine { has_inverse }))
}

#[test]
fn no_edit_is_the_layer() {
    make(&Edits::none(), |w| w, None);
    make_bias(&Edits::none(), |b| b);
    assert_eq!(Edits::none().change(base().sites().next().expect("one")), Change::default());
}

#[test]
fn a_low_rank_is_added() {
    let factors = low_rank(3, 1.7);
    let product = factors.a.clone().matmul(factors.b.clone()) * 1.7;
    make(&factors.clone().into(), |w| w + product.clone(), None);
    make_bias(&factors.into(), |b| b);
}

#[test]
fn a_low_rank_of_some_columns_leaves_the_others() {
    for columns in [0..4, 3..7, 6..OUT, 0..OUT] {
        let factors = LowRank::new(random([IN, 2]), random([2, columns.len()]), -0.6);
        let product = factors.a.clone().matmul(factors.b.clone()) * -0.6;
        let zeros = |width| Tensor::<2>::zeros([IN, width], &device());
        let whole = [zeros(columns.start), product, zeros(OUT - columns.end)];
        let whole = whole.into_iter().filter(|part| part.dims()[1] > 0).collect();
        let whole: Tensor<2> = Tensor::cat(whole, 1);
        make(&factors.of_columns(columns).into(), |w| w + whole.clone(), None);
    }
}

#[test]
fn a_low_rank_drops_values_of_its_input_in_training_only() {
    let base = base();
    let site = base.sites().next().expect("one");
    let (layer, ..) = layer(&base, site);
    let (parts, x) = (Parts::packed(&[4]), random([4, IN]));
    let edits = Edits::from(low_rank(2, 1.3).with_dropout(0.5));
    let plain = edits.apply(&layer, x.clone(), &parts.pass());
    let trained = |step| {
        let parts = Parts::packed(&[4]);
        values(edits.apply(&layer, x.clone(), &parts.training(step)))
    };
    assert_eq!(trained(0), trained(0));
    assert_ne!(trained(0), trained(1));
    assert_ne!(trained(0), values(plain.clone()));
    // On average, it is what it is without.
    let draws = (0..1600).map(|step| edits.apply(&layer, x.clone(), &parts.training(step)));
    let mean = draws.reduce(|sum, y| sum + y).expect("some") / 1600.0;
    let far = (mean - plain).abs().max().into_scalar::<f32>();
    assert!(far < 0.6, "{far}");
}

#[test]
fn a_scale_acts_on_the_input_the_output_and_the_bias() {
    let Scale { input, output, .. } = scale();
    let (l_in, l_out) = (input.expect("given"), output.clone().expect("given"));
    let (rows, columns) = (l_in.clone().unsqueeze_dim::<2>(1), l_out.clone().unsqueeze_dim::<2>(0));
    let both = Edits::from(Scale { output, ..Scale::input(l_in.clone()) });
    make(&both, |w| w * rows.clone() * columns.clone(), None);
    make_bias(&both, |b| b.map(|b| b * l_out.clone()));
    make(&Scale::input(l_in.clone()).into(), |w| w * rows.clone(), None);
    make_bias(&Scale::input(l_in).into(), |b| b);
    make(&Scale::output(l_out.clone()).into(), |w| w * columns.clone(), None);
    // Or the bias is kept.
    let kept = Edits::from(Scale::output(l_out).keeping_bias());
    make(&kept, |w| w * columns.clone(), None);
    make_bias(&kept, |b| b);
}

#[test]
fn a_scale_of_some_columns_leaves_the_others() {
    for columns in [0..4, 3..7, 6..OUT] {
        let l_out = random::<1>([columns.len()]).abs() + 0.5;
        let ones = |count| Tensor::<1>::ones([count], &device());
        let whole = [ones(columns.start), l_out.clone(), ones(OUT - columns.end)];
        let whole = whole.into_iter().filter(|part| part.dims()[0] > 0).collect();
        let whole: Tensor<1> = Tensor::cat(whole, 0);
        let edits = Edits::from(Scale::output(l_out).of_columns(columns));
        make(&edits, |w| w * whole.clone().unsqueeze_dim(0), None);
        make_bias(&edits, |b| b.map(|b| b * whole.clone()));
    }
}

#[test]
fn a_magnitude_is_the_norm_of_a_column_of_the_weight_below() {
    let reason = Some("the norms that the weight had are not known");
    let (magnitude, factors) = (magnitude(), low_rank(2, 1.7));
    let product = factors.a.clone().matmul(factors.b.clone()) * 1.7;
    let m = magnitude.values.clone();
    let normed = |w: Tensor<2>| {
        let norms = w.clone().square().sum_dim(0).sqrt();
        w / norms * m.clone().unsqueeze_dim(0)
    };
    make(&magnitude.clone().into(), normed, reason);
    let edits = Edits::from(factors).then(magnitude);
    make(&edits, |w| normed(w + product.clone()), reason);
    make_bias(&edits, |b| b);
    let (weight, _) = edits.dense(&layer(&base(), base().sites().next().expect("one")).0);
    let norms = weight.square().sum_dim(0).sqrt().squeeze_dim::<1>(0);
    assert_close(norms, m);
}

#[test]
fn the_norm_that_a_magnitude_divides_by_is_constant_in_the_backward_pass() {
    let base = base();
    let site = base.sites().next().expect("one");
    let (layer, frozen, bias) = layer(&base, site);
    let autodiff = device().autodiff();
    let trained =
        |tensor: Tensor<2>| Tensor::<2>::from_data(tensor.into_data(), &autodiff).require_grad();
    let (a, b) = (trained(random([IN, 2])), trained(random([2, OUT])));
    let (magnitude, x) = (magnitude(), random::<2>([5, IN]));
    let factors = LowRank::new(a.clone(), b.clone(), 1.7);
    let edits = Edits::from(factors).then(magnitude.clone());
    let y = edits.apply(&layer, x.clone(), &Parts::packed(&[5]).pass());
    let found = y.square().sum().backward();

    let weight = frozen + a.clone().matmul(b.clone()) * 1.7;
    let norms = weight.clone().inner().square().sum_dim(0).sqrt();
    let share = magnitude.values.unsqueeze_dim::<2>(0) / norms;
    let y = linear(x, weight * share, bias);
    let expected = y.square().sum().backward();
    for parameter in [a, b] {
        let [found, expected] = [&found, &expected].map(|g| parameter.grad(g).expect("a gradient"));
        assert_close(found, expected);
    }
}

#[test]
fn sparse_values_of_one_place_add_up() {
    let (inputs, outputs) = (ints([0, 5, 0, 2]), ints([9, 0, 9, 3]));
    let numbers: Tensor<1> = Tensor::from_data([1.5f32, -2.0, 0.25, 4.0], &device());
    let sparse = Sparse { inputs, outputs, values: numbers };
    let mut whole = vec![0.0f32; IN * OUT];
    (whole[9], whole[5 * OUT], whole[2 * OUT + 3]) = (1.75, -2.0, 4.0);
    let whole: Tensor<1> = Tensor::from_data(&whole[..], &device());
    let whole: Tensor<2> = whole.reshape([IN, OUT]);
    make(&sparse.clone().into(), |w| w + whole.clone(), None);
    make_bias(&sparse.into(), |b| b);
}

#[test]
fn a_block_changes_some_rows_and_columns() {
    let (rows, columns) = ([4, 1], [7, 0, 2]);
    let values = random::<2>([2, 3]) * 1.7;
    let numbers: Vec<f32> = values.clone().into_data().try_into_vec().expect("floats");
    let mut whole = vec![0.0f32; IN * OUT];
    for (i, row) in rows.into_iter().enumerate() {
        for (j, column) in columns.into_iter().enumerate() {
            whole[row as usize * OUT + column as usize] = numbers[3 * i + j];
        }
    }
    let whole: Tensor<1> = Tensor::from_data(&whole[..], &device());
    let whole: Tensor<2> = whole.reshape([IN, OUT]);
    let block = Block { inputs: Some(ints(rows)), outputs: Some(ints(columns)), values };
    make(&block.clone().into(), |w| w + whole.clone(), None);
    make_bias(&block.into(), |b| b);
    // Without lists it is of all.
    let values = random::<2>([IN, OUT]);
    let all = Block { inputs: None, outputs: None, values: values.clone() };
    make(&all.into(), |w| w + values.clone(), None);
}

#[test]
fn a_bias_takes_the_place_of_the_one_below() {
    let (new, Scale { output, .. }) = (random::<1>([OUT]), scale());
    let l_out = output.expect("given");
    let bias = || Edits::from(Edit::Bias(new.clone()));
    make(&bias(), |w| w, None);
    make_bias(&bias(), |_| Some(new.clone()));
    // Sums leave it, on whichever side they are.
    make_bias(&bias().then(low_rank(2, 1.7)), |_| Some(new.clone()));
    make_bias(&Edits::from(low_rank(2, 1.7)).then(Edit::Bias(new.clone())), |_| Some(new.clone()));
    // What is above it acts on it, what is below does not.
    let scaled = || Scale::output(l_out.clone());
    make_bias(&bias().then(scaled()), |_| Some(new.clone() * l_out.clone()));
    make_bias(&Edits::from(scaled()).then(Edit::Bias(new.clone())), |_| Some(new.clone()));
    let turned = rotate(Side::Output, true);
    let r = crate::rotations::block_diagonal(&turned);
    let expected = new.clone().unsqueeze::<2>().matmul(r).squeeze_dim::<1>(0);
    make_bias(&bias().then(turned.clone()), |_| Some(expected.clone()));
    make_bias(&Edits::from(turned).then(Edit::Bias(new.clone())), |_| Some(new.clone()));
    make_bias(&Edits::from(magnitude()).then(Edit::Bias(new.clone())), |_| Some(new.clone()));
    make_bias(&bias().then(magnitude()), |_| Some(new.clone()));
    make_bias(&bias().then(affine(true)), |_| Some(new.clone()));
    // The last one decides.
    make_bias(&Edits::from(Edit::Bias(random([OUT]))).then(Edit::Bias(new.clone())), |_| {
        Some(new.clone())
    });
}

#[test]
fn a_map_is_of_the_weight_of_what_is_below() {
    let factors = low_rank(2, 1.7);
    let product = factors.a.clone().matmul(factors.b.clone()) * 1.7;
    let Scale { output, .. } = scale();
    let l_out = output.expect("given");
    let columns = l_out.clone().unsqueeze_dim::<2>(0);
    make(&affine(true).into(), |w| w * 2.0 + 1.0, None);
    make(&affine(false).into(), |w| w * 2.0 + 1.0, Some("its map of the weight has no inverse"));
    let edits = Edits::from(factors.clone()).then(Scale::output(l_out)).then(affine(true));
    make(&edits, |w| (w + product.clone()) * columns.clone() * 2.0 + 1.0, None);
    make(
        &edits.then(factors.clone()),
        {
            let (product, columns) = (product.clone(), columns.clone());
            move |w| (w + product.clone()) * columns.clone() * 2.0 + 1.0 + product.clone()
        },
        None,
    );
    let other = random::<2>([IN, OUT]);
    let replaced = Edits::from(Edit::Weight(Arc::new(Replaced(other.clone())))).then(factors);
    let reason = "its map of the weight has no inverse";
    make(&replaced, |_| other.clone() + product.clone(), Some(reason));
}

#[test]
fn a_mean_is_the_mean_of_weights_and_of_biases() {
    let factors = [low_rank(1, 1.7), low_rank(3, -0.4)];
    let [first, second] = factors.each_ref().map(|f| f.a.clone().matmul(f.b.clone()) * f.scale);
    let members = factors.map(Edits::from);
    let [one, other] = members.clone();
    let sums = Edits::from(Edit::Mean(vec![(0.25, one), (0.75, other)]));
    make(&sums, |w| w + first.clone() * 0.25 + second.clone() * 0.75, None);
    make_bias(&sums, |b| b);

    let (new, Scale { output, .. }) = (random::<1>([OUT]), scale());
    let l_out = output.expect("given");
    let columns = l_out.clone().unsqueeze_dim::<2>(0);
    let [one, _] = members;
    let mixed = Edits::from(Edit::Mean(vec![
        (0.25, one.then(Edit::Bias(new.clone()))),
        (0.25, Scale::output(l_out.clone()).into()),
        (0.5, Edits::none()),
    ]));
    let expected = |w: Tensor<2>| {
        (w.clone() + first.clone()) * 0.25 + w.clone() * columns.clone() * 0.25 + w * 0.5
    };
    make(&mixed, expected, Some("a mean of scaled weights has no inverse"));
    let zeros = Tensor::zeros([OUT], &device());
    make_bias(&mixed, |b| {
        let b = b.unwrap_or(zeros.clone());
        Some(new.clone() * 0.25 + b.clone() * l_out.clone() * 0.25 + b * 0.5)
    });
    // Over what is below all of them.
    let below = Edits::from(low_rank(2, 0.9));
    agree(&below.clone().followed_by(mixed.clone()));
    agree(&mixed.followed_by(below));
}

/// A gate, and its value for each row of a batch by its equation.
fn gate(x: &Tensor<2>, rows: &Rows) -> (Gate, Tensor<2>) {
    let gate = crate::support::gate(IN);
    let open = x.clone().matmul(gate.weight.clone()) + gate.bias.clone().unsqueeze();
    let open = burn::tensor::activation::sigmoid(open);
    let of_row = |(number, row): (usize, &Row)| {
        let open = open.clone().narrow(0, rows.start(number), row.len());
        open.mean_dim(0).expand([row.len(), 1])
    };
    let spread = Tensor::cat(rows.iter().enumerate().map(of_row).collect(), 0);
    (gate, spread)
}

#[test]
fn a_gate_lets_a_part_of_the_change_through() {
    let base = base();
    let (parts, x) = (Parts::packed(&[3, 1, 2]), random::<2>([6, IN]));
    let (gate, g) = gate(&x, &parts.rows);
    let inner: [Edits; 3] = [
        low_rank(2, 1.7).into(),
        Edits::from(scale()).then(Edit::Bias(random([OUT]))),
        Edits::from(low_rank(1, 0.5)).then(affine(true)),
    ];
    for (inner, site) in inner.iter().flat_map(|inner| base.sites().map(move |s| (inner, s))) {
        let (layer, ..) = layer(&base, site);
        let below = Edits::from(low_rank(1, -0.8)).then(scale());
        let gated = Edits::from(Edit::Gated(gate.clone(), inner.clone()));
        assert_eq!(gated.obstacle(), Some("its gates depend on the input"));
        assert_eq!(gated.change(site), Change::default());
        let apply = |edits: &Edits| edits.apply(&layer, x.clone(), &parts.pass());
        for below in [Edits::none(), below] {
            let y = apply(&below);
            let changed = apply(&below.clone().followed_by(inner.clone()));
            let expected = y.clone() + (changed - y) * g.clone();
            assert_close(apply(&below.followed_by(gated.clone())), expected);
        }
    }
}

#[test]
fn a_gate_on_the_output_multiplies_the_columns_that_change() {
    let base = base();
    let (parts, x) = (Parts::packed(&[3, 1, 2]), random::<2>([6, IN]));
    let (gate, g) = gate(&x, &parts.rows);
    let gate = Gate { on: GateOn::Output, ..gate };
    let of_columns = 2..6;
    let inner: [(Edits, Range<usize>); 5] = [
        (Scale::output(random([4])).of_columns(of_columns.clone()).into(), of_columns.clone()),
        (
            LowRank::new(random([IN, 2]), random([2, 4]), 0.7)
                .of_columns(of_columns.clone())
                .into(),
            of_columns,
        ),
        (scale().into(), 0..OUT),
        (low_rank(2, 1.7).into(), 0..OUT),
        (Edits::from(Scale::output(random([OUT]))).then(Edit::Bias(random([OUT]))), 0..OUT),
    ];
    for ((inner, columns), site) in inner.iter().flat_map(|i| base.sites().map(move |s| (i, s))) {
        let (layer, ..) = layer(&base, site);
        let gated = Edits::from(Edit::Gated(gate.clone(), inner.clone()));
        let apply = |edits: &Edits| edits.apply(&layer, x.clone(), &parts.pass());
        for below in [Edits::none(), Edits::from(low_rank(1, -0.8)).then(scale())] {
            let changed = apply(&below.clone().followed_by(inner.clone()));
            let of = |columns: &Range<usize>| {
                changed.clone().narrow(1, columns.start, columns.len()) * g.clone()
            };
            let expected = changed.clone().slice_assign([0..6, columns.clone()], of(columns));
            assert_close(apply(&below.followed_by(gated.clone())), expected);
        }
    }
}

#[test]
fn what_is_below_a_gate_drops_the_same_values_with_it_and_without() {
    let base = base();
    let (parts, x) = (Parts::packed(&[3, 1, 2]), random::<2>([6, IN]));
    let (gate, g) = gate(&x, &parts.rows);
    let (below, l) = (low_rank(2, 1.7).with_dropout(0.5), random::<1>([OUT]));
    let gated = Edit::Gated(gate, Scale::output(l.clone()).into());
    for site in base.sites() {
        let (layer, ..) = layer(&base, site);
        // Each time from the first draw on.
        let apply =
            |edits: Edits| edits.apply(&layer, x.clone(), &Parts::packed(&[3, 1, 2]).training(3));
        let y = apply(below.clone().into());
        let expected = y.clone() + (y.clone() * l.clone().unsqueeze() - y) * g.clone();
        assert_close(apply(Edits::from(below.clone()).then(gated.clone())), expected);
    }
}

#[test]
fn a_bias_above_a_gated_low_rank_keeps_what_the_gate_lets_through() {
    let base = base();
    let (parts, x) = (Parts::packed(&[4, 2]), random::<2>([6, IN]));
    let (gate, g) = gate(&x, &parts.rows);
    let (factors, new) = (low_rank(2, 1.7), random::<1>([OUT]));
    let gated = Edits::from(Edit::Gated(gate, factors.clone().into()));
    let edits = gated.then(Edit::Bias(new.clone()));
    for site in base.sites() {
        let (layer, frozen, _) = layer(&base, site);
        let delta = x.clone().matmul(factors.a.clone()).matmul(factors.b.clone()) * 1.7;
        let expected = linear(x.clone(), frozen, Some(new.clone())) + delta * g.clone();
        assert_close(edits.apply(&layer, x.clone(), &parts.pass()), expected);
    }
}

#[test]
fn a_function_of_the_output_is_given_what_is_below_it() {
    let base = base();
    let (parts, x) = (Parts::packed(&[6]), random::<2>([6, IN]));
    for site in base.sites() {
        let (layer, ..) = layer(&base, site);
        let apply = |edits: &Edits| edits.apply(&layer, x.clone(), &parts.pass());
        let below = Edits::from(low_rank(2, 1.7)).then(scale());
        let above = low_rank(1, 0.3);
        let delta = x.clone().matmul(above.a.clone()).matmul(above.b.clone()) * 0.3;
        let edits = below.clone().followed_by(Doubled::edit()).then(above);
        assert_close(apply(&edits), apply(&below) * 2.0 + 1.0 + delta);
        assert_eq!(edits.obstacle(), Some("it doubles the output"));
    }
}

#[test]
fn edits_in_any_order_compute_their_weight() {
    // Each list of three of the closed forms.
    let forms: Vec<Edit> = vec![
        low_rank(2, 1.7).into(),
        LowRank::new(random([IN, 1]), random([1, 4]), 0.8).of_columns(2..6).into(),
        scale().into(),
        magnitude().into(),
        Magnitude { beside: Some(Box::new(low_rank(2, -0.6))), ..magnitude() }.into(),
        rotate(Side::Input, true).into(),
        rotate(Side::Output, false).into(),
        Rotate::low_rank(random([OUT, 2]), random([2, OUT]), Side::Output).into(),
        Scale::output(random([OUT])).keeping_bias().into(),
        Sparse { inputs: ints([1, 1, 4, 0]), outputs: ints([0, 0, 7, 9]), values: random([4]) }
            .into(),
        crate::kroneckers::kronecker().into(),
        Block { inputs: None, outputs: Some(ints([3, 8])), values: random([IN, 2]) }.into(),
        Edit::Bias(random([OUT])),
        affine(true),
        Edit::Mean(vec![(0.5, low_rank(1, 2.0).into()), (0.5, scale().into())]),
    ];
    for first in &forms {
        for second in &forms {
            for third in &forms {
                // A magnitude's key is of one place.
                let list = [first, second, third].map(|edit| match edit {
                    Edit::Magnitude(m) => Magnitude { key: magnitude().key, ..m.clone() }.into(),
                    other => other.clone(),
                });
                // Between them are larger values than at the end.
                agree_within(1e-4, &list.into_iter().collect());
            }
        }
    }
}

#[test]
fn counts_and_ranks_are_those_of_the_forms() {
    let base = base();
    let [biased, unbiased] = ["biased", "unbiased"].map(|path| crate::support::site(&base, path));
    let all = IN * OUT;
    let sparse =
        Sparse { inputs: ints([0, 1, 2, 3]), outputs: ints([0, 0, 1, 1]), values: random([4]) };
    let block = Block { inputs: Some(ints([5, 2])), outputs: None, values: random([2, OUT]) };
    let cases: [(Edits, [usize; 3], usize); 17] = [
        (low_rank(2, 1.0).into(), [all, 0, 2], 0),
        (low_rank(9, 1.0).into(), [all, 0, IN], 0),
        (LowRank::new(random([IN, 1]), random([1, 4]), 1.0).of_columns(0..4).into(), [24, 0, 1], 0),
        (scale().into(), [all, OUT, IN], 0),
        (Scale::output(random([4])).of_columns(3..7).into(), [24, 4, 4], 0),
        (Scale::input(random([IN])).into(), [all, 0, IN], 0),
        (magnitude().into(), [all, 0, IN], 0),
        (
            Magnitude { beside: Some(Box::new(low_rank(2, 0.5))), ..magnitude() }.into(),
            [all, OUT, IN],
            0,
        ),
        (Scale::output(random([OUT])).keeping_bias().into(), [all, 0, IN], 0),
        (Rotate::low_rank(random([IN, 2]), random([2, IN]), Side::Input).into(), [all, 0, 2], 0),
        (rotate(Side::Input, true).into(), [all, 0, IN], 0),
        (rotate(Side::Output, true).into(), [all, OUT, IN], 0),
        (sparse.into(), [4, 0, 4], 0),
        (block.into(), [2 * OUT, 0, 2], 0),
        (Edit::Bias(random([OUT])).into(), [0, OUT, 0], OUT),
        (affine(true).into(), [7, 0, 3], 0),
        (Edits::from(low_rank(2, 1.0)).then(Edit::Bias(random([OUT]))), [all, OUT, 2], OUT),
    ];
    for (edits, [weight, bias, rank], unbiased_bias) in cases {
        assert_eq!(edits.change(biased), Change { weight, bias, rank }, "{edits:?}");
        let expected = Change { weight, bias: unbiased_bias, rank };
        assert_eq!(edits.change(unbiased), expected, "{edits:?}");
    }
    let twice = Edits::from(low_rank(2, 1.0)).then(low_rank(3, 1.0)).then(low_rank(4, 1.0));
    assert_eq!(twice.change(biased), Change { weight: all, bias: 0, rank: IN });
    let mean = Edit::Mean(vec![(0.5, low_rank(1, 1.0).into()), (0.5, low_rank(2, 1.0).into())]);
    assert_eq!(Edits::from(mean).change(biased), Change { weight: all, bias: 0, rank: 3 });
}

#[test]
fn a_start_that_is_not_known_has_no_way_back() {
    let base = base();
    let site = base.sites().next().expect("one");
    let edits = Edits::from(low_rank(2, 1.0)).without_inverse("the start is lost");
    let both = Edits::from(low_rank(1, 1.0)).followed_by(edits);
    let found = both.invert(site, random([IN, OUT]));
    assert_eq!(found.err(), Some("the start is lost"));
}
