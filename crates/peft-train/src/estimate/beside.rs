//! What networks beside the layers compute, and keep.

use peft_core::{Base, Pass, Role, SideNetwork, Site, SiteKind};

use super::costs::{Cost, Costs};

/// The layers of a network beside a stack.
pub(super) struct Narrow {
    /// The sites of its layers, with its own widths.
    pub(super) sites: Vec<Site>,
    /// The width of the stack, and its own.
    widths: [f64; 2],
    /// Whether the head reads what leaves it.
    is_last: bool,
}

/// Where stacks of layers have their embeddings.
pub(super) fn embeddings(base: &Base) -> impl Iterator<Item = &Site> {
    let is_one = |site: &&Site| matches!(site.role, Role::Embeddings | Role::DecoderEmbeddings);
    base.sites().map(|site| &**site).filter(is_one)
}

impl Narrow {
    /// Of the stack with its embeddings at a site.
    pub(super) fn new(
        base: &Base,
        stack: &Site,
        network: &dyn SideNetwork,
        pass: &Pass<'_>,
    ) -> Self {
        let behind = base.sites().skip_while(|site| site.index <= stack.index);
        let own = behind.take_while(|site| site.role != Role::DecoderEmbeddings);
        let own: Vec<&Site> = own.map(|site| &**site).filter(|site| site.layer.is_some()).collect();
        let is_there = |layer: Option<usize>| {
            let mut linear = own.iter().filter(|site| site.kind == SiteKind::Linear);
            linear.any(|site| site.layer == layer && !network.linear(site, pass).is_none())
        };
        let reduction = network.reduction();
        let narrow = |site: &&Site| Site {
            shape: site.shape.map(|size| size.div_ceil(reduction)),
            ..(**site).clone()
        };
        let sites = own.iter().filter(|site| is_there(site.layer)).map(narrow).collect();
        let d = stack.d_out();
        let widths = [d as f64, d.div_ceil(reduction) as f64];
        let is_last = base
            .sites()
            .all(|site| site.role != Role::DecoderEmbeddings || site.index <= stack.index);
        Self { sites, widths, is_last }
    }

    /// Adds the costs of its layers, and of its ways in and out.
    pub(super) fn add(&self, costs: &mut Costs, layers: Vec<Cost>, tokens: f64) {
        let [d, narrow] = self.widths;
        let product = 2.0 * tokens * d * narrow;
        // The input of the way in is a frozen layer's output, which no gradient is wanted of.
        let way_in = || Cost {
            kept: tokens * (d + 2.0 * narrow),
            products: [product; 2],
            moved: [tokens * (d + 4.0 * narrow), tokens * (d + 6.0 * narrow)],
            is_tracked: true,
            ..Cost::default()
        };
        costs.embeddings.add(way_in());
        for (layer, cost) in layers.into_iter().enumerate() {
            let is_there = self.sites.iter().any(|site| site.layer == Some(layer));
            if is_there {
                costs.layers[layer].add(cost);
                costs.layers[layer].add(way_in());
            }
        }
        if self.is_last {
            costs.head.add(Cost {
                kept: tokens * narrow,
                products: [product, 2.0 * product],
                moved: [tokens * (d + narrow), 2.0 * tokens * (d + narrow)],
                is_tracked: true,
                ..Cost::default()
            });
        }
    }
}
