//! Feed-forward networks, and their nodes.

use std::collections::BTreeMap;

use peft_core::{Error, Result, Role, Site};

/// The layers of feed-forward networks.
pub(super) const ROLES: &[Role] =
    &[Role::FeedForwardUp, Role::FeedForwardGate, Role::FeedForwardDown];

/// A feed-forward network: `act(x W_up) W_down`, with a gate in some models.
pub(super) struct Network<'b> {
    /// Whose outputs are the nodes: one layer, or two.
    ups: Vec<&'b Site>,
    /// Whose inputs they are.
    pub(super) down: &'b Site,
}

/// One layer of a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'b> {
    pub(super) site: &'b Site,
    /// Whether the nodes are its inputs.
    pub(super) is_down: bool,
}

impl Part<'_> {
    /// The values of each node here.
    pub(super) fn width(&self) -> usize {
        if self.is_down { self.site.d_out() } else { self.site.d_in() }
    }
}

impl<'b> Network<'b> {
    /// The networks that some layers are of.
    ///
    /// # Errors
    /// If they are not all layers of a network.
    pub(super) fn all(sites: Vec<&'b Site>) -> Result<Vec<Self>> {
        let mut by_layer: BTreeMap<Option<usize>, Vec<&'b Site>> = BTreeMap::new();
        for site in sites {
            by_layer.entry(site.layer).or_default().push(site);
        }
        by_layer.into_values().map(Self::of).collect()
    }

    fn of(sites: Vec<&'b Site>) -> Result<Self> {
        let (downs, ups): (Vec<&Site>, Vec<&Site>) =
            sites.into_iter().partition(|site| site.role == Role::FeedForwardDown);
        let is_up = |site: &&Site| ROLES.contains(&site.role);
        let is_whole = |down: &Site| {
            let has_up = ups.iter().any(|site| site.role == Role::FeedForwardUp);
            has_up && ups.iter().all(|up| is_up(up) && up.d_out() == down.d_in())
        };
        match downs[..] {
            [down] if is_whole(down) => Ok(Self { ups, down }),
            _ => {
                let found = downs.iter().chain(&ups).map(|site| site.path.as_str());
                let found = found.collect::<Vec<_>>().join(", ");
                let expected = "must be all layers of a feed-forward network, and nothing else";
                Err(Error::config("target_modules", found, expected))
            }
        }
    }

    /// How many nodes it has.
    pub(super) fn nodes(&self) -> usize {
        self.down.d_in()
    }

    /// Its layers.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'b>> {
        let ups = self.ups.clone().into_iter().map(|site| Part { site, is_down: false });
        ups.chain([Part { site: self.down, is_down: true }])
    }
}
