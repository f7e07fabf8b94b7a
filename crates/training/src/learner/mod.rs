//! Networks and their optimisers, able to take one step.

mod adversarial;
mod adversarial_segmentation;
mod network;
mod pool;
mod segmentation;
mod variational;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use img2seg_data::{Batch, ClassTable};
use img2seg_ops::Gradients;

use crate::config::TaskConfig;
use crate::loss::Unread;
use crate::optimizer::Optimizer;
use crate::weights::Weights;
use crate::{Loss, RunConfig, TrainingError};

use pool::in_pool;

pub use adversarial::AdversarialLearner;
pub use adversarial_segmentation::AdversarialSegmentationLearner;
pub use segmentation::SegmentationLearner;
pub use variational::VariationalLearner;

/// Which step is taken, and how far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Counted over the whole run, from 1.
    pub number: u64,
    /// The schedule's factor on the learning rates.
    pub rate_factor: f64,
}

/// Networks and their optimisers, able to take one step.
///
/// Steps, evaluations and predictions happen on a thread of rayon's pool, whoever asks for them.
pub trait Learner: Send + Sync {
    /// Learns from one batch and returns the losses before the step.
    ///
    /// # Errors
    /// [`TrainingError::NotFinite`] before what is not finite reaches a weight. It names the part of the step that failed; the parts
    /// before it are done.
    fn train_step(&mut self, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError>;

    /// Takes a step that failed once more, from the part that failed on.
    ///
    /// # Errors
    /// Those of [`Learner::train_step`], and a part that the learner does not have.
    fn train_step_from(&mut self, part: &str, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError>;

    /// Predicts a batch in evaluation mode, without gradients, and returns the losses beside the prediction.
    fn evaluate(&self, batch: &Batch) -> Result<(Prediction, Vec<Loss>), TrainingError>;

    /// Predicts label maps from photos (n, 3, h, w) in [-1, 1], in evaluation mode.
    fn predict(&self, photos: &Tensor) -> Result<Prediction, TrainingError>;

    /// The parameters and running statistics of the networks, by their PyTorch names, and their averages.
    fn weights(&self) -> &Weights;

    /// What resuming needs beside the weights, by name.
    fn optimizer_state(&self) -> Result<BTreeMap<String, Tensor>, TrainingError>;

    /// Takes back what [`Learner::optimizer_state`] gave.
    fn load_optimizer_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainingError>;

    /// How unsure a prediction is, pixel by pixel: (n, h, w) in [0, 1]; none of a learner that has a single answer.
    fn uncertainty(&self, _photos: &Tensor) -> Result<Option<Tensor>, TrainingError> {
        Ok(None)
    }

    /// What the sides of photos must be multiples of.
    fn side_multiple(&self) -> usize;

    /// The networks and how many trainable numbers each has.
    fn networks(&self) -> Vec<(&'static str, usize)>;
}

/// Builds the learner that a recipe asks for, with the weights that its seed draws.
///
/// # Errors
/// When the network cannot take images of the recipe's size; the message names the sizes it can.
pub fn build(config: &RunConfig, classes: &ClassTable, device: &Device) -> Result<Box<dyn Learner>, TrainingError> {
    Ok(match &config.task {
        TaskConfig::Segmentation(task) => Box::new(SegmentationLearner::new(task, config, classes, device)?),
        TaskConfig::Adversarial(task) => Box::new(AdversarialLearner::new(task, config, classes, device)?),
        TaskConfig::AdversarialSegmentation(task) => {
            Box::new(AdversarialSegmentationLearner::new(task, config, classes, device)?)
        }
        TaskConfig::Variational(task) => Box::new(VariationalLearner::new(task, config, classes, device)?),
    })
}

/// Moves the parameters of a part of a step, and reads its losses. Of a device it waits once, for both and the gradients' norms.
///
/// # Errors
/// [`TrainingError::NotFinite`] of the part with the first loss or gradient that is not finite; nothing moves then.
fn move_parameters(
    part: &'static str,
    optimizer: &mut Optimizer,
    gradients: &Gradients,
    losses: Unread,
    step: Step,
) -> Result<Vec<Loss>, TrainingError> {
    let norms = optimizer.squared_norms(gradients)?;
    let losses = losses.read()?;
    check_finite(part, &losses)?;
    optimizer.step_with(part, gradients, &norms, step.rate_factor)?;
    Ok(losses)
}

/// Refuses losses that are not finite.
fn check_finite(part: &'static str, losses: &[Loss]) -> Result<(), TrainingError> {
    match losses.iter().find(|loss| !loss.value.is_finite()) {
        None => Ok(()),
        Some(loss) => Err(TrainingError::NotFinite { part, tensor: format!("the loss {}", loss.name) }),
    }
}

/// Labels (n, h, w) as maps (n, classes, h, w): 1 at the label and 0 elsewhere, void nowhere.
fn one_hot(labels: &Tensor, classes: usize) -> candle_core::Result<Tensor> {
    let ids = Tensor::arange(0, classes as u32, labels.device())?.reshape((1, classes, 1, 1))?;
    labels.unsqueeze(1)?.broadcast_eq(&ids)?.to_dtype(DType::F32)
}

/// The mean of several predictions, probabilities or colours, of one shape.
pub(crate) fn mean_of(predictions: &[Tensor]) -> candle_core::Result<Tensor> {
    let Some((first, others)) = predictions.split_first() else { candle_core::bail!("a mean of no predictions") };
    others.iter().try_fold(first.clone(), |sum, prediction| sum + prediction)? / predictions.len() as f64
}

/// Logits that give these probabilities back. What underflowed to 0 is no likelier than the smallest number.
pub(crate) fn logits_of(probabilities: &Tensor) -> candle_core::Result<Tensor> {
    probabilities.maximum(f32::MIN_POSITIVE)?.log()
}

fn no_such_part(part: &str) -> TrainingError {
    candle_core::Error::Msg(format!("{part}: the learner's step has no such part")).into()
}

/// What a network says of a batch.
#[derive(Debug, Clone)]
pub enum Prediction {
    /// Class logits (n, classes, h, w).
    Logits(Tensor),
    /// Colours (n, 3, h, w), 1 being 255 and -1 being 0; a network without a bounded output may go beyond.
    Colors(Tensor),
}

/// The prediction for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedImage {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// The evaluated class of each pixel, row by row; never void.
    pub labels: Vec<u8>,
    /// For a network that gives colours: the red, the green and the blue plane, 0 to 255 (unclipped).
    pub colors: Option<Vec<f32>>,
    /// For a network that gives logits, where they were asked for: the largest softmax probability of each pixel.
    pub confidence: Option<Vec<f32>>,
}

impl Prediction {
    /// Decodes each image to evaluated classes: the largest logit, or the class of the nearest colour.
    pub fn decode(&self, classes: &ClassTable) -> Result<Vec<PredictedImage>, TrainingError> {
        let (Self::Logits(tensor) | Self::Colors(tensor)) = self;
        let (_, channels, height, width) = tensor.dims4()?;
        let pixels = height * width;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let decode = |image: &[f32]| match self {
            Self::Logits(_) => {
                PredictedImage { height, width, labels: argmax_planes(image, pixels), colors: None, confidence: None }
            }
            Self::Colors(_) => {
                let colors: Vec<f32> = image.iter().map(|value| (value + 1.0) * 127.5).collect();
                let labels = classes.decode_evaluated_image(&image_of_planes(&colors, height, width));
                PredictedImage { height, width, labels, colors: Some(colors), confidence: None }
            }
        };
        Ok(values.chunks_exact(channels * pixels).map(decode).collect())
    }

    /// Gives the images that [`Prediction::decode`] made of logits their confidences: an exponential a class and pixel, which is
    /// left out where nobody asks. Colours have none.
    pub fn add_confidences(&self, images: &mut [PredictedImage]) -> Result<(), TrainingError> {
        let Self::Logits(logits) = self else { return Ok(()) };
        let (_, channels, height, width) = logits.dims4()?;
        let pixels = height * width;
        let values = logits.flatten_all()?.to_vec1::<f32>()?;
        for (image, planes) in images.iter_mut().zip(values.chunks_exact(channels * pixels)) {
            image.confidence = Some(largest_probabilities(planes, pixels));
        }
        Ok(())
    }
}

impl PredictedImage {
    /// Bands of one image, from the top to the bottom and all as wide, as one.
    pub(crate) fn below_each_other(bands: impl IntoIterator<Item = Self>) -> Self {
        let bands: Vec<Self> = bands.into_iter().collect();
        let height = bands.iter().map(|band| band.height).sum();
        let width = bands.first().map_or(0, |band| band.width);
        let labels = bands.iter().flat_map(|band| band.labels.iter().copied()).collect();
        let colors: Option<Vec<&[f32]>> = bands.iter().map(|band| band.colors.as_deref()).collect();
        let colors = colors.map(|bands| {
            let plane = |plane| {
                bands.iter().flat_map(move |band| band.chunks(band.len().div_ceil(3)).nth(plane).unwrap_or(&[]))
            };
            (0..3).flat_map(plane).copied().collect()
        });
        let confidence: Option<Vec<&[f32]>> = bands.iter().map(|band| band.confidence.as_deref()).collect();
        Self { height, width, labels, colors, confidence: confidence.map(|bands| bands.concat()) }
    }

    /// The prediction as a picture: its own colours, or those of its classes.
    pub fn to_image(&self, classes: &ClassTable) -> RgbImage {
        match &self.colors {
            Some(colors) => image_of_planes(colors, self.height, self.width),
            None => RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
                image::Rgb(classes.color_of(self.labels[y as usize * self.width + x as usize]))
            }),
        }
    }
}

/// Three planes of colour, 0 to 255 and clipped to that, as an image.
pub(crate) fn image_of_planes(planes: &[f32], height: usize, width: usize) -> RgbImage {
    let pixels = height * width;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let pixel = y as usize * width + x as usize;
        // The conversion of a float to u8 clips.
        image::Rgb([0, 1, 2].map(|plane| planes[plane * pixels + pixel].round() as u8))
    })
}

/// The plane with the largest value at each pixel; the first of equals.
fn argmax_planes(planes: &[f32], pixels: usize) -> Vec<u8> {
    let mut labels = vec![0_u8; pixels];
    let mut largest = planes[..pixels].to_vec();
    for (class, plane) in planes.chunks_exact(pixels).enumerate().skip(1) {
        for ((label, largest), &value) in labels.iter_mut().zip(&mut largest).zip(plane) {
            if value > *largest {
                *largest = value;
                *label = class as u8;
            }
        }
    }
    labels
}

/// The largest softmax probability of each pixel: 1 over the sum of e^(logit - largest logit), in 0..=1 also for logits that are not finite.
fn largest_probabilities(planes: &[f32], pixels: usize) -> Vec<f32> {
    let mut largest = planes[..pixels].to_vec();
    for plane in planes.chunks_exact(pixels).skip(1) {
        largest.iter_mut().zip(plane).for_each(|(largest, &value)| *largest = largest.max(value));
    }
    let mut sums = vec![0.0_f32; pixels];
    for plane in planes.chunks_exact(pixels) {
        for ((sum, &value), &largest) in sums.iter_mut().zip(plane).zip(&largest) {
            *sum += (value - largest).exp();
        }
    }
    // The largest itself adds 1: a sum below that is no number's.
    sums.iter().map(|&sum| if sum >= 1.0 { 1.0 / sum } else { 0.0 }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn recipe(name: &str, settings: &[&str]) -> RunConfig {
        let path = format!("{}/../../data/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        RunConfig::from_toml(&std::fs::read_to_string(path).unwrap(), name, &settings).unwrap()
    }

    pub(crate) fn smoke() -> RunConfig {
        recipe("smoke-unet", &[])
    }

    pub(crate) fn four_classes() -> ClassTable {
        let entry = |i: i32| format!("[[class]]\nname = \"{i}\"\ncolor = [{}, 0, {}]\n", 60 * i, 255 - 60 * i);
        ClassTable::from_toml(&format!("name = \"four\"\n{}", (0..4).map(entry).collect::<String>()), "four").unwrap()
    }

    /// Two samples of four classes.
    pub(crate) fn batch(height: usize, width: usize) -> Batch {
        let waves = |phase: f32| {
            let values = (0..2 * 3 * height * width).map(|i| (i as f32 + phase).sin());
            Tensor::from_iter(values, &Device::Cpu).unwrap().reshape((2, 3, height, width)).unwrap()
        };
        let labels: Vec<u32> = (0..2 * height * width).map(|i| (i / 7 % 4) as u32).collect();
        Batch {
            names: vec!["a".into(), "b".into()],
            photos: waves(0.0),
            label_maps: waves(0.5),
            labels: Tensor::from_vec(labels, (2, height, width), &Device::Cpu).unwrap(),
        }
    }

    /// What predicts are other networks than what learns, of the same parameters.
    #[test]
    fn predictions_follow_training_and_keep_no_graph() {
        for name in ["smoke-unet", "smoke-cgan", "pixelwise", "smoke-adversarial", "smoke-cvae"] {
            let config = recipe(name, &["data.height=64", "data.width=64"]);
            let classes = ClassTable::load(&config.data.classes).unwrap();
            let mut learner = build(&config, &classes, &Device::Cpu).unwrap();
            let batch = batch(64, 64);
            let predicted = |learner: &dyn Learner| {
                let (Prediction::Logits(output) | Prediction::Colors(output)) = learner.predict(&batch.photos).unwrap();
                assert!(!output.track_op(), "{name}");
                output.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let before = predicted(learner.as_ref());
            learner.train_step(&batch, Step { number: 1, rate_factor: 1.0 }).unwrap();
            let after = predicted(learner.as_ref());
            assert!(before != after, "{name}");
            let weights = learner.weights().tensors();
            let other = build(&config, &classes, &Device::Cpu).unwrap();
            other.weights().load(&weights).unwrap();
            other.weights().load_averages(&learner.weights().averages()).unwrap();
            assert!(predicted(other.as_ref()) == after, "{name}");
        }
    }

    #[test]
    fn confidences_are_the_largest_probabilities() {
        // Two pixels, three classes: torch.softmax of [1, 2, 3] and of [1000, 0, 0].
        let logits = Tensor::from_vec(vec![1.0_f32, 1000.0, 2.0, 0.0, 3.0, 0.0], (1, 3, 1, 2), &Device::Cpu).unwrap();
        let classes = ClassTable::load("camvid").unwrap();
        let prediction = Prediction::Logits(logits.clone());
        let mut images = prediction.decode(&classes).unwrap();
        assert_eq!(images[0].confidence, None);
        prediction.add_confidences(&mut images).unwrap();
        let confidence = images[0].confidence.clone().unwrap();
        assert!((confidence[0] - 0.665_240_94).abs() < 1e-6 && (confidence[1] - 1.0).abs() < 1e-6, "{confidence:?}");
        let prediction = Prediction::Colors(logits);
        let mut images = prediction.decode(&classes).unwrap();
        prediction.add_confidences(&mut images).unwrap();
        assert_eq!(images[0].confidence, None);
        for broken in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            assert!((0.0..=1.0).contains(&largest_probabilities(&broken, 1)[0]), "{broken:?}");
        }
    }

    #[test]
    fn the_first_of_equal_logits_wins() {
        let planes = [1.0, 5.0, 0.0, 1.0, 6.0, -1.0, 0.5, 6.0, f32::NAN];
        assert_eq!(argmax_planes(&planes, 3), [0, 1, 0]);
    }
}
