//! What is learned, and how: `[task]` of a recipe.

use candle_core::Tensor;
use img2seg_models::{
    CvaeConfig, Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, PatchDiscriminatorConfig,
    PixelwiseConfig, UNetConfig, UnetGeneratorConfig,
};
use img2seg_ops as ops;
use serde::{Deserialize, Serialize};

use super::{MAX_CHANNELS, MOST_CHANNELS, at_most};
use crate::loss::SegmentationLoss;
use crate::optimizer::OptimizerConfig;

/// What is learned; `[task.KIND]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TaskConfig {
    /// One network, trained towards the label map.
    Segmentation(SegmentationConfig),
    /// A generator and a discriminator, trained against each other.
    Adversarial(AdversarialConfig),
    /// A network that gives classes, and a discriminator of its class maps.
    AdversarialSegmentation(AdversarialSegmentationConfig),
    /// A conditional variational autoencoder.
    Variational(VariationalConfig),
}

impl TaskConfig {
    /// What is predicted.
    pub fn output(&self) -> Output {
        match self {
            Self::Segmentation(task) => task.output,
            Self::Adversarial(_) => Output::Rgb,
            Self::AdversarialSegmentation(_) => Output::Classes,
            Self::Variational(task) => task.output,
        }
    }
}

/// A network trained towards the label map, its colours or its classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentationConfig {
    /// What the network gives.
    pub output: Output,
    /// What is made small.
    pub loss: SegmentationLoss,
    /// The network.
    pub network: NetworkConfig,
    /// How its parameters move.
    pub optimizer: OptimizerConfig,
}

/// What a segmentation network gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// The label map's colours, three channels, decoded to the nearest class colour.
    Rgb,
    /// A logit for each class.
    Classes,
}

/// A network from photo to label map; `[task.segmentation.network.KIND]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NetworkConfig {
    /// The lab report's U-Net, and those with other choices.
    Unet(UNetConfig),
    /// 1x1 convolutions only: a classifier of single pixels by their colour.
    Pixelwise(PixelwiseConfig),
}

/// A conditional GAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialConfig {
    /// What the networks play for.
    pub loss: AdversarialLoss,
    /// How far generated colours lie from the label map's, beside the adversarial loss: nothing in the report, `l1` with a weight of 100 in
    /// pix2pix (Isola 2017, section 3.3).
    pub reconstruction: SegmentationLoss,
    /// The network that makes label maps.
    pub generator: GeneratorNetworkConfig,
    /// The network that tells them from true ones.
    pub discriminator: DiscriminatorNetworkConfig,
    /// How the generator's parameters move.
    pub generator_optimizer: OptimizerConfig,
    /// How the discriminator's parameters move.
    pub discriminator_optimizer: OptimizerConfig,
}

/// What a generator and a discriminator play for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdversarialLoss {
    /// Binary cross-entropy; the generator's in the form that does not saturate (Goodfellow et al. 2014, section 3).
    Bce,
    /// Squares of the distances to 1 and 0 (Mao et al. 2017).
    LeastSquares,
    /// Margins of 1; the generator raises the mean logit (Lim and Ye 2017).
    Hinge,
}

/// A network that makes label maps; `[task.adversarial.generator.KIND]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum GeneratorNetworkConfig {
    /// The lab report's, without skips.
    Lab(GeneratorConfig),
    /// pix2pix's U-Net.
    Pix2pix(UnetGeneratorConfig),
}

/// A network that tells label maps from true ones; `[task.adversarial.discriminator.KIND]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiscriminatorNetworkConfig {
    /// The lab report's.
    Lab(DiscriminatorConfig),
    /// pix2pix's.
    Patch(PatchDiscriminatorConfig),
}

/// Adversarial segmentation (Luc et al. 2016; Hung et al. 2018).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialSegmentationConfig {
    /// Weight of the adversarial loss beside that of the labels; 0.01 in Hung's, 0 is the network alone at the price of both.
    pub adversarial_weight: f64,
    /// How far class maps lie from the labels.
    pub loss: SegmentationLoss,
    /// The network from photo to class map.
    pub network: NetworkConfig,
    /// What tells class maps from true ones, the photo beside them.
    pub discriminator: PatchDiscriminatorConfig,
    /// How the network's parameters move.
    pub optimizer: OptimizerConfig,
    /// How the discriminator's parameters move.
    pub discriminator_optimizer: OptimizerConfig,
}

/// A conditional VAE (Sohn, Lee and Yan 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariationalConfig {
    /// What the network gives.
    pub output: Output,
    /// Weight of the divergence of the latent numbers from their prior, a sum over them, beside the loss, a mean over pixels.
    pub kl_weight: f64,
    /// Steps in which that weight rises from 0.
    pub kl_warmup_steps: u64,
    /// Samples that a prediction is the mean of, 1 to 64.
    pub samples: usize,
    /// How far the painted label map lies from the true one.
    pub loss: SegmentationLoss,
    /// The network.
    pub network: CvaeConfig,
    /// How its parameters move.
    pub optimizer: OptimizerConfig,
}

impl AdversarialLoss {
    /// The discriminator's loss of logits for true pairs.
    pub(crate) fn of_real(self, logits: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Bce => ops::bce_with_logits(logits, 1.0),
            Self::LeastSquares => ops::least_squares(logits, 1.0),
            Self::Hinge => ops::hinge(logits, 1.0),
        }
    }

    /// The discriminator's loss of logits for generated pairs.
    pub(crate) fn of_fake(self, logits: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Bce => ops::bce_with_logits(logits, 0.0),
            Self::LeastSquares => ops::least_squares(logits, 0.0),
            Self::Hinge => ops::hinge(logits, -1.0),
        }
    }

    /// The generator's loss of logits for its pairs.
    pub(crate) fn of_generator(self, logits: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Bce => ops::bce_with_logits(logits, 1.0),
            Self::LeastSquares => ops::least_squares(logits, 1.0),
            Self::Hinge => ops::weighted_sum(&[(&ops::mean(logits)?, -1.0)]),
        }
    }
}

impl TaskConfig {
    /// What the types cannot say. The message names the key.
    pub(super) fn validate(&self) -> Result<(), String> {
        match self {
            Self::Segmentation(task) => task.validate(),
            Self::Adversarial(task) => task.validate(),
            Self::AdversarialSegmentation(task) => task.validate(),
            Self::Variational(task) => task.validate(),
        }
    }

    /// The loss that class weights stand in.
    pub(super) fn loss_mut(&mut self) -> &mut SegmentationLoss {
        match self {
            Self::Segmentation(task) => &mut task.loss,
            Self::Adversarial(task) => &mut task.reconstruction,
            Self::AdversarialSegmentation(task) => &mut task.loss,
            Self::Variational(task) => &mut task.loss,
        }
    }
}

impl SegmentationConfig {
    fn validate(&self) -> Result<(), String> {
        self.network.validate("task.segmentation.network")?;
        self.loss.validate("task.segmentation.loss", self.output == Output::Rgb)?;
        self.optimizer.validate("task.segmentation.optimizer")
    }
}

impl NetworkConfig {
    fn validate(&self, key: &str) -> Result<(), String> {
        match self {
            Self::Unet(network) => {
                at_most(&format!("{key}.unet.base_channels"), network.base_channels, MAX_CHANNELS)?;
                at_most(&format!("{key}.unet.max_channels"), network.max_channels, MOST_CHANNELS)
            }
            Self::Pixelwise(network) => {
                at_most(&format!("{key}.pixelwise.base_channels"), network.base_channels, MAX_CHANNELS)
            }
        }
    }

    /// Refuses images of sizes that the network does not take; the error names the nearest.
    pub(crate) fn check_size(&self, height: usize, width: usize) -> candle_core::Result<()> {
        match self {
            Self::Unet(network) => network.check_size(height, width),
            Self::Pixelwise(_) => Ok(()),
        }
    }
}

impl AdversarialConfig {
    fn validate(&self) -> Result<(), String> {
        let (generator, noise) = match &self.generator {
            GeneratorNetworkConfig::Lab(network) => (("lab", network.base_channels), network.noise_channels),
            GeneratorNetworkConfig::Pix2pix(network) => (("pix2pix", network.base_channels), 0),
        };
        let discriminator = match &self.discriminator {
            DiscriminatorNetworkConfig::Lab(network) => ("lab", network.base_channels),
            DiscriminatorNetworkConfig::Patch(network) => ("patch", network.base_channels),
        };
        for (network, (kind, channels)) in [("generator", generator), ("discriminator", discriminator)] {
            at_most(&format!("task.adversarial.{network}.{kind}.base_channels"), channels, MAX_CHANNELS)?;
        }
        at_most("task.adversarial.generator.lab.noise_channels", noise, MAX_CHANNELS)?;
        if !self.reconstruction.is_empty() {
            self.reconstruction.validate("task.adversarial.reconstruction", true)?;
        }
        self.generator_optimizer.validate("task.adversarial.generator_optimizer")?;
        self.discriminator_optimizer.validate("task.adversarial.discriminator_optimizer")
    }

    /// Refuses images of sizes that a network does not take; the error names the nearest.
    pub(crate) fn check_size(&self, height: usize, width: usize) -> candle_core::Result<()> {
        match &self.generator {
            GeneratorNetworkConfig::Lab(_) => Generator::check_size(height, width)?,
            GeneratorNetworkConfig::Pix2pix(network) => network.check_size(height, width)?,
        }
        match &self.discriminator {
            DiscriminatorNetworkConfig::Lab(_) => Discriminator::check_size(height, width),
            DiscriminatorNetworkConfig::Patch(network) => network.check_size(height, width),
        }
    }
}

impl AdversarialSegmentationConfig {
    fn validate(&self) -> Result<(), String> {
        const KEY: &str = "task.adversarial-segmentation";
        self.network.validate(&format!("{KEY}.network"))?;
        self.loss.validate(&format!("{KEY}.loss"), false)?;
        at_most(&format!("{KEY}.discriminator.base_channels"), self.discriminator.base_channels, MAX_CHANNELS)?;
        from_0(&format!("{KEY}.adversarial_weight"), self.adversarial_weight)?;
        self.optimizer.validate(&format!("{KEY}.optimizer"))?;
        self.discriminator_optimizer.validate(&format!("{KEY}.discriminator_optimizer"))
    }
}

impl VariationalConfig {
    fn validate(&self) -> Result<(), String> {
        const KEY: &str = "task.variational";
        self.loss.validate(&format!("{KEY}.loss"), self.output == Output::Rgb)?;
        at_most(&format!("{KEY}.network.base_channels"), self.network.base_channels, MAX_CHANNELS)?;
        at_most(&format!("{KEY}.network.latent_channels"), self.network.latent_channels, MAX_CHANNELS)?;
        at_most(&format!("{KEY}.samples"), self.samples, 64)?;
        if self.samples == 0 {
            return Err(format!("{KEY}.samples: must be at least 1"));
        }
        from_0(&format!("{KEY}.kl_weight"), self.kl_weight)?;
        self.optimizer.validate(&format!("{KEY}.optimizer"))
    }
}

fn from_0(key: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(format!("{key}: must be 0 or more")) }
}
