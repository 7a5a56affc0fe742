//! Dropout.

use burn::module::Module;
use burn::tensor::Tensor;
use peft_core::{
    Base, Edit, Edits, ExtraKeys, Hooks, Insert, Memo, Mode, Pass, Rows, Site, SiteKind, Slots,
    SublayerEnd,
};
use peft_models::Forward;

use super::agreement::random;
use crate::Subject;
use crate::numbers::{Normal, assert_close, assert_same, bits, values};

/// With dropout in its configuration, in training the method computes something else in each step
/// at every layer with more than another bias, in every function at the end of a sublayer and in all
/// keys that it adds, the first of them too, whose input no gradient reaches; in a step that is done
/// again, the same. In inference it computes what it computes without dropout, wherever its
/// parameters are, and so does a base with dropout.
///
/// # Panics
/// If it does not.
pub fn dropout_acts_at_every_site_and_never_in_inference(subject: &Subject) {
    let plain = subject.in_training(1).method;
    let with_dropout = subject.with_dropout();
    let base = subject.host.model.base();
    let method = match &with_dropout {
        None => plain.clone(),
        Some(subject) => subject.fresh().method.load_record(plain.clone().into_record()),
    };
    if with_dropout.is_some() {
        let hooks = method.valid();
        let drawn = |step| at_each_site(&hooks, base, Mode::Train { seed: 5, step });
        let (first, again, second) = (drawn(0), drawn(0), drawn(1));
        for (((path, first), (_, again)), (_, second)) in first.iter().zip(again).zip(second) {
            assert_same(&format!("the same step, drawn twice, at {path}"), first, &again);
            assert!(bits(first) != bits(&second), "dropout does not act at {path}");
        }
    }

    let host = &subject.host;
    let logits = |how: Forward<'_>| values(host.outputs(how));
    let step = |number| logits(Forward::train(&method, 5, number));
    assert_same("logits of the same step", &step(0), &step(0));
    if with_dropout.is_some() {
        assert!(bits(&step(0)) != bits(&step(1)), "dropout does not act in training");
    }
    let hooks = method.valid();
    let expected = logits(Forward::infer(&plain.valid()));
    let found = logits(Forward::infer(&hooks));
    assert_same("dropout acts in inference: logits with it and without", &found, &expected);
    // Products with a tape may be rounded in another order.
    let found = logits(Forward::infer(&method));
    assert_close("dropout acts in inference with gradients: logits", &found, &expected, 1e-5);

    let host = host.with_dropout();
    let logits = |how: Forward<'_>| values(host.outputs(how));
    let step = |number| logits(Forward::train(&method, 5, number));
    assert_same("logits of the same step, with dropout of the base", &step(0), &step(0));
    let [first, second] = [step(0), step(1)].map(|logits| bits(&logits));
    assert!(first != second, "dropout of the base does not act in training");
    let found = logits(Forward::infer(&hooks));
    assert_same("dropout of the base acts in inference: logits", &found, &expected);
}

/// What a method makes of the same random states at each place where its dropout must act: the
/// place, and the output.
fn at_each_site(hooks: &dyn Hooks, base: &Base, mode: Mode) -> Vec<(String, Vec<f32>)> {
    let device = base.device();
    // So many that no two steps drop the same texts.
    let rows = Rows::packed(&[3, 2, 1, 2, 1, 3, 1, 2, 1, 1], device);
    let (slots, memo) = (Slots::default(), Memo::new());
    let pass = &Pass { rows: &rows, slots: &slots, mode, memo: &memo, probe: None };
    let mut normal = Normal::new(9);
    let mut found = Vec::new();
    for entry in base.iter() {
        let site = &entry.site;
        let mut states = || random(&mut normal, [rows.tokens(), site.d_in()], device);
        let output = match site.kind {
            SiteKind::Linear => {
                let edits = hooks.linear(site, pass);
                let layer = entry.weight.as_ref().filter(|_| has_function(&edits));
                let layer = layer.map(|w| peft_core::LinearLayer::new(site, w, None));
                layer.map(|layer| edits.apply(&layer, states(), pass))
            }
            SiteKind::Sublayer => of_sublayer(hooks, site, [states(), states(), states()], pass),
            SiteKind::Attention => match hooks.attention(site, pass) {
                ExtraKeys::None => None,
                keys => keys.of_rows(site, &states(), 1, pass).map(|keys| {
                    let [rows, heads, added, size] = keys.key.dims();
                    Tensor::cat(vec![keys.key, keys.value], 2)
                        .reshape([2 * rows * heads * added, size])
                }),
            },
            SiteKind::Norm | SiteKind::Embedding => None,
        };
        found.extend(output.map(|output| (site.path.clone(), values(output))));
    }
    found
}

fn of_sublayer(
    hooks: &dyn Hooks,
    site: &Site,
    states: [Tensor<2>; 3],
    pass: &Pass<'_>,
) -> Option<Tensor<2>> {
    match hooks.sublayer(site, pass) {
        Insert::None => None,
        insert => {
            let end = SublayerEnd::new(site, None, hooks, states);
            let end = end.with_output(insert.forward(&end, pass));
            Some(insert.leave(site, end.normalized(pass), pass))
        }
    }
}

/// Whether a layer computes something else beside another bias. A copy of a whole weight has no
/// dropout either: it is in the place of a frozen one.
fn has_function(edits: &Edits) -> bool {
    edits.iter().any(|edit| match edit {
        Edit::Bias(_) | Edit::Weight(_) => false,
        Edit::Gated(_, edits) => has_function(edits),
        _ => true,
    })
}
