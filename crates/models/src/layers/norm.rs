use candle_core::{Error, Result, Tensor, Var};
use img2seg_ops::{self as ops, Activation};

use crate::{Init, Parameters};

/// What is added to a variance, by PyTorch's default.
const EPSILON: f64 = 1e-5;

/// What stands between a convolution and its activation.
#[derive(Debug, Clone)]
pub enum Norm {
    /// The statistics of the batch, and running ones where it only predicts.
    Batch(BatchNorm2d),
    /// Those of each image's groups of channels.
    Group(GroupNorm),
    /// Those of each image's channels.
    Instance(InstanceNorm2d),
    /// Nothing.
    None,
}

impl Norm {
    /// (n, c, h, w) to the same shape, with the activation applied. `train` matters to batch norm alone: see
    /// [`BatchNorm2d::forward_t`].
    pub fn forward_t(&self, x: &Tensor, activation: Activation, train: bool) -> Result<Tensor> {
        match self {
            Self::Batch(norm) => norm.forward_t(x, activation, train),
            Self::Group(norm) => norm.forward(x, activation),
            Self::Instance(norm) => norm.forward(x, activation),
            Self::None => activation.apply(x),
        }
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
        Self::with_init(parameters, channels, Init::Constant(1.0))
    }

    /// With another epsilon and momentum.
    pub fn with_constants(parameters: &Parameters, channels: usize, epsilon: f64, momentum: f64) -> Result<Self> {
        Ok(Self { epsilon, momentum, ..Self::with_init(parameters, channels, Init::Constant(1.0))? })
    }

    /// PyTorch's defaults, with weights of other first values.
    pub fn with_init(parameters: &Parameters, channels: usize, weight: Init) -> Result<Self> {
        Ok(Self {
            weight: parameters.weight("weight", channels, weight)?,
            bias: parameters.weight("bias", channels, Init::Constant(0.0))?,
            running_mean: parameters.buffer("running_mean", channels, Init::Constant(0.0))?,
            running_var: parameters.buffer("running_var", channels, Init::Constant(1.0))?,
            epsilon: EPSILON,
            momentum: 0.1,
        })
    }

    /// (n, c, h, w) to the same shape. With `train`, the batch's own statistics normalise it and move the running ones, so that
    /// it must have more than one value a channel; otherwise the running statistics normalise it.
    pub fn forward_t(&self, x: &Tensor, activation: Activation, train: bool) -> Result<Tensor> {
        if !train {
            let (mean, variance) = (self.running_mean.as_detached_tensor(), self.running_var.as_detached_tensor());
            return ops::batch_norm_eval(x, &self.weight, &self.bias, &mean, &variance, self.epsilon, activation);
        }
        self.train(|norm| ops::batch_norm_train(x, norm.weight, norm.bias, norm.epsilon, activation))
    }

    /// Calls `work` with what normalises in training, and moves the running statistics.
    pub(super) fn train(
        &self,
        work: impl FnOnce(&ops::NormTrain) -> Result<(Tensor, ops::BatchStatistics)>,
    ) -> Result<Tensor> {
        let (y, statistics) = work(&ops::NormTrain { weight: &self.weight, bias: &self.bias, epsilon: self.epsilon })?;
        statistics.move_running(&self.running_mean, &self.running_var, self.momentum)?;
        Ok(y)
    }

    /// Calls `work` with what normalises in evaluation mode.
    pub(super) fn eval(&self, work: impl FnOnce(&ops::NormEval) -> Result<Tensor>) -> Result<Tensor> {
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

/// Group normalisation with the activation that follows it (Wu and He 2018). Parameters: `weight`, `bias`, each (channels).
#[derive(Debug, Clone)]
pub struct GroupNorm {
    groups: usize,
    weight: Tensor,
    bias: Tensor,
}

impl GroupNorm {
    /// With PyTorch's epsilon of 1e-5. Fails unless `groups` divide the channels.
    pub fn new(parameters: &Parameters, groups: usize, channels: usize) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::Msg(format!("group norm of {channels} channels: {groups} groups do not divide them")));
        }
        Ok(Self {
            groups,
            weight: parameters.weight("weight", channels, Init::Constant(1.0))?,
            bias: parameters.weight("bias", channels, Init::Constant(0.0))?,
        })
    }

    /// (n, c, h, w) to the same shape.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        ops::group_norm(x, self.groups, &self.weight, &self.bias, EPSILON, activation)
    }
}

/// Instance normalisation with the activation that follows it (Ulyanov et al. 2016). Parameters, unless it is plain: `weight`, `bias`,
/// each (channels).
#[derive(Debug, Clone)]
pub struct InstanceNorm2d {
    affine: Option<(Tensor, Tensor)>,
}

impl InstanceNorm2d {
    /// PyTorch's default: an epsilon of 1e-5, and no parameters.
    pub fn plain() -> Self {
        Self { affine: None }
    }

    /// With a scale and a shift of each channel.
    pub fn affine(parameters: &Parameters, channels: usize) -> Result<Self> {
        let weight = parameters.weight("weight", channels, Init::Constant(1.0))?;
        Ok(Self { affine: Some((weight, parameters.weight("bias", channels, Init::Constant(0.0))?)) })
    }

    /// (n, c, h, w) to the same shape; an image must have more than one pixel.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (weight, bias) = self.affine.as_ref().map(|(weight, bias)| (weight, bias)).unzip();
        ops::instance_norm(x, weight, bias, EPSILON, activation)
    }
}
