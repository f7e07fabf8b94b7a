//! Random draws as functions of what they are for: a counter-based generator keyed by (seed, purpose, numbers).
//!
//! Two draws share nothing but their key, so neither the order in which threads take them nor how many were taken before can
//! change a value. The mapping from key to values is frozen by a test: it uses integers, and of floating-point arithmetic only
//! the operations that IEEE 754 rounds exactly, hence no function of the system's mathematics library.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of draws for one purpose; made by [`rng`].
#[derive(Clone, Debug)]
pub struct KeyedRng(ChaCha8Rng);

/// The generator of (`seed`, `purpose`, `numbers`), for example `rng(seed, "augment", &[epoch, index])`.
///
/// Every bit of all three matters, and so do the lengths: `("a", [])` and `("", [97])` are different keys.
pub fn rng(seed: u64, purpose: &str, numbers: &[u64]) -> KeyedRng {
    // The key absorbs one word at a time; between two words ChaCha8 turns it into 256 unrelated bits.
    let mut key = [0_u8; 32];
    let mut absorb = |word: u64| {
        for (byte, add) in key[24..].iter_mut().zip(word.to_le_bytes()) {
            *byte ^= add;
        }
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.fill_bytes(&mut key);
    };
    absorb(seed);
    absorb(purpose.len() as u64);
    for chunk in purpose.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        absorb(u64::from_le_bytes(word));
    }
    absorb(numbers.len() as u64);
    numbers.iter().copied().for_each(absorb);
    KeyedRng(ChaCha8Rng::from_seed(key))
}

impl KeyedRng {
    /// 32 uniform bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn unit_f32(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn unit_f64(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in [`low`, `high`), up to the rounding of one multiplication and one addition.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit_f32()
    }

    /// Uniform in 0..`n`, without bias; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // Lemire, "Fast random integer generation in an interval", 2019.
        let n = n as u64;
        let mut product = u128::from(self.0.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let reject_below = n.wrapping_neg().checked_rem(n).unwrap_or(0);
            while (product as u64) < reject_below {
                product = u128::from(self.0.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// True with the given probability: never at 0, always at 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit_f64() < probability
    }

    /// Normal with mean 0 and variance 1.
    pub fn normal(&mut self) -> f32 {
        // Marsaglia's polar method; its second value is dropped, so that a draw keeps no state.
        loop {
            let x = 2.0 * self.unit_f64() - 1.0;
            let y = 2.0 * self.unit_f64() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                return (x * (-2.0 * ln(square) / square).sqrt()) as f32;
            }
        }
    }

    /// Puts `items` into one of their orders, each equally likely (Fisher-Yates, from the last item to the first).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The natural logarithm of a positive normal number, the same on every machine (the system's may differ in the last bit).
fn ln(x: f64) -> f64 {
    const EXPONENT: u64 = 0x7FF << 52;
    let exponent = (((x.to_bits() & EXPONENT) >> 52) as i64 - 1023) as f64;
    let mantissa = f64::from_bits((x.to_bits() & !EXPONENT) | (1023 << 52)); // in [1, 2)
    // ln m = 2 artanh((m - 1) / (m + 1)), whose series in t <= 1/3 has reached 2^-53 after 17 terms.
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let mut sum = 0.0;
    for k in (0..17).rev() {
        sum = sum * (t * t) + 1.0 / f64::from(2 * k + 1);
    }
    exponent * std::f64::consts::LN_2 + 2.0 * t * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected values come from an implementation of ChaCha8 and of this file in Python.
    #[test]
    fn the_mapping_is_frozen() {
        let mut draws = rng(7, "augment", &[3, 41]);
        assert_eq!([draws.bits(), draws.bits()], [3_213_545_926, 2_910_382_899]);
        assert_eq!(
            [draws.unit_f32(), draws.between(-1.0, 3.0)].map(f32::to_bits),
            [0.302_817_46_f32, 2.379_388_6].map(f32::to_bits)
        );
        assert_eq!(draws.unit_f64().to_bits(), 0.556_414_255_058_165_f64.to_bits());
        assert_eq!([draws.below(10), draws.below(1000), draws.below(usize::MAX)], [4, 346, 7_813_961_206_871_490_604]);
        assert_eq!([draws.normal().to_bits(), draws.normal().to_bits()], [1_056_199_894, 1_029_423_235]);
        let mut order: Vec<usize> = (0..10).collect();
        draws.shuffle(&mut order);
        assert_eq!(order, [4, 0, 1, 3, 9, 2, 5, 7, 8, 6]);
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let keys: [(u64, &str, &[u64]); 9] = [
            (0, "", &[]),
            (1, "", &[]),
            (0, "a", &[]),
            (0, "", &[97]),
            (0, "aaaaaaaaa", &[]),
            (0, "", &[0]),
            (0, "", &[0, 0]),
            (0, "", &[0, 1]),
            (0, "", &[1, 0]),
        ];
        let mut first: Vec<u32> =
            keys.iter().map(|&(seed, purpose, numbers)| rng(seed, purpose, numbers).bits()).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), keys.len());
    }

    #[test]
    fn draws_have_their_distribution() {
        let mut draws = rng(1, "distribution", &[]);
        let n = 100_000;
        let normals: Vec<f64> = (0..n).map(|_| f64::from(draws.normal())).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
        let beyond_two = normals.iter().filter(|x| x.abs() > 2.0).count() as f64 / f64::from(n);
        assert!((beyond_two - 0.0455).abs() < 0.003, "{beyond_two}");

        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[draws.below(6)] += 1;
        }
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 450), "{counts:?}");
        assert_eq!((draws.below(0), draws.below(1)), (0, 0));
        assert!((0..1000).all(|_| draws.chance(1.0) && !draws.chance(0.0)));
    }

    #[test]
    fn logarithm_agrees_with_the_system() {
        for x in [1e-300, 1e-12, 0.1, 0.5, 0.999_999, 1.0, 1.5, 2.0, 1e9] {
            assert!((ln(x) - f64::ln(x)).abs() <= 4e-16 * f64::ln(x).abs().max(1.0), "{x}");
        }
    }
}
