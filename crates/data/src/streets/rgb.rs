//! Colours as amounts of light.

use std::ops::{Add, Mul};

use crate::keyed::KeyedRng;

/// Red, green and blue in linear light; 1 is what a white surface reflects on an average day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rgb {
    pub(super) r: f32,
    pub(super) g: f32,
    pub(super) b: f32,
}

impl Rgb {
    pub(super) const BLACK: Self = Self::grey(0.0);

    pub(super) const fn new(r: f32, g: f32, b: f32) -> Self {
        Self { r, g, b }
    }

    pub(super) const fn grey(v: f32) -> Self {
        Self::new(v, v, v)
    }

    /// A colour as screens write it, 0xRRGGBB, with a gamma of 2: a square root is exact everywhere, a power is not.
    pub(super) fn hex(hex: u32) -> Self {
        let channel = |shift: u32| {
            let v = (hex >> shift & 255) as f32 / 255.0;
            v * v
        };
        Self::new(channel(16), channel(8), channel(0))
    }

    pub(super) fn mix(self, other: Self, share: f32) -> Self {
        self * (1.0 - share) + other * share
    }

    pub(super) fn mean(self) -> f32 {
        (self.r + self.g + self.b) / 3.0
    }

    /// One of some screen colours, its brightness changed by up to the given share, and its channels by half of it.
    pub(super) fn drawn(rng: &mut KeyedRng, colors: &[u32], spread: f32) -> Self {
        let color = Self::hex(colors.get(rng.below(colors.len())).copied().unwrap_or_default());
        let mut change = |spread: f32| 1.0 + rng.between(-spread, spread);
        let tint = Self::new(change(spread / 2.0), change(spread / 2.0), change(spread / 2.0));
        color * tint * change(spread)
    }
}

impl Add for Rgb {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(self.r + other.r, self.g + other.g, self.b + other.b)
    }
}

impl Mul for Rgb {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self::new(self.r * other.r, self.g * other.g, self.b * other.b)
    }
}

impl Mul<f32> for Rgb {
    type Output = Self;

    fn mul(self, share: f32) -> Self {
        Self::new(self.r * share, self.g * share, self.b * share)
    }
}
