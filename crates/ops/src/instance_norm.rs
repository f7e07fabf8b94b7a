//! Instance normalisation: batch normalisation of each image by itself.

use candle_core::{Result, Tensor, bail};

use crate::{Activation, batch_norm_train, check};

/// Normalises each channel of each image of `x` `(n, c, h, w)` by its own mean and biased variance over (h, w), scales by
/// `weight` `(c)`, adds `bias` `(c)` and applies the activation (Ulyanov et al. 2016). There are no running statistics.
///
/// # Errors
/// Empty or mismatching arguments, and images of one pixel, which have no variance.
pub fn instance_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "instance_norm";
    let (n, c, h, w) = check::image(OP, "x", x)?;
    if h * w == 1 {
        bail!("{OP}: x {:?} has one pixel per image, normalising needs more", x.dims());
    }
    // Each channel of each image becomes a channel of its own.
    let per_image = |argument, vector: Option<&Tensor>, otherwise: f64| match vector {
        Some(vector) => {
            check::vector(OP, argument, vector, c, x)?;
            vector.reshape((1, c))?.broadcast_as((n, c))?.contiguous()?.reshape(n * c)
        }
        None => Tensor::full(otherwise, n * c, x.device())?.to_dtype(x.dtype()),
    };
    let weight = per_image("weight", weight, 1.)?;
    let bias = per_image("bias", bias, 0.)?;
    let (y, _) = batch_norm_train(&x.reshape((1, n * c, h, w))?, &weight, &bias, epsilon, activation)?;
    y.reshape((n, c, h, w))
}
