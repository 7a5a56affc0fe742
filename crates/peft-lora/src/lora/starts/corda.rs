//! CorDA: factors of the weight as the data see it.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use peft_core::{Calibration, Error, InitContext, Result, Site, layer_inputs};
use serde::{Deserialize, Serialize};

use super::super::decompose::Decomposed;
use super::{BATCHES, Factors, on_device};
use crate::LoraConfig;

/// How [CorDA](crate::LoraInit::Corda) starts: HF PEFT's `corda_config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CordaConfig {
    /// Which directions the factors have.
    pub corda_method: CordaMethod,
    /// HF PEFT's cache of decompositions; not read here.
    pub cache_file: Option<String>,
    /// HF PEFT's cache of covariances; not read here.
    pub covariance_file: Option<String>,
    /// HF PEFT's, without a meaning here.
    pub verbose: bool,
    /// HF PEFT's, without a meaning here: covariances are f32.
    pub use_float16_for_covariance: bool,
    /// HF PEFT's, without a meaning here.
    pub prune_temporary_fields: Option<bool>,
}

/// Which directions of the data the factors have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CordaMethod {
    /// The first ones, on which the data depend most: to learn a task fast (instruction-previewed mode).
    #[default]
    #[serde(rename = "ipm")]
    InstructionPreviewed,
    /// The last ones, so that what the data depend on stays (knowledge-preserved mode).
    #[serde(rename = "kpm")]
    KnowledgePreserved,
}

/// The factors of each site, from the covariance of its inputs.
pub(super) fn factors(
    config: &LoraConfig,
    sites: &[&Site],
    calibration: &dyn Calibration,
    context: &InitContext<'_>,
) -> Result<Factors> {
    let method = config.corda_config.clone().unwrap_or_default().corda_method;
    let mut sums: BTreeMap<usize, (Tensor<2>, f64)> = BTreeMap::new();
    layer_inputs(calibration, sites, BATCHES, |site, input| {
        // In units of the largest input, as in the reference.
        let input = input.clone() / input.max().abs().unsqueeze();
        let covariance = input.clone().transpose().matmul(input);
        let sum = match sums.remove(&site) {
            Some((sum, count)) => (sum + covariance, count + 1.0),
            None => (covariance, 1.0),
        };
        sums.insert(site, sum);
    })?;
    let mut factors = Factors::new();
    for site in sites {
        let Some((sum, count)) = sums.remove(&site.index) else { continue };
        let (rank, scaling) = (config.rank_at(&site.path)?, config.scaling(&site.path)?);
        let [covariance, inverse] = with_inverse(sum / count).ok_or_else(|| {
            let expected = format!("the inputs of {site} have no covariance that can be inverted");
            Error::config("init_lora_weights", "\"corda\"", expected)
        })?;
        // (W C)ᵀ = C W for weights that are [d_in, d_out].
        let decomposed = Decomposed::of(covariance.matmul(context.base.weight(site).dense()));
        let [count] = decomposed.s.dims();
        let first = match method {
            CordaMethod::InstructionPreviewed => 0,
            CordaMethod::KnowledgePreserved => count - rank,
        };
        let [a, b] = decomposed.factors(first, rank, scaling);
        factors.insert(site.index, [on_device(inverse.matmul(a), context), on_device(b, context)]);
    }
    Ok(factors)
}

/// A covariance `[d, d]` with as much on its diagonal as it needs to have an inverse, and that.
fn with_inverse(covariance: Tensor<2>) -> Option<[Tensor<2>; 2]> {
    let [d, _] = covariance.dims();
    let eye = Tensor::<2>::eye(d, &covariance.device());
    let mean: f32 = ((covariance.clone() * eye.clone()).sum() / d as f64).into_scalar();
    let mut damp = 0.01;
    while damp < 1e6 && mean.is_finite() && mean > 0.0 {
        let fixed = covariance.clone() + eye.clone() * (f64::from(mean) * damp);
        let inverse = Decomposed::of(fixed.clone()).inverse(0.0);
        let apart = fixed.clone().matmul(inverse.clone()) - eye.clone();
        let error: f32 = apart.square().sum().sqrt().into_scalar();
        if error < 0.05 {
            return Some([fixed, inverse]);
        }
        damp *= 2.0;
    }
    None
}
