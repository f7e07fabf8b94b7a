//! Softmax and cross-entropy of blocks of pixels, so that loops over a block vectorise along the pixels.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for AVX2")]

use rayon::prelude::*;

use super::VOID;
use crate::activation::exp_negative;
use crate::kernel::vectorised;

/// Pixels of one piece of work.
const BLOCK: usize = 1 << 10;

/// What the forward pass gives.
pub(super) struct Forward {
    /// Sum of the weighted losses of all counted pixels.
    pub(super) loss: f64,
    /// Sum of their weights.
    pub(super) weight: f64,
    pub(super) softmax: Softmax,
}

/// Per pixel (n, h, w) what turns a logit z into its probability `exp(z - maximum) * inverse_sum`.
pub(super) struct Softmax {
    maximum: Vec<f32>,
    inverse_sum: Vec<f32>,
}

/// Labels and their weights.
pub(super) struct Labels {
    pub(super) labels: Vec<u32>,
    /// By class; none weighs 1 each.
    pub(super) weights: Option<Vec<f32>>,
}

impl Labels {
    fn weight(&self, label: u32) -> f32 {
        match &self.weights {
            _ if label == VOID => 0.,
            Some(weights) => weights[label as usize],
            None => 1.,
        }
    }
}

pub(super) fn forward(logits: &[f32], labels: &Labels, classes: usize, pixels: usize) -> Forward {
    let count = labels.labels.len();
    let mut softmax = Softmax { maximum: vec![f32::NEG_INFINITY; count], inverse_sum: vec![0.; count] };
    let blocks: Vec<_> = softmax
        .maximum
        .chunks_mut(pixels)
        .zip(softmax.inverse_sum.chunks_mut(pixels))
        .zip(logits.chunks_exact(classes * pixels).zip(labels.labels.chunks_exact(pixels)))
        .flat_map(|((maximum, sum), (logits, labels))| {
            let blocks = maximum.chunks_mut(BLOCK).zip(sum.chunks_mut(BLOCK)).zip(labels.chunks(BLOCK));
            blocks.enumerate().map(move |(at, ((maximum, sum), labels))| (&logits[at * BLOCK..], maximum, sum, labels))
        })
        .collect();
    let sums: Vec<(f64, f64)> = blocks
        .into_par_iter()
        .map(|(logits, maximum, sum, block)| {
            vectorised(|| softmax_of(logits, pixels, classes, maximum, sum));
            let (mut loss, mut weight) = (0., 0.);
            for (at, &label) in block.iter().enumerate() {
                if label != VOID {
                    let weight_of_label = f64::from(labels.weight(label));
                    let logit = logits[label as usize * pixels + at];
                    loss += weight_of_label * (f64::from(maximum[at] - logit) - f64::from(sum[at]).ln());
                    weight += weight_of_label;
                }
            }
            (loss, weight)
        })
        .collect();
    Forward { loss: sums.iter().map(|sums| sums.0).sum(), weight: sums.iter().map(|sums| sums.1).sum(), softmax }
}

/// Largest logit of each pixel, and one over the sum of `exp(logit - largest)`.
#[inline(always)]
fn softmax_of(logits: &[f32], stride: usize, classes: usize, maximum: &mut [f32], sum: &mut [f32]) {
    let len = maximum.len();
    for class in 0..classes {
        for (maximum, &logit) in maximum.iter_mut().zip(&logits[class * stride..][..len]) {
            *maximum = if logit > *maximum { logit } else { *maximum };
        }
    }
    for class in 0..classes {
        for ((sum, &maximum), &logit) in sum.iter_mut().zip(&*maximum).zip(&logits[class * stride..][..len]) {
            *sum += exp_negative(logit - maximum);
        }
    }
    for sum in sum {
        *sum = 1. / *sum;
    }
}

/// `scale * weight * (probability - [class is the label])`, and 0 where the label is void.
pub(super) fn backward(
    logits: &[f32],
    labels: &Labels,
    softmax: &Softmax,
    classes: usize,
    pixels: usize,
    scale: f32,
) -> Vec<f32> {
    let factors: Vec<f32> = labels.labels.iter().map(|&label| labels.weight(label) * scale).collect();
    let mut gradient = vec![0.; logits.len()];
    gradient.par_chunks_mut(pixels).zip(logits.par_chunks(pixels)).enumerate().for_each(|(plane, (out, logits))| {
        let class = (plane % classes) as u32;
        let image = plane / classes * pixels..(plane / classes + 1) * pixels;
        let softmax = softmax.maximum[image.clone()].iter().zip(&softmax.inverse_sum[image.clone()]);
        let labels = labels.labels[image.clone()].iter().zip(&factors[image]);
        vectorised(|| {
            for (((out, &logit), (&maximum, &inverse_sum)), (&label, &factor)) in
                out.iter_mut().zip(logits).zip(softmax).zip(labels)
            {
                let probability = exp_negative(logit - maximum) * inverse_sum;
                let target = if label == class { 1. } else { 0. };
                // A mask where a choice would be compiled to a jump around the exponential, one pixel at a time.
                let counted = 0u32.wrapping_sub(u32::from(label != VOID));
                *out = f32::from_bits((factor * (probability - target)).to_bits() & counted);
            }
        });
    });
    gradient
}
