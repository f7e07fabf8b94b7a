use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use super::{BIASES, Pix2pixNorm, SLOPE, WEIGHTS};
use crate::layers::{Conv2d, ConvTranspose2d, Dropout, Norm};
use crate::{Parameters, sizes};

/// The shape of a [`UnetGenerator`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetGeneratorConfig {
    /// Channels after the first convolution, doubled three times on the way down; 64 in the paper.
    pub base_channels: usize,
    /// How often the image is halved, 5 to 9; in the paper 8, which leaves one pixel of 256x256.
    pub levels: usize,
    /// What follows all convolutions but the outermost two and the innermost.
    pub norm: Pix2pixNorm,
    /// The probability with which training drops values in those levels of the decoder that double an image of 8 times the base channels to
    /// another of as many, all but the innermost: three of 8 levels. 0.5 in the paper.
    pub dropout: f64,
}

impl UnetGeneratorConfig {
    /// Each level halves: both sides must be multiples of 2 to the power of the levels. The error names the nearest sizes.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        self.check_levels()?;
        let step = 1 << self.levels;
        sizes::check("the pix2pix generator", height, width, step, step)
    }

    fn check_levels(&self) -> Result<()> {
        if LEVELS.contains(&self.levels) {
            return Ok(());
        }
        let (least, most) = (LEVELS.start(), LEVELS.end());
        Err(Error::Msg(format!("pix2pix generator of levels {}: there may be {least} to {most}", self.levels)))
    }

    /// Channels of what a level of the encoder gives, counted from 0.
    fn channels(&self, level: usize) -> usize {
        self.base_channels.saturating_mul(1 << level.min(3))
    }
}

/// The first five have their own numbers of channels.
const LEVELS: std::ops::RangeInclusive<usize> = 5..=9;

/// The generator of pix2pix (Isola et al. 2017, section 6.1.1): 4x4 convolutions of stride 2 down and up again, each level joined by a
/// skip.
#[derive(Debug, Clone)]
pub struct UnetGenerator {
    config: UnetGeneratorConfig,
    /// From the outermost to the innermost.
    down: Vec<(Conv2d, Norm)>,
    /// From the innermost on.
    up: Vec<(ConvTranspose2d, Norm, Dropout)>,
    last: ConvTranspose2d,
}

impl UnetGenerator {
    /// Parameters are named as in the authors' version, where each level is a block inside that of the level above: `model.model.0.weight`
    /// and `model.model.3.weight` of the outermost, then `model.model.1.model.1.weight`, `model.model.1.model.3.model.1.weight`, and so
    /// on.
    ///
    /// # Errors
    /// Numbers that make no network.
    pub fn new(
        parameters: &Parameters,
        config: &UnetGeneratorConfig,
        in_channels: usize,
        out_channels: usize,
    ) -> Result<Self> {
        let &UnetGeneratorConfig { base_channels: base, levels, norm, dropout } = config;
        if [base, in_channels, out_channels].contains(&0) {
            return Err(Error::Msg(format!(
                "pix2pix generator of {in_channels} to {out_channels} channels, base_channels {base}: none may be 0"
            )));
        }
        config.check_levels()?;
        let double = ops::ConvTranspose2d::new(2, 1);
        let halve = |scope: &Parameters, in_channels: usize, out_channels: usize| {
            let halve = ops::Conv2d::new(2, 1);
            Conv2d::with_init(scope, in_channels, out_channels, 4, halve, WEIGHTS, norm.bias())
        };
        let outermost = parameters.scope("model.model");
        let mut down = vec![(halve(&outermost.scope(0), in_channels, base)?, Norm::None)];
        let mut up = Vec::with_capacity(levels - 1);
        let mut block = outermost.scope("1.model");
        for level in 1..levels {
            let (above, here) = (config.channels(level - 1), config.channels(level));
            let is_innermost = level == levels - 1;
            let conv = halve(&block.scope(1), above, here)?;
            down.push((conv, if is_innermost { Norm::None } else { norm.build(&block.scope(2), here)? }));
            // The innermost has no norm on its way down, and no block within.
            let (place, seen) = if is_innermost { (3, here) } else { (5, 2 * here) };
            let conv = ConvTranspose2d::with_init(&block.scope(place), seen, above, 4, double, WEIGHTS, norm.bias())?;
            let drops = (4..levels - 1).contains(&level);
            let dropout = Dropout::new(&block.scope(7), if drops { dropout } else { 0.0 })?;
            up.push((conv, norm.build(&block.scope(place + 1), above)?, dropout));
            block = block.scope("3.model");
        }
        up.reverse();
        let last =
            ConvTranspose2d::with_init(&outermost.scope(3), 2 * base, out_channels, 4, double, WEIGHTS, Some(BIASES))?;
        Dropout::new(parameters, dropout)?; // is refused even where nothing drops
        Ok(Self { config: *config, down, up, last })
    }

    /// (n, in, h, w) to (n, out, h, w) in `[-1, 1]`. With `train`, batch norm uses the batch's statistics and moves the running ones, and
    /// dropout drops. The paper drops at test time too, as its only noise; here prediction is the same every time.
    pub fn forward_t(&self, photos: &Tensor, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = photos.dims4()?;
        self.config.check_size(height, width)?;
        let leaky = Activation::LeakyRelu(SLOPE);
        let mut x = photos.clone();
        let mut skips = Vec::with_capacity(self.down.len());
        for (level, (conv, norm)) in (1..).zip(&self.down) {
            let activation = if level == self.down.len() { Activation::Relu } else { leaky };
            x = conv.forward_norm_t(&x, norm, activation, train)?;
            skips.push(x.clone());
        }
        skips.pop();
        for ((conv, norm, dropout), skip) in self.up.iter().zip(skips.iter().rev()) {
            // ReLU before dropout, for it is fused with the norm: what is dropped or scaled keeps its sign.
            let doubled = dropout.forward_t(&conv.forward_norm_t(&x, norm, Activation::Relu, train)?, train)?;
            // What went through the leaky ReLU has the signs of what went into it, and so the same ReLU.
            x = ops::cat(&[&ops::relu(skip)?, &doubled])?;
        }
        ops::tanh(&self.last.forward(&x)?)
    }
}
