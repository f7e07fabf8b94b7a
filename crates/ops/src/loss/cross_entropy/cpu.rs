//! Softmax and cross-entropy of blocks of pixels, so that loops over a block vectorise along the pixels.
#![allow(unsafe_code, reason = "gradients are written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use crate::activation::ln_normal;
use crate::kernel::{Scratch, Work, block_sums, vectorised_work};
use crate::loss::labels::{Labels, VOID};
use crate::loss::softmax::{BLOCK, Block, mean_of_blocks, softmax_of};

/// The mean loss of `(n, classes, pixels)` logits and, if it is wanted, its gradient:
/// `weight (probability - [class is the label]) / total weight`, and 0 where the label is void.
pub(super) fn cross_entropy(
    logits: &[f32],
    labels: &Labels,
    classes: usize,
    pixels: usize,
    wants_gradient: bool,
) -> (f64, Vec<f32>) {
    let scale = (1. / labels.total()) as f32;
    let sum_of = |block: Block, labels: &[u32], weights: &[f32]| {
        let planes = &block.planes(logits, classes, pixels);
        vectorised_work(Softmax { planes, labels, weights, scale, gradient: block.out })
    };
    // SAFETY: `gradient_of` writes all of a block's.
    unsafe { mean_of_blocks(labels, classes, pixels, wants_gradient, sum_of) }
}

/// The loss of a block, and its gradient times `scale` if it is to go anywhere.
struct Softmax<'a> {
    planes: &'a [&'a [f32]],
    labels: &'a [u32],
    weights: &'a [f32],
    scale: f32,
    gradient: Vec<&'a mut [MaybeUninit<f32>]>,
}

impl Work for Softmax<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { planes, labels, weights, scale, gradient } = self;
        let mut exponentials = Scratch::new(gradient.len() * labels.len());
        let (maximum, sum) = softmax_of(planes, &mut exponentials);
        if !gradient.is_empty() {
            gradient_of(&exponentials, &sum, labels, weights, scale, gradient);
        }
        loss_of(planes, &maximum, &sum, labels, weights)
    }
}

/// The sum of weighted losses of a block.
#[inline(always)]
fn loss_of(planes: &[&[f32]], maximum: &[f32; BLOCK], sum: &[f32; BLOCK], labels: &[u32], weights: &[f32]) -> f64 {
    // A void pixel may hold anything, NaN included: it is replaced, not multiplied by zero.
    let (mut above, mut sums) = ([0.; BLOCK], [1.; BLOCK]);
    for (at, &label) in labels.iter().enumerate() {
        if label != VOID {
            (above[at], sums[at]) = (maximum[at] - planes[label as usize][at], sum[at]);
        }
    }
    for (above, &sum) in above.iter_mut().zip(&sums) {
        *above += ln_normal(sum);
    }
    block_sums(&above[..labels.len()], weights, |loss, weight| [loss * weight])[0]
}

/// `scale * weight * (probability - [class is the label])`, and 0 where the label is void.
#[inline(always)]
fn gradient_of(
    exponentials: &[f32],
    sum: &[f32; BLOCK],
    labels: &[u32],
    weights: &[f32],
    scale: f32,
    gradient: Vec<&mut [MaybeUninit<f32>]>,
) {
    let mut inverse_sum = [0.; BLOCK];
    inverse_sum.iter_mut().zip(sum).for_each(|(inverse, &sum)| *inverse = 1. / sum);
    for (class, (gradient, exponentials)) in
        (0..).zip(gradient.into_iter().zip(exponentials.chunks_exact(labels.len())))
    {
        let softmax = exponentials.iter().zip(&inverse_sum);
        for ((out, (&e, &inverse_sum)), (&label, &weight)) in
            gradient.iter_mut().zip(softmax).zip(labels.iter().zip(weights))
        {
            let target = if label == class { 1. } else { 0. };
            // A mask where a choice may be compiled to a jump.
            let counted = 0u32.wrapping_sub(u32::from(label != VOID));
            out.write(f32::from_bits((weight * scale * (e * inverse_sum - target)).to_bits() & counted));
        }
    }
}
