//! Cross-entropy as log-softmax and a gather, out of ops that every device has.

use candle_core::{Result, Tensor};

use crate::loss::labels::VOID;

pub(super) fn cross_entropy(logits: &Tensor, labels: &Tensor, class_weights: Option<&Tensor>) -> Result<Tensor> {
    weighted_mean(&losses(logits, labels)?, labels, class_weights)
}

/// The loss of each pixel `(n, h, w)`, `-log` of its label's probability; void pixels have any loss, and no gradient.
pub(in crate::loss) fn losses(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let counted = labels.ne(VOID)?;
    let labels = counted.where_cond(labels, &labels.zeros_like()?)?; // (n, h, w), void as class 0
    // A void pixel may hold anything, NaN included: it is replaced, not multiplied by zero.
    let counted = counted.unsqueeze(1)?.broadcast_as(logits.shape())?.contiguous()?;
    let logits = counted.where_cond(logits, &logits.zeros_like()?)?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
    let picked = shifted.contiguous()?.gather(&labels.unsqueeze(1)?.contiguous()?, 1)?; // (n, 1, h, w)
    (log_sum - picked)?.squeeze(1)
}

/// The mean of the counted pixels' losses `(n, h, w)`, weighted by their labels' weights; 0 without any.
pub(in crate::loss) fn weighted_mean(
    losses: &Tensor,
    labels: &Tensor,
    class_weights: Option<&Tensor>,
) -> Result<Tensor> {
    let counted = labels.ne(VOID)?;
    let labels = counted.where_cond(labels, &labels.zeros_like()?)?;
    let zeros = losses.zeros_like()?;
    let weights = match class_weights {
        Some(weights) => weights.contiguous()?.index_select(&labels.flatten_all()?, 0)?.reshape(losses.shape())?,
        None => losses.ones_like()?,
    };
    let weights = counted.where_cond(&weights, &zeros)?;
    let total = weights.sum_all()?;
    let sum = (counted.where_cond(losses, &zeros)? * weights)?.sum_all()?;
    // Without a counted pixel the sum is 0, and so is its quotient by 1.
    let total = total.eq(0f64)?.where_cond(&total.ones_like()?, &total)?;
    sum / total
}
