//! What a run writes down, as its files spell it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// How well a split was labelled. All values are fractions; `None` where nothing defines them (no pixel with a label, a class that is absent).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Scores {
    /// The split: train, val or test.
    pub split: String,
    /// How many images were scored.
    pub images: u64,
    /// How many pixels were scored: void is not among them.
    pub pixels: u64,
    /// The share of pixels whose class is right.
    #[serde(deserialize_with = "Option::deserialize")]
    pub pixel_accuracy: Option<f64>,
    /// The mean over the classes present of the share of their pixels that is right.
    #[serde(deserialize_with = "Option::deserialize")]
    pub class_accuracy: Option<f64>,
    /// The mean over classes of intersection over union.
    #[serde(deserialize_with = "Option::deserialize")]
    pub mean_iou: Option<f64>,
    /// The mean of intersection over union, weighted by each class's share of pixels.
    #[serde(deserialize_with = "Option::deserialize")]
    pub frequency_weighted_iou: Option<f64>,
    /// Intersection over union by class name; `None` for a class in neither truth nor prediction.
    pub class_iou: BTreeMap<String, Option<f64>>,
    /// How far raw colours agree; `None` for a network that predicts classes.
    #[serde(deserialize_with = "Option::deserialize")]
    pub rgb_agreement: Option<ColorAgreement>,
    /// The mean over images of how well boundaries are followed. This and what follows is there where the run was evaluated.
    #[serde(default)]
    pub boundary_f1: Option<f64>,
    /// The same by class name.
    #[serde(default)]
    pub class_boundary_f1: BTreeMap<String, Option<f64>>,
    /// The share of the pixels predicted as a class that are it.
    #[serde(default)]
    pub class_precision: BTreeMap<String, Option<f64>>,
    /// The share of a class's pixels that are predicted as it.
    #[serde(default)]
    pub class_recall: BTreeMap<String, Option<f64>>,
    /// How often a network is right when it is so and so sure; `None` for a network that gives colours.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Pixels by true class and predicted class, a row a true class, in the order of the class table; no rows where it was not filed.
    #[serde(default)]
    pub confusion: Vec<Vec<u64>>,
}

/// Whether a network is right as often as it is sure.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Calibration {
    /// The expected calibration error, a fraction.
    pub expected_error: Option<f64>,
    /// Pixels by their confidence: equal parts of 0..=1, the least confident first.
    pub bins: Vec<ReliabilityBin>,
}

/// The pixels of one bin of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct ReliabilityBin {
    /// How many there are.
    pub pixels: u64,
    /// Their mean confidence.
    pub confidence: Option<f64>,
    /// The share of them that is right.
    pub accuracy: Option<f64>,
}

/// Readings of "pixel accuracy" on colours, as fractions of all pixels, void among them.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct ColorAgreement {
    /// Pixels whose strongest channel is the right one.
    pub argmax: Option<f64>,
    /// Pixels whose three channels all lie within 5 of 255.
    pub within_5: Option<f64>,
    /// Pixels whose three channels all lie within 10 of 255.
    pub within_10: Option<f64>,
    /// Pixels whose three channels all lie within 25 of 255.
    pub within_25: Option<f64>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    /// Steps taken by the end of this epoch.
    pub step: u64,
    /// The learning rate of its last step.
    pub learning_rate: Option<f64>,
    /// Mean losses of the epoch.
    pub losses: MeanLosses,
    /// Scores on the train split, where they were taken.
    pub train: Option<Scores>,
    /// Scores on the val split, where they were taken.
    pub val: Option<Scores>,
}

/// Mean losses of an epoch by name; `None` for one that is not finite.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct MeanLosses {
    /// Over the steps of the epoch.
    #[serde(default)]
    pub train: BTreeMap<String, Option<f64>>,
    /// Over the val split at the end of the epoch; none where it was not scored, or only by averages of several looks.
    #[serde(default, deserialize_with = "none_if_null")]
    pub val: BTreeMap<String, Option<f64>>,
}

fn none_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Option<f64>>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A line of `times.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct EpochTime {
    /// From 1.
    pub epoch: u64,
    /// Seconds spent on training steps.
    pub train_seconds: f64,
    /// Seconds spent on scores.
    pub evaluation_seconds: f64,
    /// Training images per second.
    pub images_per_second: Option<f64>,
}

/// `manifest.json`: what ran, on what. Empty for a run that has not written it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// Every entry in the order of the file.
    pub entries: Map<String, Value>,
}

impl Manifest {
    /// The text at a path of keys, such as `["data", "digest"]`.
    pub fn text(&self, path: &[&str]) -> Option<&str> {
        self.value(path)?.as_str()
    }

    /// Trainable parameters by network, in the order of the file.
    pub fn parameters(&self) -> Vec<(&str, u64)> {
        let networks = self.value(&["parameters"]).and_then(Value::as_object);
        networks.into_iter().flatten().filter_map(|(name, count)| Some((name.as_str(), count.as_u64()?))).collect()
    }

    /// All entries with their dotted keys and their texts, nested tables flattened.
    pub fn flattened(&self) -> Vec<(String, String)> {
        let mut flat = Vec::new();
        flatten("", &self.entries, &mut flat);
        flat
    }

    fn value(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.entries.get(*first)?, |value, key| value.get(key))
    }
}

fn flatten(prefix: &str, table: &Map<String, Value>, flat: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => flatten(&format!("{key}."), inner, flat),
            Value::String(text) => flat.push((key, text.clone())),
            Value::Null => flat.push((key, "none".to_owned())),
            other => flat.push((key, other.to_string())),
        }
    }
}

/// `evaluation/SPLIT/scores.json`: the scores of a whole split with one checkpoint.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evaluation {
    /// The scores.
    #[serde(flatten)]
    pub scores: Scores,
    /// The checkpoint: best or last.
    pub checkpoint: String,
    /// The epoch after which that checkpoint was written.
    pub epoch: u64,
    /// How long the evaluation took.
    pub seconds: Option<f64>,
    /// How long the network took for one image.
    pub seconds_per_image: Option<f64>,
    /// Its directory.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The score of every image, in the order of the split.
    #[serde(skip)]
    pub images: Vec<ImageScore>,
    /// The images that were kept as pictures, in the order of their directories' names.
    #[serde(skip)]
    pub pictures: Vec<Picture>,
}

/// A line of `images.jsonl`: the scores of one image, as fractions.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ImageScore {
    /// The sample's name.
    pub name: String,
    /// `None` for an image that is all void.
    #[serde(deserialize_with = "Option::deserialize")]
    pub pixel_accuracy: Option<f64>,
    /// `None` for an image that is all void.
    #[serde(deserialize_with = "Option::deserialize")]
    pub mean_iou: Option<f64>,
    /// `None` for an image without a boundary, and where it was not filed.
    #[serde(default)]
    pub boundary_f1: Option<f64>,
    /// Pixels as `[true class, predicted class, count]`; `None` where they were not filed.
    #[serde(default, skip_serializing)]
    pub confusion: Option<Vec<[u64; 3]>>,
}

/// An image of a split with its truth and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its name and its scores.
    pub score: ImageScore,
    /// Where `photo.png`, `truth.png`, `prediction.png`, `truth-labels.png` and `prediction-labels.png` lie.
    pub dir: std::path::PathBuf,
}
