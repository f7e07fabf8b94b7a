//! Activations by masks. A mask is a constant to candle's autograd, so each side's gradient is exact, ties included.

use candle_core::{Result, Tensor};

pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    // `<=` and not `>`: NaN is neither, and has to pass.
    x.le(0f64)?.where_cond(&x.zeros_like()?, x)
}

pub(super) fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    x.gt(0f64)?.where_cond(x, &(x * slope)?)
}

pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    let not_negative = x.ge(0f64)?;
    let e = minus_absolute(x)?.exp()?; // in (0, 1]
    let above = (&e + 1.)?.recip()?;
    let below = (&e * &above)?;
    not_negative.where_cond(&above, &below)
}

/// `-|x|`, whose gradient at 0 is -1: the side that `x >= 0` chooses.
pub(crate) fn minus_absolute(x: &Tensor) -> Result<Tensor> {
    x.ge(0f64)?.where_cond(&x.neg()?, x)
}
