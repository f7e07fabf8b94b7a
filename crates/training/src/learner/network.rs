//! The networks that a recipe can name, behind one call each.

use candle_core::Tensor;
use img2seg_models::{Discriminator, Generator, Parameters, PatchDiscriminator, Pixelwise, UNet, UnetGenerator};

use crate::config::{DiscriminatorNetworkConfig, GeneratorNetworkConfig, NetworkConfig};

/// A network from photo to label map.
pub(super) enum Network {
    UNet(Box<UNet>, usize),
    Pixelwise(Box<Pixelwise>),
}

impl Network {
    pub(super) fn new(
        parameters: &Parameters,
        config: &NetworkConfig,
        in_channels: usize,
        out_channels: usize,
    ) -> candle_core::Result<Self> {
        Ok(match config {
            NetworkConfig::Unet(config) => {
                Self::UNet(Box::new(UNet::new(parameters, config, in_channels, out_channels)?), config.side_multiple())
            }
            NetworkConfig::Pixelwise(config) => {
                Self::Pixelwise(Box::new(Pixelwise::new(parameters, config, in_channels, out_channels)?))
            }
        })
    }

    /// (n, in, h, w) to (n, out, h, w).
    pub(super) fn forward_t(&self, photos: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        match self {
            Self::UNet(network, _) => network.forward_t(photos, train),
            Self::Pixelwise(network) => network.forward_t(photos, train),
        }
    }

    /// What the sides of its images must be multiples of.
    pub(super) fn side_multiple(&self) -> usize {
        match self {
            Self::UNet(_, multiple) => *multiple,
            Self::Pixelwise(_) => 1,
        }
    }

    /// As it is called where networks are listed.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::UNet(..) => "unet",
            Self::Pixelwise(_) => "pixelwise",
        }
    }
}

/// A network that paints a label map for a photo, in [-1, 1].
pub(super) enum PaintingNetwork {
    /// The lab report's, with the channels of its noise.
    Lab(Box<Generator>, usize),
    /// pix2pix's, with what the sides of its images must be multiples of.
    Pix2pix(Box<UnetGenerator>, usize),
}

impl PaintingNetwork {
    pub(super) fn new(parameters: &Parameters, config: &GeneratorNetworkConfig) -> candle_core::Result<Self> {
        Ok(match config {
            GeneratorNetworkConfig::Lab(config) => {
                Self::Lab(Box::new(Generator::new(parameters, config)?), config.noise_channels)
            }
            GeneratorNetworkConfig::Pix2pix(config) => {
                Self::Pix2pix(Box::new(UnetGenerator::new(parameters, config, 3, 3)?), 1 << config.levels)
            }
        })
    }

    /// (n, 3, h, w), and (n, noise channels, h, w) where it has any, to (n, 3, h, w).
    pub(super) fn forward_t(
        &self,
        photos: &Tensor,
        noise: Option<&Tensor>,
        train: bool,
    ) -> candle_core::Result<Tensor> {
        match self {
            Self::Lab(network, _) => network.forward_t(photos, noise, train),
            Self::Pix2pix(network, _) => network.forward_t(photos, train),
        }
    }

    pub(super) fn noise_channels(&self) -> usize {
        match self {
            Self::Lab(_, channels) => *channels,
            Self::Pix2pix(..) => 0,
        }
    }

    pub(super) fn side_multiple(&self) -> usize {
        match self {
            Self::Lab(..) => 16,
            Self::Pix2pix(_, multiple) => *multiple,
        }
    }
}

/// A network that judges photos with their label maps.
pub(super) enum JudgingNetwork {
    Lab(Box<Discriminator>),
    Patch(Box<PatchDiscriminator>),
}

impl JudgingNetwork {
    pub(super) fn new(parameters: &Parameters, config: &DiscriminatorNetworkConfig) -> candle_core::Result<Self> {
        Ok(match config {
            DiscriminatorNetworkConfig::Lab(config) => Self::Lab(Box::new(Discriminator::new(parameters, config)?)),
            DiscriminatorNetworkConfig::Patch(config) => {
                Self::Patch(Box::new(PatchDiscriminator::new(parameters, config, 6)?))
            }
        })
    }

    /// Photos and label maps, each (n, 3, h, w), to a logit for each patch.
    pub(super) fn forward_t(&self, photos: &Tensor, label_maps: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        match self {
            Self::Lab(network) => network.forward_t(photos, label_maps, train),
            Self::Patch(network) => network.forward_t(Some(photos), label_maps, train),
        }
    }
}
