//! Sums over flat memory: a block at a time in f32, side by side so that it vectorises, and over the blocks in f64.
//!
//! The order depends on the lengths alone. Each of a block's sums has at most `BLOCK / LANES` terms, few enough to cost no more
//! digits than a term's own rounding does.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for AVX2")]

/// Elements of a block.
pub(crate) const BLOCK: usize = 1 << 11;

/// Elements that are summed side by side: four registers of AVX2, whose additions overlap.
const LANES: usize = 32;

/// Sums of `S` terms of each pair of elements of two slices of one length, which may be as long as a block.
#[inline(always)]
pub(crate) fn block_sums<const S: usize>(
    x: &[f32],
    y: &[f32],
    terms: impl Fn(f32, f32) -> [f32; S] + Copy,
) -> [f64; S] {
    let mut sums = [[0f32; LANES]; S];
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = x.remainder().iter().zip(y.remainder());
    for (x, y) in x.zip(y) {
        for lane in 0..LANES {
            let terms = terms(x[lane], y[lane]);
            for s in 0..S {
                sums[s][lane] += terms[s];
            }
        }
    }
    for (lane, (&x, &y)) in rest.enumerate() {
        let terms = terms(x, y);
        for s in 0..S {
            sums[s][lane] += terms[s];
        }
    }
    let mut totals = [0.; S];
    for s in 0..S {
        for width in [16, 8, 4] {
            for lane in 0..width {
                sums[s][lane] += sums[s][lane + width];
            }
        }
        for &lane in &sums[s][..4] {
            totals[s] += f64::from(lane);
        }
    }
    totals
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
