//! What texts run under: adapters side by side, several that are one, or the model alone.

use std::path::PathBuf;

use anyhow::bail;
use burn::module::Module;
use burn::tensor::Device;
use peft::core::{AdapterPool, Hooks, Slots, Stack};
use peft::models::Model;
use peft::train::{AdapterPaths, Side, SideBySide, Under};

use crate::models::ResolvedModel;
use crate::options::{AdapterOptions, ModelOptions};

/// Adapters over their model.
pub struct Loaded {
    pub resolved: ResolvedModel,
    /// What the user asked for, in that order.
    runs: Vec<AdapterPaths>,
    pub groups: Vec<Group>,
}

/// Adapters over one and the same model.
pub struct Group {
    pub model: Model,
    method: Method,
    /// What is known of each.
    pub sides: Vec<Side>,
}

enum Method {
    /// The model alone.
    None,
    /// One adapter, or several as one.
    One(Stack),
    /// Each in a slot.
    Pool(AdapterPool),
}

impl Loaded {
    /// Loads the model, and what runs over it. Side by side, adapters for one task share the model.
    pub fn new(
        model: &ModelOptions,
        adapters: &AdapterOptions,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let runs = adapters.runs()?;
        if let [paths] = &runs[..] {
            let (resolved, adapted) = model.load(paths, device)?;
            let (task, added_tokens) = (adapted.task, adapted.added_tokens);
            let drawn = adapted.drawn;
            let method = adapted.adapter.map(|adapter| adapter.method.valid());
            let method = method.map_or(Method::None, Method::One);
            let sides = vec![Side { number: 0, task, added_tokens, drawn }];
            let group = Group { model: adapted.model, method, sides };
            return Ok(Self { resolved, runs, groups: vec![group] });
        }
        let resolved = model.resolve(runs.iter().flat_map(|paths| &paths.adapters))?;
        let (directory, registry) = (&resolved.directory, peft::registry());
        let groups = SideBySide::load(directory, &runs, &registry, model.load_in, device)?;
        let group =
            |SideBySide { model, pool, sides }| Group { model, method: Method::Pool(pool), sides };
        let groups = groups.into_iter().map(group).collect();
        Ok(Self { resolved, runs, groups })
    }

    /// Whether there are several adapters, each with an output of its own.
    pub fn are_several(&self) -> bool {
        self.runs.len() > 1
    }

    /// Refuses a head that was drawn at random: what it gives is no result.
    pub fn check_heads(&self) -> anyhow::Result<()> {
        for group in &self.groups {
            let Some(side) = group.sides.iter().find(|side| !side.drawn.is_empty()) else {
                continue;
            };
            let (name, modules) = (&self.resolved.name, side.drawn.join(", "));
            bail!(
                "{name}: neither the checkpoint nor an adapter has {modules} for {}: outputs of a \
                 head drawn at random mean nothing; train it, or give an adapter that has it",
                group.model.task()
            );
        }
        Ok(())
    }

    /// What `of` gives for each adapter, with its directory, in the order in which they were named.
    pub fn each<T>(
        &self,
        mut of: impl FnMut(&Group, usize, &Side) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<(Option<&PathBuf>, T)>> {
        let mut all = Vec::new();
        for group in &self.groups {
            for (slot, side) in group.sides.iter().enumerate() {
                all.push((side.number, of(group, slot, side)?));
            }
        }
        Ok(self.in_order(all))
    }

    /// Results by the adapters' numbers, with their directories, in the order of the numbers.
    pub fn in_order<T>(&self, mut results: Vec<(usize, T)>) -> Vec<(Option<&PathBuf>, T)> {
        results.sort_by_key(|(number, _)| *number);
        let named = results.into_iter();
        named.map(|(number, result)| (self.runs[number].adapters.last(), result)).collect()
    }
}

impl Group {
    /// The model under the adapter in `slot`.
    pub fn under(&self, slot: usize) -> Under<'_> {
        match &self.method {
            Method::Pool(pool) => Under::slot(pool, slot),
            _ => Under::method(self.hooks()),
        }
    }

    /// What the model runs under; where there are several adapters, [`slots`](Self::slots) say which
    /// row is whose.
    pub fn hooks(&self) -> &dyn Hooks {
        match &self.method {
            Method::None => &(),
            Method::One(method) => method,
            Method::Pool(pool) => pool,
        }
    }

    /// Rows under the adapters in these slots.
    pub fn slots(&self, of_rows: impl IntoIterator<Item = usize>) -> Slots {
        match &self.method {
            Method::Pool(_) => Slots::new(of_rows.into_iter().map(Some).collect()),
            _ => Slots::default(),
        }
    }
}
