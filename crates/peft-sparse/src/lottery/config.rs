//! The configuration of lottery tickets.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Progress, Result,
    Size, Targets,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LotteryTicket;
use crate::selection::{Selection, check_ratio, unmatched};

/// What decides which entries are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LotteryScore {
    /// How far training has moved an entry: `|D|`.
    #[default]
    Change,
    /// How large it is after training: `|W + D|`.
    Magnitude,
}

/// Configuration of [`LotteryTicket`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `keep_ratio` | 0.05 | the share `k` of all entries of the targets that is trained in the end |
/// | `full_share` | 0.5 | the share of the run's steps in which more is trained than that |
/// | `rounds` | 1 | in how many rounds of that share the entries are chosen |
/// | `score` | `change` | `change`, `magnitude`; see [`LotteryScore`] |
/// | `l1_reg` | 0 | the weight, in the loss, of the mean of `|D|` over all entries |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | every linear layer but the head | see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LotteryTicketConfig {
    /// The share of entries that is trained in the end.
    pub keep_ratio: f64,
    /// The share of the steps in which more is trained.
    pub full_share: f64,
    /// In how many rounds entries are chosen.
    pub rounds: usize,
    /// What decides.
    pub score: LotteryScore,
    /// The weight of the mean of `|D|` in the loss.
    pub l1_reg: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for LotteryTicketConfig {
    fn default() -> Self {
        Self {
            keep_ratio: 0.05,
            full_share: 0.5,
            rounds: 1,
            score: LotteryScore::Change,
            l1_reg: 0.0,
            targets: Targets::default(),
        }
    }
}

/// Other names under which [`LotteryTicketConfig`] is registered: name, description, fields.
pub fn lottery_presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![(
        "imp",
        "iterative magnitude pruning of what is trained (Frankle and Carbin 2019)",
        json!({"rounds": 3, "score": "magnitude"}),
    )]
}

impl LotteryTicketConfig {
    /// The share of entries that is kept from this step on, if that changes here. At the last step of a
    /// run nothing does: nothing would be trained after it.
    pub(super) fn turn(&self, progress: Progress) -> Option<f64> {
        let end = |round: usize| {
            let share = self.full_share * round as f64 / self.rounds as f64;
            ((progress.total as f64 * share).round() as usize).max(1)
        };
        let is_now = |round: &usize| end(*round) == progress.step && progress.step < progress.total;
        let round = (1..=self.rounds).rev().find(is_now)?;
        Some(self.keep_ratio.powf(round as f64 / self.rounds as f64))
    }
}

impl MethodConfig for LotteryTicketConfig {
    const NAME: &'static str = "lt-sft";
    const PEFT_TYPE: &'static str = "LT_SFT";
    const ABOUT: &'static str =
        "the entries that training moves furthest, trained again alone (Ansell et al. 2022)";
    // Dense weights first: as for layer groups.
    const LEARNING_RATE: f64 = 1e-4;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "linear layers",
        trainable: "all entries; in the end keep_ratio of them count",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = LotteryTicket;

    fn validate(&self) -> Result<()> {
        check_ratio("keep_ratio", self.keep_ratio)?;
        if !(self.full_share > 0.0 && self.full_share < 1.0) {
            let expected = "must be above 0 and below 1, so that there are steps of both kinds";
            return Err(Error::config("full_share", self.full_share, expected));
        }
        if self.rounds == 0 {
            return Err(Error::config("rounds", 0, "must be at least 1"));
        }
        if !(self.l1_reg.is_finite() && self.l1_reg >= 0.0) {
            return Err(Error::config("l1_reg", self.l1_reg, "must be at least 0"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        unmatched(&self.targets, base)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        Selection::sizes(&self.targets, self.keep_ratio, base)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<LotteryTicket> {
        self.validate()?;
        LotteryTicket::new(self, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_end_at_their_shares_of_the_run_and_keep_a_like_part_each() {
        let turns = |config: &LotteryTicketConfig, total: usize| -> Vec<(usize, f64)> {
            let at = |step| config.turn(Progress { step, total }).map(|ratio| (step, ratio));
            (1..=total).filter_map(at).collect()
        };
        let config = LotteryTicketConfig { keep_ratio: 0.04, ..Default::default() };
        assert_eq!(turns(&config, 10), [(5, 0.04)]);
        let config = LotteryTicketConfig { rounds: 2, full_share: 0.8, ..config };
        let found = turns(&config, 10);
        assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [4, 8]);
        assert!((found[0].1 - 0.2).abs() < 1e-12 && (found[1].1 - 0.04).abs() < 1e-12);
        // Rounds for which there are no steps are one with the next; nothing begins at the end.
        assert_eq!(turns(&config, 2).len(), 1);
        assert_eq!(turns(&config, 1), []);
    }
}
