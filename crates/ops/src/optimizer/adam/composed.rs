//! Adam out of ops that every device has.

use candle_core::{Result, Tensor, Var};

use super::Factors;

pub(super) fn adam_step(parameter: &Var, gradient: &Tensor, first: &Var, second: &Var, f: &Factors) -> Result<()> {
    let gradient = &(gradient * f.gradient)?;
    let m = ((first.as_detached_tensor() * f.beta1)? + (gradient * (1. - f.beta1))?)?;
    let v = ((second.as_detached_tensor() * f.beta2)? + (gradient.sqr()? * (1. - f.beta2))?)?;
    let denominator = ((v.sqrt()? / f.denominator)? + f.epsilon)?;
    let kept = (parameter.as_detached_tensor() * f.keep)?;
    let moved = (kept - ((&m / denominator)? * f.step_size)?)?;
    parameter.set(&moved)?;
    first.set(&m)?;
    second.set(&v)
}
