mod block;
mod config;

use candle_core::{Result, Tensor};
use img2seg_ops::{self as ops, Activation, Resize};

use crate::Parameters;
use crate::layers::{Conv2d, ConvTranspose2d, Dropout, Norm};
use block::Block;
pub use config::{BlockKind, NormConfig, Stem, UNetConfig, UpSampling};

/// The U-Net of the lab report (Listings 5 to 7; Ronneberger, Fischer and Brox 2015, padded and with batch norm), and its relatives: levels
/// that halve the image, a bottleneck, and as many that double it again, each joined by a skip.
#[derive(Debug, Clone)]
pub struct UNet {
    config: UNetConfig,
    stem: Option<(Conv2d, Norm)>,
    trunk: Trunk,
    outputs: Conv2d,
}

impl UNet {
    /// Parameters: `en1.conv.conv1.weight` to `en4`, `b.conv1.weight`, `d1.convT.weight`, `d1.conv.conv1.weight` to `d4`,
    /// `outputs.weight`, with as many `en` and `d` as there are levels. Normalisations are `bn1` and `bn2` for batch norm, `norm1` and
    /// `norm2` otherwise; a residual block's 1x1 convolution is `shortcut`, and where an image is resized, `up` stands in the place of
    /// `convT`. A stem is `stem.conv1` and `stem.bn1`.
    ///
    /// # Errors
    /// Numbers that make no network.
    pub fn new(parameters: &Parameters, config: &UNetConfig, in_channels: usize, out_channels: usize) -> Result<Self> {
        config.check(in_channels, out_channels)?;
        let outputs = parameters.scope("outputs");
        let (stem, in_channels) = match config.stem {
            Stem::None => (None, in_channels),
            Stem::Halve => {
                let (scope, channels) = (parameters.scope("stem"), config.channels(0));
                let halve = ops::Conv2d::new(2, 1);
                let conv = Conv2d::new(&scope.scope("conv1"), in_channels, channels, 4, halve)?;
                (Some((conv, config.norm.build(&scope, 1, channels)?)), channels)
            }
        };
        Ok(Self {
            config: *config,
            stem,
            trunk: Trunk::new(parameters, config, in_channels)?,
            outputs: Conv2d::new(&outputs, config.channels(0), out_channels, 1, ops::Conv2d::new(1, 0))?,
        })
    }

    /// (n, in, h, w) to (n, out, h, w): unbounded values, colours or logits as the loss reads them. With `train`, batch norm uses
    /// the batch's statistics and moves the running ones, and dropout drops.
    pub fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        self.config.check_size(height, width)?;
        let Some((conv, norm)) = &self.stem else {
            return self.outputs.forward(&self.trunk.forward_t(x, train)?);
        };
        let x = conv.forward_norm_t(x, norm, Activation::Relu, train)?; // (n, base, h/2, w/2)
        let x = self.outputs.forward(&self.trunk.forward_t(&x, train)?)?;
        ops::resize(&x, height, width, Resize::Bilinear)
    }
}

/// A U-Net without its last convolution.
#[derive(Debug, Clone)]
pub(crate) struct Trunk {
    encoder: Vec<Block>,
    bottleneck: Block,
    /// Of what leaves the last level of the encoder, and the bottleneck.
    dropout: [Dropout; 2],
    decoder: Vec<(Up, Block)>,
}

impl Trunk {
    /// The config must have been checked.
    pub(crate) fn new(parameters: &Parameters, config: &UNetConfig, in_channels: usize) -> Result<Self> {
        let levels = config.levels;
        let encode = |i: usize| {
            let scope = parameters.scope(format_args!("en{}.conv", i + 1));
            let in_channels = if i == 0 { in_channels } else { config.channels(i - 1) };
            Block::new(&scope, config, in_channels, config.channels(i))
        };
        let decode = |i: usize| -> Result<_> {
            let scope = parameters.scope(format_args!("d{}", i + 1));
            let (in_channels, out_channels) = (config.channels(levels - i), config.channels(levels - 1 - i));
            let up = Up::new(&scope, config.up, in_channels, out_channels)?;
            Ok((up, Block::new(&scope.scope("conv"), config, 2 * out_channels, out_channels)?))
        };
        let drop = |scope: &str| Dropout::new(&parameters.scope(scope).scope("dropout"), config.dropout);
        Ok(Self {
            encoder: (0..levels).map(encode).collect::<Result<_>>()?,
            bottleneck: {
                let (in_channels, out_channels) = (config.channels(levels - 1), config.channels(levels));
                Block::new(&parameters.scope("b"), config, in_channels, out_channels)?
            },
            dropout: [drop(&format!("en{levels}"))?, drop("b")?],
            decoder: (0..levels).map(decode).collect::<Result<_>>()?,
        })
    }

    /// (n, in, h, w) to (n, channels of the first level, h, w); both sides must be multiples of 2 to the power of the levels.
    pub(crate) fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let [deepest_skip, bottleneck] = &self.dropout;
        let mut x = x.clone();
        let mut skips = Vec::with_capacity(self.encoder.len());
        for (level, block) in (1..).zip(&self.encoder) {
            let mut skip = block.forward_t(&x, train)?;
            if level == self.encoder.len() {
                skip = deepest_skip.forward_t(&skip, train)?;
            }
            x = ops::max_pool2d(&skip, 2)?;
            skips.push(skip);
        }
        x = bottleneck.forward_t(&self.bottleneck.forward_t(&x, train)?, train)?;
        for ((up, block), skip) in self.decoder.iter().zip(skips.iter().rev()) {
            x = block.forward_t([&up.forward(&x)?, skip], train)?;
        }
        Ok(x)
    }
}

/// (n, c, h, w) to (n, c', 2 h, 2 w).
#[derive(Debug, Clone)]
enum Up {
    Transposed(ConvTranspose2d),
    Resized(Resize, Conv2d),
}

impl Up {
    fn new(parameters: &Parameters, kind: UpSampling, in_channels: usize, out_channels: usize) -> Result<Self> {
        let how = match kind {
            UpSampling::Transposed => {
                let (scope, double) = (parameters.scope("convT"), ops::ConvTranspose2d::new(2, 0));
                return Ok(Self::Transposed(ConvTranspose2d::new(&scope, in_channels, out_channels, 2, double)?));
            }
            UpSampling::Nearest => Resize::Nearest,
            UpSampling::Bilinear => Resize::Bilinear,
        };
        let same = ops::Conv2d::new(1, 1);
        Ok(Self::Resized(how, Conv2d::new(&parameters.scope("up"), in_channels, out_channels, 3, same)?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Transposed(conv) => conv.forward_activated(x, Activation::None),
            Self::Resized(how, conv) => {
                let (_, _, height, width) = x.dims4()?;
                conv.forward_activated(&ops::resize(x, 2 * height, 2 * width, *how)?, Activation::None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
