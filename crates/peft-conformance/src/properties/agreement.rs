//! Layers as they compute, and the tensors that they have once merged.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, module::linear};
use peft_core::{
    BaseSite, EmptyPass, Hooks, LinearLayer, Memo, Mode, NormEdit, NormLayer, Pass, Rows, SiteKind,
    Slots,
};

use crate::numbers::{Normal, assert_close, values};
use crate::{Host, Subject};

/// Each linear layer, norm and embedding computes what its weight and bias under the method say, on
/// random input, over a base of whole numbers and over a packed one. Layers that have no weight
/// under the method are left out.
///
/// # Panics
/// If one computes something else.
pub fn weight_agrees_with_linear(subject: &Subject) {
    let method = subject.trained(1).method.valid();
    let hosts = [Some(subject.host.clone()), subject.host.packed()];
    for host in hosts.into_iter().flatten() {
        agree(&host, &method);
    }
}

fn agree(host: &Host, hooks: &dyn Hooks) {
    let base = host.model.base();
    let rows = Rows::packed(&[2, 1, 3], base.device());
    let (slots, memo) = (Slots::default(), Memo::new());
    let pass = Pass { rows: &rows, slots: &slots, mode: Mode::Infer, memo: &memo, probe: None };
    let parts = EmptyPass::new(base.device());
    let empty = parts.pass();
    let mut normal = Normal::new(5);
    for entry in base.iter() {
        let site = &entry.site;
        let mut input = || random(&mut normal, [rows.tokens(), site.d_in()], base.device());
        let (found, expected) = match (site.kind, entry) {
            (SiteKind::Linear, BaseSite { weight: Some(weight), .. }) => {
                let layer = LinearLayer::new(site, weight, entry.bias.as_ref());
                let edits = hooks.linear(site, &pass);
                if edits.obstacle().is_some() {
                    continue;
                }
                let (weight, bias) = hooks.linear(site, &empty).dense(&layer);
                let x = input();
                (edits.apply(&layer, x.clone(), &pass), linear(x, weight, bias))
            }
            (SiteKind::Norm, BaseSite { gain: Some(gain), bias, .. }) => {
                let edit = hooks.norm(site, &pass);
                let merged = edit.gain.apply(gain.clone());
                let merged_bias = edit.bias.apply(bias.clone().unwrap_or(gain.zeros_like()));
                let has_bias = bias.is_some() || !edit.bias.is_keep();
                let layer = NormLayer::new(site, gain, bias.as_ref(), 1e-6);
                let x = input();
                let found = layer.forward(&edit, x.clone(), &pass);
                let layer = NormLayer::new(site, &merged, has_bias.then_some(&merged_bias), 1e-6);
                (found, layer.forward(&NormEdit::default(), x, &pass))
            }
            (SiteKind::Embedding, BaseSite { weight: Some(table), .. }) => {
                let edit = hooks.table(site, &pass);
                let ids: Vec<usize> = (0..rows.tokens()).map(|i| 7 * i % site.d_in()).collect();
                let merged = edit.dense(table.dense());
                let index: Vec<i64> = ids.iter().map(|id| *id as i64).collect();
                let index = TensorData::new(index, [ids.len()]);
                let index = Tensor::<1, Int>::from_data(index, base.device());
                (edit.lookup(table, &ids, &pass), merged.select(0, index))
            }
            _ => continue,
        };
        let what = format!("output at {site} and that of its weight");
        assert_close(&what, &values(found), &values(expected), 1e-5);
    }
}

/// Numbers from `N(0, 1)`.
pub(super) fn random<const D: usize>(
    normal: &mut Normal,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    let values = normal.take(shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}
