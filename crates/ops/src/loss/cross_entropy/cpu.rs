//! Softmax and cross-entropy of blocks of pixels, so that loops over a block vectorise along the pixels.
#![allow(unsafe_code, reason = "the gradient is written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for AVX2")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::activation::ln_normal;
use crate::kernel::{Work, block_sums, vectorised_work, written};
use crate::loss::labels::{Labels, VOID};
use crate::loss::softmax::{BLOCK, softmax_of};

/// The mean loss of `(n, classes, pixels)` logits.
pub(super) fn loss(logits: &[f32], labels: &Labels, classes: usize, pixels: usize) -> f64 {
    let blocks = blocks(logits, labels, classes, pixels).map(|(logits, labels)| (logits, labels, Vec::new()));
    mean(blocks.collect(), labels, classes, pixels)
}

/// The mean loss, and its gradient: `weight (probability - [class is the label]) / total weight`, and 0 where the label is void.
pub(super) fn loss_and_gradient(logits: &[f32], labels: &Labels, classes: usize, pixels: usize) -> (f64, Vec<f32>) {
    let mut loss = 0.;
    let write = |gradient: &mut [MaybeUninit<f32>]| {
        let per_image = pixels.div_ceil(BLOCK);
        let count = labels.labels.len() / pixels * per_image;
        let mut parts: Vec<Vec<_>> = (0..count).map(|_| Vec::with_capacity(classes)).collect();
        for (plane, gradient) in gradient.chunks_exact_mut(pixels).enumerate() {
            for (at, part) in gradient.chunks_mut(BLOCK).enumerate() {
                parts[plane / classes * per_image + at].push(part);
            }
        }
        let blocks = blocks(logits, labels, classes, pixels).zip(parts);
        let blocks = blocks.map(|((logits, labels), gradient)| (logits, labels, gradient));
        loss = mean(blocks.collect(), labels, classes, pixels);
    };
    // SAFETY: the parts cover the gradient, and `gradient_of` writes all of each.
    let gradient = unsafe { written(logits.len(), write) };
    (loss, gradient)
}

/// The logits from a block on, with the block's labels, image by image.
fn blocks<'a>(
    logits: &'a [f32],
    labels: &'a Labels,
    classes: usize,
    pixels: usize,
) -> impl Iterator<Item = (&'a [f32], &'a [u32])> {
    let images = logits.chunks_exact(classes * pixels).zip(labels.labels.chunks_exact(pixels));
    images.flat_map(|(logits, labels)| {
        labels.chunks(BLOCK).enumerate().map(|(at, labels)| (&logits[at * BLOCK..], labels))
    })
}

/// Logits and labels of a block, and where its gradient goes, class by class; nowhere if that is empty.
type Block<'a> = (&'a [f32], &'a [u32], Vec<&'a mut [MaybeUninit<f32>]>);

fn mean(blocks: Vec<Block>, labels: &Labels, classes: usize, pixels: usize) -> f64 {
    let total = labels.total();
    let sum_of = |(logits, block, gradient): Block| {
        let weights: Vec<f32> = block.iter().map(|&label| labels.weight(label)).collect();
        let planes: Vec<&[f32]> = logits.chunks(pixels).take(classes).map(|plane| &plane[..block.len()]).collect();
        vectorised_work(Softmax {
            planes: &planes,
            labels: block,
            weights: &weights,
            scale: (1. / total) as f32,
            gradient,
        })
    };
    let sums: Vec<f64> = blocks.into_par_iter().with_max_len(1).map(sum_of).collect();
    sums.iter().sum::<f64>() / total
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
        let mut exponentials = vec![0.; gradient.len() * labels.len()];
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
