//! What other writers save beside a method although the configuration does not say so.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::TensorData;
use peft_core::{Base, BaseSite, Dialect, ModulesToSave, Role, SiteKind, TensorMap};

use crate::directory::Heads;
use crate::{Adapter, AdapterConfig, Error, Result};

/// An adapter's file as it is read once it is known what is in it.
pub(crate) struct Beside {
    pub(crate) config: AdapterConfig,
    /// The paths of modules of which the file has copies that the method may adapt.
    pub(crate) carried: Vec<String>,
    pub(crate) tensors: TensorMap,
}

impl Beside {
    /// Looks among the keys that are not the adapter's for the head of a classifier, which HF PEFT
    /// did not name in its configuration before version 0.11, and for tables of the base, which it
    /// saves beside an adapter of an embedding. Equal tables are passed over, others act as HF PEFT
    /// has them. A head is passed over where `heads` are. `None` where there is nothing of the kind.
    ///
    /// # Errors
    /// If a table has other rows than the model's.
    pub(crate) fn find(
        adapter: &Adapter,
        base: &Base,
        tensors: &TensorMap,
        expected: &BTreeSet<&str>,
        heads: Heads,
        path: &Path,
    ) -> Result<Option<Self>> {
        // As nearly always; nothing is copied then.
        if tensors.keys().all(|key| expected.contains(key.as_str())) {
            return Ok(None);
        }
        let mut config = adapter.config.clone();
        let (mut carried, mut kept) = (Vec::new(), tensors.clone());
        let mut is_changed = false;
        let prompts = adapter.config.method.dialect() == Dialect::PeftPrompt;
        for entry in base.iter() {
            let site = &entry.site;
            let key_of = |name: &str| match prompts {
                true => site.key(name).replacen("base_model.model.", "base_model.", 1),
                false => site.key(name),
            };
            let is_saved = ModulesToSave::selects(site, &config.modules_to_save);
            let is_table = site.kind == SiteKind::Embedding || site.is_unembedding;
            let is_head = site.role == Role::Head && !is_table;
            let key = key_of("weight");
            if is_saved || expected.contains(key.as_str()) {
                continue;
            }
            if is_head && tensors.contains_key(&key) {
                is_changed = true;
                match heads {
                    Heads::Read => {
                        let name = site.path.split('.').next().unwrap_or(&site.path);
                        config.modules_to_save.push(name.into());
                    }
                    Heads::PassOver => {
                        kept.remove(&key);
                        kept.remove(&key_of("bias"));
                    }
                }
            }
            // Where the method adapts the module, HF PEFT has wrapped it.
            let wrapped = site.key("base_layer.weight");
            // Its copy is the embedding's.
            let follows = config.ensure_weight_tying && site.tied_to.is_some();
            if follows && kept.remove(&site.key("base_layer.weight")).is_some() {
                is_changed = true;
            }
            if !is_table || follows {
                continue;
            }
            let found = [&wrapped, &key].into_iter().find_map(|key| Some((key, kept.remove(key)?)));
            let Some((found, data)) = found else { continue };
            is_changed = true;
            let own = table(entry);
            let (rows, of_base) = (data.shape().to_vec(), own.shape().to_vec());
            if rows.first() != of_base.first() {
                return Err(Error::Rows {
                    path: path.into(),
                    key: found.clone(),
                    found: rows.first().copied().unwrap_or_default(),
                    expected: of_base[0],
                });
            }
            if !is_equal(&data, &own) {
                carried.push(site.path.clone());
                kept.insert(key, data);
            }
        }
        Ok(is_changed.then_some(Self { config, carried, tensors: kept }))
    }
}

/// The table of an embedding or a head, as a checkpoint holds it.
fn table(entry: &BaseSite) -> TensorData {
    let weight = entry.weight.as_ref().expect("a table has a weight").dense();
    if entry.site.is_unembedding { weight.transpose().into_data() } else { weight.into_data() }
}

/// Whether two tables are one, of which a copy may have been rounded to half precision.
fn is_equal(found: &TensorData, own: &TensorData) -> bool {
    let rounding = match found.dtype().size() {
        2 => 1e-2,
        _ => 0.0,
    };
    found.shape() == own.shape()
        && found
            .iter::<f32>()
            .zip(own.iter::<f32>())
            .all(|(found, own)| (found - own).abs() <= rounding * own.abs().max(f32::MIN_POSITIVE))
}
