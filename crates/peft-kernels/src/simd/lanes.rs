//! A register of numbers, with the operators of numbers.

use std::ops::{Add, Div, Mul, Sub};

use pulp::Simd;

/// As many f32 as a register holds.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<S: Simd> {
    simd: S,
    value: S::f32s,
}

impl<S: Simd> Lanes<S> {
    /// The same number in all of them.
    #[inline(always)]
    pub(crate) fn splat(simd: S, value: f32) -> Self {
        Self { simd, value: simd.splat_f32s(value) }
    }

    /// Another number in all of them.
    #[inline(always)]
    pub(crate) fn all(self, value: f32) -> Self {
        Self::splat(self.simd, value)
    }

    /// The first numbers of a slice, zeros behind its end.
    #[inline(always)]
    pub(crate) fn load(simd: S, from: &[f32]) -> Self {
        if from.len() >= S::F32_LANES {
            // SAFETY: there are as many numbers as a register holds.
            let value = unsafe { from.as_ptr().cast::<S::f32s>().read_unaligned() };
            return Self { simd, value };
        }
        Self { simd, value: simd.partial_load_f32s(&from[..from.len().min(S::F32_LANES)]) }
    }

    /// Writes as many numbers as there is room for.
    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f32]) {
        if to.len() >= S::F32_LANES {
            // SAFETY: there is room for as many numbers as a register holds.
            return unsafe { to.as_mut_ptr().cast::<S::f32s>().write_unaligned(self.value) };
        }
        let room = to.len().min(S::F32_LANES);
        self.simd.partial_store_f32s(&mut to[..room], self.value);
    }

    /// `self · factor + term`.
    #[inline(always)]
    pub(crate) fn mul_add(self, factor: Self, term: Self) -> Self {
        let value = self.simd.mul_add_e_f32s(self.value, factor.value, term.value);
        Self { value, ..self }
    }

    /// The larger of each two; `other` where one is not a number.
    #[inline(always)]
    pub(crate) fn max(self, other: Self) -> Self {
        Self { value: self.simd.max_f32s(self.value, other.value), ..self }
    }

    /// Not below a bound; what is not a number stays so.
    #[inline(always)]
    pub(crate) fn at_least(self, bound: Self) -> Self {
        let mask = self.simd.less_than_f32s(self.value, bound.value);
        Self { value: self.simd.select_f32s(mask, bound.value, self.value), ..self }
    }

    /// Not above a bound; what is not a number stays so.
    #[inline(always)]
    pub(crate) fn at_most(self, bound: Self) -> Self {
        let mask = self.simd.less_than_f32s(bound.value, self.value);
        Self { value: self.simd.select_f32s(mask, bound.value, self.value), ..self }
    }

    /// The square root.
    #[inline(always)]
    pub(crate) fn sqrt(self) -> Self {
        Self { value: self.simd.sqrt_f32s(self.value), ..self }
    }

    /// Without the sign.
    #[inline(always)]
    pub(crate) fn abs(self) -> Self {
        let sign = self.simd.splat_u32s(0x7FFF_FFFF);
        let bits = self.simd.and_u32s(self.simd.transmute_u32s_f32s(self.value), sign);
        Self { value: self.simd.transmute_f32s_u32s(bits), ..self }
    }

    /// With the sign of another number; `self` must not be negative.
    #[inline(always)]
    pub(crate) fn with_sign_of(self, other: Self) -> Self {
        let sign = self.simd.splat_u32s(0x8000_0000);
        let sign = self.simd.and_u32s(self.simd.transmute_u32s_f32s(other.value), sign);
        let bits = self.simd.or_u32s(self.simd.transmute_u32s_f32s(self.value), sign);
        Self { value: self.simd.transmute_f32s_u32s(bits), ..self }
    }

    /// `2` to the power of `self`, a whole number that has `1.5 · 2²³` added to it.
    #[inline(always)]
    pub(super) fn power_of_two(self) -> Self {
        let bits = self.simd.transmute_u32s_f32s(self.value);
        let biased = self.simd.add_u32s(bits, self.simd.splat_u32s(127));
        let shifted = self.simd.wrapping_dyn_shl_u32s(biased, self.simd.splat_u32s(23));
        Self { value: self.simd.transmute_f32s_u32s(shifted), ..self }
    }

    /// `self` where `of` is above zero, else zero.
    #[inline(always)]
    pub(crate) fn where_positive(self, of: Self) -> Self {
        let zero = self.simd.splat_f32s(0.0);
        let mask = self.simd.less_than_f32s(zero, of.value);
        Self { value: self.simd.select_f32s(mask, self.value, zero), ..self }
    }

    /// The sum of all.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        self.simd.reduce_sum_f32s(self.value)
    }

    /// The largest of all.
    #[inline(always)]
    pub(crate) fn largest(self) -> f32 {
        self.simd.reduce_max_f32s(self.value)
    }
}

macro_rules! operator {
    ($operator:ident, $method:ident, $of_simd:ident) => {
        impl<S: Simd> $operator for Lanes<S> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self { value: self.simd.$of_simd(self.value, other.value), ..self }
            }
        }
    };
}
operator!(Add, add, add_f32s);
operator!(Sub, sub, sub_f32s);
operator!(Mul, mul, mul_f32s);
operator!(Div, div, div_f32s);
