//! A trained run, ready to label photos of any size.

use candle_core::Device;
use image::RgbImage;
use img2seg_data::{ClassTable, DataConfig, photo_tensor, resize};
use img2seg_ops::{self as ops, Resize};

use crate::checkpoint::{self, Which};
use crate::learner::{self, Learner, PredictedImage, Prediction};
use crate::{RunDir, TrainingError};

/// A trained run, ready to label photos of any size.
pub struct Predictor {
    learner: Box<dyn Learner>,
    data: DataConfig,
    classes: ClassTable,
    device: Device,
}

impl Predictor {
    /// Loads the networks of a run from one of its checkpoints.
    pub fn open(run: &RunDir, which: Which, device: &Device) -> Result<Self, TrainingError> {
        let (config, classes) = (run.config()?, run.classes()?);
        let mut learner = learner::build(&config, &classes, device)?;
        checkpoint::load(run, which, learner.as_mut())?;
        Ok(Self { learner, data: config.data, classes, device: device.clone() })
    }

    /// The classes that are predicted.
    pub fn classes(&self) -> &ClassTable {
        &self.classes
    }

    /// How the run's data was laid out: where the photo stands in a pair.
    pub fn data(&self) -> &DataConfig {
        &self.data
    }

    /// Predicts a label map of the photo's own size. The network sees the photo at the size it was trained at; its logits or
    /// colours are resized back (bilinear) before they are decoded.
    pub fn predict(&self, photo: &RgbImage) -> Result<PredictedImage, TrainingError> {
        let seen = resize::photo(photo, self.data.height, self.data.width);
        let photos = photo_tensor(&seen)?.to_device(&self.device)?;
        let (height, width) = (photo.height() as usize, photo.width() as usize);
        let sized = |output: &candle_core::Tensor| ops::resize(output, height, width, Resize::Bilinear);
        let prediction = match self.learner.predict(&photos)? {
            Prediction::Logits(logits) => Prediction::Logits(sized(&logits)?),
            Prediction::Colors(colors) => Prediction::Colors(sized(&colors)?),
        };
        let mut images = prediction.decode(&self.classes)?;
        images.pop().ok_or_else(|| candle_core::Error::msg("the network gave no image").into())
    }
}
