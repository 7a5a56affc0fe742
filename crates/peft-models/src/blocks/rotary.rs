//! Rotary positions (Su et al. 2021, arXiv 2104.09864).

use std::f32::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};
use peft_core::AttentionHeads;
use peft_kernels::turned;
use serde::Deserialize;

use crate::body::tokens_at;

/// Queries and keys turned by angles that grow with the position: channel `i` of a head and channel
/// `i + d_head / 2` are a point in the plane, turned by `position · θ^(-2i / d_head)`.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// The width of a head.
    pub head_size: usize,
    /// The base `θ`.
    pub theta: f64,
    /// The number of positions that the model was made for.
    pub max_positions: usize,
    /// What is done for more positions than it was trained on.
    pub scaling: RotaryScaling,
}

/// How rotary positions are scaled for long texts: `rope_scaling` in `config.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case")]
pub enum RotaryScaling {
    /// They are not.
    #[default]
    Default,
    /// Frequencies are divided by a factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// The base grows with a text that is longer than the model was made for.
    Dynamic {
        /// By how much.
        factor: f32,
    },
    /// Low frequencies are divided by a factor, high ones are not, with a ramp between them; scores
    /// are sharpened (Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// The factor.
        factor: f32,
        /// The positions that the model was trained on at first.
        original_max_position_embeddings: Option<usize>,
        /// The factor on queries and keys, if it is not to follow from the others.
        attention_factor: Option<f32>,
        /// Turns over the original text from which on frequencies stay.
        beta_fast: Option<f32>,
        /// Turns up to which they are divided.
        beta_slow: Option<f32>,
        /// Weighs the logarithm in the factor on queries and keys.
        mscale: Option<f32>,
        /// The same, below the line.
        mscale_all_dim: Option<f32>,
        /// Whether the ramp begins and ends at whole channels.
        truncate: Option<bool>,
    },
    /// As Llama 3.1: like [`Yarn`](Self::Yarn), with a ramp over wavelengths and without a factor on
    /// scores.
    Llama3 {
        /// The factor.
        factor: f32,
        /// Turns over the original text up to which frequencies are divided.
        low_freq_factor: f32,
        /// Turns from which on they stay.
        high_freq_factor: f32,
        /// The positions that the model was trained on at first.
        original_max_position_embeddings: usize,
    },
}

impl RotaryScaling {
    /// The names that a configuration may use.
    pub const NAMES: &'static str = "default, linear, dynamic, yarn, llama3";

    /// Whether frequencies can be divided by its factor.
    pub fn has_positive_factor(&self) -> bool {
        match self {
            Self::Default => true,
            Self::Linear { factor }
            | Self::Dynamic { factor }
            | Self::Yarn { factor, .. }
            | Self::Llama3 { factor, .. } => factor.is_finite() && *factor > 0.0,
        }
    }
}

/// Cosines and sines of angles, `[tokens, 1, d_head / 2]`.
#[derive(Debug, Clone)]
pub struct Angles {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Angles {
    /// Those of some tokens.
    pub(super) fn at(&self, tokens: &[usize]) -> Self {
        let of = |all: &Tensor<3>| {
            let [count, one, half] = all.dims();
            tokens_at(all.clone().reshape([count, one * half]), tokens).reshape([
                -1,
                one as i32,
                half as i32,
            ])
        };
        Self { cos: of(&self.cos), sin: of(&self.sin) }
    }

    /// Turns each head of `[tokens, heads · d_head]`.
    pub(super) fn turn(&self, states: Tensor<2>) -> Tensor<2> {
        turned(states, self.cos.clone(), self.sin.clone())
    }
}

impl Rotary {
    /// For heads that are narrower by a factor, which turn by some of the same angles.
    pub fn narrowed(&self, reduction: usize) -> Self {
        let heads =
            AttentionHeads { count: 1, key_value: 1, size: self.head_size, is_rotary: true };
        Self { head_size: heads.narrowed(reduction).size, ..self.clone() }
    }

    /// The angles at the positions of tokens.
    pub fn angles(&self, positions: &[usize], device: &Device) -> Angles {
        let reach = positions.iter().max().map_or(0, |last| last + 1);
        let (frequencies, factor) = self.frequencies(reach);
        let half = frequencies.len();
        let frequencies = TensorData::new(frequencies, [1, 1, half]);
        let frequencies = Tensor::<3>::from_data(frequencies, device);
        let tokens = positions.len();
        let positions: Vec<f32> = positions.iter().map(|position| *position as f32).collect();
        let positions = TensorData::new(positions, [tokens, 1, 1]);
        let angles = Tensor::<3>::from_data(positions, device) * frequencies;
        Angles { cos: angles.clone().cos() * factor, sin: angles.sin() * factor }
    }

    /// The angle from one position to the next, by channel, and the factor on queries and keys. In
    /// f32 as the reference.
    fn frequencies(&self, reach: usize) -> (Vec<f32>, f32) {
        let (d, theta) = (self.head_size as f32, self.theta as f32);
        let powers =
            |theta: f32| (0..self.head_size / 2).map(move |i| theta.powf(2.0 * i as f32 / d));
        let plain = || powers(theta).map(|power| 1.0 / power);
        match self.scaling {
            RotaryScaling::Default => (plain().collect(), 1.0),
            RotaryScaling::Linear { factor } => (plain().map(|f| f / factor).collect(), 1.0),
            RotaryScaling::Dynamic { factor } => {
                let share = reach.max(self.max_positions) as f32 / self.max_positions as f32;
                let growth = factor * share - (factor - 1.0);
                let theta = theta * growth.powf(d / (d - 2.0));
                (powers(theta).map(|power| 1.0 / power).collect(), 1.0)
            }
            RotaryScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings,
            } => {
                let original = original_max_position_embeddings as f32;
                let scaled = |frequency: f32| {
                    // Turns over the original text.
                    let turns = original * frequency / TAU;
                    let kept = match turns {
                        _ if turns < low => 0.0,
                        // Where the two are the wrong way round, there is no ramp.
                        _ if turns > high => 1.0,
                        _ => (turns - low) / (high - low),
                    };
                    (1.0 - kept) * frequency / factor + kept * frequency
                };
                (plain().map(scaled).collect(), 1.0)
            }
            RotaryScaling::Yarn {
                factor,
                original_max_position_embeddings,
                attention_factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                truncate,
            } => {
                let original = original_max_position_embeddings.unwrap_or(self.max_positions);
                // The channel that turns so often over the original text.
                let channel =
                    |turns: f32| d * (original as f32 / (turns * TAU)).ln() / (2.0 * theta.ln());
                let mut first = channel(beta_fast.unwrap_or(32.0));
                let mut last = channel(beta_slow.unwrap_or(1.0));
                if truncate.unwrap_or(true) {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, last) = (first.max(0.0), last.min(d - 1.0));
                let width = if first == last { 0.001 } else { last - first };
                let scaled = |(i, frequency): (usize, f32)| {
                    let divided = ((i as f32 - first) / width).clamp(0.0, 1.0);
                    frequency / factor * divided + frequency * (1.0 - divided)
                };
                let sharpness = |weight: f32| match factor > 1.0 {
                    true => 0.1 * weight * factor.ln() + 1.0,
                    false => 1.0,
                };
                let given = |weight: Option<f32>| weight.filter(|weight| *weight != 0.0);
                let inferred = match (given(mscale), given(mscale_all_dim)) {
                    (Some(above), Some(below)) => sharpness(above) / sharpness(below),
                    _ => sharpness(1.0),
                };
                let frequencies = plain().enumerate().map(scaled).collect();
                (frequencies, attention_factor.unwrap_or(inferred))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As `_compute_llama3_parameters` of transformers 4.57.
    #[test]
    fn a_ramp_the_wrong_way_round_is_a_step() {
        let scaling = RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 4.0,
            high_freq_factor: 1.0,
            original_max_position_embeddings: 16,
        };
        let rotary = Rotary { head_size: 4, theta: 100.0, max_positions: 16, scaling };
        // 16 / 2 pi turns are less than four, and so are a tenth of them.
        assert_eq!(rotary.frequencies(1).0, [1.0 / 8.0, 0.1 / 8.0]);
        let scaling = RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 2.0,
            high_freq_factor: 1.0,
            original_max_position_embeddings: 16,
        };
        let rotary = Rotary { scaling, ..rotary };
        assert_eq!(rotary.frequencies(1).0, [1.0, 0.1 / 8.0]);
    }
}
