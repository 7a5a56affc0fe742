//! What merging a method would change, and what stands against it.

use std::sync::Arc;

use super::Method;
use crate::{Base, Change, EmptyPass, Hooks, Pass, Site, SiteKind};

/// What merging a method changes at a site, in a pass over no tokens.
pub fn change_at(hooks: &dyn Hooks, site: &Site, pass: &Pass<'_>) -> Change {
    match site.kind {
        // A head that is tied to an embedding has its table, and is counted there.
        SiteKind::Linear if site.is_unembedding && site.tied_to.is_none() => {
            let own = [hooks.table(site, pass).change(site), hooks.linear(site, pass).change(site)];
            Change::together(site, own.into_iter())
        }
        SiteKind::Linear => hooks.linear(site, pass).change(site),
        SiteKind::Norm => hooks.norm(site, pass).change(site),
        SiteKind::Embedding => hooks.table(site, pass).change(site),
        SiteKind::Attention | SiteKind::Sublayer => Change::default(),
    }
}

/// Why a method cannot be merged into the weights of `base`; `None` where it can.
pub fn merge_obstacle(method: &dyn Method, base: &Base) -> Option<String> {
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    let of_site = |site: &Arc<Site>| match site.kind {
        SiteKind::Linear => method.linear(site, pass).obstacle().map(str::to_string),
        _ => None,
    };
    // A model of its configuration would not read one.
    let added = |site: &Arc<Site>| {
        (!site.has_bias && change_at(method, site, pass).bias > 0)
            .then(|| format!("it gives {} a bias, and the model has none there", site.path))
    };
    let own = method.merge_obstacle();
    own.or_else(|| base.sites().find_map(of_site)).or_else(|| base.sites().find_map(added))
}
