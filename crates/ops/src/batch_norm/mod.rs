//! Batch normalisation over (n, h, w) of each channel, fused with the activation that follows it.

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::{Activation, check};

/// What a batch says about its channels, for the running statistics of the caller. Not differentiable.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean of each channel `(c)`.
    pub mean: Tensor,
    /// Unbiased variance of each channel `(c)`: divided by one less than the number of pixels.
    pub variance: Tensor,
}

/// Normalises each channel of `x` `(n, c, h, w)` by the batch's own mean and biased variance, scales by `weight` `(c)`,
/// adds `bias` `(c)` and applies the activation (Ioffe and Szegedy 2015). Gradients flow through mean and variance.
///
/// Returns the result and the batch's statistics; updating running statistics is the caller's.
///
/// # Errors
/// Empty or mismatching arguments, and one value per channel, which has no variance.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    const OP: &str = "batch_norm_train";
    let (n, c, h, w) = check::image(OP, "x", x)?;
    check::vector(OP, "weight", weight, c, x)?;
    check::vector(OP, "bias", bias, c, x)?;
    if n * h * w == 1 {
        bail!("{OP}: x {:?} has one value per channel, training needs more", x.dims());
    }
    composed::train(x, weight, bias, epsilon, activation)
}

/// Normalises each channel of `x` `(n, c, h, w)` by running statistics `(c)`, scales by `weight` `(c)`, adds `bias` `(c)` and
/// applies the activation. No gradient flows to the running statistics.
///
/// # Errors
/// Empty or mismatching arguments.
pub fn batch_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "batch_norm_eval";
    let (_, c, _, _) = check::image(OP, "x", x)?;
    check::vector(OP, "weight", weight, c, x)?;
    check::vector(OP, "bias", bias, c, x)?;
    check::vector(OP, "running_mean", running_mean, c, x)?;
    check::vector(OP, "running_var", running_var, c, x)?;
    composed::eval(x, weight, bias, &running_mean.detach(), &running_var.detach(), epsilon, activation)
}
