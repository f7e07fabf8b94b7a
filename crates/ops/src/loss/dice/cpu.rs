//! Sums of probabilities by class, and their gradient.
#![allow(unsafe_code, reason = "the gradient is written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use crate::kernel::{Work, deal_each, dealt, sums_of_pairs, vectorised, vectorised_work, written};

/// Of each class, over all images of `(n, classes, pixels)` probabilities: the sum of its probabilities, and that at its own pixels.
pub(super) fn overlaps(probabilities: &[f32], labels: &[u32], classes: usize, pixels: usize) -> Vec<[f64; 2]> {
    // As numbers, beside which probabilities vectorise; class ids are exact in them.
    let labels: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
    let sums = dealt(probabilities.chunks_exact(pixels).enumerate(), |(plane, probabilities)| {
        let labels = &labels[plane / classes * pixels..][..pixels];
        vectorised_work(Overlap { probabilities, labels, class: (plane % classes) as f32 })
    });
    let sums: Vec<[f64; 2]> = sums.collect();
    let mut totals = vec![[0.; 2]; classes];
    for image in sums.chunks_exact(classes) {
        for (total, sum) in totals.iter_mut().zip(image) {
            *total = [total[0] + sum[0], total[1] + sum[1]];
        }
    }
    totals
}

struct Overlap<'a> {
    probabilities: &'a [f32],
    labels: &'a [f32],
    class: f32,
}

impl Work for Overlap<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run(self) -> [f64; 2] {
        let class = self.class;
        let terms = move |p: f32, label: f32| [p, if (label - class).abs() < 0.5 { p } else { 0. }];
        sums_of_pairs(self.probabilities, self.labels, terms)
    }
}

/// `(n, classes, pixels)`: of each class the second of its slopes at its own pixels, and the first elsewhere. Where pixels are void the
/// probabilities are constants, and whatever is written says nothing.
pub(super) fn gradient(slopes: &[[f32; 2]], labels: &[u32], pixels: usize) -> Vec<f32> {
    let classes = slopes.len();
    let write = |gradient: &mut [MaybeUninit<f32>]| {
        deal_each(gradient.chunks_exact_mut(pixels).enumerate(), |(plane, out)| {
            let labels = &labels[plane / classes * pixels..][..pixels];
            let ([others, own], class) = (slopes[plane % classes], (plane % classes) as u32);
            vectorised(move || {
                for (out, &label) in out.iter_mut().zip(labels) {
                    out.write(if label == class { own } else { others });
                }
            });
        });
    };
    // SAFETY: the planes cover the gradient, and each is as long as its labels.
    unsafe { written(labels.len() * classes, write) }
}
