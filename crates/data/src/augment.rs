use serde::{Deserialize, Serialize};

use crate::DataError;

/// The `[data.augment]` section of a recipe: the ranges that random changes are drawn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Least and greatest size before cropping, relative to what networks see, each in 0.1..=10;
    /// 286 pixels cropped to 256, as pix2pix does, is `[1.1171875, 1.1171875]`.
    pub scale: [f64; 2],
    /// Probability of a mirror image, 0..=1.
    pub flip: f64,
    /// Photo brightness is multiplied by a factor in 1 - this ..= 1 + this; 0..=1.
    pub brightness: f64,
    /// As `brightness`, for the distance from the photo's mean grey.
    pub contrast: f64,
    /// As `brightness`, for the distance from each pixel's own grey.
    pub saturation: f64,
    /// Hues turn by at most this part of the colour circle, either way; 0..=0.5.
    pub hue: f64,
}

impl AugmentConfig {
    /// No change at all.
    pub const NONE: Self =
        Self { scale: [1.0, 1.0], flip: 0.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };

    /// Checks the ranges; the error names the key.
    pub fn validate(&self) -> Result<(), DataError> {
        let setting = |key, reason| Err(DataError::Setting { key, reason });
        let [least, greatest] = self.scale;
        if !(0.1 <= least && least <= greatest && greatest <= 10.0) {
            return setting(
                "data.augment.scale",
                format!("[{least}, {greatest}] is not a least and a greatest scale within 0.1..=10"),
            );
        }
        for (key, value, greatest) in [
            ("data.augment.flip", self.flip, 1.0),
            ("data.augment.brightness", self.brightness, 1.0),
            ("data.augment.contrast", self.contrast, 1.0),
            ("data.augment.saturation", self.saturation, 1.0),
            ("data.augment.hue", self.hue, 0.5),
        ] {
            if !(0.0..=greatest).contains(&value) {
                return setting(key, format!("{value} is not in 0..={greatest}"));
            }
        }
        Ok(())
    }
}
