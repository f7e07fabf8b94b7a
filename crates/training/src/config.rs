//! A recipe: one TOML file that says everything about a run but where it happens.

mod setting;
mod task;

use img2seg_data::{DataConfig, Dataset, LoaderConfig};
use img2seg_ops::Exactness;
use serde::{Deserialize, Serialize};

use crate::TrainingError;
use crate::loss::ClassWeights;
use crate::predict::TestTimeAugmentation;
use crate::schedule::ScheduleConfig;
use setting::set;

pub use task::{
    AdversarialConfig, AdversarialLoss, AdversarialSegmentationConfig, DiscriminatorNetworkConfig,
    GeneratorNetworkConfig, NetworkConfig, Output, SegmentationConfig, TaskConfig, VariationalConfig,
};

/// No honest recipe comes near it.
const MAX_BYTES: usize = 1 << 20;

/// Steps are counted in 64 bits, and an epoch has far fewer than 2^40 of them.
const MAX_EPOCHS: usize = 1_000_000;

/// A U-Net of so many channels after its first convolution has 2 * 10^9 parameters.
const MAX_CHANNELS: usize = 512;

/// Sixteen times as many: what the deepest level of such a network may have.
const MOST_CHANNELS: usize = 16 * MAX_CHANNELS;

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
    /// What convolutions may round: `fast`, `direct` or `bf16`.
    #[serde(with = "ExactnessName")]
    pub exactness: Exactness,
    /// Share of a running average of the weights that stays from step to step, in 0..1. The average predicts in the place of the
    /// weights; 0 for none.
    pub ema_decay: f64,
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
    Bf16,
}

/// When and on what a run is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Epochs from one scoring to the next; the last epoch is always scored.
    pub every_epochs: usize,
    /// How many looks at a photo predictions are averaged over, in scoring and later: `none`, `flip` or `multi-scale`.
    pub tta: TestTimeAugmentation,
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
        if !(0.0..1.0).contains(&self.ema_decay) {
            return Err("ema_decay: must be in [0, 1)".to_owned());
        }
        self.task.validate()
    }

    /// Fills in what the recipe leaves to the data: class weights by how often classes occur in `train`.
    pub fn settle(&mut self, train: &Dataset) -> Result<(), TrainingError> {
        ClassWeights::settle(self.task.loss_mut().class_weights_mut(), train)
    }

    /// Whether this is what `recipe` becomes by [`RunConfig::settle`].
    pub fn settles(&self, recipe: &Self) -> bool {
        let (mut settled, mut recipe) = (self.clone(), recipe.clone());
        recipe.task.loss_mut().take_settled_weights(settled.task.loss_mut());
        *self == recipe
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
