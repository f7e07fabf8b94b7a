//! Gaussian noise on a photo: a sensor in little light.

use std::sync::LazyLock;

use image::RgbImage;

use super::gaussian::bell;
use crate::keyed::KeyedRng;

/// Adds to every level of every pixel a draw of its own, normal with a standard deviation of `sigma` of 255 levels; 0 leaves the
/// photo, and the draws, as they are.
pub(super) fn add_noise(photo: &mut RgbImage, sigma: f32, draws: &mut KeyedRng) {
    if sigma == 0.0 {
        return;
    }
    let quantiles = &**QUANTILES;
    for pair in photo.chunks_mut(2) {
        let bits = draws.bits();
        for (level, bits) in pair.iter_mut().zip([bits, bits >> 16]) {
            let size = sigma * quantiles[bits as usize % SIZES];
            let noise = if bits & SIZES as u32 == 0 { size } else { -size };
            // The conversion clips to 0..=255.
            *level = (f32::from(*level) + noise + 0.5) as u8;
        }
    }
}

/// A normal draw is one of so many sizes, all equally likely, with either sign: 13 bits of 16. The largest is 3.84, the deviation
/// 0.9999; drawing without this table (`KeyedRng::normal`) takes tens of milliseconds a photo.
const SIZES: usize = 4096;

/// |z| of the normal distribution at the middles of equally likely intervals.
static QUANTILES: LazyLock<Box<[f32; SIZES]>> = LazyLock::new(|| {
    const STEP: f64 = 1.0 / 4096.0;
    /// The root of 2 / pi: the density of |z| at 0.
    const DENSITY: f64 = 0.797_884_560_802_865_4;
    let mut quantiles = Box::new([0.0; SIZES]);
    let (mut z, mut below, mut next) = (0.0, 0.0, 0.0);
    for (index, quantile) in quantiles.iter_mut().enumerate() {
        let target = (index as f64 + 0.5) / SIZES as f64;
        while below + next < target || next == 0.0 {
            below += next;
            z += if next == 0.0 { 0.0 } else { STEP };
            next = STEP * DENSITY * bell(z + 0.5 * STEP);
        }
        *quantile = (z + STEP * (target - below) / next) as f32;
    }
    quantiles
});

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::keyed;

    fn noisy(sigma: f32, key: u64) -> RgbImage {
        let mut photo = RgbImage::from_pixel(256, 256, Rgb([128; 3]));
        add_noise(&mut photo, sigma, &mut keyed::rng(key, "noise", &[]));
        photo
    }

    #[test]
    fn is_normal() {
        let photo = noisy(20.0, 1);
        let noise: Vec<f64> = photo.iter().map(|&level| f64::from(level) - 128.0).collect();
        let moment = |power: i32| noise.iter().map(|z| (z / 20.0).powi(power)).sum::<f64>() / noise.len() as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.01, "{} {}", moment(1), moment(2));
        assert!(moment(3).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.06, "{} {}", moment(3), moment(4));
        // Neighbours, channels and rows have nothing to do with each other.
        for lag in [1, 2, 3, 768] {
            let products = noise.iter().zip(&noise[lag..]).map(|(a, b)| a * b / 400.0);
            assert!((products.sum::<f64>() / noise.len() as f64).abs() < 0.01, "{lag}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        // Python: statistics.NormalDist().inv_cdf(0.5 + (index + 0.5) / 8192)
        for (index, expected) in [(0, 0.000_152_99), (2047, 0.674_297_7), (3890, 1.958_504), (4095, 3.841_930_7)] {
            assert!((QUANTILES[index] - expected).abs() < 2e-6, "{index}: {}", QUANTILES[index]);
        }
    }

    #[test]
    fn is_clipped_and_drawn_from_the_key() {
        let mut white = RgbImage::from_pixel(64, 64, Rgb([255; 3]));
        add_noise(&mut white, 100.0, &mut keyed::rng(1, "noise", &[]));
        let clipped = white.iter().map(|&level| u32::from(level == 255)).sum::<u32>();
        assert!((5800..6500).contains(&clipped), "{clipped}"); // half of 12288
        assert_eq!(noisy(5.0, 1), noisy(5.0, 1));
        assert_ne!(noisy(5.0, 1), noisy(5.0, 2));
        assert!(noisy(0.0, 1).iter().all(|&level| level == 128));
    }
}
