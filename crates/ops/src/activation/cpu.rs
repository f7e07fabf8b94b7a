//! Activations of single f32 values, written so that loops over them vectorise.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use crate::Activation;
use crate::kernel::{Work, vectorised_work};

/// An activation with its gradient.
pub(crate) trait Activate: Copy + Send + Sync + 'static {
    /// The activation of `x`.
    fn value(self, x: f32) -> f32;
    /// The gradient of `x`, given that of its activation.
    fn gradient(self, x: f32, gradient: f32) -> f32;
}

#[derive(Clone, Copy)]
pub(crate) struct Identity;

#[derive(Clone, Copy)]
pub(crate) struct Relu;

#[derive(Clone, Copy)]
pub(crate) struct LeakyRelu(pub(crate) f32);

impl Activate for Identity {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn gradient(self, _: f32, gradient: f32) -> f32 {
        gradient
    }
}

impl Activate for Relu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        // `<=` and not `>`: NaN is neither, and has to pass.
        if x <= 0. { 0. } else { x }
    }

    #[inline(always)]
    fn gradient(self, x: f32, gradient: f32) -> f32 {
        // A mask, and not a choice: where gradients are overwritten, that would be compiled to stores of chosen elements, which are slow on AMD.
        let mask = u32::from(x <= 0.).wrapping_sub(1);
        f32::from_bits(gradient.to_bits() & mask)
    }
}

impl Activate for LeakyRelu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        // A factor, and not a choice of products: that would be compiled to a jump.
        x * if x > 0. { 1. } else { self.0 }
    }

    #[inline(always)]
    fn gradient(self, x: f32, gradient: f32) -> f32 {
        gradient * if x > 0. { 1. } else { self.0 }
    }
}

/// Work that is compiled once for each activation, its `run` to be `#[inline(always)]` as that of [`Work`].
pub(crate) trait ForActivation {
    /// What the work gives.
    type Output;
    /// The work.
    fn run(self, activation: impl Activate) -> Self::Output;
}

struct With<W, A>(W, A);

impl<W: ForActivation, A: Activate> Work for With<W, A> {
    type Output = W::Output;

    #[inline(always)]
    fn run(self) -> W::Output {
        self.0.run(self.1)
    }
}

impl Activation {
    /// Chooses the activation once, outside the loops, and compiles the work for AVX2.
    pub(crate) fn choose<W: ForActivation>(self, work: W) -> W::Output {
        match self {
            Self::None => vectorised_work(With(work, Identity)),
            Self::Relu => vectorised_work(With(work, Relu)),
            Self::LeakyRelu(slope) => vectorised_work(With(work, LeakyRelu(slope as f32))),
        }
    }
}

/// ln 2 in two parts; products of the first with small integers are exact.
const LN2_HIGH: f32 = 355. / 512.;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `exp(x)` for `x <= 0`, to 2 units in the last place, 0 where the result would be subnormal.
///
/// Cephes' `expf`: `x = n ln 2 + r`, a polynomial in r, and n put into the exponent. It calls nothing, so that loops
/// over it vectorise and every platform gets the same bits.
#[inline(always)]
pub(crate) fn exp_negative(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
    const ROUND: f32 = 12_582_912.;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let value = (p * r * r + r + 1.) * scale;
    if x < -87.3 { 0. } else { value }
}

/// `ln(x)` for normal x above 0, to 2 units in the last place; NaN for NaN. Cephes' `logf`: like [`exp_negative`] it calls nothing.
#[inline(always)]
pub(crate) fn ln_normal(x: f32) -> f32 {
    let bits = x.to_bits();
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000); // in 0.5..1
    let low = mantissa < std::f32::consts::FRAC_1_SQRT_2;
    let exponent = (bits >> 23) as i32 as f32 - if low { 127. } else { 126. };
    let m = mantissa - 1. + if low { mantissa } else { 0. };
    let z = m * m;
    let mut p = 7.037_683_6e-2;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * m + coefficient;
    }
    let value = m + (p * m * z + LN2_LOW * exponent - 0.5 * z) + LN2_HIGH * exponent;
    if x.is_nan() { x } else { value }
}

/// `1 / (1 + exp(-x))`, to 3 units in the last place.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp_negative(-x.abs());
    (if x >= 0. { 1. } else { e }) / (1. + e)
}

/// Hyperbolic tangent, to 3 units in the last place.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // Cephes' `tanhf`: near 0 a polynomial keeps the digits that the quotient would lose.
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    for coefficient in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p * z + coefficient;
    }
    let near = p * z * x + x;
    let e = exp_negative(-2. * x.abs());
    let far = ((1. - e) / (1. + e)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}
