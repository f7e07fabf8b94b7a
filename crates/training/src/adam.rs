//! Adam over named parameters, with moments that can be saved.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var, bail};
use img2seg_models::Parameters;
use img2seg_ops::{AdamParameter, AdamStep, Gradients, adam_steps, squared_norms};
use serde::{Deserialize, Serialize};

use crate::TrainingError;

/// The settings of one optimiser (Kingma and Ba 2015; with `weight_decay` above 0, `AdamW` of Loshchilov and Hutter 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// The rate that the schedule's factor scales.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to convolution weights only (not to biases and norms).
    pub weight_decay: f64,
    /// Where the norm of all gradients together is above this, they are scaled down to it (Pascanu et al. 2013); 0 for never.
    pub max_gradient_norm: f64,
}

struct Moments {
    parameter: Var,
    first: Var,
    second: Var,
}

/// Adam: one pair of moments a parameter, visited in name order.
pub struct Adam {
    config: AdamConfig,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

impl Adam {
    /// An optimiser of all trainable parameters.
    pub fn new(parameters: &Parameters, config: &AdamConfig) -> candle_core::Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, parameter) in parameters.trainable() {
            let first = Var::zeros(parameter.shape(), DType::F32, parameter.device())?;
            let second = Var::zeros(parameter.shape(), DType::F32, parameter.device())?;
            moments.insert(name, Moments { parameter, first, second });
        }
        Ok(Self { config: config.clone(), moments, steps: 0 })
    }

    /// One step with the given gradients at `factor` times the learning rate. A parameter without a gradient keeps its value.
    ///
    /// # Errors
    /// [`TrainingError::NotFinite`] of `part` with the first parameter, by name, whose gradient is not finite; nothing moves then.
    pub fn step(&mut self, part: &'static str, gradients: &Gradients, factor: f64) -> Result<(), TrainingError> {
        let (mut names, mut parameters) = (Vec::new(), Vec::new());
        for (name, Moments { parameter, first: first_moment, second: second_moment }) in &self.moments {
            let Some(gradient) = gradients.get(parameter) else { continue };
            let decays = parameter.rank() > 1;
            names.push(name);
            parameters.push(AdamParameter { parameter, gradient, first_moment, second_moment, decays });
        }
        let norms = squared_norms(&parameters.iter().map(|of| of.gradient).collect::<Vec<_>>())?;
        if let Some(at) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(TrainingError::NotFinite { part, tensor: format!("the gradient of {}", names[at]) });
        }
        self.steps += 1;
        let settings = AdamStep {
            learning_rate: self.config.learning_rate * factor,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
            gradient_factor: clipping_factor(self.config.max_gradient_norm, norms.iter().sum()),
        };
        Ok(adam_steps(&parameters, self.steps, &settings)?)
    }

    /// The moments and the step count, by name below `prefix`.
    pub fn state(&self, prefix: &str) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, moments) in &self.moments {
            state.insert(format!("{prefix}.first_moment.{name}"), moments.first.as_detached_tensor());
            state.insert(format!("{prefix}.second_moment.{name}"), moments.second.as_detached_tensor());
        }
        let steps = i64::try_from(self.steps).map_err(candle_core::Error::wrap)?;
        state.insert(format!("{prefix}.steps"), Tensor::new(&[steps], &Device::Cpu)?);
        Ok(state)
    }

    /// Takes back what [`Adam::state`] gave. Every tensor must be there with its shape.
    pub fn restore(&mut self, prefix: &str, state: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        let find = |name: String, shape: &candle_core::Shape| match state.get(&name) {
            Some(tensor) if tensor.shape() == shape => Ok(tensor.clone()),
            Some(tensor) => bail!("{name}: has shape {:?}, not {shape:?}", tensor.shape()),
            None => bail!("{name}: missing"),
        };
        let steps = find(format!("{prefix}.steps"), &candle_core::Shape::from(1))?.to_vec1::<i64>()?[0];
        let mut found = Vec::new();
        for (name, moments) in &self.moments {
            found.push((
                find(format!("{prefix}.first_moment.{name}"), moments.first.shape())?,
                find(format!("{prefix}.second_moment.{name}"), moments.second.shape())?,
            ));
        }
        for (moments, (first, second)) in self.moments.values().zip(found) {
            moments.first.set(&first.to_device(moments.first.device())?)?;
            moments.second.set(&second.to_device(moments.second.device())?)?;
        }
        self.steps = u64::try_from(steps).map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}

/// What gradients are multiplied by so that their norm is at most `max` (0: any); PyTorch's `clip_grad_norm_`.
fn clipping_factor(max: f64, squared_norm: f64) -> f64 {
    if max > 0.0 { (max / (squared_norm.sqrt() + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use img2seg_models::Init;
    use img2seg_ops::{backward, weighted_sum};

    use super::*;

    /// Two weights of one element, and the gradients of `slopes[0] * a + slopes[1] * b`.
    fn linear(slopes: [f64; 2]) -> (Parameters, Gradients) {
        let parameters = Parameters::new(0, &Device::Cpu);
        let weight = |name| parameters.weight(name, (), Init::Constant(1.0)).unwrap();
        let loss = weighted_sum(&[(&weight("a"), slopes[0]), (&weight("b"), slopes[1])]).unwrap();
        (parameters, backward(loss).unwrap())
    }

    fn config(max_gradient_norm: f64) -> AdamConfig {
        AdamConfig { learning_rate: 0.1, beta1: 0.5, beta2: 0.5, epsilon: 1e-8, weight_decay: 0.0, max_gradient_norm }
    }

    fn moment(adam: &Adam, name: &str) -> f32 {
        adam.state("adam").unwrap()[&format!("adam.first_moment.{name}")].to_scalar().unwrap()
    }

    #[test]
    fn gradients_are_clipped_by_their_common_norm() {
        for (max, expected) in [(0.0, [1.5, 2.0]), (5.1, [1.5, 2.0]), (1.0, [0.3, 0.4]), (2.5, [0.75, 1.0])] {
            let (parameters, gradients) = linear([3.0, 4.0]);
            let mut adam = Adam::new(&parameters, &config(max)).unwrap();
            adam.step("network", &gradients, 1.0).unwrap();
            // beta1 halves the first gradient.
            for (name, expected) in ["a", "b"].into_iter().zip(expected) {
                assert!((moment(&adam, name) - expected).abs() < 1e-6, "{max}: {name}");
            }
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named_and_moves_nothing() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (parameters, gradients) = linear([3.0, bad]);
            let mut adam = Adam::new(&parameters, &config(1.0)).unwrap();
            let error = adam.step("network", &gradients, 1.0).unwrap_err().to_string();
            assert_eq!(error, "the gradient of b is not finite (network)");
            assert_eq!(moment(&adam, "a").to_bits(), 0);
            for tensor in parameters.tensors().values() {
                assert_eq!(tensor.to_scalar::<f32>().unwrap().to_bits(), 1f32.to_bits());
            }
        }
    }
}
