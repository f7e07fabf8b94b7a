//! Batch normalisation over (n, h, w) of each channel, fused with the activation that follows it.

mod composed;
mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use crate::Activation;
use crate::check::{self, refuse};
use crate::kernel::{InputGradients, Pass, has_kernel, node, values};
use cpu::{Channel, Size};

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
        refuse!("{OP}: x {:?} has one value per channel, training needs more", x.dims());
    }
    if !has_kernel(x) {
        return composed::train(x, weight, bias, epsilon, activation);
    }
    let [x, weight, bias] = [x.contiguous()?, weight.contiguous()?, bias.contiguous()?];
    let size = Size { n, c, pixels: h * w };
    let trained = cpu::train(size, &values(&x)?, &values(&weight)?, &values(&bias)?, epsilon, activation);
    let statistics = BatchStatistics {
        mean: Tensor::from_vec(trained.mean, c, x.device())?,
        variance: Tensor::from_vec(trained.unbiased_variance, c, x.device())?,
    };
    let (input, channels) = (x.detach(), trained.channels);
    let backward = move |pass: &Pass| backward(pass, &input, size, &channels, activation, true);
    Ok((node(OP, &[&x, &weight, &bias], trained.y, x.shape(), backward)?, statistics))
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
    let (n, c, h, w) = check::image(OP, "x", x)?;
    check::vector(OP, "weight", weight, c, x)?;
    check::vector(OP, "bias", bias, c, x)?;
    check::vector(OP, "running_mean", running_mean, c, x)?;
    check::vector(OP, "running_var", running_var, c, x)?;
    let [mean, variance] = [running_mean.detach(), running_var.detach()];
    if !has_kernel(x) {
        return composed::eval(x, weight, bias, &mean, &variance, epsilon, activation);
    }
    let [x, weight, bias] = [x.contiguous()?, weight.contiguous()?, bias.contiguous()?];
    let size = Size { n, c, pixels: h * w };
    let [m, v] = [mean.contiguous()?, variance.contiguous()?];
    let [m, v, scale, shift] = [values(&m)?, values(&v)?, values(&weight)?, values(&bias)?];
    let channel = |at: usize| Channel::new(m[at].into(), v[at].into(), scale[at], shift[at], epsilon);
    let channels: Vec<Channel> = (0..c).map(channel).collect();
    let y = cpu::eval(size, &values(&x)?, &channels, activation);
    let input = x.detach();
    let backward = move |pass: &Pass| backward(pass, &input, size, &channels, activation, false);
    node(OP, &[&x, &weight, &bias], y, x.shape(), backward)
}

fn backward(
    pass: &Pass,
    x: &Tensor,
    size: Size,
    channels: &[Channel],
    activation: Activation,
    through_statistics: bool,
) -> Result<InputGradients> {
    let [needs_x, needs_weight, needs_bias] = pass.needed;
    let (values, gradient) = (values(x)?, values(pass.gradient)?);
    let gradients = cpu::backward(size, &values, &gradient, channels, activation, through_statistics, needs_x);
    let vector =
        |needed: bool, values: Vec<f32>| needed.then(|| Tensor::from_vec(values, size.c, x.device())).transpose();
    Ok([
        gradients.x.map(|values| Tensor::from_vec(values, x.shape(), x.device())).transpose()?,
        vector(needs_weight, gradients.weight)?,
        vector(needs_bias, gradients.bias)?,
    ])
}
