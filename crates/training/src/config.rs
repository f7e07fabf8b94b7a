//! A recipe: one TOML file that says everything about a run but where it happens.

use img2seg_data::{DataConfig, LoaderConfig};
use img2seg_models::{DiscriminatorConfig, GeneratorConfig, PixelwiseConfig, UNetConfig};
use img2seg_ops::Exactness;
use serde::{Deserialize, Serialize};

use crate::TrainingError;
use crate::adam::AdamConfig;
use crate::loss::SegmentationLoss;
use crate::schedule::ScheduleConfig;

/// No honest recipe comes near it.
const MAX_BYTES: usize = 1 << 20;

/// Steps are counted in 64 bits, and an epoch has far fewer than 2^40 of them.
const MAX_EPOCHS: usize = 1_000_000;

/// A U-Net of so many channels after its first convolution has 2 * 10^9 parameters.
const MAX_CHANNELS: usize = 512;

/// Rows of a sheet, each as high as a photo.
const MAX_SAMPLES: usize = 64;

/// A whole run. Unknown keys are refused, and nothing has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The recipe's name: the file's, unless the file says another. It names the run's directory, so it has no slashes.
    #[serde(default)]
    pub recipe: String,
    /// What every random draw of the run is keyed by.
    pub seed: u64,
    /// Passes over the train split, at most a million.
    pub epochs: usize,
    /// What convolutions may round: `fast` or `direct`.
    #[serde(with = "ExactnessName")]
    pub exactness: Exactness,
    /// What is learned from.
    pub data: DataConfig,
    /// What is learned, and how.
    pub task: TaskConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// When the run is scored.
    pub evaluation: EvaluationConfig,
    /// When the run is saved.
    pub checkpoint: CheckpointConfig,
}

/// [`Exactness`] as a recipe spells it: its own crate knows no serde.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Exactness", rename_all = "kebab-case")]
enum ExactnessName {
    Fast,
    Direct,
}

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
    /// `mse` or `l1` for colours, `cross-entropy` for classes.
    pub loss: SegmentationLoss,
    /// The network.
    pub network: NetworkConfig,
    /// Its optimiser.
    pub adam: AdamConfig,
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
    /// The lab report's U-Net.
    Unet(UNetConfig),
    /// 1x1 convolutions only: a classifier of single pixels by their colour.
    Pixelwise(PixelwiseConfig),
}

/// The lab report's conditional GAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialConfig {
    /// Weight of the mean absolute error beside the adversarial loss: 0 as in the report, 100 in pix2pix (Isola 2017, section 3.3).
    pub l1_weight: f64,
    /// The network that makes label maps.
    pub generator: GeneratorConfig,
    /// The network that tells them from true ones.
    pub discriminator: DiscriminatorConfig,
    /// The generator's optimiser.
    pub generator_adam: AdamConfig,
    /// The discriminator's optimiser.
    pub discriminator_adam: AdamConfig,
}

/// When and on what a run is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Epochs from one scoring to the next; the last epoch is always scored.
    pub every_epochs: usize,
    /// Images of the train split that are scored beside val, the first of the file order; 0 for none.
    pub train_images: usize,
    /// Epochs from one sheet of samples to the next; 0 for none.
    pub samples_every_epochs: usize,
    /// Rows of a sheet, at most 64.
    pub samples: usize,
}

/// When a run is saved, and what "best" means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps from one checkpoint to the next, besides the one at the end of each epoch; 0 for none.
    pub every_steps: u64,
    /// Minutes from one checkpoint to the next, likewise; 0 for none.
    pub every_minutes: f64,
    /// The newest checkpoints that are kept besides the best one, at least 1. The older ones stand in for a damaged one.
    pub keep: usize,
    /// The val score that the checkpoint `best` has the highest of.
    pub best: BestScore,
}

/// A score of the val split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestScore {
    /// Share of labelled pixels whose class is right.
    PixelAccuracy,
    /// Mean over classes of the share of right pixels.
    ClassAccuracy,
    /// Mean intersection over union.
    MeanIou,
    /// Intersection over union, weighted by how often a class occurs.
    FrequencyWeightedIou,
}

impl RunConfig {
    /// Reads a recipe. `origin` (its name or file) goes into errors; `settings` are `key.path=value` texts that replace or add keys.
    ///
    /// # Errors
    /// [`TrainingError::Recipe`] with line and key of what is wrong.
    pub fn from_toml(text: &str, origin: &str, settings: &[String]) -> Result<Self, TrainingError> {
        let recipe_error = |message: String| TrainingError::Recipe { origin: origin.to_owned(), message };
        if text.len() > MAX_BYTES {
            return Err(recipe_error(format!("{} bytes, a recipe has at most {MAX_BYTES}", text.len())));
        }
        // Read as it stands first: an error of the file then carries its line.
        let mut config: Self =
            toml::from_str(text).map_err(|error| recipe_error(error.to_string().trim_end().to_owned()))?;
        if !settings.is_empty() {
            let mut table: toml::Table = toml::from_str(text).map_err(|error| recipe_error(error.to_string()))?;
            for setting in settings {
                set(&mut table, setting)
                    .map_err(|message| TrainingError::Recipe { origin: format!("--set {setting}"), message })?;
            }
            config = table.try_into().map_err(|error: toml::de::Error| TrainingError::Recipe {
                origin: format!("--set {}", settings.join(" --set ")),
                message: error.to_string().trim_end().replace('\n', " "),
            })?;
        }
        config.validate().map_err(recipe_error)?;
        Ok(config)
    }

    /// The recipe as TOML, every key said.
    pub fn to_toml(&self) -> Result<String, TrainingError> {
        toml::to_string(self)
            .map_err(|error| TrainingError::Recipe { origin: self.recipe.clone(), message: error.to_string() })
    }

    /// What the loaders of the run's data are told.
    pub(crate) fn loader(&self) -> LoaderConfig {
        let DataConfig { batch_size, height, width, cache_mib, .. } = self.data;
        LoaderConfig { batch_size, height, width, cache_mib }
    }

    /// What the types cannot say. The message names the key.
    fn validate(&self) -> Result<(), String> {
        let at_least_one = |key: &str, value: usize| match value {
            0 => Err(format!("{key}: must be at least 1")),
            _ => Ok(()),
        };
        check_name(&self.recipe)?;
        at_least_one("epochs", self.epochs)?;
        at_most("epochs", self.epochs, MAX_EPOCHS)?;
        at_least_one("evaluation.every_epochs", self.evaluation.every_epochs)?;
        at_least_one("checkpoint.keep", self.checkpoint.keep)?;
        if !(self.checkpoint.every_minutes.is_finite() && self.checkpoint.every_minutes >= 0.0) {
            return Err("checkpoint.every_minutes: must be 0 or more".to_owned());
        }
        at_most("evaluation.samples", self.evaluation.samples, MAX_SAMPLES)?;
        self.data.validate().map_err(|error| error.to_string())?;
        self.schedule.validate()?;
        match &self.task {
            TaskConfig::Segmentation(task) => {
                let (kind, base) = match &task.network {
                    NetworkConfig::Unet(network) => ("unet", network.base_channels),
                    NetworkConfig::Pixelwise(network) => ("pixelwise", network.base_channels),
                };
                at_most(&format!("task.segmentation.network.{kind}.base_channels"), base, MAX_CHANNELS)?;
                let fits = match task.output {
                    Output::Rgb => task.loss != SegmentationLoss::CrossEntropy,
                    Output::Classes => task.loss == SegmentationLoss::CrossEntropy,
                };
                if !fits {
                    return Err(
                        "task.segmentation.loss: output \"rgb\" takes \"mse\" or \"l1\", output \"classes\" takes \"cross-entropy\""
                            .to_owned(),
                    );
                }
                check_adam("task.segmentation.adam", &task.adam)
            }
            TaskConfig::Adversarial(task) => {
                for (key, channels) in [
                    ("generator.base_channels", task.generator.base_channels),
                    ("generator.noise_channels", task.generator.noise_channels),
                    ("discriminator.base_channels", task.discriminator.base_channels),
                ] {
                    at_most(&format!("task.adversarial.{key}"), channels, MAX_CHANNELS)?;
                }
                if !(task.l1_weight.is_finite() && task.l1_weight >= 0.0) {
                    return Err("task.adversarial.l1_weight: must be 0 or more".to_owned());
                }
                check_adam("task.adversarial.generator_adam", &task.generator_adam)?;
                check_adam("task.adversarial.discriminator_adam", &task.discriminator_adam)
            }
        }
    }
}

fn at_most(key: &str, value: usize, most: usize) -> Result<(), String> {
    if value > most { Err(format!("{key}: {value} is more than {most}")) } else { Ok(()) }
}

/// A run is named after its recipe, and its directory too: a name must not lead elsewhere.
fn check_name(name: &str) -> Result<(), String> {
    if name.contains(['/', '\\']) || name.contains(char::is_control) || [".", ".."].contains(&name) || name.len() > 128
    {
        return Err(format!("recipe: {name:?} is no name for a directory"));
    }
    Ok(())
}

fn check_adam(key: &str, adam: &AdamConfig) -> Result<(), String> {
    let beta = |value: f64| (0.0..1.0).contains(&value);
    for (name, ok, range) in [
        ("learning_rate", adam.learning_rate.is_finite() && adam.learning_rate > 0.0, "above 0"),
        ("beta1", beta(adam.beta1), "in [0, 1)"),
        ("beta2", beta(adam.beta2), "in [0, 1)"),
        ("epsilon", adam.epsilon.is_finite() && adam.epsilon > 0.0, "above 0"),
        ("weight_decay", adam.weight_decay.is_finite() && adam.weight_decay >= 0.0, "0 or more"),
        ("max_gradient_norm", adam.max_gradient_norm.is_finite() && adam.max_gradient_norm >= 0.0, "0 or more"),
    ] {
        if !ok {
            return Err(format!("{key}.{name}: must be {range}"));
        }
    }
    Ok(())
}

/// Puts `key.path=value` into a table. The value is TOML, or a bare word that is taken as a string.
fn set(table: &mut toml::Table, setting: &str) -> Result<(), String> {
    let (path, text) = setting.split_once('=').ok_or("not of the form key=value")?;
    let (path, text) = (path.trim(), text.trim());
    let value = match toml::from_str::<toml::Table>(&format!("value = {text}")) {
        // A line break in the text may have begun another key.
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").ok_or("not one value")?,
        Ok(_) => return Err(format!("{text:?} is not one value")),
        Err(_) if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c)) => {
            toml::Value::String(text.to_owned())
        }
        Err(_) => return Err(format!("{text} is not a TOML value")),
    };
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or("the key is empty")?;
    let mut inner = table;
    for key in keys {
        inner = inner
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{key} is a value, not a table"))?;
    }
    // An integer is a fine way to write a whole float.
    let value = match (inner.get(last), value) {
        (Some(toml::Value::Float(_)), toml::Value::Integer(whole)) => toml::Value::Float(whole as f64),
        (_, value) => value,
    };
    inner.insert(last.to_owned(), value);
    Ok(())
}
