use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::streets::StreetsConfig;
use crate::{AugmentConfig, DataError};

/// The `[data]` section of a recipe: which data, how it is read, and what the networks see of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// How the files lie.
    pub layout: Layout,
    /// Which half of a pair is the photo; the other layouts ignore it.
    pub direction: Direction,
    /// A built-in class table or the path of one: what [`ClassTable::load`](crate::ClassTable::load) takes.
    pub classes: String,
    /// Height in pixels of what networks see, 1 to 16384.
    pub height: usize,
    /// Width in pixels of what networks see, 1 to 16384.
    pub width: usize,
    /// Samples in a batch, at least 1 and together at most 2^28 pixels.
    pub batch_size: usize,
    /// Memory for decoded images, in MiB; 0 decodes anew in every epoch.
    pub cache_mib: usize,
    /// The street scenes to generate where no data set is named.
    pub streets: Option<StreetsConfig>,
    /// What is done to training samples before they are learned from.
    pub augment: AugmentConfig,
}

/// How the files of a data set lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One of the others, told by the folders that are there.
    Auto,
    /// `SPLIT/*.{jpg,jpeg,png}`: photo and colour label map side by side in one file.
    Pairs,
    /// `SPLIT/images/NAME.*` and `SPLIT/masks/NAME.*`.
    Folders,
    /// `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`.
    Cityscapes,
}

/// Which half of a side-by-side pair is the photo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The photo is the left half.
    PhotoLeft,
    /// The label map is the left half.
    LabelLeft,
}

/// The longest side of an image that is read or made, in pixels.
pub const MAX_SIDE: usize = 16384;

/// The pixels of a batch: one sample of the largest size, 7.5 GB as tensors.
const MAX_BATCH_PIXELS: usize = MAX_SIDE * MAX_SIDE;

impl DataConfig {
    /// Checks the ranges that types cannot express; the error names the key.
    pub fn validate(&self) -> Result<(), DataError> {
        for (key, side) in [("data.height", self.height), ("data.width", self.width)] {
            if side == 0 || side > MAX_SIDE {
                return Err(DataError::Setting { key, reason: format!("{side} is not in 1..={MAX_SIDE}") });
            }
        }
        if self.batch_size == 0 {
            return Err(DataError::Setting { key: "data.batch_size", reason: "must be at least 1".to_owned() });
        }
        self.streets.as_ref().map_or(Ok(()), StreetsConfig::validate)?;
        self.augment.validate()?;
        for (height, width) in self.sizes() {
            let batch = self.batch_size;
            if (height * width).saturating_mul(batch) > MAX_BATCH_PIXELS {
                let reason = format!(
                    "{batch} samples of {width}x{height} are more than the {MAX_BATCH_PIXELS} pixels that a batch may have"
                );
                return Err(DataError::Setting { key: "data.batch_size", reason });
            }
        }
        Ok(())
    }

    /// Height and width of what networks learn from, and of what they predict.
    pub fn sizes(&self) -> [(usize, usize); 2] {
        let whole = (self.height, self.width);
        [self.augment.size(whole), whole]
    }
}

/// A part of a data set; its folder has its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// What networks learn from.
    Train,
    /// What choices are made by.
    Val,
    /// What is looked at once, at the end.
    Test,
}

impl Split {
    /// All splits, in their usual order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error of reading a [`Split`] from text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: not a split (train, val or test)")]
pub struct ParseSplitError(String);

impl FromStr for Split {
    type Err = ParseSplitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|split| split.name() == text).ok_or_else(|| ParseSplitError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::fixture;

    #[test]
    fn settings_read_back_and_mistakes_are_named() {
        let mut config = fixture::config(Layout::Cityscapes);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<DataConfig>(&text).unwrap(), config);
        assert!(text.contains("layout = \"cityscapes\"\ndirection = \"photo-left\""), "{text}");
        let mistyped = toml::from_str::<DataConfig>(&text.replace("cache_mib", "cache_mb")).unwrap_err();
        assert!(mistyped.to_string().contains("cache_mb"), "{mistyped}");
        let missing = toml::from_str::<DataConfig>(&text.replace("flip = 0.0", "")).unwrap_err();
        assert!(missing.to_string().contains("flip"), "{missing}");

        config.validate().unwrap();
        config.height = 0;
        assert_eq!(config.validate().unwrap_err().to_string(), "data.height: 0 is not in 1..=16384");
        config.height = 8;
        config.batch_size = 1_000_000_000_000;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("data.batch_size: 1000000000000 samples of 12x8 are more than"), "{error}");
        config.batch_size = usize::MAX;
        assert!(config.validate().is_err());
        config.batch_size = 1;
        config.augment.flip = 2.0;
        assert_eq!(config.validate().unwrap_err().to_string(), "data.augment.flip: 2 is not in 0..=1");
    }

    #[test]
    fn names_read_back() {
        for split in Split::ALL {
            assert_eq!(split.to_string().parse(), Ok(split));
        }
        assert_eq!("Train".parse::<Split>().unwrap_err().to_string(), "Train: not a split (train, val or test)");
    }
}
