//! One step of Adam, in place.

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, Var, bail};

use crate::check;

/// Settings of a step (Kingma and Ba 2015), with decoupled weight decay (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Length of a step.
    pub learning_rate: f64,
    /// Share of the first moment that stays.
    pub beta1: f64,
    /// Share of the second moment that stays.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Share of the parameter, times the learning rate, taken off before the step. 0 is plain Adam.
    pub weight_decay: f64,
}

/// The factors that are the same for every element of a step.
#[derive(Debug, Clone, Copy)]
struct Factors {
    keep: f64,
    beta1: f64,
    beta2: f64,
    step_size: f64,
    denominator: f64,
    epsilon: f64,
}

/// Moves `parameter` by one step of Adam along `gradient` and updates both moments (all of one shape); `step` counts from 1.
///
/// PyTorch's formula: `parameter -= learning_rate / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)`.
///
/// # Errors
/// Mismatching shapes, one variable in two roles, and step 0.
pub fn adam_step(
    parameter: &Var,
    gradient: &Tensor,
    first_moment: &Var,
    second_moment: &Var,
    step: u64,
    settings: &AdamStep,
) -> Result<()> {
    const OP: &str = "adam_step";
    check::same_shape(OP, "gradient", gradient, parameter)?;
    check::same_shape(OP, "first_moment", first_moment, parameter)?;
    check::same_shape(OP, "second_moment", second_moment, parameter)?;
    let ids = [parameter.id(), first_moment.id(), second_moment.id()];
    if ids[0] == ids[1] || ids[0] == ids[2] || ids[1] == ids[2] {
        bail!("{OP}: parameter, first_moment and second_moment are not three variables");
    }
    if step == 0 {
        bail!("{OP}: steps count from 1");
    }
    let &AdamStep { learning_rate, beta1, beta2, epsilon, weight_decay } = settings;
    let factors = Factors {
        keep: 1. - learning_rate * weight_decay,
        beta1,
        beta2,
        step_size: learning_rate / (1. - beta1.powf(step as f64)),
        denominator: (1. - beta2.powf(step as f64)).sqrt(),
        epsilon,
    };
    composed::adam_step(parameter, &gradient.detach(), first_moment, second_moment, &factors)
}
