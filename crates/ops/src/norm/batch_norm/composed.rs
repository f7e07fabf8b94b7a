//! Batch normalisation out of sums and broadcasts; candle differentiates it.

use candle_core::{Result, Tensor};

use super::BatchStatistics;
use crate::Activation;

pub(super) fn train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    let (n, c, h, w) = x.dims4()?;
    let count = (n * h * w) as f64;
    let mean = (x.sum_keepdim((0, 2, 3))? / count)?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = (centred.sqr()?.sum_keepdim((0, 2, 3))? / count)?;
    let statistics = BatchStatistics {
        mean: mean.reshape(c)?.detach(),
        variance: (variance.reshape(c)?.detach() * (count / (count - 1.)))?,
    };
    let y = centred.broadcast_mul(&scale(&variance, weight, epsilon)?)?;
    let y = y.broadcast_add(&bias.reshape((1, c, 1, 1))?)?;
    Ok((activation.apply(&y)?, statistics))
}

pub(super) fn eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    let channels = (1, mean.dim(0)?, 1, 1);
    let y = x
        .broadcast_sub(&mean.reshape(channels)?)?
        .broadcast_mul(&scale(&variance.reshape(channels)?, weight, epsilon)?)?
        .broadcast_add(&bias.reshape(channels)?)?;
    activation.apply(&y)
}

/// `weight / sqrt(variance + epsilon)`, `(1, c, 1, 1)`.
fn scale(variance: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    weight.reshape(variance.dims())? / (variance + epsilon)?.sqrt()?
}
