//! A trained run, ready to label photos of any size.

mod tiles;
mod tta;

use candle_core::{Device, Tensor};
use image::RgbImage;
use img2seg_data::{ClassTable, DataConfig, photo_tensor, resize};
use img2seg_ops::{self as ops, Resize};

use crate::checkpoint::{self, Progress, Which};
use crate::config::{Output, TaskConfig};
use crate::learner::{self, Learner, PredictedImage, Prediction};
use crate::{RunDir, TrainingError};

pub use tiles::Tiles;
pub use tta::TestTimeAugmentation;

/// How a run is asked for predictions; what is not said is as its recipe has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inference {
    /// How many looks at a photo are averaged.
    pub tta: Option<TestTimeAugmentation>,
    /// Photos are not made as small as those that the run was trained on, but seen at their own scale, in tiles of that size.
    pub tiles: bool,
}

/// A trained run, ready to label photos of any size.
pub struct Predictor {
    learner: Box<dyn Learner>,
    data: DataConfig,
    classes: ClassTable,
    device: Device,
    tta: TestTimeAugmentation,
    tiles: Option<Tiles>,
    progress: Progress,
    tells_uncertainty: bool,
}

impl Predictor {
    /// Loads the networks of a run from one of its checkpoints.
    pub fn open(run: &RunDir, which: Which, inference: Inference, device: &Device) -> Result<Self, TrainingError> {
        let (config, classes) = (run.config()?, run.classes()?);
        let learner = learner::build(&config, &classes, device)?;
        let progress = checkpoint::load(run, which, learner.as_ref())?;
        let tta = inference.tta.unwrap_or(config.evaluation.tta);
        let tiles = inference.tiles.then_some(Tiles { height: config.data.height, width: config.data.width });
        let samples = matches!(config.task, TaskConfig::Variational(_)) && tiles.is_none();
        let tells_uncertainty = samples || config.task.output() == Output::Classes;
        Ok(Self {
            learner,
            data: config.data,
            classes,
            device: device.clone(),
            tta,
            tiles,
            progress,
            tells_uncertainty,
        })
    }

    /// The networks.
    pub fn learner(&self) -> &dyn Learner {
        self.learner.as_ref()
    }

    /// The classes that are predicted.
    pub fn classes(&self) -> &ClassTable {
        &self.classes
    }

    /// How the run's data was laid out: where the photo stands in a pair.
    pub fn data(&self) -> &DataConfig {
        &self.data
    }

    /// How many looks at a photo are averaged.
    pub fn tta(&self) -> TestTimeAugmentation {
        self.tta
    }

    /// Where the run stood when the checkpoint was made.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Predicts a label map of the photo's own size. The network sees the photo at the size it was trained at, and its logits or
    /// colours are resized back (bilinear) before they are decoded; or it sees it in tiles.
    pub fn predict(&self, photo: &RgbImage) -> Result<PredictedImage, TrainingError> {
        if let Some(tiles) = self.tiles {
            return tiles.predict(self.learner.as_ref(), self.tta, photo, &self.classes, &self.device);
        }
        let photos = self.seen(photo)?;
        let (height, width) = (photo.height() as usize, photo.width() as usize);
        let sized = |output: &Tensor| ops::resize(output, height, width, Resize::Bilinear);
        let prediction = match self.tta.predict(self.learner.as_ref(), &photos)? {
            Prediction::Logits(logits) => Prediction::Logits(sized(&logits)?),
            Prediction::Colors(colors) => Prediction::Colors(sized(&colors)?),
        };
        let mut images = prediction.decode(&self.classes)?;
        prediction.add_confidences(&mut images)?;
        images.pop().ok_or_else(|| candle_core::Error::msg("the network gave no image").into())
    }

    /// Whether [`Predictor::uncertainty`] has an answer: not for colours, unless whole photos have several.
    pub fn tells_uncertainty(&self) -> bool {
        self.tells_uncertainty
    }

    /// How unsure a prediction of [`Predictor::predict`] is, pixel by pixel in its size, in [0, 1]: how far the learner's samples disagree;
    /// of a learner with a single answer, or of tiles, 1 minus the probability of the predicted class. None of colours with a single
    /// answer.
    pub fn uncertainty(&self, photo: &RgbImage, predicted: &PredictedImage) -> Result<Option<Vec<f32>>, TrainingError> {
        let samples = match self.tiles {
            Some(_) => None,
            None => self.learner.uncertainty(&self.seen(photo)?)?,
        };
        let Some(map) = samples else {
            let of_confidence = |confidence: &Vec<f32>| confidence.iter().map(|share| 1.0 - share).collect();
            return Ok(predicted.confidence.as_ref().map(of_confidence));
        };
        let sized = ops::resize(&map.unsqueeze(1)?, predicted.height, predicted.width, Resize::Bilinear)?;
        Ok(Some(sized.flatten_all()?.to_vec1()?))
    }

    /// A photo (1, 3, h, w) of the size that the run was trained at.
    fn seen(&self, photo: &RgbImage) -> Result<Tensor, TrainingError> {
        let seen = resize::photo(photo, self.data.height, self.data.width);
        Ok(photo_tensor(&seen)?.to_device(&self.device)?)
    }
}
