use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use super::{BIASES, Pix2pixNorm, SLOPE, WEIGHTS};
use crate::layers::{Conv2d, Norm, SpectralConv2d};
use crate::{Init, Parameters, sizes};

/// The shape of a [`PatchDiscriminator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchDiscriminatorConfig {
    /// Channels after the first convolution, doubled up to three times; 64 in the paper.
    pub base_channels: usize,
    /// The side of the patches that are judged, in pixels: 1, 16, 70 (the paper's choice) or 286.
    pub patch: Patch,
    /// What follows the convolutions between the first and the last.
    pub norm: Pix2pixNorm,
    /// Whether all weights are divided by their spectral norms (Miyato et al. 2018).
    pub spectral_norm: bool,
}

/// How much of an image a logit of a [`PatchDiscriminator`] sees (section 6.1.2 of the paper).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub enum Patch {
    /// One pixel.
    Pixel,
    /// 16x16 pixels: the image is halved once.
    Side16,
    /// 70x70 pixels: halved three times.
    Side70,
    /// 286x286 pixels: halved five times.
    Side286,
}

impl Patch {
    /// How often the image is halved.
    fn halvings(self) -> usize {
        match self {
            Self::Pixel => 0,
            Self::Side16 => 1,
            Self::Side70 => 3,
            Self::Side286 => 5,
        }
    }
}

impl From<Patch> for usize {
    fn from(patch: Patch) -> Self {
        match patch {
            Patch::Pixel => 1,
            Patch::Side16 => 16,
            Patch::Side70 => 70,
            Patch::Side286 => 286,
        }
    }
}

impl TryFrom<usize> for Patch {
    type Error = String;

    fn try_from(side: usize) -> std::result::Result<Self, String> {
        let all = [Self::Pixel, Self::Side16, Self::Side70, Self::Side286];
        let found = all.into_iter().find(|&patch| usize::from(patch) == side);
        found.ok_or_else(|| format!("patch {side}: not 1, 16, 70 or 286"))
    }
}

impl PatchDiscriminatorConfig {
    /// Each halving takes even sides, and what is left must have three pixels a side, of which two convolutions take one each. The error
    /// names the nearest sizes.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        let step = 1 << self.patch.halvings();
        let least = if self.patch == Patch::Pixel { 1 } else { 3 * step };
        sizes::check("the patch discriminator", height, width, step, least)
    }
}

/// The discriminator of pix2pix (Isola et al. 2017, sections 3.2.2 and 6.1.2), a PatchGAN: it judges overlapping patches of a label map,
/// alone or beside its photo.
#[derive(Debug, Clone)]
pub struct PatchDiscriminator {
    config: PatchDiscriminatorConfig,
    layers: Vec<(Conv, Norm)>,
    last: Conv,
}

impl PatchDiscriminator {
    /// `in_channels` are those of the label map, colours or a channel for each class, and 3 more if photos are to be judged with it.
    ///
    /// Parameters are named as in the authors' version: `model.0.weight`, `model.2.weight`, `model.3.weight` of the norm, and so on;
    /// `net.0.weight`, `net.2.weight` for single pixels. With spectral norm, a convolution's `weight` becomes the tensors of
    /// [`SpectralConv2d`].
    ///
    /// # Errors
    /// Numbers that make no network.
    pub fn new(parameters: &Parameters, config: &PatchDiscriminatorConfig, in_channels: usize) -> Result<Self> {
        let &PatchDiscriminatorConfig { base_channels: base, patch, norm, spectral_norm } = config;
        if base == 0 || in_channels == 0 {
            return Err(Error::Msg(format!(
                "patch discriminator of {in_channels} channels, base_channels {base}: none may be 0"
            )));
        }
        let is_pixel = patch == Patch::Pixel;
        let scope = parameters.scope(if is_pixel { "net" } else { "model" });
        let conv = |place: usize, in_channels: usize, out_channels: usize, stride: usize, bias: Option<Init>| {
            let (kernel, padding) = if is_pixel { (1, 0) } else { (4, 1) };
            let (scope, spec) = (scope.scope(place), ops::Conv2d::new(stride, padding));
            Ok::<_, Error>(if spectral_norm {
                let conv = SpectralConv2d::with_init(&scope, in_channels, out_channels, kernel, spec, WEIGHTS, bias)?;
                Conv::Spectral(conv)
            } else {
                Conv::Plain(Conv2d::with_init(&scope, in_channels, out_channels, kernel, spec, WEIGHTS, bias)?)
            })
        };
        let channels = |layer: usize| base.saturating_mul(1 << layer.min(3));
        // A layer for each halving and one that keeps the size; two for single pixels.
        let halvings = patch.halvings();
        let stride = |layer: usize| if layer < halvings { 2 } else { 1 };
        let mut layers = vec![(conv(0, in_channels, base, stride(0), Some(BIASES))?, Norm::None)];
        let count = halvings.max(1);
        for layer in 1..=count {
            let (place, width) = (3 * layer - 1, channels(layer));
            let conv = conv(place, channels(layer - 1), width, stride(layer), norm.bias())?;
            layers.push((conv, norm.build(&scope.scope(place + 1), width)?));
        }
        let bias = if is_pixel { norm.bias() } else { Some(BIASES) }; // as in the authors' version
        Ok(Self { config: *config, layers, last: conv(3 * count + 2, channels(count), 1, 1, bias)? })
    }

    /// Label maps (n, c, h, w), with photos (n, 3, h, w) before them if there are any, to logits (n, 1, h', w'): positive where a patch
    /// looks real. With `train`, batch norm uses the batch's statistics and moves the running ones, and spectral norm moves its
    /// estimates.
    pub fn forward_t(&self, photos: Option<&Tensor>, label_maps: &Tensor, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = label_maps.dims4()?;
        self.config.check_size(height, width)?;
        let mut x = match photos {
            Some(photos) => ops::cat(&[photos, label_maps])?,
            None => label_maps.clone(),
        };
        for (conv, norm) in &self.layers {
            x = conv.forward_norm_t(&x, norm, Activation::LeakyRelu(SLOPE), train)?;
        }
        self.last.forward_t(&x, train)
    }
}

/// A convolution with or without spectral norm.
#[derive(Debug, Clone)]
enum Conv {
    Plain(Conv2d),
    Spectral(SpectralConv2d),
}

impl Conv {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::Plain(conv) => conv.forward(x),
            Self::Spectral(conv) => conv.forward_t(x, train),
        }
    }

    fn forward_norm_t(&self, x: &Tensor, norm: &Norm, activation: Activation, train: bool) -> Result<Tensor> {
        match self {
            Self::Plain(conv) => conv.forward_norm_t(x, norm, activation, train),
            Self::Spectral(conv) => norm.forward_t(&conv.forward_t(x, train)?, activation, train),
        }
    }
}
