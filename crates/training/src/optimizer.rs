//! Optimisers of named parameters: Adam, `AdamW` and gradient descent, with a state that can be saved.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var, bail};
use img2seg_models::Parameters;
use img2seg_ops::{AdamParameter, AdamStep, Gradients, SgdParameter, SgdStep, adam_steps, sgd_steps};
use serde::{Deserialize, Serialize};

use crate::TrainingError;

/// A rule by which parameters move, with its settings; `[task.KIND.optimizer.RULE]` in a recipe.
///
/// Weight decay applies to weights of two and more dimensions only: not to biases, nor to the scales and shifts of norms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Kingma and Ba 2015.
    Adam(AdamConfig),
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    #[serde(rename = "adamw")]
    AdamW(AdamWConfig),
    /// Stochastic gradient descent with momentum (Sutskever et al. 2013), as PyTorch has it.
    Sgd(SgdConfig),
}

/// The settings of Adam.
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
    /// Where the norm of all gradients together is above this, they are scaled down to it (Pascanu et al. 2013); 0 for never.
    pub max_gradient_norm: f64,
}

/// The settings of `AdamW`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// As in [`AdamConfig`].
    pub learning_rate: f64,
    /// As in [`AdamConfig`].
    pub beta1: f64,
    /// As in [`AdamConfig`].
    pub beta2: f64,
    /// As in [`AdamConfig`].
    pub epsilon: f64,
    /// The share, times the learning rate, that is taken off a weight before each step.
    pub weight_decay: f64,
    /// As in [`AdamConfig`].
    pub max_gradient_norm: f64,
}

/// The settings of gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// The rate that the schedule's factor scales.
    pub learning_rate: f64,
    /// Share of the velocity that stays from step to step.
    pub momentum: f64,
    /// Looks one step of the velocity ahead.
    pub nesterov: bool,
    /// The share of a weight that is added to its gradient.
    pub weight_decay: f64,
    /// As in [`AdamConfig`].
    pub max_gradient_norm: f64,
}

impl OptimizerConfig {
    fn max_gradient_norm(&self) -> f64 {
        match self {
            Self::Adam(AdamConfig { max_gradient_norm, .. })
            | Self::AdamW(AdamWConfig { max_gradient_norm, .. })
            | Self::Sgd(SgdConfig { max_gradient_norm, .. }) => *max_gradient_norm,
        }
    }

    /// Checks the ranges; `key` is where the rule stands in the recipe.
    pub(crate) fn validate(&self, key: &str) -> Result<(), String> {
        let above_0 = |value: f64| (value.is_finite() && value > 0.0, "above 0");
        let from_0 = |value: f64| (value.is_finite() && value >= 0.0, "0 or more");
        let share = |value: f64| ((0.0..1.0).contains(&value), "in [0, 1)");
        let checks: &[(&str, (bool, &str))] = match *self {
            Self::Adam(AdamConfig { learning_rate, beta1, beta2, epsilon, max_gradient_norm }) => &[
                ("adam.learning_rate", above_0(learning_rate)),
                ("adam.beta1", share(beta1)),
                ("adam.beta2", share(beta2)),
                ("adam.epsilon", above_0(epsilon)),
                ("adam.max_gradient_norm", from_0(max_gradient_norm)),
            ],
            Self::AdamW(AdamWConfig { learning_rate, beta1, beta2, epsilon, weight_decay, max_gradient_norm }) => &[
                ("adamw.learning_rate", above_0(learning_rate)),
                ("adamw.beta1", share(beta1)),
                ("adamw.beta2", share(beta2)),
                ("adamw.epsilon", above_0(epsilon)),
                ("adamw.weight_decay", from_0(weight_decay)),
                ("adamw.max_gradient_norm", from_0(max_gradient_norm)),
            ],
            Self::Sgd(SgdConfig { learning_rate, momentum, nesterov: _, weight_decay, max_gradient_norm }) => &[
                ("sgd.learning_rate", above_0(learning_rate)),
                ("sgd.momentum", share(momentum)),
                ("sgd.weight_decay", from_0(weight_decay)),
                ("sgd.max_gradient_norm", from_0(max_gradient_norm)),
            ],
        };
        match checks.iter().find(|(_, (ok, _))| !ok) {
            Some((name, (_, range))) => Err(format!("{key}.{name}: must be {range}")),
            None => Ok(()),
        }
    }
}

/// A parameter with what its rule remembers of its gradients, each of its shape: two moments of Adam, or one velocity.
struct Remembered {
    parameter: Var,
    memory: Vec<Var>,
}

/// The parameters that have a gradient, in name order.
fn found<'a>(
    parameters: &'a BTreeMap<String, Remembered>,
    gradients: &'a Gradients,
) -> impl Iterator<Item = (&'a str, &'a Remembered, &'a Tensor)> {
    parameters.iter().filter_map(|(name, of)| Some((name.as_str(), of, gradients.get(&of.parameter)?)))
}

/// An optimiser of named parameters, which it visits in name order.
pub struct Optimizer {
    config: OptimizerConfig,
    parameters: BTreeMap<String, Remembered>,
    steps: u64,
}

impl Optimizer {
    /// An optimiser of all trainable parameters.
    pub fn new(parameters: &Parameters, config: &OptimizerConfig) -> candle_core::Result<Self> {
        let memories = config.memories().len();
        let remembered = |(name, parameter): (String, Var)| {
            let zeros = |_| Var::zeros(parameter.shape(), DType::F32, parameter.device());
            let memory = (0..memories).map(zeros).collect::<candle_core::Result<_>>()?;
            Ok((name, Remembered { parameter, memory }))
        };
        let parameters = parameters.trainable().into_iter().map(remembered).collect::<candle_core::Result<_>>()?;
        Ok(Self { config: config.clone(), parameters, steps: 0 })
    }

    /// One step with the given gradients at `factor` times the learning rate. A parameter without a gradient keeps its value.
    ///
    /// # Errors
    /// [`TrainingError::NotFinite`] of `part` with the first parameter, by name, whose gradient is not finite; nothing moves then.
    pub fn step(&mut self, part: &'static str, gradients: &Gradients, factor: f64) -> Result<(), TrainingError> {
        self.step_with(part, gradients, &self.squared_norms(gradients)?, factor)
    }

    /// The squared norm of each parameter's gradient, in name order. On a device it waits for them.
    pub(crate) fn squared_norms(&self, gradients: &Gradients) -> candle_core::Result<Vec<f64>> {
        gradients
            .squared_norms(&found(&self.parameters, gradients).map(|(_, of, _)| &*of.parameter).collect::<Vec<_>>())
    }

    /// [`step`](Self::step) with the gradients' squared norms, which somebody has waited for.
    pub(crate) fn step_with(
        &mut self,
        part: &'static str,
        gradients: &Gradients,
        norms: &[f64],
        factor: f64,
    ) -> Result<(), TrainingError> {
        let found: Vec<_> = found(&self.parameters, gradients).collect();
        if let Some(at) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(TrainingError::NotFinite { part, tensor: format!("the gradient of {}", found[at].0) });
        }
        self.steps += 1;
        let gradient_factor = clipping_factor(self.config.max_gradient_norm(), norms.iter().sum());
        let adam = |learning_rate: f64, [beta1, beta2]: [f64; 2], epsilon, weight_decay| {
            let learning_rate = learning_rate * factor;
            AdamStep { learning_rate, beta1, beta2, epsilon, weight_decay, gradient_factor }
        };
        let settings = match self.config {
            OptimizerConfig::Adam(AdamConfig { learning_rate, beta1, beta2, epsilon, .. }) => {
                adam(learning_rate, [beta1, beta2], epsilon, 0.0)
            }
            OptimizerConfig::AdamW(AdamWConfig { learning_rate, beta1, beta2, epsilon, weight_decay, .. }) => {
                adam(learning_rate, [beta1, beta2], epsilon, weight_decay)
            }
            OptimizerConfig::Sgd(SgdConfig { learning_rate, momentum, nesterov, weight_decay, .. }) => {
                let learning_rate = learning_rate * factor;
                let settings = SgdStep { learning_rate, momentum, nesterov, weight_decay, gradient_factor };
                let of = found.iter().map(|(_, of, gradient)| SgdParameter {
                    parameter: &of.parameter,
                    gradient,
                    velocity: &of.memory[0],
                    decays: of.parameter.rank() > 1,
                });
                return Ok(sgd_steps(&of.collect::<Vec<_>>(), &settings)?);
            }
        };
        let of = found.iter().map(|(_, of, gradient)| AdamParameter {
            parameter: &of.parameter,
            gradient,
            first_moment: &of.memory[0],
            second_moment: &of.memory[1],
            decays: of.parameter.rank() > 1,
        });
        Ok(adam_steps(&of.collect::<Vec<_>>(), self.steps, &settings)?)
    }

    /// What the rule remembers and the step count, by name below `prefix`.
    pub fn state(&self, prefix: &str) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, of) in &self.parameters {
            for (memory, tensor) in self.config.memories().iter().zip(&of.memory) {
                state.insert(format!("{prefix}.{memory}.{name}"), tensor.as_detached_tensor());
            }
        }
        let steps = i64::try_from(self.steps).map_err(candle_core::Error::wrap)?;
        state.insert(format!("{prefix}.steps"), Tensor::new(&[steps], &Device::Cpu)?);
        Ok(state)
    }

    /// Takes back what [`Optimizer::state`] gave. Every tensor must be there with its shape.
    pub fn restore(&mut self, prefix: &str, state: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        let find = |name: String, shape: &candle_core::Shape| match state.get(&name) {
            Some(tensor) if tensor.shape() == shape => Ok(tensor.clone()),
            Some(tensor) => bail!("{name}: has shape {:?}, not {shape:?}", tensor.shape()),
            None => bail!("{name}: missing"),
        };
        let steps = find(format!("{prefix}.steps"), &candle_core::Shape::from(1))?.to_vec1::<i64>()?[0];
        let mut found = Vec::new();
        for (name, of) in &self.parameters {
            for (memory, tensor) in self.config.memories().iter().zip(&of.memory) {
                found.push((tensor, find(format!("{prefix}.{memory}.{name}"), tensor.shape())?));
            }
        }
        for (memory, tensor) in found {
            memory.set(&tensor.to_device(memory.device())?)?;
        }
        self.steps = u64::try_from(steps).map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}

impl OptimizerConfig {
    /// The names of what the rule remembers of each parameter.
    fn memories(&self) -> &'static [&'static str] {
        match self {
            Self::Adam(_) | Self::AdamW(_) => &["first_moment", "second_moment"],
            Self::Sgd(_) => &["velocity"],
        }
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

    fn config(max_gradient_norm: f64) -> OptimizerConfig {
        let config = AdamConfig { learning_rate: 0.1, beta1: 0.5, beta2: 0.5, epsilon: 1e-8, max_gradient_norm };
        OptimizerConfig::Adam(config)
    }

    fn moment(adam: &Optimizer, name: &str) -> f32 {
        adam.state("adam").unwrap()[&format!("adam.first_moment.{name}")].to_scalar().unwrap()
    }

    #[test]
    fn gradients_are_clipped_by_their_common_norm() {
        for (max, expected) in [(0.0, [1.5, 2.0]), (5.1, [1.5, 2.0]), (1.0, [0.3, 0.4]), (2.5, [0.75, 1.0])] {
            let (parameters, gradients) = linear([3.0, 4.0]);
            let mut adam = Optimizer::new(&parameters, &config(max)).unwrap();
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
            let mut adam = Optimizer::new(&parameters, &config(1.0)).unwrap();
            let error = adam.step("network", &gradients, 1.0).unwrap_err().to_string();
            assert_eq!(error, "the gradient of b is not finite (network)");
            assert_eq!(moment(&adam, "a").to_bits(), 0);
            for tensor in parameters.tensors().values() {
                assert_eq!(tensor.to_scalar::<f32>().unwrap().to_bits(), 1f32.to_bits());
            }
        }
    }

    /// Decay takes its share off a convolution's weight and leaves a bias as it is.
    #[test]
    fn weights_decay_and_biases_do_not() {
        let parameters = Parameters::new(0, &Device::Cpu);
        let weight = parameters.weight("weight", (1, 1, 1, 1), Init::Constant(1.0)).unwrap();
        let bias = parameters.weight("bias", 1, Init::Constant(1.0)).unwrap();
        // A gradient of 0 for both: what moves them is decay alone.
        let gradients = || {
            let flat = img2seg_ops::reshape(&weight, 1).unwrap();
            backward(img2seg_ops::mse(&flat, &bias).unwrap()).unwrap()
        };
        let (learning_rate, weight_decay, max_gradient_norm) = (0.5, 0.1, 0.0);
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        let adamw = AdamWConfig { learning_rate, beta1, beta2, epsilon, weight_decay, max_gradient_norm };
        let sgd = SgdConfig { learning_rate, momentum: 0.0, nesterov: false, weight_decay, max_gradient_norm };
        for config in [OptimizerConfig::AdamW(adamw), OptimizerConfig::Sgd(sgd)] {
            parameters
                .load(
                    &[("weight", &weight), ("bias", &bias)]
                        .map(|(name, tensor)| (name.to_owned(), tensor.ones_like().unwrap()))
                        .into(),
                )
                .unwrap();
            Optimizer::new(&parameters, &config).unwrap().step("network", &gradients(), 1.0).unwrap();
            let value = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
            assert_eq!((value(&weight), value(&bias)), (0.95, 1.0), "{config:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_taken_back() {
        let sgd = |learning_rate| SgdConfig {
            learning_rate,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.0,
            max_gradient_norm: 0.0,
        };
        for config in [config(0.0), OptimizerConfig::Sgd(sgd(0.1))] {
            let values = |parameters: &Parameters| -> Vec<f32> {
                parameters.tensors().values().map(|tensor| tensor.to_scalar().unwrap()).collect()
            };
            let (parameters, gradients) = linear([3.0, 4.0]);
            let mut whole = Optimizer::new(&parameters, &config).unwrap();
            whole.step("network", &gradients, 1.0).unwrap();
            let (weights, state) = (parameters.tensors(), whole.state("optimizer").unwrap());
            let (others, others_gradients) = linear([3.0, 4.0]);
            others.load(&weights).unwrap();
            let mut resumed = Optimizer::new(&others, &config).unwrap();
            resumed.restore("optimizer", &state).unwrap();
            whole.step("network", &gradients, 1.0).unwrap();
            resumed.step("network", &others_gradients, 1.0).unwrap();
            assert_eq!(values(&parameters), values(&others));
            let mut lacking = state.clone();
            lacking.pop_first();
            assert!(resumed.restore("optimizer", &lacking).unwrap_err().to_string().contains("missing"));
        }
    }
}
