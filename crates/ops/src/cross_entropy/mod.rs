//! Softmax cross-entropy of a label per pixel.

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor, bail};

use crate::check;

/// The label of pixels that count for nothing.
pub const VOID: u32 = 255;

/// Mean cross-entropy of `softmax(logits)` `(n, c, h, w)` along c against `labels` `(n, h, w)`, u32 class ids or [`VOID`].
///
/// Void pixels are ignored. With `class_weights` `(c)` the mean is weighted by each label's weight, as PyTorch's is. A batch
/// without a counted pixel gives 0 and a gradient of zeros (PyTorch gives NaN). No gradient flows to the class weights.
///
/// # Errors
/// Empty or mismatching arguments, more than 255 classes, and labels that are neither a class nor void.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, class_weights: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let (n, c, h, w) = check::image(OP, "logits", logits)?;
    if labels.dims() != [n, h, w] {
        bail!("{OP}: labels have shape {:?}, logits {:?}", labels.dims(), logits.dims());
    }
    if labels.dtype() != DType::U32 {
        bail!("{OP}: labels are {:?}, not U32", labels.dtype());
    }
    if c > VOID as usize {
        bail!("{OP}: logits {:?} have more than {VOID} classes, and label {VOID} is void", logits.dims());
    }
    if let Some(weights) = class_weights {
        check::vector(OP, "class_weights", weights, c, logits)?;
    }
    if let Some(label) = unknown_label(labels, c)? {
        bail!("{OP}: label {label} is neither one of {c} classes nor {VOID} (void)");
    }
    composed::cross_entropy(logits, labels, class_weights.map(Tensor::detach).as_ref())
}

fn unknown_label(labels: &Tensor, classes: usize) -> Result<Option<u32>> {
    let labels = labels.flatten_all()?.to_vec1::<u32>()?;
    Ok(labels.into_iter().find(|&label| label as usize >= classes && label != VOID))
}
