use serde::{Deserialize, Serialize};

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
    /// Memory for decoded images, in MiB; 0 decodes anew in every epoch.
    pub cache_mib: usize,
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

impl DataConfig {
    /// Checks the ranges that types cannot express; the error names the key.
    pub fn validate(&self) -> Result<(), DataError> {
        for (key, side) in [("data.height", self.height), ("data.width", self.width)] {
            if side == 0 || side > MAX_SIDE {
                return Err(DataError::Setting { key, reason: format!("{side} is not in 1..={MAX_SIDE}") });
            }
        }
        self.augment.validate()
    }
}
