//! EVA: factors in the directions of what a layer is given, where these explain most.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use peft_core::{
    Calibration, Error, Hooks, InitContext, ModuleNames, PatternMap, Result, Site, layer_inputs,
    pattern_value,
};
use serde::{Deserialize, Serialize};

use super::pca::Pca;
use super::{Factors, on_device};
use crate::LoraConfig;

/// How [EVA](crate::LoraInit::Eva) starts: HF PEFT's `eva_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaConfig {
    /// By how much the rank of a layer may grow, at most.
    pub rho: f64,
    /// From which cosine on a direction counts as found.
    pub tau: f64,
    /// HF PEFT's: whether only tokens with a label count. Here all tokens do that are no padding, as
    /// there where no label is masked.
    pub use_label_mask: bool,
    /// HF PEFT's: which label is none.
    pub label_mask_value: i64,
    /// Whether directions are divided by the root of their singular values.
    pub whiten: bool,
    /// Whether `alpha` follows the rank, so that the scale stays.
    pub adjust_scaling_factors: bool,
}

impl Default for EvaConfig {
    fn default() -> Self {
        Self {
            rho: 2.0,
            tau: 0.99,
            use_label_mask: true,
            label_mask_value: -100,
            whiten: false,
            adjust_scaling_factors: true,
        }
    }
}

impl EvaConfig {
    /// Checks the values of the fields.
    ///
    /// # Errors
    /// Naming the field.
    pub(crate) fn validate(&self) -> Result<()> {
        if !(self.rho.is_finite() && self.rho >= 1.0) {
            return Err(Error::config("eva_config.rho", self.rho, "must be at least 1"));
        }
        match (0.0..=1.0).contains(&self.tau) {
            true => Ok(()),
            false => Err(Error::config("eva_config.tau", self.tau, "must be between 0 and 1")),
        }
    }
}

/// Passes over the data after which directions that still move are taken as they are.
const MOST_PASSES: usize = 100;

/// A layer, or the first of several that are given the same.
struct Seen {
    pca: Pca,
    /// Whether each direction is found.
    found: Vec<bool>,
    /// Whether it is watched, and whether all directions that it needs are found.
    watched: bool,
    done: bool,
}

/// The layers, and what they are given.
struct Layers<'a> {
    sites: &'a [&'a Site],
    /// By layer: the first that is given the same.
    first: Vec<usize>,
    /// By layer.
    most: Vec<usize>,
    /// By layer; of those that are first.
    seen: BTreeMap<usize, Seen>,
}

/// The configuration with the ranks that the data give, and the factors of each site that has any.
pub(super) fn factors(
    config: &LoraConfig,
    sites: &[&Site],
    calibration: &dyn Calibration,
    context: &InitContext<'_>,
) -> Result<(LoraConfig, Factors)> {
    let own = config.eva_config.clone().unwrap_or_default();
    let mut layers = Layers::new(config, sites, calibration, &own)?;
    let ranks = layers.run(config, calibration, own.tau)?;
    let settled = settled(config, sites, &ranks)?;
    let mut factors = Factors::new();
    for (layer, site) in sites.iter().enumerate().filter(|(layer, _)| ranks[*layer] > 0) {
        let (rank, seen) = (ranks[layer], &layers.seen[&layers.first[layer]]);
        let Some(components) = seen.pca.components() else { continue };
        let mut directions = components.clone().narrow(0, 0, rank);
        if own.whiten {
            let roots: Vec<f32> =
                seen.pca.singular_values()[..rank].iter().map(|value| value.sqrt()).collect();
            let roots = TensorData::new(roots, [rank, 1]);
            directions = directions.clone() / Tensor::from_data(roots, &directions.device());
        }
        let a = on_device(directions.transpose(), context);
        factors.insert(site.index, [a, Tensor::zeros([rank, site.d_out()], context.device)]);
    }
    Ok((settled, factors))
}

/// The configuration where the layers have these ranks: `rank_pattern`, `alpha_pattern`, and targets
/// without those that have none.
pub(in super::super) fn settled(
    config: &LoraConfig,
    sites: &[&Site],
    ranks: &[usize],
) -> Result<LoraConfig> {
    let adjusts = config.eva_config.clone().unwrap_or_default().adjust_scaling_factors;
    let (mut of_ranks, mut of_alphas) = (Vec::new(), Vec::new());
    for (site, rank) in sites.iter().zip(ranks) {
        let before = config.rank_at(&site.path)?;
        let mut alpha =
            pattern_value("alpha_pattern", &config.alpha_pattern, &site.path, config.alpha)?;
        if adjusts && *rank != before {
            alpha *= *rank as f64 / before as f64;
        }
        if *rank == 0 {
            continue;
        }
        if *rank != config.rank {
            of_ranks.push((site.path.clone(), *rank));
        }
        if alpha != config.alpha {
            of_alphas.push((site.path.clone(), alpha));
        }
    }
    let mut settled = config.clone();
    settled.rank_pattern = of_ranks.into_iter().collect::<PatternMap<usize>>();
    settled.alpha_pattern = of_alphas.into_iter().collect::<PatternMap<f64>>();
    if ranks.contains(&0) {
        let left = sites.iter().zip(ranks).filter(|(_, rank)| **rank > 0);
        let names = ModuleNames::list(left.map(|(site, _)| site.path.clone()));
        settled.targets = peft_core::Targets { target_modules: Some(names), ..Default::default() };
        settled.target_parameters = None;
    }
    Ok(settled)
}

impl<'a> Layers<'a> {
    fn new(
        config: &LoraConfig,
        sites: &'a [&'a Site],
        calibration: &dyn Calibration,
        own: &EvaConfig,
    ) -> Result<Self> {
        let mut inputs: BTreeMap<usize, TensorData> = BTreeMap::new();
        layer_inputs(calibration, sites, 1, |site, input| {
            inputs.entry(site).or_insert_with(|| input.into_data());
        })?;
        let first = |layer: usize| {
            let same = |other: &usize| {
                let [one, two] = [layer, *other].map(|layer| inputs.get(&sites[layer].index));
                one.is_some() && one == two
            };
            (0..layer).find(same).unwrap_or(layer)
        };
        let first: Vec<usize> = (0..sites.len()).map(first).collect();
        let mut most = Vec::new();
        for site in sites {
            // Halves to the even number, as in Python.
            let grown = config.rank_at(&site.path)? as f64 * own.rho;
            most.push((grown.round_ties_even() as usize).max(1));
        }
        for layer in 0..sites.len() {
            let alike = (0..sites.len()).filter(|other| first[*other] == first[layer]);
            let alike = alike.map(|other| most[other]).max().unwrap_or(most[layer]);
            if alike > sites[layer].d_in() {
                let most = sites[layer].d_in();
                let expected = format!("r times rho must be at most {most} at {}", sites[layer]);
                return Err(Error::config("eva_config.rho", own.rho, expected));
            }
        }
        let largest = |layer: usize| {
            let alike = (0..sites.len()).filter(|other| first[*other] == first[layer]);
            alike.map(|other| most[other]).max().unwrap_or(1)
        };
        let most: Vec<usize> = (0..sites.len()).map(largest).collect();
        let seen = |layer: &usize| {
            let (pca, found) = (Pca::new(most[*layer]), vec![false; most[*layer]]);
            (*layer, Seen { pca, found, watched: true, done: false })
        };
        let seen = first.iter().map(seen).collect();
        Ok(Self { sites, first, most, seen })
    }

    /// Sees batch after batch, over and over, until the directions that are needed stay; the rank of
    /// each layer.
    fn run(
        &mut self,
        config: &LoraConfig,
        calibration: &dyn Calibration,
        tau: f64,
    ) -> Result<Vec<usize>> {
        let mut budget = 0;
        for site in self.sites {
            budget += config.rank_at(&site.path)?;
        }
        let mut ranks = self.most.clone();
        for step in 0..MOST_PASSES * calibration.len() {
            for (layer, seen) in &mut self.seen {
                let all = seen.found[..ranks[*layer]].iter().all(|found| *found);
                if all != seen.done {
                    (seen.done, seen.watched) = (all, !all);
                }
            }
            if self.seen.values().all(|seen| seen.done) {
                break;
            }
            self.see(calibration, step % calibration.len(), tau)?;
            if self.seen.values().all(|seen| seen.pca.components().is_some()) {
                ranks = self.ranks(budget);
            }
        }
        if let Some((layer, _)) = self.seen.iter().find(|(_, seen)| seen.pca.components().is_none())
        {
            let expected = format!(
                "needs batches of at least {} tokens at {}",
                self.most[*layer], self.sites[*layer]
            );
            return Err(Error::config("init_lora_weights", "\"eva\"", expected));
        }
        let moving = self.seen.values().filter(|seen| !seen.done).count();
        if moving > 0 {
            tracing::warn!(
                "eva: in {moving} layers directions still move after {MOST_PASSES} passes"
            );
        }
        Ok(ranks)
    }

    /// Sees a batch.
    fn see(&mut self, calibration: &dyn Calibration, batch: usize, tau: f64) -> Result<()> {
        let watched: Vec<&Site> = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.watched)
            .map(|(layer, _)| self.sites[*layer])
            .collect();
        let one = One { calibration, batch };
        let mut inputs = Vec::new();
        layer_inputs(&one, &watched, 1, |site, input| inputs.push((site, input)))?;
        for (site, input) in inputs {
            let own = self.seen.iter_mut().find(|(layer, _)| self.sites[**layer].index == site);
            let Some((_, seen)) = own else { continue };
            let before = seen.pca.components().cloned();
            let enough = input.dims()[0] >= seen.found.len();
            seen.pca.see(input);
            if let (Some(before), Some(after), true) = (before, seen.pca.components(), enough) {
                // They have length 1.
                let cosines = (before * after.clone()).sum_dim(1).into_data().convert::<f32>();
                let cosines: Vec<f32> = cosines.try_into_vec().expect("converted to f32");
                seen.found = cosines.iter().map(|cosine| f64::from(*cosine) >= tau).collect();
            }
        }
        Ok(())
    }

    /// The rank of each layer: the directions that explain most, of all layers together.
    fn ranks(&self, budget: usize) -> Vec<usize> {
        // Those that are first of their kind come first.
        let (own, others): (Vec<usize>, Vec<usize>) =
            (0..self.sites.len()).partition(|layer| self.first[*layer] == *layer);
        let mut shares: Vec<(usize, f64)> = Vec::new();
        for layer in own.iter().chain(&others) {
            let explained = self.seen[&self.first[*layer]].pca.explained();
            shares.extend(explained.into_iter().map(|share| (*layer, share)));
        }
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let mut ranks = vec![0; self.sites.len()];
        shares.iter().take(budget).for_each(|(layer, _)| ranks[*layer] += 1);
        for layer in others {
            // The one that is watched has the highest.
            let first = self.first[layer];
            if ranks[first] < ranks[layer] {
                ranks.swap(first, layer);
            }
        }
        ranks
    }
}

/// One of several batches.
struct One<'a> {
    calibration: &'a dyn Calibration,
    batch: usize,
}

impl Calibration for One<'_> {
    fn len(&self) -> usize {
        1
    }

    fn loss(&self, _batch: usize, hooks: &dyn Hooks) -> Result<Tensor<1>> {
        self.calibration.loss(self.batch, hooks)
    }

    fn num_examples(&self) -> usize {
        self.calibration.num_examples()
    }

    fn example_loss(&self, example: usize, hooks: &dyn Hooks) -> Result<Tensor<1>> {
        self.calibration.example_loss(example, hooks)
    }
}
