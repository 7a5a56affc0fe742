//! Lottery tickets: entries that are chosen by training all of them first.

mod config;

pub use config::{LotteryScore, LotteryTicketConfig, lottery_presets};

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use peft_core::{
    Added, Base, Edit, Edits, Exchange, FrozenWeight, Hooks, InitContext, LossContext, MemoKey,
    Method, Pass, Result, Site, StepContext,
};

use crate::selection::{Selection, highest, share, size};
use crate::{MaskedDelta, SelectedEntries, masked};

/// Sparse fine-tuning by a lottery ticket: `y = x (W + D ⊙ M) + b`, where `D` and the mask `M` have the
/// shape `[d_in, d_out]` of the weight.
///
/// ```text
/// 1. M is all ones, and all of D is trained from zero
/// 2. M keeps the entries with the highest scores, over all weights together;
///    D begins at zero again, and only these are trained
/// 3. at the end S = D ⊙ M has k values
/// ```
///
/// LT-SFT (Ansell et al. 2022, arXiv 2110.07560) has one round, with the change `|D|` as the score. With
/// more rounds, each keeps a like part of what the last one kept, and begins at zero again: iterative
/// pruning (Frankle and Carbin 2019, arXiv 1803.03635; Chen et al. 2020, arXiv 2007.12223), whose score
/// is the magnitude `|W + D|`. What is pruned is the change, not the weight: an entry that is not kept
/// is the base's. (The paper of LT-SFT lets more entries in from round to round, and none out; with one
/// round, as it is run there, that is the same.)
///
/// Each time that `D` begins again it is a new parameter, so that its moments in the optimizer begin
/// again too, as in the papers; the schedule of the learning rate goes on, over the whole run.
///
/// An adapter that is saved before its mask is chosen has the entries that would be chosen then, with the
/// values that they have. Changes add up: those of a language and of a task, one above the other in a
/// stack, are the sum of both.
///
/// Created with [`LotteryTicketConfig`].
#[derive(Module, Debug)]
pub struct LotteryTicket {
    /// By [`Site::index`]; none once it is finished.
    layers: Vec<Option<LotteryTicketLayer>>,
    /// What is left once it is finished.
    ticket: Option<SelectedEntries>,
    #[module(skip)]
    config: LotteryTicketConfig,
    /// How many entries are kept in the end, and of how many.
    #[module(skip)]
    count: usize,
    #[module(skip)]
    of: usize,
}

/// What is trained at one site.
#[derive(Module, Debug)]
struct LotteryTicketLayer {
    change: MaskedDelta,
    /// A handle on the frozen weight, whose magnitude may be a score.
    #[module(skip)]
    weight: FrozenWeight,
}

impl LotteryTicketLayer {
    /// The score of each entry of `[d_out, d_in]`.
    fn scores(&self, by: LotteryScore) -> Vec<f32> {
        let values = self.change.values();
        let scored = match by {
            LotteryScore::Change => values,
            LotteryScore::Magnitude => values + self.weight.dense(),
        };
        self.change.scores(scored.abs())
    }
}

impl LotteryTicket {
    fn new(config: &LotteryTicketConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let selection = Selection::new(&config.targets, config.keep_ratio, base)?;
        let Selection { sites, count } = &selection;
        let mut layers = vec![None; base.len()];
        let (of, count) = (sites.iter().map(|site| size(site)).sum(), *count);
        let config = config.clone();
        // A file has what is left at the end.
        if context.is_read() {
            let ticket = SelectedEntries::zeros(sites, &selection.spread(), base, device);
            return Ok(Self { layers, ticket: Some(ticket), config, count, of });
        }
        for site in sites {
            let (change, weight) = (MaskedDelta::zeros(site, device), base.weight(site).clone());
            layers[site.index] = Some(LotteryTicketLayer { change, weight });
        }
        Ok(Self { layers, ticket: None, config, count, of })
    }

    /// Keeps so many entries, and begins again.
    fn draw(&mut self, count: usize) {
        let by = self.config.score;
        let mut layers: Vec<_> = self.layers.iter_mut().flatten().collect();
        let scores: Vec<Vec<f32>> = layers.iter().map(|layer| layer.scores(by)).collect();
        for (layer, places) in layers.iter_mut().zip(highest(&scores, count)) {
            layer.change.keep(&places);
            layer.change.rewind();
        }
    }
}

impl Hooks for LotteryTicket {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        if let Some(ticket) = &self.ticket {
            return ticket.linear(site, pass);
        }
        let Some(Some(layer)) = self.layers.get(site.index) else { return Edits::none() };
        let change = &layer.change;
        let key = MemoKey { of: change.delta.id, name: "masked", site: None };
        let values = pass.memo.get(key, || change.masked(change.delta.val()));
        Edit::Weight(Arc::new(Added { values, rank: None })).into()
    }
}

impl Method for LotteryTicket {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        // A file has what is left at the end.
        self.finish();
        if let Some(ticket) = &mut self.ticket {
            ticket.exchange(file, base);
        }
    }

    fn loss(&self, _context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        let layers = self.layers.iter().flatten();
        if self.config.l1_reg == 0.0 {
            return Ok(None);
        }
        let sums = layers
            .map(|LotteryTicketLayer { change, .. }| change.masked(change.delta.val()).abs().sum());
        let factor = self.config.l1_reg / self.of as f64;
        Ok(sums.reduce(|sum, term| sum + term).map(|sum| sum * factor))
    }

    fn after_step(&mut self, context: &StepContext<'_>) {
        if let Some(ratio) = self.config.turn(context.progress) {
            self.draw(share(self.of, ratio).max(self.count));
        }
    }

    fn finish(&mut self) {
        let Some(first) = self.layers.iter().flatten().next() else { return };
        let device = first.change.delta.val().device();
        let by = self.config.score;
        let of = |layer: &LotteryTicketLayer| (layer.change.values(), layer.scores(by));
        let changes = self.layers.iter().map(|layer| layer.as_ref().map(of)).collect();
        self.ticket = Some(masked::entries(changes, self.count, &device));
        self.layers = vec![None; self.layers.len()];
    }
}
