//! The learning rate over a run, as a factor on each optimiser's own rate.

use serde::{Deserialize, Serialize};

/// How the learning rate changes; `[schedule.KIND]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// The same rate throughout.
    Constant {},
    /// Constant until `decay_from_epoch` (counted from 0), then a straight line to 0 at the end (pix2pix, section 3.3's code: half and half).
    Linear {
        /// Epochs before the rate begins to fall.
        decay_from_epoch: f64,
    },
    /// A linear rise over `warmup_epochs`, then half a cosine to 0 (Loshchilov and Hutter 2017, without restarts).
    Cosine {
        /// Epochs of linear rise from (nearly) 0.
        warmup_epochs: f64,
    },
}

/// A schedule over a known number of steps.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    steps_per_epoch: f64,
    steps: f64,
}

impl ScheduleConfig {
    /// Checks the ranges; the error names the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let (key, epochs) = match *self {
            Self::Constant {} => return Ok(()),
            Self::Linear { decay_from_epoch } => ("linear.decay_from_epoch", decay_from_epoch),
            Self::Cosine { warmup_epochs } => ("cosine.warmup_epochs", warmup_epochs),
        };
        if epochs.is_finite() && epochs >= 0.0 { Ok(()) } else { Err(format!("schedule.{key}: must be 0 or more")) }
    }
}

impl Schedule {
    /// A schedule for `epochs` epochs of `steps_per_epoch` steps.
    pub fn new(config: &ScheduleConfig, epochs: usize, steps_per_epoch: usize) -> Self {
        let steps_per_epoch = steps_per_epoch as f64;
        Self { config: config.clone(), steps_per_epoch, steps: epochs as f64 * steps_per_epoch }
    }

    /// The factor in [0, 1] for the step with this index, from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let done = step as f64;
        match self.config {
            ScheduleConfig::Constant {} => 1.0,
            ScheduleConfig::Linear { decay_from_epoch } => {
                let from = decay_from_epoch * self.steps_per_epoch;
                ((self.steps - done) / (self.steps - from).max(1.0)).clamp(0.0, 1.0)
            }
            ScheduleConfig::Cosine { warmup_epochs } => {
                let warmup = warmup_epochs * self.steps_per_epoch;
                if done + 1.0 <= warmup {
                    return (done + 1.0) / warmup;
                }
                let share = (done - warmup) / (self.steps - warmup).max(1.0);
                0.5 + 0.5 * (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_holds_then_falls_to_the_end() {
        let schedule = Schedule::new(&ScheduleConfig::Linear { decay_from_epoch: 1.0 }, 2, 10);
        let close = |step, factor: f64| (schedule.factor(step) - factor).abs() < 1e-12;
        assert!(close(0, 1.0) && close(10, 1.0));
        assert!(close(15, 0.5) && close(20, 0.0));
    }

    #[test]
    fn every_factor_lies_between_0_and_1() {
        for config in [
            ScheduleConfig::Constant {},
            ScheduleConfig::Linear { decay_from_epoch: 7.0 },
            ScheduleConfig::Cosine { warmup_epochs: 0.0 },
            ScheduleConfig::Cosine { warmup_epochs: 9.0 },
        ] {
            let schedule = Schedule::new(&config, 3, 4);
            for step in 0..20 {
                let factor = schedule.factor(step);
                assert!((0.0..=1.0).contains(&factor), "{config:?} at {step}: {factor}");
            }
        }
    }
}
