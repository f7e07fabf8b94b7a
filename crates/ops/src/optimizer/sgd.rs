//! One step of stochastic gradient descent with momentum, in place.

use std::collections::HashSet;

use candle_core::{Result, Tensor, Var};

use crate::check::{self, refuse};
use crate::kernel::{chunks, chunks_mut, deal_each, for_each, has_kernel, lend, values, vectorised};

/// Settings of a step (Sutskever et al. 2013), with PyTorch's meaning: the decay is part of the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Length of a step.
    pub learning_rate: f64,
    /// Share of the velocity that stays, in 0..1.
    pub momentum: f64,
    /// Looks one step of the velocity ahead.
    pub nesterov: bool,
    /// Share of the parameter that is added to its gradient.
    pub weight_decay: f64,
    /// What every gradient is multiplied by first: 1, or less to clip their common norm.
    pub gradient_factor: f64,
}

/// A parameter with what its step needs, all of one shape.
#[derive(Debug, Clone, Copy)]
pub struct SgdParameter<'a> {
    /// What is moved.
    pub parameter: &'a Var,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// Decaying sum of the gradients, updated; zeros before the first step.
    pub velocity: &'a Var,
    /// Whether the settings' weight decay applies to it.
    pub decays: bool,
}

/// Moves parameters by one step: `g += decay * parameter; velocity = momentum * velocity + g; parameter -= learning_rate *
/// velocity`, or with Nesterov's look ahead `parameter -= learning_rate * (g + momentum * velocity)`.
///
/// # Errors
/// Empty parameters, mismatching shapes and one variable in two roles; nothing is moved then.
pub fn sgd_steps(parameters: &[SgdParameter], settings: &SgdStep) -> Result<()> {
    const OP: &str = "sgd_step";
    let mut seen = HashSet::new();
    for &SgdParameter { parameter, gradient, velocity, .. } in parameters {
        check::not_empty(OP, "parameter", parameter)?;
        check::same_shape(OP, "gradient", gradient, parameter)?;
        check::same_shape(OP, "velocity", velocity, parameter)?;
        if ![parameter, velocity].into_iter().all(|variable| seen.insert(variable.id())) {
            refuse!("{OP}: parameter and velocity are not two variables");
        }
    }
    for_each(
        parameters,
        |of| of.parameter,
        |of| {
            let settings = SgdStep { weight_decay: if of.decays { settings.weight_decay } else { 0. }, ..*settings };
            if has_kernel(of.parameter) { in_one_pass(of, settings) } else { composed(of, settings) }
        },
    )
}

fn in_one_pass(of: &SgdParameter, settings: SgdStep) -> Result<()> {
    let gradient = of.gradient.detach().contiguous()?;
    let gradient = values(&gradient)?;
    let SgdStep { learning_rate, momentum, nesterov, weight_decay, gradient_factor } = settings;
    let [rate, momentum, decay, factor] =
        [learning_rate, momentum, weight_decay, gradient_factor].map(|setting| setting as f32);
    // What of the gradient and of the new velocity is stepped along.
    let [along_gradient, along_velocity] = if nesterov { [1., momentum] } else { [0., 1.] };
    lend(of.parameter, |parameter| {
        lend(of.velocity, |velocity| {
            let pieces = chunks_mut(parameter).zip(chunks_mut(velocity));
            deal_each(pieces.zip(chunks(&gradient)), |((parameter, velocity), gradient)| {
                vectorised(|| {
                    for ((p, v), &g) in parameter.iter_mut().zip(velocity).zip(gradient) {
                        let g = g * factor + decay * *p;
                        *v = *v * momentum + g;
                        *p -= rate * (along_gradient * g + along_velocity * *v);
                    }
                });
            });
            Ok(())
        })
    })
}

fn composed(of: &SgdParameter, settings: SgdStep) -> Result<()> {
    let parameter = of.parameter.as_detached_tensor();
    let gradient = ((of.gradient.detach() * settings.gradient_factor)? + (&parameter * settings.weight_decay)?)?;
    let velocity = ((of.velocity.as_detached_tensor() * settings.momentum)? + &gradient)?;
    let step = if settings.nesterov { (&gradient + (&velocity * settings.momentum)?)? } else { velocity.clone() };
    of.parameter.set(&(parameter - (step * settings.learning_rate)?)?)?;
    of.velocity.set(&velocity)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};

    use super::*;
    use crate::verify::{assert_close, draw, refusal, values};

    const SETTINGS: SgdStep =
        SgdStep { learning_rate: 0.1, momentum: 0.9, nesterov: false, weight_decay: 0.1, gradient_factor: 0.5 };

    fn variables(shape: &[usize], dtype: DType) -> [Var; 2] {
        let start = draw(shape, 1).to_dtype(dtype).unwrap();
        [start.clone(), start.zeros_like().unwrap()].map(|x| Var::from_tensor(&x).unwrap())
    }

    /// The formula of PyTorch's `SGD`, one element at a time in f64.
    fn reference(start: f64, gradients: &[f64], s: &SgdStep) -> f64 {
        let (mut parameter, mut velocity) = (start, 0.);
        for gradient in gradients {
            let gradient = s.gradient_factor * gradient + s.weight_decay * parameter;
            velocity = s.momentum * velocity + gradient;
            let step = if s.nesterov { gradient + s.momentum * velocity } else { velocity };
            parameter -= s.learning_rate * step;
        }
        parameter
    }

    #[test]
    fn steps_are_those_of_pytorch() {
        for (nesterov, decays) in [(false, true), (true, true), (true, false)] {
            let settings = SgdStep { nesterov, ..SETTINGS };
            for (shape, dtype) in [(vec![3, 5], DType::F32), (vec![20_000], DType::F32), (vec![3, 5], DType::F64)] {
                let [parameter, velocity] = variables(&shape, dtype);
                let start = values(&parameter);
                let gradients: Vec<Tensor> = (2..7).map(|i| draw(&shape[..], i).to_dtype(dtype).unwrap()).collect();
                for gradient in &gradients {
                    let of = SgdParameter { parameter: &parameter, gradient, velocity: &velocity, decays };
                    sgd_steps(&[of], &settings).unwrap();
                }
                let gradients: Vec<Vec<f64>> = gradients.iter().map(values).collect();
                let settings = SgdStep { weight_decay: if decays { 0.1 } else { 0. }, ..settings };
                let of = |i: usize| gradients.iter().map(|gradient| gradient[i]).collect::<Vec<_>>();
                let expected: Vec<f64> =
                    start.iter().enumerate().map(|(i, &start)| reference(start, &of(i), &settings)).collect();
                let expected = Tensor::from_vec(expected, &shape[..], &Device::Cpu).unwrap();
                assert_close("parameter", &parameter, &expected, 3e-7);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_moves_nothing() {
        let [parameter, velocity] = variables(&[3], DType::F32);
        let before = values(&parameter);
        let gradient = draw(3, 2);
        let good = SgdParameter { parameter: &parameter, gradient: &gradient, velocity: &velocity, decays: true };
        let wrong = draw(4, 2);
        let refused = |bad| refusal(sgd_steps(&[good, bad], &SETTINGS).map(|()| draw(1, 1)));
        assert_eq!(refused(SgdParameter { gradient: &wrong, ..good }), "sgd_step: gradient has shape [4], not [3]");
        assert_eq!(refused(good), "sgd_step: parameter and velocity are not two variables");
        assert_eq!(values(&parameter), before);
    }
}
