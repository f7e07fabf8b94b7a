//! Scoring a learner on a split.

mod original_size;

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::{Device, Tensor};
use image::RgbImage;
use img2seg_data::{Batch, ClassTable, Loader};

use crate::TrainingError;
use crate::learner::{Learner, PredictedImage, image_of_planes};
use crate::loss::LossMeans;
use crate::predict::TestTimeAugmentation;
use crate::scores::{ImageScores, ScoreKeeper, Scores};

pub use original_size::evaluate_at_original_size;

/// What scoring a split found.
#[derive(Debug)]
pub struct Evaluation {
    /// The split's scores.
    pub scores: Scores,
    /// The mean of each loss over the batches.
    pub losses: Vec<(String, f64)>,
    /// Each image's scores, in file order.
    pub images: Vec<ImageScores>,
    /// The images that were to be kept.
    pub pictures: Vec<Picture>,
    /// Seconds from photos to decoded predictions, loading and scoring left out.
    pub prediction_seconds: f64,
}

/// An image beside its truth and its prediction.
#[derive(Debug)]
pub struct Picture {
    /// The image's own scores.
    pub scores: ImageScores,
    /// As the network saw it.
    pub photo: RgbImage,
    /// The true label map's colours.
    pub label_map: RgbImage,
    /// The true labels, 255 for void.
    pub labels: Vec<u8>,
    /// What the network made of it.
    pub predicted: PredictedImage,
    /// How unsure it was of each pixel, 0 to 1, where it can say that.
    pub uncertainty: Option<Vec<f32>>,
}

/// What is asked of a scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scoring<'a> {
    /// The split's name.
    pub split: &'a str,
    /// How many looks at each photo are averaged. Losses are told of a single look alone.
    pub tta: TestTimeAugmentation,
    /// Pictures that are kept, evenly spread over the split.
    pub pictures: usize,
    /// Whether boundaries and confidences are scored too, which training can do without.
    pub details: bool,
}

/// Scores every image that the loader gives, in evaluation mode and without gradients.
///
/// `progress` is told the number of images done; where it says to break, there is no evaluation.
pub fn evaluate(
    learner: &dyn Learner,
    loader: &Loader,
    classes: &ClassTable,
    device: &Device,
    scoring: Scoring,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Evaluation>, TrainingError> {
    let total = loader.dataset().len();
    let kept = evenly_spread(total, scoring.pictures);
    let mut keeper = ScoreKeeper::new(classes.len(), scoring.details);
    let mut means = LossMeans::default();
    let mut evaluation_images = Vec::with_capacity(total);
    let mut evaluation_pictures = Vec::with_capacity(kept.len());
    let mut prediction_seconds = 0.0;
    for batch in loader.eval_batches() {
        let batch = batch?;
        let started = Instant::now();
        let on_device = batch.to_device(device)?;
        let (prediction, losses) = match scoring.tta {
            TestTimeAugmentation::None => learner.evaluate(&on_device)?,
            tta => (tta.predict(learner, &on_device.photos)?, Vec::new()),
        };
        let mut predicted = prediction.decode(classes)?;
        prediction_seconds += started.elapsed().as_secs_f64();
        if scoring.details {
            prediction.add_confidences(&mut predicted)?;
        }
        means.add(losses.iter().map(|loss| (loss.name, loss.value)));
        for (position, predicted) in predicted.into_iter().enumerate() {
            let truth = Truth::of(&batch, position)?;
            let name = &batch.names[position];
            let scores =
                keeper.add(name, &truth.labels, &truth.label_map, &predicted).map_err(candle_core::Error::wrap)?;
            if kept.binary_search(&evaluation_images.len()).is_ok() {
                let uncertainty = learner.uncertainty(&on_device.photos.narrow(0, position, 1)?)?;
                let mut picture = picture(&batch, position, &truth, &scores, predicted)?;
                picture.uncertainty = uncertainty.map(|map| map.flatten_all()?.to_vec1()).transpose()?;
                evaluation_pictures.push(picture);
            }
            evaluation_images.push(scores);
        }
        if progress(evaluation_images.len()).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(Evaluation {
        scores: keeper.scores(scoring.split, classes),
        losses: means.means(),
        images: evaluation_images,
        pictures: evaluation_pictures,
        prediction_seconds,
    }))
}

/// `count` indices below `total`, evenly spread and ascending; all of them when there are fewer.
pub fn evenly_spread(total: usize, count: usize) -> Vec<usize> {
    let count = count.min(total);
    (0..count).map(|place| (2 * place + 1) * total / (2 * count)).collect()
}

/// The true labels and colours of one image of a batch.
struct Truth {
    labels: Vec<u32>,
    /// Plane by plane, 0 to 255.
    label_map: Vec<u8>,
}

impl Truth {
    fn of(batch: &Batch, position: usize) -> candle_core::Result<Self> {
        let labels = batch.labels.get(position)?.flatten_all()?.to_vec1::<u32>()?;
        let colors = colors(&batch.label_maps.get(position)?)?;
        Ok(Self { labels, label_map: colors.iter().map(|color| color.round() as u8).collect() })
    }
}

/// Colours in [-1, 1] as 0 to 255, plane by plane.
fn colors(image: &Tensor) -> candle_core::Result<Vec<f32>> {
    Ok(image.flatten_all()?.to_vec1::<f32>()?.iter().map(|value| (value + 1.0) * 127.5).collect())
}

fn picture(
    batch: &Batch,
    position: usize,
    truth: &Truth,
    scores: &ImageScores,
    predicted: PredictedImage,
) -> candle_core::Result<Picture> {
    let image = |image: Tensor| -> candle_core::Result<RgbImage> {
        Ok(image_of_planes(&colors(&image)?, predicted.height, predicted.width))
    };
    Ok(Picture {
        scores: scores.clone(),
        photo: image(batch.photos.get(position)?)?,
        label_map: image(batch.label_maps.get(position)?)?,
        labels: truth.labels.iter().map(|&label| label as u8).collect(),
        predicted,
        uncertainty: None,
    })
}

#[cfg(test)]
mod tests {
    use super::evenly_spread;

    #[test]
    fn spread_indices_ascend_without_repeats() {
        assert_eq!(evenly_spread(10, 5), [1, 3, 5, 7, 9]);
        assert_eq!(evenly_spread(3, 12), [0, 1, 2]);
        assert!(evenly_spread(0, 12).is_empty());
        for (total, count) in [(101, 12), (7, 6), (500, 3)] {
            let spread = evenly_spread(total, count);
            assert_eq!(spread.len(), count);
            assert!(spread.windows(2).all(|pair| pair[0] < pair[1]) && spread[count - 1] < total);
        }
    }
}
