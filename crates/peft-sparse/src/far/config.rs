//! The configuration of FAR.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Progress, Result,
    Size, Targets,
};
use serde::{Deserialize, Serialize};

use super::network::{Network, ROLES};
use super::{Far, FarNetwork};
use crate::selection::{check_ratio, share};

/// Configuration of [`Far`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `keep_ratio` | 0.1 | the share of the nodes of each feed-forward network that is trained |
/// | `priming_share` | 0.1 | the share of the run's steps in which all are, to see which move |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | all feed-forward layers | see [`Targets`]; all layers of a network, or none |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FarConfig {
    /// The share of nodes that is trained.
    pub keep_ratio: f64,
    /// The share of steps in which all are.
    pub priming_share: f64,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for FarConfig {
    fn default() -> Self {
        Self { keep_ratio: 0.1, priming_share: 0.1, targets: Targets::default() }
    }
}

impl FarConfig {
    /// Whether the nodes are chosen after this step. Not after the last one: nothing would be trained
    /// after it, and the end chooses.
    pub(super) fn chooses(&self, progress: Progress) -> bool {
        let end = ((progress.total as f64 * self.priming_share).round() as usize).max(1);
        progress.step == end && end < progress.total
    }

    /// The networks, each with the number of nodes that are trained.
    fn networks<'b>(&self, base: &'b Base) -> Result<Vec<(Network<'b>, usize)>> {
        let networks = Network::all(self.targets.resolve(base, ROLES)?)?;
        let of = |network: Network<'b>| {
            let nodes = network.nodes();
            match share(nodes, self.keep_ratio) {
                0 => {
                    let expected = format!("leaves none of the {nodes} nodes at {}", network.down);
                    Err(Error::config("keep_ratio", self.keep_ratio, expected))
                }
                kept => Ok((network, kept)),
            }
        };
        networks.into_iter().map(of).collect()
    }
}

impl MethodConfig for FarConfig {
    const NAME: &'static str = "far";
    const PEFT_TYPE: &'static str = "FAR";
    const ABOUT: &'static str =
        "the nodes of feed-forward networks that training moves most (Vucetic et al. 2022)";
    // Dense weights: as for layer groups.
    const LEARNING_RATE: f64 = 1e-4;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "feed-forward layers",
        trainable: "all feed-forward weights; in the end keep_ratio of the nodes count",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = Far;

    fn validate(&self) -> Result<()> {
        check_ratio("keep_ratio", self.keep_ratio)?;
        if !(self.priming_share > 0.0 && self.priming_share < 1.0) {
            let expected = "must be above 0 and below 1, so that there are steps of both kinds";
            return Err(Error::config("priming_share", self.priming_share, expected));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched(base, ROLES)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let of = |(network, kept): (Network<'_>, usize)| {
            let widths: usize = network.parts().map(|part| part.width()).sum();
            Size::new("keep_ratio", self.keep_ratio, ((widths + 1) * kept) as f64)
        };
        Ok(self.networks(base)?.into_iter().map(of).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Far> {
        self.validate()?;
        let networks = self.networks(context.base)?;
        let of = |(network, kept): &(Network<'_>, usize)| {
            FarNetwork::new(network, *kept, context.device, context.is_read())
        };
        Ok(Far::new(self, networks.iter().map(of).collect(), context))
    }
}
