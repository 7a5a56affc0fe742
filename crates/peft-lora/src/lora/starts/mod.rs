//! Starts of LoRA's factors that look at data, or at a rounded weight.

mod corda;
mod eva;
mod loftq;
mod lora_ga;
mod pca;

pub use corda::{CordaConfig, CordaMethod};
pub use eva::EvaConfig;
pub use loftq::LoftqConfig;
pub use lora_ga::{LoraGaConfig, LoraGaDirection, LoraGaScale};

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use peft_core::{InitContext, Result, Site, SiteKind};

use super::{LoraConfig, LoraInit};

/// How many batches are looked at, at most, where a start does not say it.
const BATCHES: usize = 64;

/// `A`, `[d_in, r]`, and `B`, `[r, d_out]`, by [`Site::index`].
pub(super) type Factors = BTreeMap<usize, [Tensor<2>; 2]>;

/// The factors that a configuration begins with where it looks at data, and the configuration with
/// what the data decide. No factors where there are none to look at.
pub(super) fn from_data(
    config: &LoraConfig,
    sites: &[&Site],
    context: &InitContext<'_>,
) -> Result<(LoraConfig, Factors)> {
    let unchanged = |factors| Ok((config.clone(), factors));
    // An embedding is refused where its factors are made.
    let linear = sites.iter().all(|site| site.kind == SiteKind::Linear);
    // A run that is resumed has its factors, and needs the ranks that the data gave.
    let replaced = context.is_read() || context.restored && config.init != LoraInit::Eva;
    if replaced || !config.init.looks_at_data() || !linear {
        return unchanged(Factors::new());
    }
    let Some(calibration) = context.calibration else {
        let start = config.init.name().unwrap_or_default();
        tracing::warn!("init_lora_weights = {start:?}: there is no data to look at; as true");
        return unchanged(Factors::new());
    };
    match config.init {
        LoraInit::Eva => eva::factors(config, sites, calibration, context),
        LoraInit::Corda => unchanged(corda::factors(config, sites, calibration, context)?),
        LoraInit::LoraGa => unchanged(lora_ga::factors(config, sites, calibration, context)?),
        _ => unchanged(Factors::new()),
    }
}

pub(super) use eva::settled;
pub(super) use loftq::Rounded;

/// A tensor where parameters are made.
fn on_device<const D: usize>(tensor: Tensor<D>, context: &InitContext<'_>) -> Tensor<D> {
    Tensor::from_data(tensor.into_data(), context.device)
}
