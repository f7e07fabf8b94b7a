//! Softmax of blocks of pixels, so that loops over a block vectorise along the pixels.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for AVX2")]

use rayon::prelude::*;

use crate::activation::exp_negative;
use crate::kernel::{Work, vectorised_work};
use crate::loss::labels::VOID;

/// Pixels of one piece of work: its logits stay in a processor's second cache.
pub(in crate::loss) const BLOCK: usize = 1 << 10;

/// Softmax of `(n, classes, pixels)` logits; 0 where the label is void, if there are labels.
pub(super) fn softmax(logits: &[f32], labels: Option<&[u32]>, classes: usize, pixels: usize) -> Vec<f32> {
    let mut y = vec![0.; logits.len()];
    blocks(&mut y, classes, pixels).into_par_iter().for_each(|Block { start, pixel, out }| {
        let len = out[0].len();
        let planes: Vec<&[f32]> = (0..classes).map(|class| &logits[start + class * pixels..][..len]).collect();
        let labels = labels.map(|labels| &labels[pixel..][..len]);
        vectorised_work(Forward { planes: &planes, labels, out });
    });
    y
}

/// `y (gradient - sum over the classes of gradient y)`.
pub(super) fn gradient(y: &[f32], gradient: &[f32], classes: usize, pixels: usize) -> Vec<f32> {
    let mut result = vec![0.; y.len()];
    blocks(&mut result, classes, pixels).into_par_iter().for_each(|Block { start, out, .. }| {
        vectorised_work(Backward { y: &y[start..], gradient: &gradient[start..], pixels, out });
    });
    result
}

/// A piece of work: up to [`BLOCK`] pixels of an image, in all its planes.
pub(in crate::loss) struct Block<'a> {
    /// Where its first plane starts among all values.
    pub(in crate::loss) start: usize,
    /// Its first pixel, counted over all images.
    pub(in crate::loss) pixel: usize,
    /// Class by class.
    pub(in crate::loss) out: Vec<&'a mut [f32]>,
}

/// `(n, classes, pixels)` values cut into blocks.
pub(in crate::loss) fn blocks(values: &mut [f32], classes: usize, pixels: usize) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    for (image, values) in values.chunks_exact_mut(classes * pixels).enumerate() {
        let first = blocks.len();
        blocks.extend((0..pixels).step_by(BLOCK).map(|at| Block {
            start: image * classes * pixels + at,
            pixel: image * pixels + at,
            out: Vec::with_capacity(classes),
        }));
        for plane in values.chunks_exact_mut(pixels) {
            for (block, part) in blocks[first..].iter_mut().zip(plane.chunks_mut(BLOCK)) {
                block.out.push(part);
            }
        }
    }
    blocks
}

struct Forward<'a> {
    planes: &'a [&'a [f32]],
    labels: Option<&'a [u32]>,
    out: Vec<&'a mut [f32]>,
}

impl Work for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { planes, labels, out } = self;
        let mut exponentials = vec![0.; planes.len() * planes[0].len()];
        let (_, sum) = softmax_of(planes, &mut exponentials);
        let mut counted = [u32::MAX; BLOCK]; // a mask where a choice may be compiled to a jump
        if let Some(labels) = labels {
            counted.iter_mut().zip(labels).for_each(|(counted, &label)| *counted *= u32::from(label != VOID));
        }
        for (out, exponentials) in out.into_iter().zip(exponentials.chunks_exact(planes[0].len())) {
            for ((out, &e), (&sum, &counted)) in out.iter_mut().zip(exponentials).zip(sum.iter().zip(&counted)) {
                // A quotient and no product with an inverse: it is never above 1.
                *out = f32::from_bits((e / sum).to_bits() & counted);
            }
        }
    }
}

struct Backward<'a> {
    y: &'a [f32],
    gradient: &'a [f32],
    pixels: usize,
    out: Vec<&'a mut [f32]>,
}

impl<'a> Work for Backward<'a> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { y, gradient, pixels, out } = self;
        let len = out[0].len();
        let plane = |values: &'a [f32], class: usize| &values[class * pixels..][..len];
        // A constant added to a pixel's gradients changes nothing. Less that of the likeliest class, the sum keeps its digits where
        // one probability is near 1 and what is left of the gradients is small.
        let (mut largest, mut likeliest) = ([f32::NEG_INFINITY; BLOCK], [0.; BLOCK]);
        for class in 0..out.len() {
            let values = plane(y, class).iter().zip(plane(gradient, class));
            for ((largest, likeliest), (&y, &gradient)) in largest.iter_mut().zip(&mut likeliest).zip(values) {
                *likeliest = if y > *largest { gradient } else { *likeliest };
                *largest = largest.max(y);
            }
        }
        let mut sum = [0.; BLOCK];
        for class in 0..out.len() {
            let values = plane(y, class).iter().zip(plane(gradient, class));
            for ((sum, &likeliest), (&y, &gradient)) in sum.iter_mut().zip(&likeliest).zip(values) {
                *sum += y * (gradient - likeliest);
            }
        }
        for (class, out) in out.into_iter().enumerate() {
            let values = plane(y, class).iter().zip(plane(gradient, class));
            for ((out, (&sum, &likeliest)), (&y, &gradient)) in
                out.iter_mut().zip(sum.iter().zip(&likeliest)).zip(values)
            {
                *out = y * (gradient - likeliest - sum);
            }
        }
    }
}

/// Largest logit of each pixel, and the sum of `exp(logit - largest)`; each of these stays in `exponentials` if there is room.
#[inline(always)]
pub(in crate::loss) fn softmax_of(planes: &[&[f32]], exponentials: &mut [f32]) -> ([f32; BLOCK], [f32; BLOCK]) {
    let (mut maximum, mut sum) = ([f32::NEG_INFINITY; BLOCK], [0.; BLOCK]);
    for plane in planes {
        for (maximum, &logit) in maximum.iter_mut().zip(*plane) {
            *maximum = maximum.max(logit); // a choice would be compiled to a masked store
        }
    }
    if exponentials.is_empty() {
        for plane in planes {
            for ((sum, &maximum), &logit) in sum.iter_mut().zip(&maximum).zip(*plane) {
                *sum += exp_negative(logit - maximum);
            }
        }
    } else {
        for (plane, exponentials) in planes.iter().zip(exponentials.chunks_exact_mut(planes[0].len())) {
            let values = sum.iter_mut().zip(&maximum).zip(*plane).zip(exponentials);
            for (((sum, &maximum), &logit), exponential) in values {
                *exponential = exp_negative(logit - maximum);
                *sum += *exponential;
            }
        }
    }
    (maximum, sum)
}
