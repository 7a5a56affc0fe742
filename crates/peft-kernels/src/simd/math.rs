//! Functions of a register of numbers.

use pulp::Simd;

use super::Lanes;

/// `eˣ`, within 2 units in the last place; 0 and the largest finite power beyond what f32 holds.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    // What is added to round to a whole number, which its last bits then are.
    let round = x.all(12_582_912.0);
    let x = x.at_least(x.all(-87.0)).at_most(x.all(88.0));
    let shifted = x.mul_add(x.all(std::f32::consts::LOG2_E), round);
    let whole = shifted - round;
    // ln 2 in two parts, the first exact in products with small whole numbers.
    let rest = whole.mul_add(x.all(-0.693_359_4), x);
    let rest = whole.mul_add(x.all(2.121_944_4e-4), rest);
    let mut sum = x.all(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum.mul_add(rest, x.all(coefficient));
    }
    let one = x.all(1.0);
    (sum * rest).mul_add(rest, rest + one) * shifted.power_of_two()
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(x: Lanes<S>) -> Lanes<S> {
    let one = x.all(1.0);
    one / (one + exp(x.all(0.0) - x))
}

/// `x Φ(x)` and its derivative `Φ(x) + x φ(x)`, with an error function within 1.5e-7 (Abramowitz
/// and Stegun 1964, 7.1.26).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(x: Lanes<S>) -> [Lanes<S>; 2] {
    let (one, half) = (x.all(1.0), x.all(0.5));
    let size = x.abs() * x.all(std::f32::consts::FRAC_1_SQRT_2);
    let t = one / size.mul_add(x.all(0.327_591_1), one);
    let mut sum = x.all(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = sum.mul_add(t, x.all(coefficient));
    }
    let bell = exp(x.all(0.0) - size * size);
    let error_function = (one - sum * t * bell).with_sign_of(x);
    let below = error_function.mul_add(half, half);
    let density = bell * x.all(0.398_942_3);
    [x * below, x.mul_add(density, below)]
}

/// GELU with a tanh in place of the error function, `x σ(2 u)` for `u = √(2/π) (x + 0.044715 x³)`,
/// and its derivative.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(x: Lanes<S>) -> [Lanes<S>; 2] {
    const DOUBLED: f32 = 1.595_769;
    let square = x * x;
    let inner = x * square.mul_add(x.all(DOUBLED * 0.044_715), x.all(DOUBLED));
    let slope = square.mul_add(x.all(3.0 * DOUBLED * 0.044_715), x.all(DOUBLED));
    let open = sigmoid(inner);
    let bent = open * (x.all(1.0) - open);
    [x * open, (x * bent).mul_add(slope, open)]
}

#[cfg(test)]
mod tests {
    use pulp::{Simd, WithSimd};

    use super::*;
    use crate::simd::run;

    struct Map<'a, F>(&'a mut [f32], F);

    trait Function {
        fn of<S: Simd>(&self, x: Lanes<S>) -> Lanes<S>;
    }

    impl<F: Function> WithSimd for Map<'_, F> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for chunk in self.0.chunks_mut(S::F32_LANES) {
                self.1.of(Lanes::load(simd, chunk)).store(chunk);
            }
        }
    }

    macro_rules! function {
        ($name:ident, $x:ident => $value:expr) => {
            struct $name;
            impl Function for $name {
                #[inline(always)]
                fn of<S: Simd>(&self, $x: Lanes<S>) -> Lanes<S> {
                    $value
                }
            }
        };
    }
    function!(Exp, x => exp(x));
    function!(Gelu, x => gelu(x)[0]);
    function!(GeluSlope, x => gelu(x)[1]);
    function!(GeluTanh, x => gelu_tanh(x)[0]);
    function!(GeluTanhSlope, x => gelu_tanh(x)[1]);

    /// The largest difference from a function in f64, over the numbers from -12 to 12.
    fn difference(function: impl Function, exact: impl Fn(f64) -> f64) -> f64 {
        let inputs: Vec<f32> = (-12_003..12_003).map(|n| n as f32 / 1000.0).collect();
        let mut outputs = inputs.clone();
        run(Map(&mut outputs, function));
        let each = inputs.iter().zip(&outputs);
        each.map(|(x, y)| {
            let exact = exact(f64::from(*x));
            (f64::from(*y) - exact).abs() / exact.abs().max(1.0)
        })
        .fold(0.0, f64::max)
    }

    /// The integral of the density, by Simpson's rule.
    fn below(x: f64) -> f64 {
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let width = x / 2000.0;
        let inner =
            (1..2000).map(|n| density(width * n as f64) * if n % 2 == 1 { 4.0 } else { 2.0 });
        0.5 + (density(0.0) + inner.sum::<f64>() + density(x)) * width / 3.0
    }

    #[test]
    fn functions_are_those_of_twice_as_many_bits() {
        assert!(difference(Exp, f64::exp) < 3e-7);
        let inputs = [-7.0, -3.2, -1.0, -0.3, 0.0, 0.001, 0.7, 1.9, 4.0, 6.5];
        for x in inputs {
            let mut found = [x as f32];
            run(Map(&mut found, Gelu));
            assert!((f64::from(found[0]) - x * below(x)).abs() < 8e-7, "{x}: {}", found[0]);
            let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let mut slope = [x as f32];
            run(Map(&mut slope, GeluSlope));
            assert!((f64::from(slope[0]) - below(x) - x * density).abs() < 6e-7, "{x}");
        }
        let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        let tanh = |x: f64| 0.5 * x * (1.0 + inner(x).tanh());
        assert!(difference(GeluTanh, tanh) < 5e-7);
        let slope = |x: f64| (tanh(x + 1e-5) - tanh(x - 1e-5)) / 2e-5;
        assert!(difference(GeluTanhSlope, slope) < 2e-6);
    }

    #[test]
    fn powers_beyond_f32_are_neither_infinite_nor_no_numbers() {
        let mut values = [-1e30, -200.0, 200.0, f32::NEG_INFINITY];
        run(Map(&mut values, Exp));
        assert!(values.iter().all(|v| v.is_finite() && *v >= 0.0), "{values:?}");
        assert!(values[0] < 1e-37 && values[2] > 1e38, "{values:?}");
    }
}
