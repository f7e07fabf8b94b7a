use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use super::{COLOURS, SLOPE};
use crate::layers::{BatchNorm2d, Conv2d, ConvTranspose2d, Norm};
use crate::{Parameters, sizes};

/// The shape of a [`Generator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Channels after the first convolution, `ngf` of the report's Listing 2, doubled four times on the way down.
    pub base_channels: usize,
    /// Channels of noise that the network sees beside the photo. The report's text has noise, its listing has none: 0.
    pub noise_channels: usize,
}

/// The generator of the lab report (Listing 2): an encoder and a decoder of 4x4 convolutions, without skips.
#[derive(Debug, Clone)]
pub struct Generator {
    noise_channels: usize,
    first: Conv2d,
    down: [(Conv2d, Norm); 3],
    bottleneck: Conv2d,
    up: [(ConvTranspose2d, Norm); 4],
    last: ConvTranspose2d,
}

impl Generator {
    /// Parameters: `downSampling.0.weight` to `downSampling.11.weight` and `upSampling.0.weight` to `upSampling.12.weight`, numbered
    /// as in the listing's `nn.Sequential`.
    pub fn new(parameters: &Parameters, config: &GeneratorConfig) -> Result<Self> {
        let &GeneratorConfig { base_channels: base, noise_channels } = config;
        if base == 0 {
            return Err(Error::Msg("generator: base_channels must not be 0".into()));
        }
        let (down, up) = (parameters.scope("downSampling"), parameters.scope("upSampling"));
        let halve = |index: usize, in_channels: usize, out_channels: usize| {
            Conv2d::without_bias(&down.scope(index), in_channels, out_channels, 4, ops::Conv2d::new(2, 1))
        };
        let encode = |index: usize, in_channels: usize| -> Result<_> {
            let norm = Norm::Batch(BatchNorm2d::new(&down.scope(index + 1), 2 * in_channels)?);
            Ok((halve(index, in_channels, 2 * in_channels)?, norm))
        };
        let decode = |index: usize, in_channels: usize, out_channels: usize, spec| -> Result<_> {
            let norm = Norm::Batch(BatchNorm2d::new(&up.scope(index + 1), out_channels)?);
            Ok((ConvTranspose2d::without_bias(&up.scope(index), in_channels, out_channels, 4, spec)?, norm))
        };
        let (widen, double) = (ops::ConvTranspose2d::new(1, 0), ops::ConvTranspose2d::new(2, 1));
        Ok(Self {
            noise_channels,
            first: halve(0, COLOURS + noise_channels, base)?,
            down: [encode(2, base)?, encode(5, 2 * base)?, encode(8, 4 * base)?],
            bottleneck: Conv2d::without_bias(&down.scope(11), 8 * base, 16 * base, 4, ops::Conv2d::new(1, 0))?,
            up: [
                decode(0, 16 * base, 16 * base, widen)?,
                decode(3, 16 * base, 8 * base, double)?,
                decode(6, 8 * base, 4 * base, double)?,
                decode(9, 4 * base, 2 * base, double)?,
            ],
            last: ConvTranspose2d::without_bias(&up.scope(12), 2 * base, COLOURS, 4, double)?,
        })
    }

    /// Photos (n, 3, h, w), and noise (n, noise channels, h, w) if the network takes any, to label maps (n, 3, h, w) in `[-1, 1]`.
    /// With `train`, batch norm uses the batch's statistics and moves the running ones.
    pub fn forward_t(&self, photos: &Tensor, noise: Option<&Tensor>, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = photos.dims4()?;
        Self::check_size(height, width)?;
        let x = match (noise, self.noise_channels) {
            (None, 0) => photos.clone(),
            (Some(noise), 1..) => ops::cat(&[photos, noise])?,
            (Some(_), 0) => return Err(Error::Msg("generator: was given noise and takes none".into())),
            (None, channels) => {
                return Err(Error::Msg(format!("generator: takes {channels} channels of noise and was given none")));
            }
        };
        let mut x = self.first.forward_activated(&x, Activation::LeakyRelu(SLOPE))?; // (n, base, h/2, w/2)
        for (conv, norm) in &self.down {
            x = conv.forward_norm_t(&x, norm, Activation::LeakyRelu(SLOPE), train)?;
        }
        x = self.bottleneck.forward_activated(&x, Activation::None)?; // (n, 16 base, h/16 - 3, w/16 - 3)
        for (conv, norm) in &self.up {
            x = conv.forward_norm_t(&x, norm, Activation::Relu, train)?;
        }
        ops::tanh(&self.last.forward(&x)?)
    }

    /// Four halvings and a 4x4 convolution without padding, then their inverses: both sides must be multiples of 16, and at
    /// least 64. The error names the nearest sizes.
    pub fn check_size(height: usize, width: usize) -> Result<()> {
        sizes::check("the generator", height, width, 16, 64)
    }
}
