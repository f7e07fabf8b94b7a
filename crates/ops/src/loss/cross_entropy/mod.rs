//! Softmax cross-entropy of a label per pixel.

pub(super) mod composed;
mod cpu;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use candle_core::{Result, Tensor};

use super::labels::{self, Labels};
use crate::kernel::{by_candle, has_kernel, is_tracked, node, scale_by, values, wide};

/// Mean cross-entropy of `softmax(logits)` `(n, c, h, w)` along c against `labels` `(n, h, w)`, u32 class ids or [`VOID`](crate::VOID).
///
/// Void pixels are ignored. With `class_weights` `(c)` the mean is weighted by each label's weight, as PyTorch's is. A batch
/// without a counted pixel gives 0 and a gradient of zeros (PyTorch gives NaN). No gradient flows to the class weights.
///
/// # Errors
/// Empty or mismatching arguments, more than 255 classes, and labels that are neither a class nor void.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, class_weights: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let logits = &wide(logits)?;
    let class_ids = labels::checked(OP, logits, labels, class_weights)?;
    let (_, c, h, w) = logits.dims4()?;
    let class_weights = class_weights.map(Tensor::detach);
    if !has_kernel(logits) {
        let labels = labels.clone();
        return by_candle(OP, &[logits], move |x| composed::cross_entropy(&x[0], &labels, class_weights.as_ref()));
    }
    let weights = class_weights.map(|weights| weights.to_vec1()).transpose()?;
    let (labels, pixels) = (Labels { labels: class_ids, weights }, h * w);
    let logits = logits.contiguous()?;
    let (loss, gradient) = cpu::cross_entropy(&values(&logits)?, &labels, c, pixels, is_tracked(&[&logits]));
    // The way back takes what is already there; should it be gone a second time, it is computed again.
    let (input, gradient) = (logits.detach(), Mutex::new(Some(gradient)));
    node(OP, &[&logits], vec![loss as f32], (), move |pass| {
        let scale = pass.gradient.to_scalar::<f32>()?;
        let found = gradient.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut gradient = match found {
            Some(gradient) => gradient,
            None => cpu::cross_entropy(&values(&input)?, &labels, c, pixels, true).1,
        };
        if scale.to_bits() != 1f32.to_bits() {
            scale_by(&mut gradient, scale);
        }
        Ok([Some(Tensor::from_vec(gradient, input.shape(), input.device())?), None, None])
    })
}
