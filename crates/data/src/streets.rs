//! Generated street scenes: the data that everybody has, without a download.
//!
//! A scene is a function of (seed, index). A plan is drawn first: lanes, kerbs, pavements, what lines the street, a bend, a
//! crossing. Along it stand houses, trees, posts, vehicles and people, in metres; a pinhole camera sees them, the sun and the
//! sky light them, and the sun's shadows fall on the ground. They are painted from back to front into samples that each hold
//! light and a label, so the label map is exact. A lens makes the photo: exposure, colour cast, blur, noise.
//!
//! Light, colours and textures are drawn per scene from ranges that classes share: grey cars stand on grey roads before grey
//! houses, leaves may be as red as bricks, walls as bright as the sky. What a pixel shows follows from where it is and what is
//! around it, so a network has to look; a test holds a classifier of single colours below 60 % of the pixels.
//!
//! Every operation is one that IEEE 754 rounds exactly (no sines, powers or logarithms), on one thread per scene: scenes are the
//! same bits on every machine and for any number of threads.
//!
//! ```
//! use img2seg_data::streets;
//!
//! let scene = streets::scene(1, 7, 64, 128);
//! assert_eq!(scene.photo.dimensions(), (128, 64));
//! assert!(scene.labels.iter().filter(|&&label| label == 0).count() > 128); // there is a road
//! ```

mod building;
mod camera;
mod canvas;
mod car;
mod coach;
mod cycle;
mod facade;
mod files;
mod ground;
mod label;
mod lens;
mod light;
mod noise;
mod painter;
mod panel;
mod person;
mod plant;
mod post;
mod rgb;
mod roadside;
mod scene;
mod sign;
mod sky;
mod street;
mod traffic;
mod vehicle;

#[cfg(test)]
mod tests;

use image::RgbImage;
use serde::{Deserialize, Serialize};

pub use files::{default_root, ensure, write};

use crate::{DataError, MAX_SIDE, Sample};

/// Which scenes a generated data set holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreetsConfig {
    /// How many scenes to learn from, 1 to 1000000: those of index 0, 1, ...
    pub train: usize,
    /// How many scenes to choose by, 1 to 1000000: those of index 2^32, 2^32 + 1, ..., which training never sees.
    pub val: usize,
    /// Height of photos and label maps in pixels, 16 to 8192.
    pub height: usize,
    /// Width of photos and label maps in pixels, 16 to 8192; a file, which holds both, is twice as wide.
    pub width: usize,
    /// Another seed, other scenes; up to 2^63 - 1, the largest integer of TOML.
    pub seed: u64,
}

/// The index of the first val scene.
const FIRST_VAL: u64 = 1 << 32;

impl StreetsConfig {
    /// Checks the ranges that types cannot express; the error names the key.
    pub fn validate(&self) -> Result<(), DataError> {
        let in_range = |key: &'static str, value: usize, low: usize, high: usize| {
            let reason = || format!("{value} is not in {low}..={high}");
            if (low..=high).contains(&value) { Ok(()) } else { Err(DataError::Setting { key, reason: reason() }) }
        };
        in_range("streets.train", self.train, 1, 1_000_000)?;
        in_range("streets.val", self.val, 1, 1_000_000)?;
        in_range("streets.height", self.height, 16, MAX_SIDE / 2)?;
        in_range("streets.width", self.width, 16, MAX_SIDE / 2)?;
        if i64::try_from(self.seed).is_err() {
            let reason = format!("{} is not in 0..={}", self.seed, i64::MAX);
            return Err(DataError::Setting { key: "streets.seed", reason });
        }
        Ok(())
    }
}

/// Scene (`seed`, `index`) at a size in pixels, with Cityscapes labels; its name is its index.
///
/// The same scene at another size of the same shape is the same view, with more or less detail. Sizes from 16 pixels on show a
/// street; smaller ones are what is left of one.
pub fn scene(seed: u64, index: u64, height: usize, width: usize) -> Sample {
    let (photo, labels) = scene::render(seed, index, height, width);
    let (w, h) = (width as u32, height as u32);
    let label_map = labels.iter().flat_map(|label| label.color()).collect();
    Sample {
        name: format!("{index:05}"),
        // Both have as many bytes as the image has channels.
        photo: RgbImage::from_raw(w, h, photo).unwrap_or_default(),
        label_map: RgbImage::from_raw(w, h, label_map).unwrap_or_default(),
        labels: labels.into_iter().map(|label| label as u8).collect(),
    }
}
