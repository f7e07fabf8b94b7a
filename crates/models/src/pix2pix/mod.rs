//! pix2pix (Isola et al. 2017): a U-Net that halves a photo to a single pixel, and discriminators of patches, named, counted and drawn as
//! in the authors' PyTorch version (`networks.py` of pytorch-CycleGAN-and-pix2pix).

mod generator;
mod patch_discriminator;

use candle_core::Result;
use serde::{Deserialize, Serialize};

use crate::layers::{BatchNorm2d, InstanceNorm2d, Norm};
use crate::{Init, Parameters};
pub use generator::{UnetGenerator, UnetGeneratorConfig};
pub use patch_discriminator::{Patch, PatchDiscriminator, PatchDiscriminatorConfig};

/// What follows a convolution of these networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pix2pixNorm {
    /// By the batch, with a scale and a shift; the convolution before has no bias. The paper's, whose batches have one image.
    Batch,
    /// Of each channel of each image, without scale or shift; the convolution before has a bias.
    Instance,
    /// Nothing; the convolution has a bias. For discriminators with spectral norm.
    None,
}

impl Pix2pixNorm {
    fn build(self, parameters: &Parameters, channels: usize) -> Result<Norm> {
        Ok(match self {
            Self::Batch => Norm::Batch(BatchNorm2d::with_init(parameters, channels, SCALES)?),
            Self::Instance => Norm::Instance(InstanceNorm2d::plain()),
            Self::None => Norm::None,
        })
    }

    /// The bias of a convolution that this follows.
    fn bias(self) -> Option<Init> {
        (self != Self::Batch).then_some(BIASES)
    }
}

/// First values (section 6.2 of the paper; the scales of batch norm as in the authors' version).
const WEIGHTS: Init = Init::Normal { mean: 0.0, deviation: 0.02 };
const SCALES: Init = Init::Normal { mean: 1.0, deviation: 0.02 };
const BIASES: Init = Init::Constant(0.0);

/// The slope of `LeakyReLU` below 0 (section 6.1).
const SLOPE: f64 = 0.2;

#[cfg(test)]
mod tests;
