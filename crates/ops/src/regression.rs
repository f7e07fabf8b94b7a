//! Losses on values: mean squared and mean absolute error.

use candle_core::{Result, Tensor};

use crate::check;

/// Mean of `(prediction - target)^2`, any shape.
///
/// # Errors
/// Empty or mismatching arguments.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    difference("mse", prediction, target)?.sqr()?.mean_all()
}

/// Mean of `|prediction - target|`, any shape; the gradient of a difference of 0 is 0 (candle's `abs` has 1).
///
/// # Errors
/// Empty or mismatching arguments.
pub fn l1(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let difference = difference("l1", prediction, target)?;
    let sign = difference.detach().sign()?;
    (difference * sign)?.mean_all()
}

fn difference(op: &str, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    check::not_empty(op, "prediction", prediction)?;
    check::same_shape(op, "target", target, prediction)?;
    prediction - target
}
