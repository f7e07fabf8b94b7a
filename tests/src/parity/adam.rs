use anyhow::{Context, Result};
use candle_core::Var;
use img2seg_ops::{AdamStep, Gradients, adam_step};

use super::oracle::Oracle;

/// PyTorch's Adam over named parameters.
pub(super) struct Adam {
    parameters: Vec<Moments>,
    settings: AdamStep,
    step: u64,
}

struct Moments {
    name: String,
    parameter: Var,
    first: Var,
    second: Var,
}

impl Adam {
    /// With the settings that the file names.
    pub(super) fn new(oracle: &Oracle, parameters: Vec<(String, Var)>) -> Result<Self> {
        let settings = AdamStep {
            learning_rate: oracle.setting("lr")?,
            beta1: oracle.setting("beta1")?,
            beta2: oracle.setting("beta2")?,
            epsilon: oracle.setting("eps")?,
            weight_decay: 0.0,
            gradient_factor: 1.0,
        };
        let zeros = |like: &Var| Var::zeros(like.shape(), like.dtype(), like.device());
        let with_moments = |(name, parameter): (String, Var)| {
            Ok(Moments { first: zeros(&parameter)?, second: zeros(&parameter)?, name, parameter })
        };
        let parameters = parameters.into_iter().map(with_moments).collect::<Result<_>>()?;
        Ok(Self { parameters, settings, step: 0 })
    }

    pub(super) fn learning_rate(&self) -> f64 {
        self.settings.learning_rate
    }

    pub(super) fn step(&mut self, gradients: &Gradients) -> Result<()> {
        self.step += 1;
        for Moments { name, parameter, first, second } in &self.parameters {
            let gradient = gradients.get(parameter).with_context(|| format!("{name}: received no gradient"))?;
            adam_step(parameter, gradient, first, second, self.step, &self.settings)?;
        }
        Ok(())
    }
}
