use anyhow::{Context, Result};
use candle_core::{DType, Tensor, Var};
use img2seg_ops as ops;
use serde::Deserialize;

use super::Tolerance;
use super::oracle::Oracle;

/// One loss, or what losses are made of, as the file's list of cases describes it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Loss {
    Softmax,
    CrossEntropy,
    BceWithLogits { target: f64 },
    Mse,
    L1,
    Focal { gamma: f64 },
    Dice,
    LovaszSoftmax,
    Charbonnier { epsilon: f64 },
    LeastSquares { target: f64 },
    Hinge { sign: f64 },
    Mean,
    GaussianKl,
    Reparameterize,
}

impl Loss {
    /// The tensors of a case that have gradients.
    fn inputs(self) -> &'static [&'static str] {
        match self {
            Self::Mse | Self::L1 | Self::Charbonnier { .. } => &["prediction", "target"],
            Self::Mean => &["x"],
            Self::GaussianKl | Self::Reparameterize => &["mean", "log_variance"],
            _ => &["logits"],
        }
    }
}

/// Each loss and its gradients for a given gradient of it.
pub(super) fn compare(oracle: &mut Oracle) -> Result<()> {
    for (name, loss) in oracle.cases()? {
        compare_loss(oracle, &name, loss).with_context(|| format!("case {name}"))?;
    }
    Ok(())
}

fn compare_loss(oracle: &mut Oracle, case: &str, loss: Loss) -> Result<()> {
    let mut inputs = Vec::new();
    for name in loss.inputs() {
        inputs.push(Var::from_tensor(&oracle.tensor(&format!("{case}.{name}"))?)?);
    }
    let y = forward(loss, &inputs, |name| {
        let full = format!("{case}.{name}");
        oracle.has(&full).then(|| oracle.tensor(&full)).transpose()
    })?;
    oracle.check(&format!("{case}.y"), &y, Tolerance::OUTPUT)?;

    // The gradient of this sum with respect to y is the file's.
    let gradients = (y * oracle.tensor(&format!("{case}.gy"))?)?.sum_all()?.backward()?;
    for (name, var) in loss.inputs().iter().zip(&inputs) {
        let gradient = gradients.get(var).with_context(|| format!("{name}: received no gradient"))?;
        oracle.check(&format!("{case}.g{name}"), gradient, Tolerance::OUTPUT)?;
    }
    Ok(())
}

fn forward(loss: Loss, inputs: &[Var], mut other: impl FnMut(&str) -> Result<Option<Tensor>>) -> Result<Tensor> {
    // Files hold labels as numbers.
    let labels = other("labels")?.map(|labels| labels.to_dtype(DType::U32)).transpose()?;
    let labels = || labels.as_ref().context("tensor labels: missing");
    Ok(match loss {
        Loss::Softmax => ops::softmax(&inputs[0])?,
        Loss::CrossEntropy => ops::cross_entropy(&inputs[0], labels()?, other("class_weights")?.as_ref())?,
        Loss::BceWithLogits { target } => ops::bce_with_logits(&inputs[0], target)?,
        Loss::Mse => ops::mse(&inputs[0], &inputs[1])?,
        Loss::L1 => ops::l1(&inputs[0], &inputs[1])?,
        Loss::Focal { gamma } => ops::focal(&inputs[0], labels()?, gamma, other("class_weights")?.as_ref())?,
        Loss::Dice => ops::dice(&inputs[0], labels()?, other("class_weights")?.as_ref())?,
        Loss::LovaszSoftmax => ops::lovasz_softmax(&inputs[0], labels()?)?,
        Loss::Charbonnier { epsilon } => ops::charbonnier(&inputs[0], &inputs[1], epsilon)?,
        Loss::LeastSquares { target } => ops::least_squares(&inputs[0], target)?,
        Loss::Hinge { sign } => ops::hinge(&inputs[0], sign)?,
        Loss::Mean => ops::mean(&inputs[0])?,
        Loss::GaussianKl => ops::gaussian_kl(&inputs[0], &inputs[1])?,
        Loss::Reparameterize => {
            let noise = other("noise")?.context("tensor noise: missing")?;
            ops::reparameterize(&inputs[0], &inputs[1], &noise)?
        }
    })
}
