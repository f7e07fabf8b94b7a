//! The scores of a split, as they are printed and filed.

use img2seg_data::ClassTable;
use img2seg_metrics::{BoundaryF1, Calibration, ConfusionMatrix, MetricsError, RgbAgreement};
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
    /// What is worked out when a run is evaluated and not after every epoch of training.
    #[serde(flatten)]
    pub details: Option<Details>,
}

/// The scores that take time or room; `docs/scores.md` says what each is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Mean over images of how well predicted boundaries follow labelled ones.
    pub boundary_f1: Option<f64>,
    /// The same by class name; null for a class without a boundary in truth and prediction.
    pub class_boundary_f1: serde_json::Map<String, serde_json::Value>,
    /// Share of the pixels predicted as a class that are it, by class name; null for a class that is never predicted.
    pub class_precision: serde_json::Map<String, serde_json::Value>,
    /// Share of a class's pixels that are predicted as it, by class name; null for a class that does not occur.
    pub class_recall: serde_json::Map<String, serde_json::Value>,
    /// Whether the network is right as often as it is sure; null for a network that gives colours.
    pub calibration: Option<CalibrationScores>,
    /// Pixels by true class and predicted class, a row a true class, in the order of the class table.
    pub confusion: Vec<Vec<u64>>,
}

/// Whether a network is right as often as it is sure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationScores {
    /// The expected calibration error.
    pub expected_error: Option<f64>,
    /// Pixels by their confidence: equal parts of 0..=1, the least confident first.
    pub bins: Vec<ReliabilityBin>,
}

/// The pixels of one bin of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// How many there are.
    pub pixels: u64,
    /// Their mean confidence; null for none.
    pub confidence: Option<f64>,
    /// The share of them that is right; null for none.
    pub accuracy: Option<f64>,
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
    /// What [`Details`] are for a split.
    #[serde(flatten)]
    pub details: Option<ImageDetails>,
}

/// What is worked out of one image when a run is evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageDetails {
    /// As in [`Details`], of this image.
    pub boundary_f1: Option<f64>,
    /// Pixels as `[true class, predicted class, count]`, pairs without pixels left out. All images' make [`Details::confusion`].
    pub confusion: Vec<[u64; 3]>,
}

/// Counts image after image.
#[derive(Debug)]
pub struct ScoreKeeper {
    matrix: ConfusionMatrix,
    agreement: RgbAgreement,
    compares_colors: bool,
    images: u64,
    details: Option<DetailKeeper>,
}

#[derive(Debug)]
struct DetailKeeper {
    boundaries: BoundaryF1,
    calibration: Calibration,
    has_confidence: bool,
}

impl ScoreKeeper {
    /// Nothing counted yet; with [`Details`] or without.
    pub fn new(classes: usize, details: bool) -> Self {
        Self {
            matrix: ConfusionMatrix::new(classes),
            agreement: RgbAgreement::default(),
            compares_colors: false,
            images: 0,
            details: details.then(|| DetailKeeper {
                boundaries: BoundaryF1::new(classes),
                calibration: Calibration::default(),
                has_confidence: false,
            }),
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
        let mut details = None;
        if let Some(keeper) = &mut self.details {
            if let Some(confidence) = &predicted.confidence {
                keeper.has_confidence = true;
                keeper.calibration.add(labels, &predicted_labels, confidence)?;
            }
            let tolerance = boundary_tolerance(predicted.height, predicted.width);
            let boundary_f1 = keeper.boundaries.add(labels, &predicted_labels, predicted.width, tolerance)?;
            details = Some(ImageDetails { boundary_f1, confusion: image.sparse() });
        }
        self.images += 1;
        let (pixel_accuracy, mean_iou) = (image.pixel_accuracy(), image.mean_iou());
        Ok(ImageScores { name: name.to_owned(), pixel_accuracy, mean_iou, details })
    }

    /// The scores of all images so far.
    pub fn scores(&self, split: &str, classes: &ClassTable) -> Scores {
        let agreement = &self.agreement;
        Scores {
            split: split.to_owned(),
            images: self.images,
            pixels: self.matrix.pixels(),
            pixel_accuracy: self.matrix.pixel_accuracy(),
            class_accuracy: self.matrix.class_accuracy(),
            mean_iou: self.matrix.mean_iou(),
            frequency_weighted_iou: self.matrix.frequency_weighted_iou(),
            class_iou: by_name(classes, self.matrix.class_iou()),
            rgb_agreement: self.compares_colors.then(|| RgbScores {
                argmax: agreement.argmax(),
                within_5: agreement.within_5(),
                within_10: agreement.within_10(),
                within_25: agreement.within_25(),
            }),
            details: self.details.as_ref().map(|keeper| self.details_of(keeper, classes)),
        }
    }

    fn details_of(&self, keeper: &DetailKeeper, classes: &ClassTable) -> Details {
        let matrix = &self.matrix;
        let calibration = &keeper.calibration;
        let bins = calibration.bins().map(|bin| ReliabilityBin {
            pixels: bin.pixels,
            confidence: bin.confidence,
            accuracy: bin.accuracy,
        });
        let row = |truth: usize| (0..matrix.classes()).map(|predicted| matrix.count(truth, predicted)).collect();
        Details {
            boundary_f1: keeper.boundaries.mean(),
            class_boundary_f1: by_name(classes, keeper.boundaries.per_class()),
            class_precision: by_name(classes, matrix.per_class_precision()),
            class_recall: by_name(classes, matrix.per_class_accuracy()),
            calibration: keeper
                .has_confidence
                .then(|| CalibrationScores { expected_error: calibration.expected_error(), bins: bins.to_vec() }),
            confusion: (0..matrix.classes()).map(row).collect(),
        }
    }
}

fn by_name(classes: &ClassTable, values: Vec<Option<f64>>) -> serde_json::Map<String, serde_json::Value> {
    let names = classes.classes().iter().map(|class| class.name.clone());
    names.zip(values.into_iter().map(Into::into)).collect()
}

/// How far apart boundary pixels may lie that still match: 0.75 % of the image's diagonal, as Csurka, Larlus and Perronnin (2013) have it,
/// in whole pixels and at least 1.
pub fn boundary_tolerance(height: usize, width: usize) -> usize {
    let diagonal = ((height * height + width * width) as f64).sqrt();
    ((0.0075 * diagonal).round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> ClassTable {
        ClassTable::load("camvid").unwrap()
    }

    /// Two rows of six: class 0 left of class 1, the edge predicted one column too far right; the last pixel is void.
    fn keeper(details: bool, confidence: Option<Vec<f32>>) -> (ScoreKeeper, ImageScores) {
        let mut keeper = ScoreKeeper::new(classes().len(), details);
        let labels = [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 255];
        let predicted =
            PredictedImage { height: 2, width: 6, labels: [0, 0, 0, 0, 1, 1].repeat(2), colors: None, confidence };
        let image = keeper.add("a", &labels, &[0; 36], &predicted).unwrap();
        (keeper, image)
    }

    #[test]
    fn details_are_worked_out_where_they_are_asked_for() {
        let (plain, image) = keeper(false, None);
        let scores = plain.scores("val", &classes());
        assert_eq!((&scores.details, &image.details), (&None, &None));
        let text = serde_json::to_string(&scores).unwrap();
        assert!(text.ends_with("\"rgb_agreement\":null}"), "{text}");

        let (detailed, image) = keeper(true, Some(vec![0.5; 12]));
        let details = detailed.scores("val", &classes()).details.unwrap();
        // The edge is one pixel off, which is as far as it may be.
        assert_eq!((details.boundary_f1, details.class_boundary_f1["Sky"].as_f64()), (Some(1.0), Some(1.0)));
        assert_eq!(
            (details.class_precision["Sky"].as_f64(), details.class_recall["Sky"].as_f64()),
            (Some(0.75), Some(1.0))
        );
        assert_eq!((&details.confusion[0][..2], &details.confusion[1][..2]), (&[6, 0][..], &[2, 3][..]));
        assert_eq!(image.details.unwrap().confusion, [[0, 0, 6], [1, 0, 2], [1, 1, 3]]);
        let calibration = details.calibration.unwrap();
        assert!((calibration.expected_error.unwrap() - (9.0 / 11.0 - 0.5)).abs() < 1e-12);
        assert_eq!((calibration.bins.len(), calibration.bins[7].pixels), (15, 11));
        assert_eq!(keeper(true, None).0.scores("val", &classes()).details.unwrap().calibration, None);
    }

    #[test]
    fn files_read_back_as_they_were() {
        for details in [false, true] {
            let (keeper, image) = keeper(details, None);
            let scores = keeper.scores("val", &classes());
            let text = serde_json::to_string(&scores).unwrap();
            assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
            let text = serde_json::to_string(&image).unwrap();
            assert_eq!(serde_json::from_str::<ImageScores>(&text).unwrap(), image);
        }
    }

    #[test]
    fn tolerances_follow_the_diagonal() {
        assert_eq!(
            [(64, 64), (256, 256), (360, 480), (1024, 2048)].map(|(h, w)| boundary_tolerance(h, w)),
            [1, 3, 5, 17]
        );
    }
}
