use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use img2seg_models::{Parameters, layers::BatchNorm2d};
use img2seg_ops::{self as ops, Activation};
use serde::Deserialize;

use super::Tolerance;
use super::oracle::Oracle;

/// One layer, as the file's list of cases describes it. What it leaves out is PyTorch's default.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Layer {
    Conv2d {
        stride: Pair,
        padding: Pair,
        #[serde(default = "one")]
        dilation: Pair,
        #[serde(default = "one_group")]
        groups: usize,
    },
    ConvTranspose2d {
        stride: Pair,
        padding: Pair,
        #[serde(default = "zero")]
        output_padding: Pair,
        #[serde(default = "one")]
        dilation: Pair,
        #[serde(default = "one_group")]
        groups: usize,
    },
    BatchNorm {
        eps: f64,
        momentum: f64,
    },
    InstanceNorm {
        eps: f64,
    },
    GroupNorm {
        groups: usize,
        eps: f64,
    },
    MaxPool2d {
        kernel: usize,
    },
    Resize {
        height: usize,
        width: usize,
        how: How,
    },
    LeakyRelu {
        slope: f64,
    },
    Relu,
    Tanh,
    Sigmoid,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Nearest,
    Bilinear,
}

/// (vertical, horizontal), or one number for both.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Pair {
    Both(usize),
    Each(usize, usize),
}

/// Far beyond what is compared; more is a claim of a size that no memory has.
const LARGEST: usize = 64;

impl Pair {
    fn get(self) -> Result<(usize, usize)> {
        let (vertical, horizontal) = match self {
            Self::Both(n) => (n, n),
            Self::Each(vertical, horizontal) => (vertical, horizontal),
        };
        ensure!(vertical.max(horizontal) <= LARGEST, "({vertical}, {horizontal}): more than {LARGEST}");
        Ok((vertical, horizontal))
    }
}

fn zero() -> Pair {
    Pair::Both(0)
}

fn one() -> Pair {
    Pair::Both(1)
}

fn one_group() -> usize {
    1
}

/// Each layer's output and its gradients for a given cotangent; a batch norm's running statistics too.
pub(super) fn compare(oracle: &mut Oracle) -> Result<()> {
    for (name, layer) in oracle.cases()? {
        compare_layer(oracle, &name, &layer).with_context(|| format!("case {name}"))?;
    }
    Ok(())
}

fn compare_layer(oracle: &mut Oracle, case: &str, layer: &Layer) -> Result<()> {
    let x = Var::from_tensor(&oracle.tensor(&format!("{case}.x"))?)?;
    let mut parameters = BTreeMap::new();
    for name in ["weight", "bias"] {
        let full = format!("{case}.{name}");
        if oracle.has(&full) {
            parameters.insert(name, Var::from_tensor(&oracle.tensor(&full)?)?);
        }
    }
    let mut statistics = BTreeMap::new();
    let y = match layer {
        &Layer::BatchNorm { eps, momentum } => {
            let scope = Parameters::new(0, &Device::Cpu);
            let norm = BatchNorm2d::with_constants(&scope, x.dim(1)?, eps, momentum)?;
            let mut initial = scope.tensors(); // the running statistics begin at 0 and 1
            initial.extend(parameters.iter().map(|(name, var)| ((*name).to_owned(), var.as_detached_tensor())));
            scope.load(&initial)?;
            for (name, var) in &mut parameters {
                *var = scope.trainable().into_iter().find(|(full, _)| full == name).context("unnamed")?.1;
            }
            let y = norm.forward_t(&x, Activation::None, true)?;
            statistics.extend(scope.buffers());
            y
        }
        layer => forward(layer, &x, parameters.get("weight"), parameters.get("bias"))?,
    };
    oracle.check(&format!("{case}.y"), &y, Tolerance::OUTPUT)?;

    // The gradient of this sum with respect to y is the cotangent.
    let cotangent = oracle.tensor(&format!("{case}.gy"))?;
    let gradients = (y * cotangent)?.sum_all()?.backward()?;
    parameters.insert("x", x);
    for (name, var) in &parameters {
        let gradient = gradients.get(var).with_context(|| format!("{name}: received no gradient"))?;
        oracle.check(&format!("{case}.g{name}"), gradient, Tolerance::OUTPUT)?;
    }
    for (name, var) in &statistics {
        oracle.check(&format!("{case}.after_{name}"), var, Tolerance::OUTPUT)?;
    }
    Ok(())
}

fn forward(layer: &Layer, x: &Tensor, weight: Option<&Var>, bias: Option<&Var>) -> Result<Tensor> {
    let (weight, bias) = (weight.map(Var::as_tensor), bias.map(Var::as_tensor));
    let kernel = || weight.context("tensor weight: missing");
    Ok(match *layer {
        Layer::Conv2d { stride, padding, dilation, groups } => {
            let spec = ops::Conv2d {
                stride: stride.get()?,
                padding: padding.get()?,
                dilation: dilation.get()?,
                groups,
                ..ops::Conv2d::default()
            };
            ops::conv2d(x, kernel()?, bias, spec)?
        }
        Layer::ConvTranspose2d { stride, padding, output_padding, dilation, groups } => {
            let spec = ops::ConvTranspose2d {
                stride: stride.get()?,
                padding: padding.get()?,
                output_padding: output_padding.get()?,
                dilation: dilation.get()?,
                groups,
                ..ops::ConvTranspose2d::default()
            };
            ops::conv_transpose2d(x, kernel()?, bias, spec)?
        }
        Layer::InstanceNorm { eps } => ops::instance_norm(x, weight, bias, eps, Activation::None)?,
        Layer::GroupNorm { groups, eps } => {
            let bias = bias.context("tensor bias: missing")?;
            ops::group_norm(x, groups, kernel()?, bias, eps, Activation::None)?
        }
        Layer::Resize { height, width, how } => {
            let (height, width) = Pair::Each(height, width).get()?;
            let how = match how {
                How::Nearest => ops::Resize::Nearest,
                How::Bilinear => ops::Resize::Bilinear,
            };
            ops::resize(x, height, width, how)?
        }
        Layer::MaxPool2d { kernel } => ops::max_pool2d(x, kernel)?,
        Layer::LeakyRelu { slope } => ops::leaky_relu(x, slope)?,
        Layer::Relu => ops::relu(x)?,
        Layer::Tanh => ops::tanh(x)?,
        Layer::Sigmoid => ops::sigmoid(x)?,
        Layer::BatchNorm { .. } => unreachable!("it has statistics and stands in compare_layer"),
    })
}
