//! The focal loss of blocks of pixels, so that loops over a block vectorise along the pixels.
#![allow(unsafe_code, reason = "gradients are written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use crate::activation::{exp_negative, ln_normal};
use crate::kernel::{Scratch, Work, block_sums, vectorised_work};
use crate::loss::labels::{Labels, VOID};
use crate::loss::softmax::{BLOCK, Block, mean_of_blocks, softmax_of};

/// The mean loss of `(n, classes, pixels)` logits and, if it is wanted, its gradient.
pub(super) fn focal(
    logits: &[f32],
    labels: &Labels,
    gamma: f32,
    classes: usize,
    pixels: usize,
    wants_gradient: bool,
) -> (f64, Vec<f32>) {
    let scale = (1. / labels.total()) as f32;
    let sum_of = |block: Block, labels: &[u32], weights: &[f32]| {
        let planes = &block.planes(logits, classes, pixels);
        vectorised_work(Focal { planes, labels, weights, gamma, scale, gradient: block.out })
    };
    // SAFETY: `Focal` writes all of a block's.
    unsafe { mean_of_blocks(labels, classes, pixels, wants_gradient, sum_of) }
}

/// The sum of weighted losses of a block, and its gradient times `scale`, class by class, if it is to go anywhere.
struct Focal<'a> {
    planes: &'a [&'a [f32]],
    labels: &'a [u32],
    weights: &'a [f32],
    gamma: f32,
    scale: f32,
    gradient: Vec<&'a mut [MaybeUninit<f32>]>,
}

impl Work for Focal<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { planes, labels, weights, gamma, scale, gradient } = self;
        let len = labels.len();
        let mut exponentials = Scratch::new(planes.len() * len);
        let (maximum, mut sum) = softmax_of(planes, &mut exponentials);
        // Added up without the label's own, and not 1 - p: that would have no digits left where p is near 1.
        let mut others = [0.; BLOCK];
        for (class, exponentials) in (0..).zip(exponentials.chunks_exact(len)) {
            for ((others, &e), &label) in others.iter_mut().zip(exponentials).zip(labels) {
                *others += if label == class { 0. } else { e };
            }
        }
        let mut above = [0.; BLOCK]; // the label's logit below the largest
        for (at, &label) in labels.iter().enumerate() {
            if label == VOID {
                // It may hold anything, NaN included: it is replaced, not multiplied by zero.
                (sum[at], others[at]) = (1., 0.);
            } else {
                above[at] = maximum[at] - planes[label as usize][at];
            }
        }
        let (mut losses, mut slopes) = ([0.; BLOCK], [0.; BLOCK]);
        for at in 0..len {
            (losses[at], slopes[at]) = loss_and_slope(above[at], others[at], sum[at], gamma);
        }
        for (class, (gradient, exponentials)) in (0..).zip(gradient.into_iter().zip(exponentials.chunks_exact(len))) {
            for (at, (out, &e)) in gradient.iter_mut().zip(exponentials).enumerate() {
                let towards = if labels[at] == class { -others[at] } else { e };
                // A mask where a choice may be compiled to a jump.
                let counted = 0u32.wrapping_sub(u32::from(labels[at] != VOID));
                let value = weights[at] * scale * slopes[at] * (towards / sum[at]);
                out.write(f32::from_bits(value.to_bits() & counted));
            }
        }
        block_sums(&losses[..len], weights, |loss, weight| [loss * weight])[0]
    }
}

/// With q the probability of all classes but the label and l = -log(1 - q): the loss `q^gamma l`, and the factor
/// `q^gamma + gamma q^(gamma - 1) (1 - q) l` by which its gradient differs from cross-entropy's.
#[inline(always)]
fn loss_and_slope(above: f32, others: f32, sum: f32, gamma: f32) -> (f32, f32) {
    let q = others / sum;
    // Where the label's logit is the largest, `sum` is 1 + others; what rounding that has cost small others is given back.
    let lost = if above == 0. { (others - (sum - 1.)) / sum } else { 0. };
    let l = above + ln_normal(sum) + lost;
    let power = if q < f32::MIN_POSITIVE { 0. } else { exp_negative(gamma * ln_normal(q)) };
    (power * l, power * (1. + gamma * (1. - q) * (l / q.max(f32::MIN_POSITIVE))))
}
