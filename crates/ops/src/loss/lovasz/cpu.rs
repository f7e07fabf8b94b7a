//! The Lovász-softmax loss of probabilities, class beside class.

use super::order::{self, Jaccard};
use crate::kernel::dealt;
use crate::loss::labels::VOID;

/// The mean loss of `(n, classes, pixels)` probabilities over the classes that have pixels, and its gradient.
pub(super) fn lovasz(probabilities: &[f32], labels: &[u32], counts: &[usize], pixels: usize) -> (f64, Vec<f32>) {
    let classes = counts.len();
    let present = counts.iter().filter(|&&count| count > 0).count();
    let share = if present == 0 { 0. } else { 1. / present as f64 };
    let mut gradient = vec![0.; probabilities.len()];
    let mut planes: Vec<Vec<&mut [f32]>> = (0..classes).map(|_| Vec::new()).collect();
    for (at, plane) in gradient.chunks_exact_mut(pixels).enumerate() {
        planes[at % classes].push(plane);
    }
    let loss_of = |(class, (planes, &count)): (usize, (Vec<&mut [f32]>, &usize))| {
        if count == 0 {
            return 0.;
        }
        let (loss, slopes) = loss_and_slopes(probabilities, labels, pixels, (class, classes), count, share);
        for (plane, slopes) in planes.into_iter().zip(slopes.chunks_exact(pixels)) {
            plane.copy_from_slice(slopes);
        }
        loss
    };
    let loss: f64 = dealt(planes.into_iter().zip(counts).enumerate(), loss_of).sum();
    (share * loss, gradient)
}

/// The loss of one class, which has `count` pixels, and the slope of `share` times it by its probability at each pixel.
fn loss_and_slopes(
    probabilities: &[f32],
    labels: &[u32],
    pixels: usize,
    (class, classes): (usize, usize),
    count: usize,
    share: f64,
) -> (f64, Vec<f32>) {
    let mut keys = Vec::with_capacity(labels.len());
    let planes = probabilities.chunks_exact(pixels).skip(class).step_by(classes);
    for (pixel, (&p, &label)) in (0..).zip(planes.flatten().zip(labels)) {
        if label != VOID {
            // A softmax is never above 1, so that no error is below 0.
            keys.push(order::key(if label as usize == class { 1. - p } else { p }, pixel));
        }
    }
    let mut slopes = vec![0.; labels.len()];
    let (mut jaccard, mut loss) = (Jaccard::new(count), 0.);
    for key in order::sort(keys) {
        let (error, pixel) = order::error_and_pixel(key);
        let is_own = labels[pixel as usize] as usize == class;
        let rise = jaccard.rise(is_own);
        loss += rise * f64::from(error);
        let slope = (rise * share) as f32;
        slopes[pixel as usize] = if is_own { -slope } else { slope };
    }
    (loss, slopes)
}
