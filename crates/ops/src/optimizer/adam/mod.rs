//! One step of Adam, in place.

mod composed;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use candle_core::{Result, Tensor, Var};

use crate::check::{self, refuse};
use crate::kernel::{for_each, has_kernel};

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
    /// What every gradient is multiplied by first: 1, or less to clip their common norm.
    pub gradient_factor: f64,
}

/// The factors that are the same for every element of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    gradient: f64,
    keep: f64,
    beta1: f64,
    beta2: f64,
    step_size: f64,
    denominator: f64,
    epsilon: f64,
}

/// The factors in f32, in the order in which the CUDA kernel takes them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Single {
    gradient: f32,
    keep: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step_size: f32,
    inverse_denominator: f32,
    epsilon: f32,
}

impl From<&Factors> for Single {
    fn from(f: &Factors) -> Self {
        Self {
            gradient: f.gradient as f32,
            keep: f.keep as f32,
            beta1: f.beta1 as f32,
            rest1: (1. - f.beta1) as f32,
            beta2: f.beta2 as f32,
            rest2: (1. - f.beta2) as f32,
            step_size: f.step_size as f32,
            inverse_denominator: (1. / f.denominator) as f32,
            epsilon: f.epsilon as f32,
        }
    }
}

impl AdamStep {
    pub(crate) fn factors(&self, step: u64) -> Factors {
        Factors {
            gradient: self.gradient_factor,
            keep: 1. - self.learning_rate * self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            step_size: self.learning_rate / (1. - self.beta1.powf(step as f64)),
            denominator: (1. - self.beta2.powf(step as f64)).sqrt(),
            epsilon: self.epsilon,
        }
    }
}

/// A parameter with what its step needs, all of one shape.
#[derive(Debug, Clone, Copy)]
pub struct AdamParameter<'a> {
    /// What is moved.
    pub parameter: &'a Var,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// Running mean of the gradient, updated.
    pub first_moment: &'a Var,
    /// Running mean of the gradient's square, updated.
    pub second_moment: &'a Var,
    /// Whether the settings' weight decay applies to it.
    pub decays: bool,
}

/// Moves `parameter` by one step of Adam along `gradient` and updates both moments (all of one shape); `step` counts from 1.
///
/// PyTorch's formula: `parameter -= learning_rate / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)`.
///
/// # Errors
/// Empty parameters, mismatching shapes, one variable in two roles, and step 0.
pub fn adam_step(
    parameter: &Var,
    gradient: &Tensor,
    first_moment: &Var,
    second_moment: &Var,
    step: u64,
    settings: &AdamStep,
) -> Result<()> {
    adam_steps(&[AdamParameter { parameter, gradient, first_moment, second_moment, decays: true }], step, settings)
}

/// [`adam_step`] of many parameters, side by side.
///
/// # Errors
/// As there; nothing is moved then.
pub fn adam_steps(parameters: &[AdamParameter], step: u64, settings: &AdamStep) -> Result<()> {
    const OP: &str = "adam_step";
    let mut seen = HashSet::with_capacity(3 * parameters.len());
    for &AdamParameter { parameter, gradient, first_moment, second_moment, .. } in parameters {
        check::not_empty(OP, "parameter", parameter)?;
        check::same_shape(OP, "gradient", gradient, parameter)?;
        check::same_shape(OP, "first_moment", first_moment, parameter)?;
        check::same_shape(OP, "second_moment", second_moment, parameter)?;
        if ![parameter, first_moment, second_moment].into_iter().all(|variable| seen.insert(variable.id())) {
            refuse!("{OP}: parameter, first_moment and second_moment are not three variables");
        }
    }
    if step == 0 {
        refuse!("{OP}: steps count from 1");
    }
    let decaying = settings.factors(step);
    let lasting = AdamStep { weight_decay: 0., ..*settings }.factors(step);
    #[cfg(feature = "cuda")]
    if let Some(stage) = parameters.first().and_then(|of| crate::cuda::Stage::of(of.parameter))
        && parameters.iter().all(|of| crate::cuda::Stage::of(of.parameter).is_some())
    {
        return cuda::adam_steps(&stage, parameters, [&lasting, &decaying]);
    }
    for_each(
        parameters,
        |of| of.parameter,
        |of| {
            let factors = if of.decays { &decaying } else { &lasting };
            let gradient = of.gradient.detach();
            if has_kernel(of.parameter) {
                cpu::adam_step(of.parameter, &gradient, of.first_moment, of.second_moment, factors)
            } else {
                composed::adam_step(of.parameter, &gradient, of.first_moment, of.second_moment, factors)
            }
        },
    )
}
