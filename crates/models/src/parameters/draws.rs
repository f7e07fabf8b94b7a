//! Draws as functions of what they are for: word `i` of a stream of `ChaCha8` makes element `i`, whichever thread asks for it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

/// Elements of one piece of work: whole blocks of the stream.
const CHUNK: usize = 1 << 14;

/// `count` draws from `[-bound, bound)`, 24 bits each: a function of the arguments alone, on every platform.
pub(super) fn uniform(seed: u64, name: &str, bound: f32, count: usize) -> Vec<f32> {
    let unit = 2f32.powi(-23); // (word >> 8) * unit lies in [0, 2)
    drawn(key(seed, name, 0, 0), count, |word| bound * ((word >> 8) as f32 * unit - 1.0))
}

/// `count` normal draws: a function of the arguments alone, on every platform.
pub(super) fn normal(seed: u64, name: &str, mean: f32, deviation: f32, count: usize) -> Vec<f32> {
    let (mean, deviation) = (f64::from(mean), f64::from(deviation));
    drawn(key(seed, name, 0, fnv1a("normal")), count, |word| (mean + deviation * standard_normal(word)) as f32)
}

/// `count` times 0 with this probability and 1 otherwise.
pub(super) fn keep(seed: u64, name: &str, step: u64, probability: f64, count: usize) -> Vec<f32> {
    let dropped = (probability * 2f64.powi(32)) as u64; // words below it
    let keep = move |word| if u64::from(word) < dropped { 0.0 } else { 1.0 };
    drawn(key(seed, name, step, fnv1a("dropout")), count, keep)
}

fn drawn(key: [u8; 32], count: usize, element: impl Fn(u32) -> f32 + Sync) -> Vec<f32> {
    let mut values = vec![0.0; count];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut words = ChaCha8Rng::from_seed(key);
        words.set_word_pos((chunk * CHUNK) as u128);
        for value in values {
            *value = element(words.next_u32());
        }
    });
    values
}

fn key(seed: u64, name: &str, step: u64, purpose: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, fnv1a(name), step, purpose]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    key
}

/// The 64-bit FNV-1a hash (Fowler, Noll and Vo); std's hasher may change from release to release.
pub(super) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The standard normal quantile of `(word + 1/2) / 2^32`, to seven digits: Wichura, "The percentage points of the normal
/// distribution", 1988, algorithm AS 241, PPND7.
pub(super) fn standard_normal(word: u32) -> f64 {
    let q = (f64::from(word) + 0.5) * 2f64.powi(-32) - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let over = polynomial(r, &[3.387_132_717_9, 50.434_271_938, 159.291_132_02, 59.109_374_720]);
        return q * over / polynomial(r, &[1.0, 17.895_169_469, 78.757_757_664, 67.187_563_600]);
    }
    let r = (-ln(0.5 - q.abs())).sqrt();
    let size = if r <= 5.0 {
        polynomial(r - 1.6, &[1.423_437_277_7, 2.756_815_39, 1.306_728_481_6, 0.170_238_211_03])
            / polynomial(r - 1.6, &[1.0, 0.737_001_642_5, 0.120_211_329_75])
    } else {
        polynomial(r - 5.0, &[6.657_905_115, 3.081_226_386, 0.428_682_943_37, 0.017_337_203_997])
            / polynomial(r - 5.0, &[1.0, 0.241_978_942_25, 0.012_258_202_635])
    };
    size.copysign(q)
}

/// The polynomial with these coefficients, from the constant on.
fn polynomial(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// The natural logarithm of a positive normal number, the same on every machine (the system's may differ in the last bit).
fn ln(x: f64) -> f64 {
    const EXPONENT: u64 = 0x7FF << 52;
    let exponent = (((x.to_bits() & EXPONENT) >> 52) as i64 - 1023) as f64;
    let mantissa = f64::from_bits((x.to_bits() & !EXPONENT) | (1023 << 52)); // in [1, 2)
    // ln m = 2 artanh((m - 1) / (m + 1)), whose series in t <= 1/3 has reached 2^-53 after 17 terms.
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let sum = (0..17).rev().fold(0.0, |sum, k| sum * (t * t) + 1.0 / f64::from(2 * k + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * t * sum
}
