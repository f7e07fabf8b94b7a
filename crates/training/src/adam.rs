//! Adam over named parameters, with moments that can be saved.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use img2seg_models::Parameters;
use img2seg_ops::{AdamParameter, AdamStep, Gradients, adam_steps};
use serde::{Deserialize, Serialize};

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
    pub fn new(parameters: &Parameters, config: &AdamConfig) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, parameter) in parameters.trainable() {
            let first = Var::zeros(parameter.shape(), DType::F32, parameter.device())?;
            let second = Var::zeros(parameter.shape(), DType::F32, parameter.device())?;
            moments.insert(name, Moments { parameter, first, second });
        }
        Ok(Self { config: config.clone(), moments, steps: 0 })
    }

    /// One step with the given gradients at `factor` times the learning rate. A parameter without a gradient keeps its value.
    pub fn step(&mut self, gradients: &Gradients, factor: f64) -> Result<()> {
        self.steps += 1;
        let settings = AdamStep {
            learning_rate: self.config.learning_rate * factor,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
        };
        let mut parameters = Vec::with_capacity(self.moments.len());
        for Moments { parameter, first: first_moment, second: second_moment } in self.moments.values() {
            let Some(gradient) = gradients.get(parameter) else { continue };
            let decays = parameter.rank() > 1;
            parameters.push(AdamParameter { parameter, gradient, first_moment, second_moment, decays });
        }
        adam_steps(&parameters, self.steps, &settings)
    }

    /// The moments and the step count, by name below `prefix`.
    pub fn state(&self, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
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
    pub fn restore(&mut self, prefix: &str, state: &BTreeMap<String, Tensor>) -> Result<()> {
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
