//! What each part of a model computes under a method, and what it keeps for the backward pass.

use std::sync::Arc;

use peft_core::{
    Acts, Base, Edit, EmptyPass, ExtraKeys, Hooks, Method, Pass, Role, Rotation, Side, Site,
    SiteKind,
};

use super::Workload;
use super::beside::{Narrow, embeddings};

/// What a part of a model takes for a batch: of operations, multiplications and additions count one
/// each; of numbers, four bytes each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Numbers that are kept for the backward pass.
    pub(super) kept: f64,
    /// Operations of products with weights, forward and backward.
    pub(super) products: [f64; 2],
    /// Operations of attention, forward and backward.
    pub(super) attention: [f64; 2],
    /// Numbers that go from and to memory, forward and backward.
    pub(super) moved: [f64; 2],
    /// The numbers of what is computed and not kept, at most at once.
    pub(super) passing: f64,
    /// Frozen weights with which gradients are multiplied.
    pub(super) weights_back: f64,
    /// Whether something on the way through it is trained.
    pub(super) is_tracked: bool,
}

impl Cost {
    pub(super) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.weights_back += other.weights_back;
        self.passing = self.passing.max(other.passing);
        self.is_tracked |= other.is_tracked;
        let pairs = [
            (&mut self.products, other.products),
            (&mut self.attention, other.attention),
            (&mut self.moved, other.moved),
        ];
        for (sum, more) in pairs {
            sum[0] += more[0];
            sum[1] += more[1];
        }
    }
}

/// What the parts of a model take, in the order in which they run.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Before the layers.
    pub(super) embeddings: Cost,
    /// Each layer.
    pub(super) layers: Vec<Cost>,
    /// Behind them, the loss included.
    pub(super) head: Cost,
    /// Numbers of the hidden states between two sublayers.
    pub(super) hidden: f64,
    /// The sublayers of all layers.
    pub(super) sublayers: usize,
    /// The layers that checkpointing does not run again.
    pub(super) on_tape: usize,
    /// Whether there is a network beside the layers.
    pub(super) is_beside: bool,
}

impl Costs {
    pub(super) fn new(base: &Base, method: &dyn Method, workload: Workload) -> Self {
        let parts = EmptyPass::new(base.device());
        let pass = parts.pass();
        let added = method.virtual_tokens();
        let lengthens = Acts::of(method, base).tokens.is_some();
        let is_table = |site: &&Arc<Site>| site.kind == SiteKind::Embedding;
        let trains_table =
            base.sites().filter(is_table).any(|site| !method.table(site, &pass).is_keep());
        let length = workload.tokens + if lengthens { added } else { 0 };
        let mut walk = Walk {
            hooks: method,
            pass,
            tokens: (workload.texts * length) as f64,
            length: length as f64,
            texts: workload.texts as f64,
            targets: workload.targets as f64,
            causal: base.sites().all(|site| site.role != Role::EncoderAttention)
                && base.sites().any(|site| site.is_unembedding),
            tracked: lengthens || trains_table,
            padded: method.needs_padding(),
            leaves_out: false,
            is_beside: embeddings(base).any(|site| !method.beside(site, &pass).is_none()),
        };
        let has = |named: fn(&Site) -> bool| base.sites().any(|site| named(site));
        let reads_one = workload.targets <= workload.texts
            && !has(|site| site.is_unembedding || site.role == Role::EncoderAttention);
        walk.leaves_out = reads_one && !walk.padded && !method.needs_every_token();
        let sites: Vec<&Site> = base.sites().map(|site| &**site).collect();
        let mut costs = walk.costs(&sites);
        for site in embeddings(base) {
            for network in method.beside(site, &pass).networks() {
                let narrow = Narrow::new(base, site, network, &pass);
                let sites: Vec<&Site> = narrow.sites.iter().collect();
                let mut own = Walk { hooks: network, tracked: true, leaves_out: false, ..walk };
                narrow.add(&mut costs, own.costs(&sites).layers, walk.tokens);
            }
        }
        costs.is_beside = walk.is_beside;
        costs
    }
}

/// The way through a model.
#[derive(Clone, Copy)]
struct Walk<'a> {
    hooks: &'a dyn Hooks,
    pass: Pass<'a>,
    /// Tokens of a batch, and of a text.
    tokens: f64,
    length: f64,
    texts: f64,
    targets: f64,
    causal: bool,
    /// Whether a gradient is wanted of the hidden states.
    tracked: bool,
    /// Whether batches have padding.
    padded: bool,
    /// Whether the last layer leaves out what the head does not read.
    leaves_out: bool,
    /// Whether the head reads a network beside the layers.
    is_beside: bool,
}

impl Walk<'_> {
    fn costs(&mut self, sites: &[&Site]) -> Costs {
        let layers = sites.iter().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        let on_tape = if self.leaves_out && layers > 2 { 2 } else { 1 };
        let mut costs = Costs { on_tape, ..Costs::default() };
        let mut sublayer: Vec<&Site> = Vec::new();
        let last = sites.iter().filter_map(|site| site.layer).max();
        for &site in sites {
            match (site.layer, site.role) {
                (Some(layer), _) => {
                    sublayer.push(site);
                    if site.kind == SiteKind::Sublayer {
                        costs.layers.resize(costs.layers.len().max(layer + 1), Cost::default());
                        let rows = match self.leaves_out && Some(layer) == last {
                            true => self.texts,
                            false => self.tokens,
                        };
                        costs.layers[layer].add(self.sublayer(&sublayer, rows));
                        costs.sublayers += 1;
                        costs.hidden = self.tokens * site.d_out() as f64;
                        sublayer.clear();
                    }
                }
                (None, Role::FinalNorm | Role::Pooler | Role::Head) => {
                    self.tracked |= self.is_beside && site.kind == SiteKind::Linear;
                    costs.head.add(self.head(site))
                }
                _ if site.is_unembedding => {
                    self.tracked |= self.is_beside;
                    costs.head.add(self.head(site))
                }
                _ => costs.embeddings.add(self.embedding(site)),
            }
        }
        costs
    }

    fn embedding(&self, site: &Site) -> Cost {
        let numbers = self.tokens * site.d_out() as f64;
        let moved = [3.0 * numbers, if self.tracked { 3.0 * numbers } else { 0.0 }];
        let kept = if self.tracked && site.kind == SiteKind::Norm { numbers } else { 0.0 };
        Cost { kept, moved, is_tracked: self.tracked, ..Cost::default() }
    }

    /// The norm, the pooler, the layer of labels, and the loss.
    fn head(&mut self, site: &Site) -> Cost {
        if site.kind == SiteKind::Norm {
            return self.norm(site, false, self.tracked, self.tokens);
        }
        let rows = if site.role == Role::Pooler { self.texts } else { self.targets };
        let mut x_kept = false;
        let (mut cost, tracked) = self.linear(site, self.tracked, rows, &mut x_kept);
        self.tracked |= tracked;
        let outputs = rows * site.d_out() as f64;
        if self.makes_logits(site) {
            // The logits, and their gradient.
            cost.kept += outputs;
            cost.passing = cost.passing.max(outputs);
        } else {
            // The gradient of what is multiplied; the logits of some targets, and what products
            // of them are made from.
            cost.kept += rows * site.d_in() as f64;
            cost.passing = cost.passing.max(2.0 * rows.min(LOGITS) * site.d_out() as f64);
        }
        cost.moved[0] += LOSS[0] * outputs;
        cost.moved[1] += LOSS[1] * outputs;
        cost.is_tracked = self.tracked;
        cost
    }

    /// Whether the loss is computed from the outputs of all targets at once: not where they are a
    /// product with the frozen words.
    fn makes_logits(&self, site: &Site) -> bool {
        let is_frozen = self.hooks.linear(site, &self.pass).is_none()
            && self.hooks.table(site, &self.pass).is_keep();
        !(site.is_unembedding && is_frozen)
    }

    /// A sublayer, from its first site to its end, of which so many rows are read.
    fn sublayer(&mut self, sites: &[&Site], rows: f64) -> Cost {
        let mut cost = Cost::default();
        let before = self.tracked;
        let [mut norm, mut end, mut attention] = [None; 3];
        let mut linears = Vec::new();
        for (number, site) in sites.iter().enumerate() {
            match site.kind {
                SiteKind::Norm => norm = Some((site, number == 0)),
                SiteKind::Sublayer => end = Some((site, false)),
                SiteKind::Attention => attention = Some((site, false)),
                _ => linears.push(*site),
            }
        }
        // Queries, keys and values of one layer are those of all tokens.
        let is_fused = attention.is_some() && !linears.iter().any(|site| site.role == Role::Query);
        let rows = if is_fused { self.tokens } else { rows };
        let entering = if attention.is_some() { self.tokens } else { rows };
        let rows_of = |site: &Site| match site.role {
            Role::Key | Role::Value => self.tokens,
            _ => rows,
        };
        let mut x = before;
        if let Some((norm, true)) = norm {
            let of_norm = self.norm(norm, false, before, entering);
            x |= of_norm.is_tracked;
            cost.add(of_norm);
        }
        // What several projections read is kept once; not at all where it comes of a norm on the
        // tape, which is computed again.
        let (mut x_kept, mut inner, mut widest) = (x, x, 0.0f64);
        let is_last =
            |site: &Site| matches!(site.role, Role::AttentionOutput | Role::FeedForwardDown);
        for site in linears.iter().filter(|site| !is_last(site)) {
            let (of_linear, tracked) = self.linear(site, x, rows_of(site), &mut x_kept);
            inner |= tracked;
            widest = widest.max(rows_of(site) * site.d_out() as f64);
            cost.add(of_linear);
        }
        match attention {
            Some((site, _)) => cost.add(self.attention(site, &linears, &mut inner, rows)),
            None => cost.add(self.activation(&linears, inner, rows)),
        }
        let mut y = inner;
        // As is the product of a gate.
        let is_gated = linears.iter().any(|site| site.role == Role::FeedForwardGate);
        for site in linears.iter().filter(|site| is_last(site)) {
            let mut again = is_gated && inner;
            let (of_linear, tracked) = self.linear(site, inner, rows, &mut again);
            y |= tracked;
            cost.add(of_linear);
        }
        if let Some((end, _)) = end {
            let numbers = rows * end.d_out() as f64;
            y |= before;
            if !self.hooks.sublayer(end, &self.pass).is_none() {
                y = true;
                cost.add(insert(numbers, end.d_out()));
            }
            match norm {
                Some((norm, false)) => cost.add(self.norm(norm, true, y, rows)),
                _ => cost.moved[0] += 3.0 * numbers,
            }
            y |= cost.is_tracked;
            cost.passing = cost.passing.max(3.0 * numbers + widest);
        }
        self.tracked |= y;
        cost.is_tracked = self.tracked;
        if !self.tracked {
            cost.kept = 0.0;
        }
        cost
    }

    /// A norm, of a sum or of one tensor; the sum is kept, or else what it is given.
    fn norm(&self, site: &Site, of_sum: bool, tracked: bool, rows: f64) -> Cost {
        let numbers = rows * site.d_out() as f64;
        let is_tracked = tracked || !self.hooks.norm(site, &self.pass).is_none();
        let moved = if of_sum { 4.0 } else { 2.0 } * numbers;
        Cost {
            kept: if is_tracked { numbers } else { 0.0 },
            moved: [moved, if is_tracked { 4.0 * numbers } else { 0.0 }],
            is_tracked,
            ..Cost::default()
        }
    }

    /// A linear layer of some rows, and whether its output is on the tape; `x_kept` is whether
    /// another one keeps the same input.
    fn linear(&self, site: &Site, x: bool, rows: f64, x_kept: &mut bool) -> (Cost, bool) {
        let [d_in, d_out] = site.shape.map(|size| size as f64);
        let product = 2.0 * rows * d_in * d_out;
        let mut cost = Cost {
            products: [product, if x { product } else { 0.0 }],
            moved: [rows * (d_in + d_out), if x { rows * (d_in + d_out) } else { 0.0 }],
            weights_back: if x && site.tied_to.is_none() { d_in * d_out } else { 0.0 },
            ..Cost::default()
        };
        let edits = self.hooks.linear(site, &self.pass);
        let mut tracked = x;
        for edit in edits.iter() {
            tracked = true;
            let of_edit = self.edit(edit, [d_in, d_out, rows], x, x_kept);
            cost.add(of_edit);
        }
        if site.is_unembedding && !self.hooks.table(site, &self.pass).is_keep() {
            tracked = true;
            cost.products[1] += product;
            cost.kept += rows * d_in;
        }
        (cost, tracked)
    }

    fn edit(&self, edit: &Edit, [d_in, d_out, rows]: [f64; 3], x: bool, x_kept: &mut bool) -> Cost {
        let mut cost = Cost::default();
        let mut keep_x = || if std::mem::replace(x_kept, true) { 0.0 } else { rows * d_in };
        match edit {
            Edit::LowRank(factors) => {
                let rank = factors.a.dims()[1] as f64;
                cost.kept += keep_x() + rows * rank;
                let once = 2.0 * rows * rank * (d_in + d_out);
                let of_x = if x { 2.0 * rows * rank * d_in } else { 0.0 };
                cost.products = [once, once + 2.0 * rows * rank * d_out + of_x];
            }
            Edit::Scale(scale) => {
                if scale.input.is_some() {
                    cost.kept += keep_x();
                    cost.moved = [6.0 * rows * d_in, 12.0 * rows * d_in];
                }
                if scale.output.is_some() {
                    cost.kept += rows * d_out;
                    cost.moved = [6.0 * rows * d_out, 12.0 * rows * d_out];
                }
            }
            Edit::Bias(_) => cost.moved[1] += rows * d_out,
            Edit::Gated(_, edits) => {
                for edit in edits.iter() {
                    cost.add(self.edit(edit, [d_in, d_out, rows], x, x_kept));
                }
                // What the gate multiplies, and the gate for every number of it.
                cost.kept += 2.0 * rows * d_out;
                cost.moved[0] += 16.0 * rows * d_out;
                cost.moved[1] += 16.0 * rows * d_out;
            }
            Edit::Mean(members) => {
                for edit in members.iter().flat_map(|(_, edits)| edits.iter()) {
                    cost.add(self.edit(edit, [d_in, d_out, rows], x, x_kept));
                }
            }
            Edit::Rotate(rotate) => {
                let width = if rotate.side == Side::Input { d_in } else { d_out };
                let once = match &rotate.rotation {
                    Rotation::Blocks(blocks) => 2.0 * rows * width * blocks.dims()[2] as f64,
                    Rotation::LowRank { a, .. } => 4.0 * rows * width * a.dims()[1] as f64,
                };
                cost.kept += keep_x() + rows * width;
                cost.products = [once, 2.0 * once];
            }
            Edit::Kronecker(product) => {
                let ([m, k], [_, l]) = (product.a.dims(), product.b.dims());
                let (between, k) = ((m * l) as f64, k as f64);
                let once = 2.0 * rows * (d_in * l as f64 + between * k);
                cost.kept += keep_x() + rows * between;
                cost.products = [once, 2.0 * once];
                cost.moved = [4.0 * rows * d_out, 4.0 * rows * d_out];
            }
            Edit::Magnitude(_) | Edit::Output(_) => {
                cost.kept += keep_x() + rows * d_out;
                cost.moved = [4.0 * rows * d_out, 6.0 * rows * d_out];
            }
            Edit::Block(block) => {
                let [inputs, outputs] = block.values.dims().map(|size| size as f64);
                cost.kept += if block.inputs.is_some() { rows * inputs } else { keep_x() };
                let once = 2.0 * rows * inputs * outputs;
                cost.products = [once, if x { 2.0 * once } else { once }];
                cost.moved = [2.0 * rows * d_out, 2.0 * rows * outputs];
            }
            // A weight of their own, whose gradient is that of a whole matrix.
            Edit::Sparse(_) | Edit::Weight(_) | Edit::Routed(_) => {
                cost.kept += keep_x() + d_in * d_out;
                cost.products[1] += 2.0 * rows * d_in * d_out;
            }
        }
        cost
    }

    /// Scores, their softmax, and what is read by them; a row at a time where nothing is padded.
    fn attention(&self, site: &Site, linears: &[&Site], tracked: &mut bool, rows: f64) -> Cost {
        let role = |role: Role| linears.iter().find(|site| site.role == role);
        let keys = site.d_out() as f64;
        let width = match (role(Role::Query), role(Role::AttentionOutput)) {
            (Some(query), _) => query.d_out() as f64,
            (None, Some(output)) => output.d_in() as f64,
            (None, None) => keys,
        };
        let extra = added_keys(&self.hooks.attention(site, &self.pass));
        *tracked |= extra > 0.0;
        let seen = self.length * if self.causal { 0.5 } else { 1.0 } + extra;
        let once = 4.0 * rows * seen * width;
        let own = rows * width + self.tokens * 2.0 * keys;
        let mut cost = Cost { attention: [once, 0.0], ..Cost::default() };
        cost.moved[0] = own + rows * width;
        if *tracked {
            // Scores are computed again.
            cost.attention[1] = 2.5 * once;
            cost.kept = own + 2.0 * self.texts * extra * keys;
            cost.moved[1] = 2.0 * cost.moved[0];
            cost.passing = own + rows * width;
        }
        if self.padded {
            cost.moved[0] += own;
        }
        cost
    }

    /// What is between the projections of a feed-forward network.
    fn activation(&self, linears: &[&Site], tracked: bool, rows: f64) -> Cost {
        let inner = linears
            .iter()
            .filter(|site| matches!(site.role, Role::FeedForwardUp | Role::FeedForwardGate));
        let numbers: f64 = inner.map(|site| rows * site.d_out() as f64).sum();
        Cost {
            kept: if tracked { numbers } else { 0.0 },
            moved: [2.0 * numbers, if tracked { 3.0 * numbers } else { 0.0 }],
            ..Cost::default()
        }
    }
}

/// A bottleneck adapter at the end of a sublayer of so many numbers, of the usual width.
fn insert(numbers: f64, d: usize) -> Cost {
    const REDUCTION: f64 = 16.0;
    let products = 4.0 * numbers * d as f64 / REDUCTION;
    Cost {
        // What it reads, the sum under a norm before it, and its own inner states.
        kept: (2.0 + 4.0 / REDUCTION) * numbers,
        products: [products, 2.0 * products],
        moved: [10.0 * numbers, 16.0 * numbers],
        is_tracked: true,
        ..Cost::default()
    }
}

/// Targets whose logits there are at once, where not all are made.
const LOGITS: f64 = 512.0;

/// How often the loss of a target reads or writes each of its outputs, forward and backward.
const LOSS: [f64; 2] = [2.0, 2.0];

/// How many keys a method puts before those of the text.
fn added_keys(extra: &ExtraKeys) -> f64 {
    match extra {
        ExtraKeys::None => 0.0,
        ExtraKeys::Some(states) => states.key.dims()[0] as f64,
        ExtraKeys::Beside(beside) => beside.prompt.dims()[0] as f64,
        ExtraKeys::Stack(parts) => parts.iter().map(added_keys).sum(),
        ExtraKeys::Routed(parts) => parts.iter().map(added_keys).fold(0.0, f64::max),
    }
}
