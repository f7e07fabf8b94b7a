//! Softmax of blocks of pixels, so that loops over a block vectorise along the pixels.
#![allow(unsafe_code, reason = "results are written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use crate::activation::exp_negative;
use crate::kernel::{Scratch, Work, deal_each, dealt, vectorised_work, written};
use crate::loss::labels::{Labels, VOID};

/// Pixels of one piece of work: its logits stay in a processor's second cache.
pub(in crate::loss) const BLOCK: usize = 1 << 10;

/// Softmax of `(n, classes, pixels)` logits; 0 where the label is void, if there are labels.
pub(super) fn softmax(logits: &[f32], labels: Option<&[u32]>, classes: usize, pixels: usize) -> Vec<f32> {
    let write = |y: &mut [MaybeUninit<f32>]| {
        let images = logits.len() / (classes * pixels);
        deal_each(blocks(y, images, classes, pixels), |block| {
            let planes = block.planes(logits, classes, pixels);
            let labels = labels.map(|labels| &labels[block.pixel..][..block.len]);
            vectorised_work(Forward { planes: &planes, labels, out: block.out });
        });
    };
    // SAFETY: the blocks cover the result, and `Forward` writes all of each.
    unsafe { written(logits.len(), write) }
}

/// `y (gradient - sum over the classes of gradient y)`.
pub(super) fn gradient(y: &[f32], gradient: &[f32], classes: usize, pixels: usize) -> Vec<f32> {
    let write = |result: &mut [MaybeUninit<f32>]| {
        let images = y.len() / (classes * pixels);
        deal_each(blocks(result, images, classes, pixels), |block| {
            let [y, gradient] = [y, gradient].map(|values| block.planes(values, classes, pixels));
            vectorised_work(Backward { y: &y, gradient: &gradient, out: block.out });
        });
    };
    // SAFETY: the blocks cover the result, and `Backward` writes all of each.
    unsafe { written(y.len(), write) }
}

/// A piece of work: up to [`BLOCK`] pixels of an image, in all its planes.
pub(in crate::loss) struct Block<'a> {
    /// Where its first plane starts among all values.
    start: usize,
    /// Its first pixel, counted over all images.
    pub(in crate::loss) pixel: usize,
    /// Its pixels.
    pub(in crate::loss) len: usize,
    /// Where its results go, class by class; nowhere if that is empty.
    pub(in crate::loss) out: Vec<&'a mut [MaybeUninit<f32>]>,
}

impl Block<'_> {
    /// Its part of `(n, classes, pixels)` values, class by class.
    pub(in crate::loss) fn planes<'v>(&self, values: &'v [f32], classes: usize, pixels: usize) -> Vec<&'v [f32]> {
        (0..classes).map(|class| &values[self.start + class * pixels..][..self.len]).collect()
    }
}

/// Images cut into blocks, whose results are to go to `out` `(images, classes, pixels)`, or nowhere if that is empty.
fn blocks(out: &mut [MaybeUninit<f32>], images: usize, classes: usize, pixels: usize) -> Vec<Block<'_>> {
    let mut blocks = Vec::with_capacity(images * pixels.div_ceil(BLOCK));
    for image in 0..images {
        blocks.extend((0..pixels).step_by(BLOCK).map(|at| Block {
            start: image * classes * pixels + at,
            pixel: image * pixels + at,
            len: BLOCK.min(pixels - at),
            out: Vec::with_capacity(classes),
        }));
    }
    for (plane, out) in out.chunks_exact_mut(pixels).enumerate() {
        for (at, part) in out.chunks_mut(BLOCK).enumerate() {
            blocks[plane / classes * pixels.div_ceil(BLOCK) + at].out.push(part);
        }
    }
    blocks
}

/// The mean over labels of a loss that `sum_of` sums up, weighted, over a block of pixels, of which it is given the labels and their weights;
/// and the gradient that it writes where the block's results go, if it is wanted.
///
/// # Safety
/// `sum_of` has to write all of a block's results.
pub(in crate::loss) unsafe fn mean_of_blocks(
    labels: &Labels,
    classes: usize,
    pixels: usize,
    wants_gradient: bool,
    sum_of: impl Fn(Block, &[u32], &[f32]) -> f64 + Sync,
) -> (f64, Vec<f32>) {
    let sum_of = |block: Block| {
        let of_block = &labels.labels[block.pixel..][..block.len];
        let weights: Vec<f32> = of_block.iter().map(|&label| labels.weight(label)).collect();
        sum_of(block, of_block, &weights)
    };
    let mut sum: f64 = 0.;
    let write = |gradient: &mut [MaybeUninit<f32>]| {
        let blocks = blocks(gradient, labels.labels.len() / pixels, classes, pixels);
        sum = dealt(blocks, sum_of).sum();
    };
    let len = if wants_gradient { labels.labels.len() * classes } else { 0 };
    // SAFETY: the blocks cover the gradient, and all of each is written, as the caller vouches.
    let gradient = unsafe { written(len, write) };
    (sum / labels.total(), gradient)
}

struct Forward<'a> {
    planes: &'a [&'a [f32]],
    labels: Option<&'a [u32]>,
    out: Vec<&'a mut [MaybeUninit<f32>]>,
}

impl Work for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { planes, labels, out } = self;
        let mut exponentials = Scratch::new(planes.len() * planes[0].len());
        let (_, sum) = softmax_of(planes, &mut exponentials);
        let mut counted = [u32::MAX; BLOCK]; // a mask where a choice may be compiled to a jump
        if let Some(labels) = labels {
            counted.iter_mut().zip(labels).for_each(|(counted, &label)| *counted *= u32::from(label != VOID));
        }
        for (out, exponentials) in out.into_iter().zip(exponentials.chunks_exact(planes[0].len())) {
            for ((out, &e), (&sum, &counted)) in out.iter_mut().zip(exponentials).zip(sum.iter().zip(&counted)) {
                // A quotient and no product with an inverse: it is never above 1.
                out.write(f32::from_bits((e / sum).to_bits() & counted));
            }
        }
    }
}

struct Backward<'a> {
    y: &'a [&'a [f32]],
    gradient: &'a [&'a [f32]],
    out: Vec<&'a mut [MaybeUninit<f32>]>,
}

impl Work for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { y, gradient, out } = self;
        let planes = || y.iter().zip(gradient).map(|(&y, &gradient)| y.iter().zip(gradient));
        // A constant added to a pixel's gradients changes nothing. Less that of the likeliest class, the sum keeps its digits where
        // one probability is near 1 and what is left of the gradients is small.
        let (mut largest, mut likeliest) = ([f32::NEG_INFINITY; BLOCK], [0.; BLOCK]);
        for values in planes() {
            for ((largest, likeliest), (&y, &gradient)) in largest.iter_mut().zip(&mut likeliest).zip(values) {
                *likeliest = if y > *largest { gradient } else { *likeliest };
                *largest = largest.max(y);
            }
        }
        let mut sum = [0.; BLOCK];
        for values in planes() {
            for ((sum, &likeliest), (&y, &gradient)) in sum.iter_mut().zip(&likeliest).zip(values) {
                *sum += y * (gradient - likeliest);
            }
        }
        for (out, values) in out.into_iter().zip(planes()) {
            for ((out, (&sum, &likeliest)), (&y, &gradient)) in
                out.iter_mut().zip(sum.iter().zip(&likeliest)).zip(values)
            {
                out.write(y * (gradient - likeliest - sum));
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
