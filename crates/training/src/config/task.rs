//! What is learned, and how: `[task]` of a recipe.

use img2seg_models::{DiscriminatorConfig, GeneratorConfig, PixelwiseConfig, UNetConfig};
use serde::{Deserialize, Serialize};

use super::{MAX_CHANNELS, at_most};
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
    /// Weight of the mean absolute error beside the adversarial loss: 0 as in the report, 100 in pix2pix (Isola 2017, section 3.3).
    pub l1_weight: f64,
    /// The network that makes label maps.
    pub generator: GeneratorConfig,
    /// The network that tells them from true ones.
    pub discriminator: DiscriminatorConfig,
    /// How the generator's parameters move.
    pub generator_optimizer: OptimizerConfig,
    /// How the discriminator's parameters move.
    pub discriminator_optimizer: OptimizerConfig,
}

impl TaskConfig {
    /// What the types cannot say. The message names the key.
    pub(super) fn validate(&self) -> Result<(), String> {
        match self {
            Self::Segmentation(task) => task.validate(),
            Self::Adversarial(task) => task.validate(),
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
        let (kind, base_channels) = match self {
            Self::Unet(network) => ("unet", network.base_channels),
            Self::Pixelwise(network) => ("pixelwise", network.base_channels),
        };
        at_most(&format!("{key}.{kind}.base_channels"), base_channels, MAX_CHANNELS)
    }
}

impl AdversarialConfig {
    fn validate(&self) -> Result<(), String> {
        for (key, channels) in [
            ("generator.base_channels", self.generator.base_channels),
            ("generator.noise_channels", self.generator.noise_channels),
            ("discriminator.base_channels", self.discriminator.base_channels),
        ] {
            at_most(&format!("task.adversarial.{key}"), channels, MAX_CHANNELS)?;
        }
        if !(self.l1_weight.is_finite() && self.l1_weight >= 0.0) {
            return Err("task.adversarial.l1_weight: must be 0 or more".to_owned());
        }
        self.generator_optimizer.validate("task.adversarial.generator_optimizer")?;
        self.discriminator_optimizer.validate("task.adversarial.discriminator_optimizer")
    }
}
