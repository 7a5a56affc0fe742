//! LoftQ: factors of what rounding takes from a weight.

use std::sync::OnceLock;

use burn::tensor::Tensor;
use peft_core::{Error, PackedTensor, Result, WeightMap};
use serde::{Deserialize, Serialize};

use super::super::decompose::Decomposed;

/// How [LoftQ](crate::LoraInit::Loftq) rounds: HF PEFT's `loftq_config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoftqConfig {
    /// 4 (`NF4`, blocks of 64) or 8 (`Q8_0`, blocks of 32).
    pub loftq_bits: usize,
    /// How often weight and factors are fitted to each other.
    pub loftq_iter: usize,
}

impl Default for LoftqConfig {
    fn default() -> Self {
        Self { loftq_bits: 4, loftq_iter: 1 }
    }
}

/// The frozen weight `W` as it is rounded, `Q`, in its place.
#[derive(Debug)]
pub(in super::super) struct Rounded {
    config: LoftqConfig,
    rank: usize,
    scaling: f64,
    /// `Q`, `[d_in, d_out]`, once it was asked for.
    weight: OnceLock<Tensor<2>>,
}

impl Rounded {
    /// With factors of this rank and scale beside it.
    pub(in super::super) fn new(config: LoftqConfig, rank: usize, scaling: f64) -> Self {
        Self { config, rank, scaling, weight: OnceLock::new() }
    }

    /// `A` and `B` of a weight `[d_in, d_out]`: `s A B` is the best approximation of its rank of `W - Q`.
    pub(in super::super) fn factors(&self, weight: Tensor<2>) -> [Tensor<2>; 2] {
        let (rounded, factors) = self.config.of(weight, self.rank, self.scaling);
        let _ = self.weight.set(rounded);
        factors
    }
}

impl WeightMap for Rounded {
    fn weight(&self, weight: &dyn Fn() -> Tensor<2>) -> Tensor<2> {
        let rounded = || self.config.of(weight(), self.rank, self.scaling).0;
        self.weight.get_or_init(rounded).clone()
    }

    /// It is kept from the first time on.
    fn keeps_what_is_below(&self) -> bool {
        false
    }
}

impl LoftqConfig {
    /// Checks the values of the fields.
    ///
    /// # Errors
    /// If there is no such format, or nothing is to be done.
    pub(crate) fn validate(&self) -> Result<()> {
        if ![4, 8].contains(&self.loftq_bits) {
            return Err(Error::config(
                "loftq_config.loftq_bits",
                self.loftq_bits,
                "must be 4 or 8",
            ));
        }
        match self.loftq_iter {
            0 => Err(Error::config("loftq_config.loftq_iter", 0, "must be at least 1")),
            _ => Ok(()),
        }
    }

    /// A weight `[d_in, d_out]` rounded, and factors of what is left.
    fn of(&self, weight: Tensor<2>, rank: usize, scaling: f64) -> (Tensor<2>, [Tensor<2>; 2]) {
        let mut rest = weight.clone();
        let mut number = 1;
        loop {
            let rounded = self.rounded(rest);
            let left = Decomposed::of(weight.clone() - rounded.clone());
            let factors = left.factors(0, rank, scaling);
            if number == self.loftq_iter {
                return (rounded, factors);
            }
            let [a, b] = factors;
            rest = weight.clone() - a.matmul(b) * scaling;
            number += 1;
        }
    }

    /// The numbers of a weight in their packed form. Rows that are no whole blocks are filled up.
    fn rounded(&self, weight: Tensor<2>) -> Tensor<2> {
        let ([d_in, d_out], device) = (weight.dims(), weight.device());
        let block = if self.loftq_bits == 4 { 64 } else { 32 };
        let whole = d_in.next_multiple_of(block);
        // Packed as Hugging Face has it.
        let values = weight.transpose().into_data().convert::<f32>();
        let values: Vec<f32> = values.try_into_vec().expect("converted to f32");
        let filled = values
            .chunks(d_in)
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, whole - d_in)));
        let (shape, filled) = (vec![d_out, whole], filled.collect::<Vec<f32>>());
        let packed = match self.loftq_bits {
            4 => PackedTensor::four_bit(shape, &filled),
            _ => PackedTensor::eight_bit(shape, &filled),
        };
        let rounded = packed.expect("rows of whole blocks").values();
        Tensor::<2>::from_data(rounded, &device).narrow(1, 0, d_in).transpose()
    }
}
