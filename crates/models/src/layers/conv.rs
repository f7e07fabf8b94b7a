use candle_core::{Result, Tensor};
use img2seg_ops::{self as ops, Activation, Images};

use super::Norm;
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
        Self::with_init(parameters, in_channels, out_channels, kernel, spec, init, Some(init))
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
        Self::with_init(parameters, in_channels, out_channels, kernel, spec, init, None)
    }

    /// A convolution with other first values, and with a bias if there are any for it; `spec` must have one group, and its
    /// exactness is replaced.
    pub fn with_init(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::Conv2d,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        Ok(Self {
            weight: parameters.weight("weight", (out_channels, in_channels, kernel, kernel), weight)?,
            bias: bias.map(|init| parameters.weight("bias", out_channels, init)).transpose()?,
            spec: ops::Conv2d { exactness: parameters.exactness(), ..spec },
        })
    }

    /// (n, in, h, w), or two images whose channels are stacked, to (n, out, h', w') in f32.
    pub fn forward<'a>(&self, x: impl Into<Images<'a>>) -> Result<Tensor> {
        ops::conv2d(x, &self.weight, self.bias.as_ref(), self.spec)
    }

    /// [`Conv2d::forward`], then the activation, both at once: for a layer to come, as exact as convolutions are.
    pub fn forward_activated<'a>(&self, x: impl Into<Images<'a>>, activation: Activation) -> Result<Tensor> {
        ops::conv2d_activated(x, &self.weight, self.bias.as_ref(), self.spec, activation)
    }

    /// [`Conv2d::forward`], then [`Norm::forward_t`]; before a batch norm or none, both at once: for a layer to come.
    pub fn forward_norm_t<'a>(
        &self,
        x: impl Into<Images<'a>>,
        norm: &Norm,
        activation: Activation,
        train: bool,
    ) -> Result<Tensor> {
        match norm {
            Norm::Batch(norm) if !train => norm
                .eval(|norm| ops::conv2d_norm_eval(x, &self.weight, self.bias.as_ref(), self.spec, norm, activation)),
            Norm::Batch(norm) => norm
                .train(|norm| ops::conv2d_norm_train(x, &self.weight, self.bias.as_ref(), self.spec, norm, activation)),
            Norm::None => self.forward_activated(x, activation),
            norm => norm.forward_t(&self.forward(x)?, activation, train),
        }
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
        Self::with_init(parameters, in_channels, out_channels, kernel, spec, init, Some(init))
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
        Self::with_init(parameters, in_channels, out_channels, kernel, spec, init, None)
    }

    /// A transposed convolution with other first values, and with a bias if there are any for it; `spec` must have one group, and its
    /// exactness is replaced.
    pub fn with_init(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::ConvTranspose2d,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        Ok(Self {
            weight: parameters.weight("weight", (in_channels, out_channels, kernel, kernel), weight)?,
            bias: bias.map(|init| parameters.weight("bias", out_channels, init)).transpose()?,
            spec: ops::ConvTranspose2d { exactness: parameters.exactness(), ..spec },
        })
    }

    /// (n, in, h, w) to (n, out, h', w') in f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv_transpose2d(x, &self.weight, self.bias.as_ref(), self.spec)
    }

    /// [`ConvTranspose2d::forward`], then the activation, both at once: for a layer to come, as exact as convolutions are.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        ops::conv_transpose2d_activated(x, &self.weight, self.bias.as_ref(), self.spec, activation)
    }

    /// [`ConvTranspose2d::forward`], then [`Norm::forward_t`]; before a batch norm or none, both at once: for a layer to come.
    pub fn forward_norm_t(&self, x: &Tensor, norm: &Norm, activation: Activation, train: bool) -> Result<Tensor> {
        match norm {
            Norm::Batch(norm) if !train => norm.eval(|norm| {
                ops::conv_transpose2d_norm_eval(x, &self.weight, self.bias.as_ref(), self.spec, norm, activation)
            }),
            Norm::Batch(norm) => norm.train(|norm| {
                ops::conv_transpose2d_norm_train(x, &self.weight, self.bias.as_ref(), self.spec, norm, activation)
            }),
            Norm::None => self.forward_activated(x, activation),
            norm => norm.forward_t(&self.forward(x)?, activation, train),
        }
    }
}
