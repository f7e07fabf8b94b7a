//! The scores of a split, as they are printed and filed.

use img2seg_data::ClassTable;
use img2seg_metrics::{ConfusionMatrix, MetricsError, RgbAgreement};
use serde::{Deserialize, Serialize};

use crate::config::BestScore;
use crate::learner::PredictedImage;

/// The scores of a split: fractions in [0, 1], void pixels left out; null where nothing was there to score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// `train`, `val` or `test`.
    pub split: String,
    /// Images scored.
    pub images: u64,
    /// Labelled pixels scored.
    pub pixels: u64,
    /// Share of labelled pixels whose class is right.
    pub pixel_accuracy: Option<f64>,
    /// Mean over the classes that occur of the share of right pixels.
    pub class_accuracy: Option<f64>,
    /// Mean intersection over union of the classes that occur in truth or prediction.
    pub mean_iou: Option<f64>,
    /// Intersection over union, weighted by how often a class occurs.
    pub frequency_weighted_iou: Option<f64>,
    /// Intersection over union by class name; null for a class that occurs in neither truth nor prediction.
    pub class_iou: serde_json::Map<String, serde_json::Value>,
    /// How well colours agree, void included; null for a network that gives classes.
    pub rgb_agreement: Option<RgbScores>,
}

/// The readings of "pixel accuracy" that compare colours and not classes; see `docs/lab.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RgbScores {
    /// The largest of the three channels is the same.
    pub argmax: Option<f64>,
    /// Every channel lies within 5 of 255.
    pub within_5: Option<f64>,
    /// Every channel lies within 10 of 255.
    pub within_10: Option<f64>,
    /// Every channel lies within 25 of 255.
    pub within_25: Option<f64>,
}

impl Scores {
    /// The score that a checkpoint is kept for.
    pub fn of(&self, score: BestScore) -> Option<f64> {
        match score {
            BestScore::PixelAccuracy => self.pixel_accuracy,
            BestScore::ClassAccuracy => self.class_accuracy,
            BestScore::MeanIou => self.mean_iou,
            BestScore::FrequencyWeightedIou => self.frequency_weighted_iou,
        }
    }
}

/// The scores of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageScores {
    /// The sample's name.
    pub name: String,
    /// As in [`Scores`].
    pub pixel_accuracy: Option<f64>,
    /// As in [`Scores`], over the classes of this image.
    pub mean_iou: Option<f64>,
}

/// Counts image after image.
#[derive(Debug)]
pub struct ScoreKeeper {
    matrix: ConfusionMatrix,
    agreement: RgbAgreement,
    compares_colors: bool,
    images: u64,
}

impl ScoreKeeper {
    /// Nothing counted yet.
    pub fn new(classes: usize) -> Self {
        Self {
            matrix: ConfusionMatrix::new(classes),
            agreement: RgbAgreement::default(),
            compares_colors: false,
            images: 0,
        }
    }

    /// Counts one image and returns its own scores. `label_map` holds the true colours, plane by plane, 0 to 255.
    pub fn add(
        &mut self,
        name: &str,
        labels: &[u32],
        label_map: &[u8],
        predicted: &PredictedImage,
    ) -> Result<ImageScores, MetricsError> {
        let predicted_labels: Vec<u32> = predicted.labels.iter().map(|&label| u32::from(label)).collect();
        let mut image = ConfusionMatrix::new(self.matrix.classes());
        image.add(labels, &predicted_labels)?;
        self.matrix.merge(&image)?;
        if let Some(colors) = &predicted.colors {
            self.compares_colors = true;
            self.agreement.add(label_map, colors)?;
        }
        self.images += 1;
        Ok(ImageScores { name: name.to_owned(), pixel_accuracy: image.pixel_accuracy(), mean_iou: image.mean_iou() })
    }

    /// The scores of all images so far.
    pub fn scores(&self, split: &str, classes: &ClassTable) -> Scores {
        let names = classes.classes().iter().map(|class| class.name.clone());
        let class_iou = names.zip(self.matrix.class_iou().into_iter().map(Into::into)).collect();
        let agreement = &self.agreement;
        Scores {
            split: split.to_owned(),
            images: self.images,
            pixels: self.matrix.pixels(),
            pixel_accuracy: self.matrix.pixel_accuracy(),
            class_accuracy: self.matrix.class_accuracy(),
            mean_iou: self.matrix.mean_iou(),
            frequency_weighted_iou: self.matrix.frequency_weighted_iou(),
            class_iou,
            rgb_agreement: self.compares_colors.then(|| RgbScores {
                argmax: agreement.argmax(),
                within_5: agreement.within_5(),
                within_10: agreement.within_10(),
                within_25: agreement.within_25(),
            }),
        }
    }
}
