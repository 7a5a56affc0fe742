//! LoRA-GA: factors in the directions of the weight's gradient.

use burn::tensor::{Distribution, Int, Tensor};
use peft_core::{Calibration, Error, InitContext, Result, Site, base_gradients};
use serde::{Deserialize, Serialize};

use super::super::decompose::Decomposed;
use super::{BATCHES, Factors, on_device};
use crate::LoraConfig;

/// How [LoRA-GA](crate::LoraInit::LoraGa) starts: HF PEFT's `lora_ga_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraGaConfig {
    /// Which singular vectors of the gradient each factor has.
    pub direction: LoraGaDirection,
    /// By what `B` is multiplied.
    pub scale: LoraGaScale,
    /// `γ` of the stable scale.
    #[serde(serialize_with = "peft_core::whole_if_it_is")]
    pub stable_gamma: f64,
}

impl Default for LoraGaConfig {
    fn default() -> Self {
        let (direction, scale) = (LoraGaDirection::default(), LoraGaScale::default());
        Self { direction, scale, stable_gamma: 16.0 }
    }
}

/// Which of the `2 r` first singular vectors `A` and `B` have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoraGaDirection {
    /// Every second one, `B` the first.
    ArBr,
    /// `B` the first `r`, `A` the others.
    A2rBr,
    /// `A` the first `r`, `B` the others: the paper's.
    #[default]
    ArB2r,
    /// The same for both, at random.
    #[serde(rename = "random")]
    Random,
}

/// By what `B`, which has the singular values too, is multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraGaScale {
    /// `d_out^(1/4) / sqrt(γ)`.
    #[default]
    Stable,
    /// The weight's largest singular value over `B`'s.
    WeightSvd,
    /// `1 / s`, and `A` too.
    GdScale,
    /// Nothing.
    Unit,
}

impl LoraGaConfig {
    /// Checks the values of the fields.
    ///
    /// # Errors
    /// If `γ` is not positive.
    pub(crate) fn validate(&self) -> Result<()> {
        match self.stable_gamma.is_finite() && self.stable_gamma > 0.0 {
            true => Ok(()),
            false => {
                let expected = "must be a positive number";
                Err(Error::config("lora_ga_config.stable_gamma", self.stable_gamma, expected))
            }
        }
    }

    /// The places of the singular vectors that `A` and `B` have.
    fn places(&self, rank: usize, context: &InitContext<'_>) -> [Vec<i64>; 2] {
        let r = rank as i64;
        match self.direction {
            LoraGaDirection::ArBr => {
                [1, 0].map(|first| (0..r).map(|place| 2 * place + first).collect())
            }
            LoraGaDirection::A2rBr => [(r..2 * r).collect(), (0..r).collect()],
            LoraGaDirection::ArB2r => [(0..r).collect(), (r..2 * r).collect()],
            LoraGaDirection::Random => {
                let keys = context.random([2 * rank], Distribution::Uniform(0.0, 1.0));
                let keys: Vec<f32> =
                    keys.into_data().try_into_vec().expect("they were made as f32");
                let mut places: Vec<i64> = (0..2 * r).collect();
                places.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
                places.truncate(rank);
                [places.clone(), places]
            }
        }
    }
}

/// The factors of each site, from the mean gradient over the data.
pub(super) fn factors(
    config: &LoraConfig,
    sites: &[&Site],
    calibration: &dyn Calibration,
    context: &InitContext<'_>,
) -> Result<Factors> {
    let own = config.lora_ga_config.clone().unwrap_or_default();
    let mut factors = Factors::new();
    for site in sites {
        let (rank, most) = (config.rank_at(&site.path)?, site.d_in().min(site.d_out()) / 2);
        if rank > most {
            let expected =
                format!("must be at most {most} at {site} for \"lora_ga\", half its size");
            return Err(Error::config("r", rank, expected));
        }
    }
    let gradients = base_gradients(calibration, context.base, sites, BATCHES)?;
    for site in sites {
        let Some(gradient) = gradients.get(&site.index) else {
            let expected = format!("the loss does not depend on the weight at {site}");
            return Err(Error::config("init_lora_weights", "\"lora_ga\"", expected));
        };
        let gradient: Tensor<2> = Tensor::from_data(gradient.to_data(), context.base.device());
        let rank = config.rank_at(&site.path)?;
        let scaling = config.scaling(&site.path)?;
        let weight = || context.base.weight(site).dense();
        let [a, b] = own.of_gradient(gradient, rank, scaling, weight, context);
        factors.insert(site.index, [on_device(a, context), on_device(b, context)]);
    }
    Ok(factors)
}

impl LoraGaConfig {
    /// `A` and `B` of a gradient `[d_in, d_out]`.
    fn of_gradient(
        &self,
        gradient: Tensor<2>,
        rank: usize,
        scaling: f64,
        weight: impl Fn() -> Tensor<2>,
        context: &InitContext<'_>,
    ) -> [Tensor<2>; 2] {
        let [_, d_out] = gradient.dims();
        let Decomposed { u, s, vt } = Decomposed::of(gradient);
        let [of_a, of_b] = self
            .places(rank, context)
            .map(|places| Tensor::<1, Int>::from_data(&places[..], &u.device()));
        let a = u.select(1, of_a);
        let of_b_values = s.select(0, of_b.clone());
        let largest = of_b_values.clone().narrow(0, 0, 1);
        let b = vt.select(0, of_b) * of_b_values.unsqueeze_dim(1);
        match self.scale {
            LoraGaScale::Stable => {
                let factor = (d_out as f64).powf(0.25) / self.stable_gamma.sqrt();
                [a, b * factor]
            }
            LoraGaScale::WeightSvd => {
                let of_weight = Decomposed::of(weight()).s.narrow(0, 0, 1);
                let factor: f32 = (of_weight / largest).into_scalar();
                [a, if factor.is_finite() { b * factor } else { b }]
            }
            LoraGaScale::GdScale => [a / scaling, b / scaling],
            LoraGaScale::Unit => [a, b],
        }
    }
}
