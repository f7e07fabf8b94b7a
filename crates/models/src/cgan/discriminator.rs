use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use super::{COLOURS, SLOPE};
use crate::layers::{BatchNorm2d, Conv2d, Norm};
use crate::{Parameters, sizes};

/// The width of a [`Discriminator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorConfig {
    /// Channels after the first convolution, `ndf` of the report's Listing 3, doubled three times.
    pub base_channels: usize,
}

/// The discriminator of the lab report (Listing 3), a PatchGAN: it judges overlapping patches of a photo with its label map.
#[derive(Debug, Clone)]
pub struct Discriminator {
    first: Conv2d,
    down: [(Conv2d, Norm); 3],
    last: Conv2d,
}

impl Discriminator {
    /// Parameters: `main.0.weight` to `main.11.weight`, numbered as in the listing's `nn.Sequential`.
    pub fn new(parameters: &Parameters, config: &DiscriminatorConfig) -> Result<Self> {
        let base = config.base_channels;
        if base == 0 {
            return Err(Error::Msg("discriminator: base_channels must not be 0".into()));
        }
        let main = parameters.scope("main");
        let halve = |index: usize, in_channels: usize, out_channels: usize| {
            Conv2d::without_bias(&main.scope(index), in_channels, out_channels, 4, ops::Conv2d::new(2, 1))
        };
        let encode = |index: usize, in_channels: usize| -> Result<_> {
            let norm = Norm::Batch(BatchNorm2d::new(&main.scope(index + 1), 2 * in_channels)?);
            Ok((halve(index, in_channels, 2 * in_channels)?, norm))
        };
        Ok(Self {
            first: halve(0, 2 * COLOURS, base)?,
            down: [encode(2, base)?, encode(5, 2 * base)?, encode(8, 4 * base)?],
            last: Conv2d::without_bias(&main.scope(11), 8 * base, 1, 4, ops::Conv2d::new(1, 0))?,
        })
    }

    /// Photos and label maps, each (n, 3, h, w), to logits (n * patches, 1, 1, 1): positive where a patch looks real. The listing's
    /// sigmoid is left to the loss, and its view makes every patch a sample of its own, which is what happens here. With
    /// `train`, batch norm uses the batch's statistics and moves the running ones.
    pub fn forward_t(&self, photos: &Tensor, label_maps: &Tensor, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = photos.dims4()?;
        Self::check_size(height, width)?;
        let pairs = ops::cat(&[photos, label_maps])?;
        let mut x = self.first.forward_activated(&pairs, Activation::LeakyRelu(SLOPE))?;
        for (conv, norm) in &self.down {
            x = conv.forward_norm_t(&x, norm, Activation::LeakyRelu(SLOPE), train)?;
        }
        let patches = self.last.forward(&x)?; // (n, 1, h/16 - 3, w/16 - 3)
        ops::reshape(&patches, (patches.elem_count(), 1, 1, 1))
    }

    /// Four halvings, rounded down, and a 4x4 convolution without padding: both sides must be at least 64. The error names the nearest
    /// size.
    pub fn check_size(height: usize, width: usize) -> Result<()> {
        sizes::check("the discriminator", height, width, 1, 64)
    }
}
