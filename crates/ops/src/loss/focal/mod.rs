//! The focal loss: cross-entropy that turns away from what is already right.

mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use super::cross_entropy::{composed, cross_entropy};
use super::labels::{self, Labels};
use super::with_gradient;
use crate::check::refuse;
use crate::kernel::{by_candle, has_kernel, is_tracked, values, wide};

/// Mean of `-(1 - p)^gamma log p` over the counted pixels, where p is `softmax(logits)` of a pixel's label: the focal loss of Lin et
/// al. 2017 (equation 5) for several classes. Logits `(n, c, h, w)`, labels `(n, h, w)` of u32 class ids or [`VOID`](crate::VOID).
///
/// `gamma` is 0 or more, in the paper 2; with 0 this is [`cross_entropy`]. Void pixels are ignored, and `class_weights` `(c)` (the
/// paper's alpha) weight the mean as they do there: the sum is divided by the weights' sum, and not by the number of pixels.
///
/// # Errors
/// What [`cross_entropy`] refuses, and a gamma that is negative or not finite.
pub fn focal(logits: &Tensor, labels: &Tensor, gamma: f64, class_weights: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "focal";
    let logits = &wide(logits)?;
    let class_ids = labels::checked(OP, logits, labels, class_weights)?;
    if !(0. ..f64::INFINITY).contains(&gamma) {
        refuse!("{OP}: gamma is {gamma}, not a number from 0 on");
    }
    let class_weights = class_weights.map(Tensor::detach);
    if gamma == 0. {
        return cross_entropy(logits, labels, class_weights.as_ref());
    }
    if !has_kernel(logits) {
        let labels = labels.clone();
        return by_candle(OP, &[logits], move |x| composed(&x[0], &labels, gamma, class_weights.as_ref()));
    }
    let (_, c, h, w) = logits.dims4()?;
    let weights = class_weights.map(|weights| weights.to_vec1()).transpose()?;
    let labels = Labels { labels: class_ids, weights };
    let logits = logits.contiguous()?;
    let (loss, gradient) = cpu::focal(&values(&logits)?, &labels, gamma as f32, c, h * w, is_tracked(&[&logits]));
    with_gradient(OP, &logits, loss, gradient)
}

fn composed(logits: &Tensor, labels: &Tensor, gamma: f64, class_weights: Option<&Tensor>) -> Result<Tensor> {
    let losses = composed::losses(logits, labels)?;
    let wrong = (1. - losses.neg()?.exp()?)?; // the probability of all other classes
    // A power below 1 has no slope at 0; there the loss is 0 as well.
    let wrong = wrong.lt(1e-30)?.where_cond(&(wrong.ones_like()? * 1e-30)?, &wrong)?;
    composed::weighted_mean(&(wrong.powf(gamma)? * losses)?, labels, class_weights)
}
