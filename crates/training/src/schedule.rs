//! The learning rate over a run, as a factor on each optimiser's own rate.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the learning rate changes; `[schedule]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Epochs in which the rate rises in a straight line from (nearly) 0; what follows has the rest of the run.
    pub warmup_epochs: f64,
    /// What follows.
    pub decay: Decay,
}

/// How the learning rate falls; `[schedule.decay.KIND]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Decay {
    /// Not at all.
    Constant {},
    /// Constant until `from_epoch` (counted from 0), then a straight line to 0 at the end (pix2pix, section 3.3's code: half and half).
    Linear {
        /// Epochs before the rate begins to fall.
        from_epoch: f64,
    },
    /// Half a cosine to 0 (Loshchilov and Hutter 2017, without restarts).
    Cosine {},
    /// `(1 - share of the steps done) ^ power` (Chen et al. 2018, section 4.1: 0.9).
    Polynomial {
        /// The exponent, above 0.
        power: f64,
    },
    /// Half a cosine up from 1/25 in the first `rise` of the steps, then half a cosine down to 1/250,000 (Smith and Topin 2018, with the
    /// defaults of PyTorch's `OneCycleLR`; momentum stays as it is).
    OneCycle {
        /// The share of the steps in which the rate rises, in 0..1.
        rise: f64,
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
        let from_0 = |key, epochs: f64| (key, epochs.is_finite() && epochs >= 0.0, "0 or more");
        let decay = match self.decay {
            Decay::Constant {} | Decay::Cosine {} => None,
            Decay::Linear { from_epoch } => Some(from_0("decay.linear.from_epoch", from_epoch)),
            Decay::Polynomial { power } => {
                Some(("decay.polynomial.power", power.is_finite() && power > 0.0, "above 0"))
            }
            Decay::OneCycle { rise } => Some(("decay.one-cycle.rise", (0.0..1.0).contains(&rise), "in [0, 1)")),
        };
        for (key, ok, range) in [Some(from_0("warmup_epochs", self.warmup_epochs)), decay].into_iter().flatten() {
            if !ok {
                return Err(format!("schedule.{key}: must be {range}"));
            }
        }
        Ok(())
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
        let warmup = self.config.warmup_epochs * self.steps_per_epoch;
        if done + 1.0 <= warmup {
            return (done + 1.0) / warmup;
        }
        // The share of the steps after the warm-up that are done.
        let share = ((done - warmup) / (self.steps - warmup).max(1.0)).clamp(0.0, 1.0);
        // From one factor to another as a cosine goes from 1 to -1.
        let swing = |from: f64, to: f64, share: f64| to + (from - to) * (0.5 + 0.5 * (PI * share).cos());
        match self.config.decay {
            Decay::Constant {} => 1.0,
            Decay::Linear { from_epoch } => {
                let from = from_epoch * self.steps_per_epoch;
                ((self.steps - done) / (self.steps - from).max(1.0)).clamp(0.0, 1.0)
            }
            Decay::Cosine {} => swing(1.0, 0.0, share),
            Decay::Polynomial { power } => (1.0 - share).powf(power),
            Decay::OneCycle { rise } if share < rise => swing(1.0 / 25.0, 1.0, share / rise),
            Decay::OneCycle { rise } => swing(1.0, 1.0 / 250_000.0, (share - rise) / (1.0 - rise)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Millionths.
    fn factors(warmup_epochs: f64, decay: Decay, steps: [u64; 4]) -> [i64; 4] {
        let schedule = Schedule::new(&ScheduleConfig { warmup_epochs, decay }, 4, 25);
        steps.map(|step| (schedule.factor(step) * 1e6).round() as i64)
    }

    /// 100 steps, an epoch has 25.
    #[test]
    fn rates_fall_as_their_names_say() {
        assert_eq!(factors(0.0, Decay::Constant {}, [0, 1, 50, 99]), [1_000_000; 4]);
        assert_eq!(
            factors(0.0, Decay::Linear { from_epoch: 2.0 }, [0, 50, 75, 100]),
            [1_000_000, 1_000_000, 500_000, 0]
        );
        assert_eq!(factors(0.0, Decay::Cosine {}, [0, 25, 50, 100]), [1_000_000, 853_553, 500_000, 0]);
        assert_eq!(factors(0.0, Decay::Polynomial { power: 2.0 }, [0, 50, 90, 100]), [1_000_000, 250_000, 10_000, 0]);
        let cycle = factors(0.0, Decay::OneCycle { rise: 0.2 }, [0, 10, 20, 60]);
        assert_eq!(cycle, [40_000, 520_000, 1_000_000, 500_002]);
        assert!(factors(0.0, Decay::OneCycle { rise: 0.2 }, [100; 4])[0] <= 4);
        assert_eq!(factors(0.0, Decay::OneCycle { rise: 0.0 }, [0; 4])[0], 1_000_000);
    }

    #[test]
    fn a_warm_up_comes_first() {
        assert_eq!(factors(2.0, Decay::Constant {}, [0, 24, 49, 50]), [20_000, 500_000, 1_000_000, 1_000_000]);
        assert_eq!(factors(2.0, Decay::Cosine {}, [0, 49, 75, 100]), [20_000, 1_000_000, 500_000, 0]);
    }

    #[test]
    fn every_factor_lies_between_0_and_1() {
        let linear = |from_epoch| Decay::Linear { from_epoch };
        for decay in [
            Decay::Constant {},
            linear(0.0),
            linear(7.0),
            Decay::Cosine {},
            Decay::Polynomial { power: 0.9 },
            Decay::OneCycle { rise: 0.3 },
        ] {
            for warmup_epochs in [0.0, 0.3, 1.0, 9.0] {
                let config = ScheduleConfig { warmup_epochs, decay: decay.clone() };
                assert!(config.validate().is_ok());
                let schedule = Schedule::new(&config, 3, 4);
                for step in 0..20 {
                    let factor = schedule.factor(step);
                    assert!((0.0..=1.0).contains(&factor), "{config:?} at {step}: {factor}");
                }
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (warmup_epochs, decay, key) in [
            (-1.0, Decay::Constant {}, "schedule.warmup_epochs: must be 0 or more"),
            (0.0, Decay::Linear { from_epoch: f64::NAN }, "schedule.decay.linear.from_epoch: must be 0 or more"),
            (0.0, Decay::Polynomial { power: 0.0 }, "schedule.decay.polynomial.power: must be above 0"),
            (0.0, Decay::OneCycle { rise: 1.0 }, "schedule.decay.one-cycle.rise: must be in [0, 1)"),
        ] {
            assert_eq!(ScheduleConfig { warmup_epochs, decay }.validate().unwrap_err(), key);
        }
    }
}
