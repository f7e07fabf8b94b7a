use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use crate::layers::{BatchNorm2d, Conv2d, Norm};
use crate::unet::Trunk;
use crate::{Parameters, UNetConfig, sizes};

/// The shape of a [`Cvae`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CvaeConfig {
    /// Channels of the first level of the decoder's U-Net and of the encoder, doubled on the way down: up to 16 times in the U-Net,
    /// up to 8 times in the encoder.
    pub base_channels: usize,
    /// Numbers that say which of a photo's possible label maps is meant.
    pub latent_channels: usize,
    /// How often both halve the image, 1 to 7.
    pub levels: usize,
}

impl CvaeConfig {
    /// Each level halves: both sides must be multiples of 2 to the power of the levels. The error names the nearest sizes.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        self.unet().check_levels()?;
        let step = 1 << self.levels;
        sizes::check("the conditional VAE", height, width, step, step)
    }

    fn unet(&self) -> UNetConfig {
        UNetConfig { levels: self.levels, ..UNetConfig::report(self.base_channels) }
    }
}

/// Photos are RGB.
const COLOURS: usize = 3;

/// The slope of the encoder's `LeakyReLU` below 0.
const SLOPE: f64 = 0.2;

/// What log variances stay within: deviations from 0.018 to 55, beyond which nothing is gained and squares overflow.
const LARGEST_LOG_VARIANCE: f64 = 8.0;

/// A conditional variational autoencoder (Kingma and Welling 2014; Sohn, Lee and Yan 2015): an encoder that says which latent numbers a label map
/// has beside its photo, and a decoder that paints a label map from a photo and such numbers. The prior is standard normal for every
/// photo.
///
/// The latent joins the decoder where the probabilistic U-Net has it (Kohl et al. 2018, section 2): spread over planes beside the U-Net's last
/// features, before three 1x1 convolutions. At the bottleneck, the skips would lead around it, and a decoder that can do without
/// an input that is noise at first learns to; here everything that is painted goes through convolutions that see it. It also makes
/// further samples of one photo cheap: [`features_t`](Self::features_t) once, [`paint`](Self::paint) for each.
#[derive(Debug, Clone)]
pub struct Cvae {
    config: CvaeConfig,
    encoder: Vec<(Conv2d, Norm)>,
    mean: Conv2d,
    log_variance: Conv2d,
    unet: Trunk,
    combine: [Conv2d; 2],
    outputs: Conv2d,
}

impl Cvae {
    /// `label_channels` are those of the label maps that the encoder sees, colours or a channel for each class; `out_channels` those
    /// that the decoder paints.
    ///
    /// Parameters: `encoder.conv1.weight`, `encoder.bn1.weight` and so on, `encoder.mean.weight`, `encoder.log_variance.weight`; those of a
    /// U-Net below `unet`; `combine.conv1.weight`, `combine.conv2.weight`, `combine.outputs.weight`.
    ///
    /// # Errors
    /// Numbers that make no network.
    pub fn new(
        parameters: &Parameters,
        config: &CvaeConfig,
        label_channels: usize,
        out_channels: usize,
    ) -> Result<Self> {
        let &CvaeConfig { base_channels: base, latent_channels: latent, levels } = config;
        if [base, latent, label_channels, out_channels].contains(&0) {
            return Err(Error::Msg(format!(
                "conditional VAE of {label_channels} to {out_channels} channels, base_channels {base}, latent_channels {latent}: \
                 none may be 0"
            )));
        }
        let unet = config.unet();
        unet.check(COLOURS, out_channels)?;
        let scope = parameters.scope("encoder");
        let channels = |level: usize| base.saturating_mul(1 << level.min(3));
        let encode = |level: usize| -> Result<_> {
            let in_channels = if level == 0 { COLOURS + label_channels } else { channels(level - 1) };
            let (conv, halve) = (scope.scope(format_args!("conv{}", level + 1)), ops::Conv2d::new(2, 1));
            let norm = BatchNorm2d::new(&scope.scope(format_args!("bn{}", level + 1)), channels(level))?;
            Ok((Conv2d::without_bias(&conv, in_channels, channels(level), 4, halve)?, Norm::Batch(norm)))
        };
        let combine = parameters.scope("combine");
        let point = |scope: &Parameters, in_channels: usize, out_channels: usize| {
            Conv2d::new(scope, in_channels, out_channels, 1, ops::Conv2d::new(1, 0))
        };
        Ok(Self {
            config: *config,
            encoder: (0..levels).map(encode).collect::<Result<_>>()?,
            mean: point(&scope.scope("mean"), channels(levels - 1), latent)?,
            log_variance: point(&scope.scope("log_variance"), channels(levels - 1), latent)?,
            unet: Trunk::new(&parameters.scope("unet"), &unet, COLOURS)?,
            combine: [
                point(&combine.scope("conv1"), base + latent, base)?,
                point(&combine.scope("conv2"), base, base)?,
            ],
            outputs: point(&combine.scope("outputs"), base, out_channels)?,
        })
    }

    /// Photos (n, 3, h, w) and label maps (n, c, h, w) to mean and log variance of the latent numbers, each (n, latent). Log variances are
    /// `8 tanh(z / 8)` of what the network gives: never beyond 8, and with a gradient everywhere. With `train`, batch norm uses the
    /// batch's statistics and moves the running ones.
    pub fn encode(&self, photos: &Tensor, label_maps: &Tensor, train: bool) -> Result<(Tensor, Tensor)> {
        let (n, _, height, width) = photos.dims4()?;
        self.config.check_size(height, width)?;
        let mut x = ops::cat(&[photos, label_maps])?;
        for (conv, norm) in &self.encoder {
            x = conv.forward_norm_t(&x, norm, Activation::LeakyRelu(SLOPE), train)?;
        }
        let latent = self.config.latent_channels;
        let pooled = ops::global_avg_pool(&x)?;
        let pooled = ops::reshape(&pooled, (n, pooled.elem_count() / n, 1, 1))?;
        let mean = ops::reshape(&self.mean.forward(&pooled)?, (n, latent))?;
        let log_variance = ops::reshape(&self.log_variance.forward(&pooled)?, (n, latent))?;
        Ok((mean, ops::soft_clamp(&log_variance, LARGEST_LOG_VARIANCE)?))
    }

    /// Photos (n, 3, h, w) and latent numbers (n, latent) to (n, out, h, w): unbounded values, colours or logits as the loss reads them.
    /// With `train`, batch norm uses the batch's statistics and moves the running ones.
    pub fn decode(&self, photos: &Tensor, latent: &Tensor, train: bool) -> Result<Tensor> {
        self.paint(&self.features_t(photos, train)?, latent)
    }

    /// Photos (n, 3, h, w) to (n, base, h, w): what the decoder makes of a photo before it sees the latent.
    pub fn features_t(&self, photos: &Tensor, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = photos.dims4()?;
        self.config.check_size(height, width)?;
        self.unet.forward_t(photos, train)
    }

    /// Features (n, base, h, w) and latent numbers (n, latent) to (n, out, h, w).
    pub fn paint(&self, features: &Tensor, latent: &Tensor) -> Result<Tensor> {
        let (n, _, height, width) = features.dims4()?;
        if latent.dims() != [n, self.config.latent_channels] {
            let (dims, channels) = (latent.dims(), self.config.latent_channels);
            return Err(Error::Msg(format!("conditional VAE: latent has shape {dims:?}, not [{n}, {channels}]")));
        }
        let mut x = ops::cat(&[features, &ops::spread(latent, height, width)?])?;
        for conv in &self.combine {
            x = conv.forward_activated(&x, Activation::Relu)?;
        }
        self.outputs.forward(&x)
    }
}

#[cfg(test)]
mod tests;
