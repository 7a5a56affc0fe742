//! A Kronecker product that is added to a weight.

use burn::tensor::{Tensor, module::linear};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Site};

/// `y + s (x (A ⊗ B)) ⊙ c`; most have no `c`.
///
/// `A ⊗ B`, `[m n, k l]`, has the block `A[i, j] B` for each entry of `A`. It is never made where tokens
/// are few: with `X` the `[m, n]` numbers of a token `x`, `x (A ⊗ B)` are those of `Aᵀ X B`, `[k, l]`.
#[derive(Debug, Clone)]
pub struct Kronecker {
    /// `A`, `[m, k]`, with `d_in = m n`.
    pub a: Tensor<2>,
    /// `B`, `[n, l]`, with `d_out = k l`.
    pub b: Tensor<2>,
    /// `s`.
    pub scale: f64,
    /// `c`, `[d_out]`: factors on the outputs of the product.
    pub outputs: Option<Tensor<1>>,
    /// The largest rank that the product can have.
    pub rank: usize,
}

impl Kronecker {
    /// Of factors with as high a rank as their shapes allow.
    pub fn new(a: Tensor<2>, b: Tensor<2>, scale: f64) -> Self {
        let rank = [&a, &b].map(|factor| factor.dims().into_iter().min().unwrap_or(0));
        Self { a, b, scale, outputs: None, rank: rank.into_iter().product() }
    }

    /// Where factors cannot have as high a rank as their shapes allow.
    pub fn of_rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    /// With factors on the outputs.
    pub fn with_outputs(self, outputs: Option<Tensor<1>>) -> Self {
        Self { outputs, ..self }
    }

    /// `s (x (A ⊗ B)) ⊙ c`, `[tokens, d_out]` for `[tokens, d_in]`.
    pub fn product(&self, x: Tensor<2>) -> Tensor<2> {
        let [tokens, _] = x.dims();
        let ([m, k], [n, l]) = (self.a.dims(), self.b.dims());
        // X B, then Aᵀ (X B); the scale goes on the smallest of all.
        let a = self.a.clone() * self.scale;
        let inner = linear(x.reshape([tokens * m, n]), self.b.clone(), None);
        let turned = inner.reshape([tokens, m, l]).swap_dims(1, 2).reshape([tokens * l, m]);
        let outer = linear(turned, a, None).reshape([tokens, l, k]).swap_dims(1, 2);
        self.scaled(outer.reshape([tokens, k * l]))
    }

    /// `s (A ⊗ B) diag(c)`, `[d_in, d_out]`.
    pub(super) fn dense(&self) -> Tensor<2> {
        let ([m, k], [n, l]) = (self.a.dims(), self.b.dims());
        let a = (self.a.clone() * self.scale).reshape([m, 1, k, 1]);
        self.scaled((a * self.b.clone().reshape([1, n, 1, l])).reshape([m * n, k * l]))
    }

    fn scaled(&self, values: Tensor<2>) -> Tensor<2> {
        match &self.outputs {
            Some(outputs) => values * outputs.clone().unsqueeze(),
            None => values,
        }
    }
}

/// How large the first factor of a Kronecker product is, as fields of a configuration; the second one's
/// sides are what is left of the layer's.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `a_inputs`, `a_outputs` | none | the sides `m`, `k` of `A`, which divide those of the layer; none: the divisor nearest to the square root, of the two the smaller |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KroneckerShape {
    /// `m`.
    pub a_inputs: Option<usize>,
    /// `k`.
    pub a_outputs: Option<usize>,
}

impl KroneckerShape {
    /// The shapes `[m, k]` and `[n, l]` of the factors at a site.
    ///
    /// # Errors
    /// If a side does not divide that of the layer.
    pub fn at(&self, site: &Site) -> Result<[[usize; 2]; 2]> {
        let side = |field: &str, wanted: Option<usize>, whole: usize| match wanted {
            None => Ok(nearest_divisors(whole)),
            Some(part) if part > 0 && whole.is_multiple_of(part) => Ok([part, whole / part]),
            Some(part) => {
                Err(Error::config(field, part, format!("must divide the width {whole} of {site}")))
            }
        };
        let [m, n] = side("a_inputs", self.a_inputs, site.d_in())?;
        let [k, l] = side("a_outputs", self.a_outputs, site.d_out())?;
        Ok([[m, k], [n, l]])
    }
}

/// The two divisors of a number that are nearest to one another, the smaller first: 24 and 32 of 768, 1 and
/// the number itself of a prime.
pub fn nearest_divisors(number: usize) -> [usize; 2] {
    let divides = |part: &usize| number.is_multiple_of(*part);
    let part = (1..=number.isqrt()).rev().find(divides).unwrap_or(1);
    [part, number / part]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Base, Role};

    #[test]
    fn divisors_are_as_near_as_they_can_be() {
        let of = [(768, [24, 32]), (1024, [32, 32]), (30, [5, 6]), (13, [1, 13]), (1, [1, 1])];
        for (number, divisors) in of {
            assert_eq!(nearest_divisors(number), divisors);
        }
    }

    #[test]
    fn a_side_that_does_not_divide_is_refused_by_name() {
        let device = Default::default();
        let mut base = Base::new(&device);
        let site =
            base.linear("up", Role::Other, None, Tensor::<2>::zeros([12, 20], &device), None);
        let shape = |a_inputs, a_outputs| KroneckerShape { a_inputs, a_outputs };
        assert_eq!(shape(None, Some(10)).at(&site).expect("they divide"), [[3, 10], [4, 2]]);
        let refused = |shape: KroneckerShape| shape.at(&site).expect_err("no divisor").to_string();
        assert_eq!(
            refused(shape(Some(5), None)),
            "a_inputs = 5: must divide the width 12 of up [12, 20]"
        );
        assert_eq!(
            refused(shape(None, Some(0))),
            "a_outputs = 0: must divide the width 20 of up [12, 20]"
        );
    }
}
