//! The three counts that papers confuse.

use peft_core::{
    Base, EmptyPass, Exchange, Method, Role, SiteKind, TensorSpec, change_at, merge_obstacle,
    num_trainable,
};
use serde::Serialize;

use crate::Adapter;

/// What an adapter trains and changes at one site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteCounts {
    /// The module's path.
    pub path: String,
    /// Its kind.
    pub kind: SiteKind,
    /// Its role.
    pub role: Role,
    /// `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// Values trained here.
    pub trainable: usize,
    /// Values of the base that differ after merging.
    pub changed: usize,
    /// The largest rank of the change of the weight matrix.
    pub rank: usize,
}

/// What an adapter trains and changes in a model.
///
/// - *trainable*: values that the optimizer updates, the head's included;
/// - *changed*: values of the merged model that can differ from the base's;
/// - *rank*: the sum over weight matrices of the largest rank of their change.
///
/// BitFit trains few values and changes as few, at rank 0; LoRA trains few, changes every value
/// of its targets, at a low rank; a mask trains as many as it changes, at full rank.
///
/// `total` counts the model as merged, once. (HF PEFT adds the adapter's values, and those of a
/// saved head a second time.)
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accounting {
    /// Values in the model, merged.
    pub total: usize,
    /// Values trained.
    pub trainable: usize,
    /// Values changed.
    pub changed: usize,
    /// Rank of the change, summed over matrices.
    pub rank: usize,
    /// `trainable` in percent of `total`.
    pub trainable_percent: f64,
    /// `changed` in percent of `total`.
    pub changed_percent: f64,
    /// `rank` in percent of the sum of `min(d_in, d_out)` over the model's linear layers.
    pub rank_percent: f64,
    /// How much of `trainable` is the head.
    pub head_trainable: usize,
    /// Size of the adapter file's tensors in bytes.
    pub bytes: usize,
    /// Why the method cannot be merged, in which case `changed` and `rank` count only the part
    /// that could be.
    pub merge_obstacle: Option<String>,
    /// The sites at which anything is trained or changed.
    pub sites: Vec<SiteCounts>,
}

impl Accounting {
    /// Counts what `adapter` trains and changes in `base`.
    pub fn new(adapter: &Adapter, base: &Base) -> Self {
        // In the dialect whose keys begin with the paths of sites.
        let mut file = Exchange::describe();
        adapter.method.clone().exchange(&mut file, base);
        let specs = file.into_specs();
        let trained_at = trained_by_site(&specs, base);
        let parts = EmptyPass::new(base.device());
        let pass = &parts.pass();
        let mut sites = Vec::new();
        for site in base.sites() {
            let change = change_at(&adapter.method, site, pass);
            let counts = SiteCounts {
                path: site.path.clone(),
                kind: site.kind,
                role: site.role,
                shape: site.shape,
                trainable: trained_at[site.index],
                changed: change.weight + change.bias,
                rank: change.rank,
            };
            if counts.trainable + counts.changed > 0 {
                sites.push(counts);
            }
        }
        let total = base.num_params();
        let trainable = num_trainable(&adapter.method);
        let changed = sites.iter().map(|s| s.changed).sum();
        let rank = sites.iter().map(|s| s.rank).sum();
        let full_rank: usize = base.linears().map(|s| s.d_in().min(s.d_out())).sum();
        let percent = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
        let head = sites.iter().filter(|s| s.role == Role::Head);
        Self {
            total,
            trainable,
            changed,
            rank,
            trainable_percent: percent(trainable, total),
            changed_percent: percent(changed, total),
            rank_percent: percent(rank, full_rank),
            head_trainable: head.map(|s| s.trainable).sum(),
            bytes: specs.iter().map(|s| s.num_values() * size_of::<f32>()).sum(),
            merge_obstacle: merge_obstacle(&adapter.method, base),
            sites,
        }
    }
}

/// Trained values by [`Site::index`](peft_core::Site): a tensor belongs to the site with the longest
/// path that its key starts with.
fn trained_by_site(specs: &[TensorSpec], base: &Base) -> Vec<usize> {
    let mut trained = vec![0; base.len()];
    for spec in specs.iter().filter(|spec| spec.trainable) {
        let around = base.sites().filter(|site| spec.key.starts_with(&site.key("")));
        if let Some(site) = around.max_by_key(|site| site.path.len()) {
            trained[site.index] += spec.num_values();
        }
    }
    trained
}
