//! Binary cross-entropy of logits against one constant target.

use candle_core::{Result, Tensor};

use crate::activation::minus_absolute;
use crate::check;

/// Mean of `-(target log s + (1 - target) log (1 - s))` with `s = sigmoid(logits)`, any shape; `target` in 0..=1.
///
/// Computed as `max(z, 0) - z target + log(1 + exp(-|z|))`, finite for every finite logit; candle-nn's takes the logarithm
/// of a sigmoid that has underflowed.
///
/// # Errors
/// Empty logits.
pub fn bce_with_logits(logits: &Tensor, target: f64) -> Result<Tensor> {
    check::not_empty("bce_with_logits", "logits", logits)?;
    let above = logits.ge(0f64)?.where_cond(logits, &logits.zeros_like()?)?;
    let tail = (minus_absolute(logits)?.exp()? + 1.)?.log()?;
    ((above - (logits * target)?)? + tail)?.mean_all()
}
