//! Sums over flat memory: a block at a time in f32, side by side so that it vectorises, and over the blocks in f64; or all in f64.
//!
//! The order depends on the lengths alone. Each of a block's sums has at most `BLOCK / LANES` terms, few enough to cost no more
//! digits than a term's own rounding does.
#![allow(unsafe_code, reason = "the processor's own instructions add up what is summed side by side")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use super::elementwise::{Work, vectorised_work};

/// Elements of a block.
pub(crate) const BLOCK: usize = 1 << 11;

/// Elements that are summed side by side: four registers of AVX2 or two of AVX-512, whose additions overlap.
const LANES: usize = 32;

/// Sums of `S` terms of each pair of elements of two slices of one length, which may be as long as a block.
#[inline(always)]
pub(crate) fn block_sums<const S: usize>(
    x: &[f32],
    y: &[f32],
    terms: impl Fn(f32, f32) -> [f32; S] + Copy,
) -> [f64; S] {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = vectorised_work(SideBySide { x, y, terms });
    if !x_rest.is_empty() {
        sums = with_rest(sums, x_rest, y_rest, terms);
    }
    let mut totals = [0.; S];
    for s in 0..S {
        totals[s] = total(&sums[s]);
    }
    totals
}

/// Adds the terms of elements that do not fill all lanes. It stands apart, since sums that are chosen by a number lie in memory.
#[inline(never)]
fn with_rest<const S: usize>(
    mut sums: [[f32; LANES]; S],
    x: &[f32],
    y: &[f32],
    terms: impl Fn(f32, f32) -> [f32; S],
) -> [[f32; LANES]; S] {
    for (lane, (&x, &y)) in x.iter().zip(y).enumerate() {
        let terms = terms(x, y);
        for s in 0..S {
            sums[s][lane] += terms[s];
        }
    }
    sums
}

/// The sum of all lanes: of those sixteen apart, then eight and four, and of the four that are left in f64, one after the other.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn total(sums: &[f32; LANES]) -> f64 {
    let mut sums = *sums;
    for width in [16, 8, 4] {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[..4].iter().fold(0., |total, &lane| total + f64::from(lane))
}

/// As elsewhere, by instructions that every processor of this kind has: what the compiler makes of the loops takes twice as long for blocks of some
/// hundred elements.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn total(sums: &[f32; LANES]) -> f64 {
    use std::arch::x86_64::{
        _mm_add_pd, _mm_add_ps, _mm_add_sd, _mm_cvtps_pd, _mm_cvtsd_f64, _mm_loadu_ps, _mm_movehl_ps, _mm_setzero_pd,
        _mm_unpackhi_pd,
    };
    const { assert!(LANES == 32) };
    // SAFETY: the processor has SSE2, and each four of the lanes are read.
    unsafe {
        let of_32 = |four: usize| _mm_loadu_ps(sums.as_ptr().add(4 * four));
        let of_16 = |four: usize| _mm_add_ps(of_32(four), of_32(four + 4));
        let of_8 = |four: usize| _mm_add_ps(of_16(four), of_16(four + 2));
        let of_4 = _mm_add_ps(of_8(0), of_8(1));
        let (low, high) = (_mm_cvtps_pd(of_4), _mm_cvtps_pd(_mm_movehl_ps(of_4, of_4)));
        let mut total = _mm_add_pd(_mm_setzero_pd(), low);
        for next in [_mm_unpackhi_pd(low, low), high, _mm_unpackhi_pd(high, high)] {
            total = _mm_add_sd(total, next);
        }
        _mm_cvtsd_f64(total)
    }
}

/// Sums of `S` terms, [`LANES`] of each, of pairs of elements.
///
/// The loop is compiled alone. Among others its sums come to lie in memory, where each addition waits until the one before is stored: up to
/// five times as long.
struct SideBySide<'a, F> {
    x: &'a [[f32; LANES]],
    y: &'a [[f32; LANES]],
    terms: F,
}

impl<const S: usize, F: Fn(f32, f32) -> [f32; S] + Copy> Work for SideBySide<'_, F> {
    type Output = [[f32; LANES]; S];

    #[inline(always)]
    fn run(self) -> [[f32; LANES]; S] {
        let Self { x, y, terms } = self;
        let mut sums = [[0f32; LANES]; S];
        for (x, y) in x.iter().zip(y) {
            for lane in 0..LANES {
                let terms = terms(x[lane], y[lane]);
                for s in 0..S {
                    sums[s][lane] += terms[s];
                }
            }
        }
        sums
    }
}

/// As [`block_sums`], of slices of any length.
#[inline(always)]
pub(crate) fn sums_of_pairs<const S: usize>(
    x: &[f32],
    y: &[f32],
    terms: impl Fn(f32, f32) -> [f32; S] + Copy,
) -> [f64; S] {
    let mut totals = [0.; S];
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        let sums = block_sums(x, y, terms);
        for s in 0..S {
            totals[s] += sums[s];
        }
    }
    totals
}

/// Terms in f64 that are summed side by side: more than additions of two vectors overlap.
const LANES_IN_F64: usize = 16;

/// The sum of `term` of each element, all in f64.
pub(crate) fn sum_in_f64(x: &[f32], term: impl Fn(f64) -> f64 + Copy) -> f64 {
    vectorised_work(InF64 { x, term })
}

struct InF64<'a, F> {
    x: &'a [f32],
    term: F,
}

impl<F: Fn(f64) -> f64 + Copy> Work for InF64<'_, F> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { x, term } = self;
        let mut sums = [0.; LANES_IN_F64];
        let (blocks, rest) = x.as_chunks::<LANES_IN_F64>();
        for block in blocks {
            for lane in 0..LANES_IN_F64 {
                sums[lane] += term(f64::from(block[lane]));
            }
        }
        for (sum, &value) in sums.iter_mut().zip(rest) {
            *sum += term(f64::from(value));
        }
        sums.iter().sum()
    }
}
