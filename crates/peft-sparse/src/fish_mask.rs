//! FISH masks: the entries with the largest Fisher information.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Size, Targets,
    fisher_diagonal,
};
use serde::{Deserialize, Serialize};

use crate::SelectedEntries;
use crate::selection::{Selection, check_ratio, in_order, size, unmatched};

/// Configuration of a FISH mask (Sung et al. 2021, arXiv 2111.09839), which is a [`SelectedEntries`].
///
/// ```text
/// F = (1/N) Σ (∂ log p(y|x) / ∂W)²      over N examples, each by itself
/// S has values where F is largest: at k entries over all weights together
/// ```
///
/// `y` is the label of the data, and not drawn from the model: the paper's empirical Fisher information.
/// The examples are the first ones of the run's first epoch; with fewer than `num_samples`, all. Weights
/// of linear layers are looked at, and not biases, norms and embeddings, as the paper's code does beside
/// them.
///
/// The information is computed from [data](InitContext::calibration) where a run begins. Without any, as
/// where only counts are asked for, the entries are spread evenly.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `keep_ratio` | 0.005 | the share `k` of all entries of the targets that is trained |
/// | `num_samples` | 1024 | the number `N` of examples that are looked at |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | every linear layer but the head | see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FishMaskConfig {
    /// The share of entries that is trained.
    pub keep_ratio: f64,
    /// How many examples are looked at.
    pub num_samples: usize,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for FishMaskConfig {
    fn default() -> Self {
        Self { keep_ratio: 0.005, num_samples: 1024, targets: Targets::default() }
    }
}

impl FishMaskConfig {
    /// The information of each entry of each weight.
    fn scores(
        &self,
        selection: &Selection<'_>,
        context: &InitContext<'_>,
    ) -> Result<Option<Vec<Vec<f32>>>> {
        // A run that is resumed has its entries.
        let calibration = context.calibration.filter(|_| !context.restored);
        let Some(calibration) = calibration else { return Ok(None) };
        let Selection { sites, .. } = selection;
        let mut found = fisher_diagonal(calibration, context.base, sites, self.num_samples)?;
        // A weight that no loss depends on has none.
        let scores = sites.iter().map(|site| match found.remove(&site.index) {
            Some(information) => in_order(information),
            None => vec![0.0; size(site)],
        });
        let scores: Vec<Vec<f32>> = scores.collect();
        if scores.iter().flatten().any(|score| !score.is_finite()) {
            let expected = "the gradient of the loss of some example is not finite";
            return Err(Error::config("calibration", "examples", expected));
        }
        Ok(Some(scores))
    }
}

impl MethodConfig for FishMaskConfig {
    const NAME: &'static str = "fish-mask";
    const PEFT_TYPE: &'static str = "FISH_MASK";
    const ABOUT: &'static str =
        "the entries of weights with the largest Fisher information (Sung et al. 2021)";
    // As SHiRA's: single entries, each of which moves at this rate whatever its gradient's size.
    const LEARNING_RATE: f64 = 1e-3;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "linear layers",
        trainable: "keep_ratio of all entries",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = SelectedEntries;

    fn validate(&self) -> Result<()> {
        check_ratio("keep_ratio", self.keep_ratio)?;
        if self.num_samples == 0 {
            return Err(Error::config("num_samples", 0, "must be at least 1"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        unmatched(&self.targets, base)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        Selection::sizes(&self.targets, self.keep_ratio, base)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<SelectedEntries> {
        self.validate()?;
        let selection = Selection::new(&self.targets, self.keep_ratio, context.base)?;
        let places = match self.scores(&selection, context)? {
            Some(scores) => selection.highest(&scores),
            None => selection.spread(),
        };
        let Selection { sites, .. } = &selection;
        Ok(SelectedEntries::zeros(sites, &places, context.base, context.device))
    }
}
