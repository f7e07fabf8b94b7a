use candle_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::sizes;

/// The shape of a [`UNet`](super::UNet).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of the first level; each level below has twice as many. The report's U-Net has 64.
    pub base_channels: usize,
    /// What stands before the first level.
    pub stem: Stem,
    /// How often what the first level sees is halved, 1 to 7; 4 in the report.
    pub levels: usize,
    /// What no level has more channels than. The report's bottleneck has 16 times its base channels, 1024: there, this changes nothing;
    /// with more levels it keeps the network from growing fourfold with each.
    pub max_channels: usize,
    /// What each level is made of.
    pub block: BlockKind,
    /// What follows each 3x3 convolution of a block.
    pub norm: NormConfig,
    /// How the decoder doubles an image.
    pub up: UpSampling,
    /// The probability with which training drops values of the last level of the encoder and of the bottleneck, 0 to below 1: "at the end of the
    /// contracting path" (Ronneberger, Fischer and Brox 2015, section 3.1; their implementation has 0.5). The skip of that level is of
    /// what is left.
    pub dropout: f64,
}

/// What stands before the first level of a [`UNet`](super::UNet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// Nothing: the first level sees the photo, as in the report.
    None,
    /// A 4x4 convolution of stride 2 with a norm and ReLU: the levels work on a quarter of the pixels, and what they give is brought
    /// back to the photo's size (bilinear). At equal cost a network can be wider; lines of one pixel suffer.
    Halve,
}

/// The two 3x3 convolutions of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// One after the other, as in the report.
    Plain,
    /// The block's input is added before its last ReLU (He et al. 2016, section 3.2), through a 1x1 convolution where channels change.
    Residual,
}

/// A normalisation with a scale and a shift of each channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormConfig {
    /// By the batch, and by running statistics where the network only predicts (Ioffe and Szegedy 2015): the report's.
    Batch,
    /// Of each channel of each image (Ulyanov et al. 2016).
    Instance,
    /// Of groups of each image's channels, as many as this number, which must divide the channels of every level (Wu and He 2018).
    Group(usize),
}

/// From a level to the one above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpSampling {
    /// A transposed convolution of 2x2, as in the report.
    Transposed,
    /// Each pixel four times, then a 3x3 convolution: no checkerboards (Odena, Dumoulin and Olah 2016).
    Nearest,
    /// Bilinear, then a 3x3 convolution.
    Bilinear,
}

/// More halvings leave a photo of common size without a pixel.
const MOST_LEVELS: usize = 7;

impl UNetConfig {
    /// The lab report's choices at a width: four levels of plain blocks with batch norm and transposed convolutions, no dropout.
    pub fn report(base_channels: usize) -> Self {
        Self {
            base_channels,
            stem: Stem::None,
            levels: 4,
            max_channels: base_channels.saturating_mul(16),
            block: BlockKind::Plain,
            norm: NormConfig::Batch,
            up: UpSampling::Transposed,
            dropout: 0.0,
        }
    }

    /// Each level halves, and the stem may: both sides must be multiples of [`UNetConfig::side_multiple`]. The error names the nearest
    /// sizes.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        self.check_levels()?;
        let step = self.side_multiple();
        sizes::check("U-Net", height, width, step, step)
    }

    /// What the sides of images must be multiples of.
    pub fn side_multiple(&self) -> usize {
        let halvings = self.levels.min(MOST_LEVELS) + usize::from(self.stem == Stem::Halve);
        1 << halvings
    }

    /// What the types cannot say; the layers check the rest.
    pub(crate) fn check(&self, in_channels: usize, out_channels: usize) -> Result<()> {
        let (base, most) = (self.base_channels, self.max_channels);
        if [base, most, in_channels, out_channels].contains(&0) {
            return Err(Error::Msg(format!(
                "U-Net of {in_channels} to {out_channels} channels, base_channels {base}, max_channels {most}: none may be 0"
            )));
        }
        self.check_levels()
    }

    /// Channels of a level, counted from 0; the bottleneck is the last.
    pub(crate) fn channels(&self, level: usize) -> usize {
        self.base_channels.saturating_mul(1 << level).min(self.max_channels)
    }

    pub(crate) fn check_levels(&self) -> Result<()> {
        if (1..=MOST_LEVELS).contains(&self.levels) {
            return Ok(());
        }
        Err(Error::Msg(format!("U-Net of levels {}: there may be 1 to {MOST_LEVELS}", self.levels)))
    }
}
