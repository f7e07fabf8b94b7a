//! Labels of pixels and their weights, as every loss on them takes them.

use candle_core::{DType, Device, Result, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{chunks, dealt};

/// The label of pixels that count for nothing.
pub const VOID: u32 = 255;

/// The class ids of `labels` `(n, h, w)` in row order, once everything fits `logits` `(n, c, h, w)`.
///
/// # Errors
/// Empty or mismatching arguments, more than 255 classes, and labels that are neither a class nor void.
pub(super) fn checked(op: &str, logits: &Tensor, labels: &Tensor, class_weights: Option<&Tensor>) -> Result<Vec<u32>> {
    let (n, c, h, w) = check::image(op, "logits", logits)?;
    if labels.dims() != [n, h, w] {
        refuse!("{op}: labels have shape {:?}, logits {:?}", labels.dims(), logits.dims());
    }
    if labels.dtype() != DType::U32 {
        refuse!("{op}: labels are {:?}, not U32", labels.dtype());
    }
    if c > VOID as usize {
        refuse!("{op}: logits {:?} have more than {VOID} classes, and label {VOID} is void", logits.dims());
    }
    if let Some(weights) = class_weights {
        check::vector(op, "class_weights", weights, c, logits)?;
    }
    let class_ids = labels.flatten_all()?.to_vec1::<u32>()?;
    if let Some(label) = class_ids.iter().find(|&&label| label as usize >= c && label != VOID) {
        refuse!("{op}: label {label} is neither one of {c} classes nor {VOID} (void)");
    }
    Ok(class_ids)
}

/// Labels and their weights.
pub(super) struct Labels {
    pub(super) labels: Vec<u32>,
    /// By class; none weighs 1 each.
    pub(super) weights: Option<Vec<f32>>,
}

impl Labels {
    pub(super) fn weight(&self, label: u32) -> f32 {
        match &self.weights {
            _ if label == VOID => 0.,
            Some(weights) => weights[label as usize],
            None => 1.,
        }
    }

    /// The sum of all weights, or 1 where it is 0: without a counted pixel the sum of losses is 0, and so is its quotient by 1.
    pub(super) fn total(&self) -> f64 {
        let sum = |labels: &[u32]| labels.iter().map(|&label| f64::from(self.weight(label))).sum::<f64>();
        let total: f64 = dealt(chunks(&self.labels), sum).sum();
        if total == 0. { 1. } else { total }
    }
}

/// Pixels of each of `classes` classes.
pub(super) fn counts(labels: &[u32], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for &label in labels.iter().filter(|&&label| label != VOID) {
        counts[label as usize] += 1;
    }
    counts
}

/// What the loss of each class counts for in a mean over the classes that occur: its weight over the sum of theirs, and 0 for a
/// class that does not occur. All are 0 where nothing occurs.
pub(super) fn shares(counts: &[usize], class_weights: Option<&Tensor>) -> Result<Vec<f64>> {
    let weights = match class_weights {
        Some(weights) => weights.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?,
        None => vec![1.; counts.len()],
    };
    let present = |(&count, weight): (&usize, f64)| if count == 0 { 0. } else { weight };
    let mut shares: Vec<f64> = counts.iter().zip(weights).map(present).collect();
    let total: f64 = shares.iter().sum();
    if total != 0. {
        for share in &mut shares {
            *share /= total;
        }
    }
    Ok(shares)
}

/// Labels in 0..classes, every fifth of them void.
#[cfg(test)]
pub(super) fn example(n: usize, classes: u32, h: usize, w: usize) -> Tensor {
    let label = |i: u32| if i % 5 == 3 { VOID } else { (i.wrapping_mul(2_654_435_761) >> 16) % classes };
    let labels: Vec<u32> = (0..(n * h * w) as u32).map(label).collect();
    Tensor::from_vec(labels, (n, h, w), &Device::Cpu).unwrap()
}
