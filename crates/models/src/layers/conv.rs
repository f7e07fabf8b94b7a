//! Layers with parameters, named and initialised as PyTorch's modules of the same names.

use candle_core::{Result, Tensor, Var};
use img2seg_ops::{self as ops, Activation};

use crate::{Init, Parameters};

/// A convolution, as exact as its [`Parameters`] are. Parameters: `weight` (out, in, k, k) and, unless it is built without, `bias`
/// (out).
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    spec: ops::Conv2d,
}

impl Conv2d {
    /// A convolution with a bias; `spec` must have one group, and its exactness is replaced.
    pub fn new(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::Conv2d,
    ) -> Result<Self> {
        let init = Init::convolution(in_channels * kernel * kernel);
        let bias = Some(parameters.weight("bias", out_channels, init)?);
        Ok(Self { bias, ..Self::without_bias(parameters, in_channels, out_channels, kernel, spec)? })
    }

    /// A convolution without a bias; `spec` must have one group, and its exactness is replaced.
    pub fn without_bias(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::Conv2d,
    ) -> Result<Self> {
        let init = Init::convolution(in_channels * kernel * kernel);
        let weight = parameters.weight("weight", (out_channels, in_channels, kernel, kernel), init)?;
        Ok(Self { weight, bias: None, spec: ops::Conv2d { exactness: parameters.exactness(), ..spec } })
    }

    /// (n, in, h, w) to (n, out, h', w').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv2d(x, &self.weight, self.bias.as_ref(), self.spec)
    }

    /// [`Conv2d::forward`], then [`BatchNorm2d::forward_t`]; where it only predicts, both at once.
    pub fn forward_norm_t(
        &self,
        x: &Tensor,
        norm: &BatchNorm2d,
        activation: Activation,
        train: bool,
    ) -> Result<Tensor> {
        if train {
            return norm.forward_t(&self.forward(x)?, activation, true);
        }
        norm.eval(|norm| ops::conv2d_norm_eval(x, &self.weight, self.bias.as_ref(), self.spec, norm, activation))
    }
}

/// A transposed convolution, as exact as its [`Parameters`] are. Parameters: `weight` (in, out, k, k) and, unless it is built without,
/// `bias` (out).
#[derive(Debug, Clone)]
pub struct ConvTranspose2d {
    weight: Tensor,
    bias: Option<Tensor>,
    spec: ops::ConvTranspose2d,
}

impl ConvTranspose2d {
    /// A transposed convolution with a bias; `spec` must have one group, and its exactness is replaced.
    pub fn new(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::ConvTranspose2d,
    ) -> Result<Self> {
        let init = Init::convolution(out_channels * kernel * kernel);
        let bias = Some(parameters.weight("bias", out_channels, init)?);
        Ok(Self { bias, ..Self::without_bias(parameters, in_channels, out_channels, kernel, spec)? })
    }

    /// A transposed convolution without a bias; `spec` must have one group, and its exactness is replaced.
    pub fn without_bias(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::ConvTranspose2d,
    ) -> Result<Self> {
        let init = Init::convolution(out_channels * kernel * kernel);
        let weight = parameters.weight("weight", (in_channels, out_channels, kernel, kernel), init)?;
        Ok(Self { weight, bias: None, spec: ops::ConvTranspose2d { exactness: parameters.exactness(), ..spec } })
    }

    /// (n, in, h, w) to (n, out, h', w').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv_transpose2d(x, &self.weight, self.bias.as_ref(), self.spec)
    }

    /// [`ConvTranspose2d::forward`], then [`BatchNorm2d::forward_t`]; where it only predicts, both at once.
    pub fn forward_norm_t(
        &self,
        x: &Tensor,
        norm: &BatchNorm2d,
        activation: Activation,
        train: bool,
    ) -> Result<Tensor> {
        if train {
            return norm.forward_t(&self.forward(x)?, activation, true);
        }
        norm.eval(|norm| {
            ops::conv_transpose2d_norm_eval(x, &self.weight, self.bias.as_ref(), self.spec, norm, activation)
        })
    }
}

/// Batch normalisation with the activation that follows it (Ioffe and Szegedy 2015). Parameters: `weight`, `bias`; buffers:
/// `running_mean`, `running_var`, each (channels).
#[derive(Debug, Clone)]
pub struct BatchNorm2d {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm2d {
    /// PyTorch's defaults: epsilon 1e-5, and a momentum of 0.1 (the weight of a new batch in the running statistics).
    pub fn new(parameters: &Parameters, channels: usize) -> Result<Self> {
        Self::with_constants(parameters, channels, 1e-5, 0.1)
    }

    /// With another epsilon and momentum.
    pub fn with_constants(parameters: &Parameters, channels: usize, epsilon: f64, momentum: f64) -> Result<Self> {
        Ok(Self {
            weight: parameters.weight("weight", channels, Init::Constant(1.0))?,
            bias: parameters.weight("bias", channels, Init::Constant(0.0))?,
            running_mean: parameters.buffer("running_mean", channels, Init::Constant(0.0))?,
            running_var: parameters.buffer("running_var", channels, Init::Constant(1.0))?,
            epsilon,
            momentum,
        })
    }

    /// (n, c, h, w) to the same shape. With `train`, the batch's own statistics normalise it and move the running ones, so that
    /// it must have more than one value a channel; otherwise the running statistics normalise it.
    pub fn forward_t(&self, x: &Tensor, activation: Activation, train: bool) -> Result<Tensor> {
        if !train {
            let (mean, variance) = (self.running_mean.as_detached_tensor(), self.running_var.as_detached_tensor());
            return ops::batch_norm_eval(x, &self.weight, &self.bias, &mean, &variance, self.epsilon, activation);
        }
        let (y, statistics) = ops::batch_norm_train(x, &self.weight, &self.bias, self.epsilon, activation)?;
        statistics.move_running(&self.running_mean, &self.running_var, self.momentum)?;
        Ok(y)
    }

    /// Calls `work` with what normalises in evaluation mode.
    fn eval(&self, work: impl FnOnce(&ops::NormEval) -> Result<Tensor>) -> Result<Tensor> {
        let [running_mean, running_var] = [&self.running_mean, &self.running_var].map(Var::as_detached_tensor);
        work(&ops::NormEval {
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &running_mean,
            running_var: &running_var,
            epsilon: self.epsilon,
        })
    }
}
