//! The widest instructions that the machine has, chosen when the program runs.

mod lanes;
mod math;
pub(crate) mod random;

use std::sync::OnceLock;

use pulp::{Scalar, Simd, WithSimd};

pub(crate) use lanes::Lanes;
pub(crate) use math::{exp, gelu, gelu_tanh, sigmoid};

/// Which instructions are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Those of any processor.
    Portable,
    /// NEON, which every 64-bit ARM processor has.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The variable that lowers the level: `none`, or `avx2` where there is AVX-512.
const VARIABLE: &str = "PEFT_SIMD";

/// The machine's level, or the one below it that `PEFT_SIMD` asks for.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let found = detected();
        match std::env::var(VARIABLE).as_deref() {
            Ok("none") => Level::Portable,
            #[cfg(target_arch = "x86_64")]
            Ok("avx2") => found.min(Level::Avx2),
            _ => found,
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    if pulp::x86::V4::try_new().is_some() {
        Level::Avx512
    } else if pulp::x86::V3::try_new().is_some() {
        Level::Avx2
    } else {
        Level::Portable
    }
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Level {
    if pulp::aarch64::Neon::try_new().is_some() { Level::Neon } else { Level::Portable }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Level {
    Level::Portable
}

/// Runs a kernel with the instructions of [`level`].
pub(crate) fn run<K: WithSimd>(kernel: K) -> K::Output {
    match level() {
        Level::Portable => Simd::vectorize(Scalar::new(), kernel),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            Simd::vectorize(pulp::aarch64::Neon::try_new().expect("found before"), kernel)
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Simd::vectorize(pulp::x86::V3::try_new().expect("found before"), kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Simd::vectorize(pulp::x86::V4::try_new().expect("found before"), kernel),
    }
}

/// Whether products of bf16 pairs have an instruction of their own, at the level of AVX-512.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bf16() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16"))
}

/// Numbers in a register of [`level`].
pub(crate) fn lanes() -> usize {
    match level() {
        Level::Portable => 1,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 8,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 16,
    }
}

/// Asks for numbers that are needed soon, where the processor takes such hints.
pub(crate) fn prefetch(numbers: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of every such processor, and a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}
