//! Batch normalisation over (n, h, w) of each channel, fused with the activation that follows it.

mod composed;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, Var};

use crate::Activation;
use crate::check::{self, refuse};
#[cfg(feature = "cuda")]
use crate::cuda::Stage;
use crate::kernel::{InputGradients, Pass, has_kernel, is_tracked, lend, node, values};
use cpu::{Channel, Normalisation, Size};

/// What a batch says about its channels, for the running statistics of the caller. Not differentiable.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean of each channel `(c)`.
    pub mean: Tensor,
    /// Unbiased variance of each channel `(c)`: divided by one less than the number of pixels.
    pub variance: Tensor,
}

impl BatchStatistics {
    /// Moves running statistics `(c)` towards these: `running = (1 - momentum) running + momentum batch`.
    ///
    /// # Errors
    /// Statistics of other shapes.
    pub fn move_running(&self, mean: &Var, variance: &Var, momentum: f64) -> Result<()> {
        const OP: &str = "move_running";
        check::same_shape(OP, "mean", mean, &self.mean)?;
        check::same_shape(OP, "variance", variance, &self.variance)?;
        #[cfg(feature = "cuda")]
        if let Some(stage) = Stage::of(mean)
            && Stage::of(variance).is_some()
        {
            return cuda::move_running(&stage, self, [mean, variance], momentum);
        }
        for (running, batch) in [(mean, &self.mean), (variance, &self.variance)] {
            if has_kernel(running) {
                let (batch, [keep, take]) = (values(batch)?, [1. - momentum, momentum].map(|share| share as f32));
                lend(running, |running| {
                    running
                        .iter_mut()
                        .zip(&*batch)
                        .for_each(|(running, batch)| *running = *running * keep + batch * take);
                    Ok(())
                })?;
            } else {
                running.set(&((running.as_detached_tensor() * (1. - momentum))? + (batch * momentum)?)?)?;
            }
        }
        Ok(())
    }
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
    check::vector(OP, "bias", bias, c, weight)?;
    if n * h * w == 1 {
        refuse!("{OP}: x {:?} has one value per channel, training needs more", x.dims());
    }
    #[cfg(feature = "cuda")]
    if let (Some(stage), Some(_)) = (Stage::of_image(x), Stage::of(weight)) {
        return cuda::train(&stage, x, weight, bias, epsilon, activation);
    }
    if !has_kernel(x) {
        return composed::train(x, weight, bias, epsilon, activation);
    }
    train(OP, x, (n, c, h * w), [weight, bias], epsilon, activation)
}

/// The kernels on x as `(n, c, pixels)`, with as many weights as biases: those of a channel stand at its place modulo their
/// number.
pub(crate) fn train(
    op: &'static str,
    x: &Tensor,
    (n, c, pixels): (usize, usize, usize),
    [weight, bias]: [&Tensor; 2],
    epsilon: f64,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    let [x, weight, bias] = [x.contiguous()?, weight.contiguous()?, bias.contiguous()?];
    let size = Size { n, c, pixels };
    let trained = cpu::train(size, &values(&x)?, &values(&weight)?, &values(&bias)?, epsilon, activation);
    let statistics = BatchStatistics {
        mean: Tensor::from_vec(trained.mean, c, x.device())?,
        variance: Tensor::from_vec(trained.unbiased_variance, c, x.device())?,
    };
    let weights = weight.elem_count();
    let done = Normalisation { size, channels: trained.channels, weights, activation, through_statistics: true };
    let input = x.detach();
    let backward = move |pass: &Pass| backward(pass, &input, &done);
    Ok((node(op, &[&x, &weight, &bias], trained.y, x.shape(), backward)?, statistics))
}

/// A batch normalisation in training, both tensors `(c)`: what [`conv2d_norm_train`](crate::conv2d_norm_train) normalises by.
#[derive(Debug, Clone, Copy)]
pub struct NormTrain<'a> {
    /// Scale.
    pub weight: &'a Tensor,
    /// Shift.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub epsilon: f64,
}

impl NormTrain<'_> {
    /// [`batch_norm_train`] by this normalisation.
    pub(crate) fn apply(&self, x: &Tensor, activation: Activation) -> Result<(Tensor, BatchStatistics)> {
        batch_norm_train(x, self.weight, self.bias, self.epsilon, activation)
    }

    /// Refuses what does not normalise `channels` of `pixels` values in all images, of the kind of `x`.
    #[cfg(feature = "cuda")]
    pub(crate) fn check(&self, op: &'static str, x: &Tensor, channels: usize, pixels: usize) -> Result<()> {
        check::vector(op, "norm.weight", self.weight, channels, x)?;
        check::vector(op, "norm.bias", self.bias, channels, x)?;
        if pixels == 1 {
            refuse!("{op}: the result has one value per channel, training needs more");
        }
        Ok(())
    }
}

/// A batch normalisation in eval mode, all tensors `(c)`: what [`conv2d_norm_eval`](crate::conv2d_norm_eval) normalises by.
#[derive(Debug, Clone, Copy)]
pub struct NormEval<'a> {
    /// Scale.
    pub weight: &'a Tensor,
    /// Shift.
    pub bias: &'a Tensor,
    /// Running mean.
    pub running_mean: &'a Tensor,
    /// Running variance.
    pub running_var: &'a Tensor,
    /// Added to the variance.
    pub epsilon: f64,
}

impl NormEval<'_> {
    /// [`batch_norm_eval`] by this normalisation.
    pub(crate) fn apply(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let Self { weight, bias, running_mean, running_var, epsilon } = *self;
        batch_norm_eval(x, weight, bias, running_mean, running_var, epsilon, activation)
    }

    /// Whether a gradient may be asked for.
    pub(crate) fn is_tracked(&self) -> bool {
        is_tracked(&[self.weight, self.bias])
    }

    /// Refuses tensors that are not of `channels` values like those of `x`.
    #[cfg(feature = "cuda")]
    pub(crate) fn check(&self, op: &'static str, x: &Tensor, channels: usize) -> Result<()> {
        let Self { weight, bias, running_mean, running_var, .. } = *self;
        let names = ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"];
        let mut tensors = names.into_iter().zip([weight, bias, running_mean, running_var]);
        tensors.try_for_each(|(name, tensor)| check::vector(op, name, tensor, channels, x))
    }

    /// The factor and the term `(scale, shift)` of each channel, for sums that lack the bias of their convolution.
    ///
    /// # Errors
    /// Tensors that are not of `channels` values like those of `x`.
    pub(crate) fn factors(
        &self,
        op: &'static str,
        x: &Tensor,
        channels: usize,
        sums_lack: Option<&Tensor>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let read = |name, vector: &Tensor| -> Result<Vec<f32>> {
            check::vector(op, name, vector, channels, x)?;
            vector.detach().to_vec1()
        };
        let (weight, bias) = (read("norm.weight", self.weight)?, read("norm.bias", self.bias)?);
        let (mean, variance) =
            (read("norm.running_mean", self.running_mean)?, read("norm.running_var", self.running_var)?);
        let lacking = sums_lack.map(|bias| read("bias", bias)).transpose()?.unwrap_or_else(|| vec![0.; channels]);
        let factors = (0..channels).map(|at| {
            let scale = f64::from(weight[at]) / (f64::from(variance[at]) + self.epsilon).sqrt();
            let shift = f64::from(bias[at]) + (f64::from(lacking[at]) - f64::from(mean[at])) * scale;
            (scale as f32, shift as f32)
        });
        Ok(factors.unzip())
    }
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
    check::vector(OP, "bias", bias, c, weight)?;
    check::vector(OP, "running_mean", running_mean, c, weight)?;
    check::vector(OP, "running_var", running_var, c, weight)?;
    let [mean, variance] = [running_mean.detach(), running_var.detach()];
    #[cfg(feature = "cuda")]
    if let (Some(stage), Some(_)) = (Stage::of_image(x), Stage::of(weight)) {
        let norm = NormEval { weight, bias, running_mean: &mean, running_var: &variance, epsilon };
        return cuda::eval(&stage, x, &norm, activation);
    }
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
    let done = Normalisation { size, channels, weights: c, activation, through_statistics: false };
    let input = x.detach();
    let backward = move |pass: &Pass| backward(pass, &input, &done);
    node(OP, &[&x, &weight, &bias], y, x.shape(), backward)
}

fn backward(pass: &Pass, x: &Tensor, done: &Normalisation) -> Result<InputGradients> {
    let [needs_x, needs_weight, needs_bias, ..] = pass.needed;
    let (of_x, gradients) = if needs_x {
        let (of_x, gradients) = pass.overwritten(x, |gradient, x| cpu::backward(done, x, gradient))?;
        (Some(of_x), gradients)
    } else {
        (None, cpu::parameter_gradients(done, &values(x)?, &values(pass.gradient)?))
    };
    let vector =
        |needed: bool, values: Vec<f32>| needed.then(|| Tensor::from_vec(values, done.weights, x.device())).transpose();
    Ok([of_x, vector(needs_weight, gradients.weight)?, vector(needs_bias, gradients.bias)?])
}
