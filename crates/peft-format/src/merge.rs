//! Folding a method into a copy of the base's weights, and out of it.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use peft_core::{
    Base, BaseSite, EmptyPass, Error, FrozenWeight, Hooks, Layout, LinearLayer, Pass, Site,
    SiteKind, TensorMap, change_at, merge_obstacle,
};

use crate::{Adapter, Result};

/// The model's tensors with the adapter folded in, by checkpoint key, as PyTorch lays them out.
///
/// The base itself stays as it is, so switching the merged model off is using the base.
///
/// # Errors
/// If the method acts on more than weights and biases.
pub fn merged_tensors(adapter: &Adapter, base: &Base) -> Result<TensorMap> {
    if let Some(reason) = merge_obstacle(&adapter.method, base) {
        return Err(refused(adapter, reason));
    }
    let hooks = adapter.method.valid();
    let parts = EmptyPass::new(base.device());
    let no_place = base
        .iter()
        .find(|entry| entry.weight_key.is_none() && is_untied(&hooks, base, entry, &parts.pass()));
    if let Some(entry) = no_place {
        let reason = format!(
            "{} has the table of the embeddings, and would need one of its own, for which this \
             architecture has no place",
            entry.site.path
        );
        return Err(refused(adapter, reason));
    }
    Ok(tensors_under(&hooks, base))
}

/// That an adapter cannot be merged, or taken out again.
fn refused(adapter: &Adapter, reason: String) -> crate::Error {
    Error::Merge { method: adapter.config.method.name().into(), reason }.into()
}

/// The weight `[d_in, d_out]` and the bias of a linear layer under `hooks`.
fn dense(hooks: &dyn Hooks, entry: &BaseSite, pass: &Pass<'_>) -> (Tensor<2>, Option<Tensor<1>>) {
    let site = &entry.site;
    let layer = LinearLayer::new(site, frozen_weight(entry), entry.bias.as_ref());
    let table = hooks.table(site, pass);
    let layer = if site.is_unembedding { layer.of_table(&table) } else { layer };
    hooks.linear(site, pass).dense(&layer)
}

/// Whether a head that is tied to an embedding has another table than that under `hooks`.
fn is_untied(hooks: &dyn Hooks, base: &Base, entry: &BaseSite, pass: &Pass<'_>) -> bool {
    let site = &entry.site;
    let Some(index) = site.tied_to else { return false };
    let Some(embedding) = base.iter().find(|other| other.site.index == index) else { return false };
    let below = hooks.table(&embedding.site, pass);
    let edits = hooks.linear(site, pass);
    if below.is_keep() && hooks.table(site, pass).is_keep() && edits.change(site).weight == 0 {
        return false;
    }
    let table = below.dense(frozen_weight(embedding).dense()).into_data();
    dense(hooks, entry, pass).0.transpose().into_data() != table
}

/// The model's tensors under `hooks` (`&()` for the base itself), by checkpoint key, as PyTorch
/// lays them out: a linear weight is `[d_out, d_in]`, that of a `Conv1D` `[d_in, d_out]`.
pub fn tensors_under(hooks: &dyn Hooks, base: &Base) -> TensorMap {
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    let mut tensors = base.buffers().clone();
    for entry in base.iter() {
        let site = &entry.site;
        let mut put = |name: &str, data: TensorData| {
            tensors.insert(format!("{}.{name}", site.path), data);
        };
        match site.kind {
            SiteKind::Linear => {
                let (weight, bias) = dense(hooks, entry, pass);
                if let Some(bias) = bias {
                    put("bias", bias.into_data());
                }
                let is_own = site.tied_to.is_none() || is_untied(hooks, base, entry, pass);
                if let (true, Some(key)) = (is_own, &entry.weight_key) {
                    tensors.insert(key.clone(), in_checkpoint(site, weight));
                }
            }
            SiteKind::Norm => {
                let gain = entry.gain.clone().expect("a norm has a gain");
                let edit = hooks.norm(site, pass);
                if entry.bias.is_some() || !edit.bias.is_keep() {
                    let bias = entry.bias.clone().unwrap_or_else(|| gain.zeros_like());
                    put("bias", edit.bias.apply(bias).into_data());
                }
                put("weight", edit.gain.apply(gain).into_data());
            }
            SiteKind::Embedding => {
                let table = hooks.table(site, pass).dense(frozen_weight(entry).dense());
                put("weight", table.into_data());
            }
            SiteKind::Attention | SiteKind::Sublayer => {}
        }
    }
    tensors
}

/// The tensors of a merged model (`base`) with the adapter taken out again.
///
/// Exact up to one rounding of each weight. What the adapter replaced (a saved head, trained
/// biases) cannot be known from the merged model and stays as it is; the second value lists it.
///
/// # Errors
/// If the method cannot be merged, or its merged form has no inverse.
pub fn unmerged_tensors(adapter: &Adapter, base: &Base) -> Result<(TensorMap, Vec<String>)> {
    if let Some(reason) = merge_obstacle(&adapter.method, base) {
        return Err(refused(adapter, reason));
    }
    let hooks = adapter.method.valid();
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    let mut tensors = tensors_under(&(), base);
    let mut kept = Vec::new();
    let saved = adapter.specs(base);
    for entry in base.iter() {
        let site = &entry.site;
        let change = change_at(&hooks, site, pass);
        if change.bias > 0 {
            kept.push(format!("{}.bias", site.path));
        }
        // What a head has of an embedding is the embedding's.
        if change.weight == 0 || site.tied_to.is_some() {
            continue;
        }
        // A head may have its weight under another module's name.
        let key = entry.weight_key.clone().expect("a weight of its own has a key");
        // A gain or a table is replaced, whatever its key.
        let is_table = site.is_unembedding && !hooks.table(site, pass).is_keep();
        let is_replaced = site.kind != SiteKind::Linear || is_table;
        if is_replaced || saved.iter().any(|spec| spec.key == site.key("weight")) {
            kept.push(key);
            continue;
        }
        let edits = hooks.linear(site, pass);
        let weight = edits.invert(site, frozen_weight(entry).dense()).map_err(|reason| {
            let at = &site.path;
            refused(adapter, format!("its merged form at {at} cannot be inverted: {reason}"))
        })?;
        tensors.insert(key, in_checkpoint(site, weight));
    }
    Ok((tensors, kept))
}

/// A weight as the checkpoint holds it.
fn in_checkpoint(site: &Site, weight: Tensor<2>) -> TensorData {
    match site.layout() {
        Layout::AsIs => weight.into_data(),
        Layout::Transposed => weight.transpose().into_data(),
    }
}

fn frozen_weight(entry: &BaseSite) -> &FrozenWeight {
    entry.weight.as_ref().expect("a linear layer or an embedding has a weight")
}
