//! One step of Adam, in place.

mod composed;
mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, Var};

use crate::check::{self, refuse};
use crate::kernel::has_kernel;

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

impl AdamStep {
    fn factors(&self, step: u64) -> Factors {
        Factors {
            keep: 1. - self.learning_rate * self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            step_size: self.learning_rate / (1. - self.beta1.powf(step as f64)),
            denominator: (1. - self.beta2.powf(step as f64)).sqrt(),
            epsilon: self.epsilon,
        }
    }
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
        refuse!("{OP}: parameter, first_moment and second_moment are not three variables");
    }
    if step == 0 {
        refuse!("{OP}: steps count from 1");
    }
    let factors = settings.factors(step);
    let gradient = gradient.detach();
    if has_kernel(parameter) {
        cpu::adam_step(parameter, &gradient, first_moment, second_moment, &factors)
    } else {
        composed::adam_step(parameter, &gradient, first_moment, second_moment, &factors)
    }
}
