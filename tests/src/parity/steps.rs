use anyhow::{Context, Result};
use candle_core::{Tensor, Var};
use img2seg_ops as ops;
use serde::Deserialize;

use super::Tolerance;
use super::oracle::Oracle;

/// An optimiser, as the file's list of cases describes it, by PyTorch's names.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Optimizer {
    Adam { lr: f64, betas: (f64, f64), eps: f64, weight_decay: f64 },
    Sgd { lr: f64, momentum: f64, nesterov: bool, weight_decay: f64 },
}

/// Where each optimiser has moved a parameter after all steps.
pub(super) fn compare(oracle: &mut Oracle) -> Result<()> {
    for (name, of) in oracle.cases()? {
        compare_steps(oracle, &name, of).with_context(|| format!("case {name}"))?;
    }
    Ok(())
}

fn compare_steps(oracle: &mut Oracle, case: &str, of: Optimizer) -> Result<()> {
    let before = oracle.tensor(&format!("{case}.before"))?;
    let gradients = oracle.tensor(&format!("{case}.gradients"))?;
    let parameter = Var::from_tensor(&before)?;
    let [first, second] = [Var::from_tensor(&before.zeros_like()?)?, Var::from_tensor(&before.zeros_like()?)?];
    for (step, at) in (1..).zip(0..gradients.dim(0)?) {
        take(of, step, &gradients.get(at)?, &parameter, (&first, &second))?;
    }
    oracle.check(&format!("{case}.after"), &parameter, Tolerance::OUTPUT)
}

fn take(of: Optimizer, step: u64, gradient: &Tensor, parameter: &Var, (first, second): (&Var, &Var)) -> Result<()> {
    match of {
        Optimizer::Adam { lr, betas: (beta1, beta2), eps, weight_decay } => {
            let settings =
                ops::AdamStep { learning_rate: lr, beta1, beta2, epsilon: eps, weight_decay, gradient_factor: 1.0 };
            ops::adam_step(parameter, gradient, first, second, step, &settings)?;
        }
        Optimizer::Sgd { lr, momentum, nesterov, weight_decay } => {
            let settings = ops::SgdStep { learning_rate: lr, momentum, nesterov, weight_decay, gradient_factor: 1.0 };
            ops::sgd_steps(&[ops::SgdParameter { parameter, gradient, velocity: first, decays: true }], &settings)?;
        }
    }
    Ok(())
}
