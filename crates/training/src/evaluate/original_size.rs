//! Scoring predictions where the labels are: at the size that the files have.

use std::ops::ControlFlow;
use std::time::Instant;

use img2seg_data::Dataset;

use super::{Evaluation, Picture, evenly_spread};
use crate::TrainingError;
use crate::predict::Predictor;
use crate::scores::ScoreKeeper;

/// Scores every image of a data set at its own size, one after another: the labels are those of the file, and predictions are
/// brought to their size. Otherwise as [`evaluate`](super::evaluate()), without losses.
pub fn evaluate_at_original_size(
    predictor: &Predictor,
    dataset: &Dataset,
    split: &str,
    pictures: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Evaluation>, TrainingError> {
    let kept = evenly_spread(dataset.len(), pictures);
    let mut keeper = ScoreKeeper::new(predictor.classes().len(), true);
    let mut images = Vec::with_capacity(dataset.len());
    let mut kept_pictures = Vec::with_capacity(kept.len());
    let mut prediction_seconds = 0.0;
    for index in 0..dataset.len() {
        let sample = dataset.sample(index)?;
        let started = Instant::now();
        let predicted = predictor.predict(&sample.photo)?;
        prediction_seconds += started.elapsed().as_secs_f64();
        let labels: Vec<u32> = sample.labels.iter().map(|&label| u32::from(label)).collect();
        let pixels = sample.label_map.pixels();
        let label_map: Vec<u8> = (0..3).flat_map(|plane| pixels.clone().map(move |pixel| pixel[plane])).collect();
        let scores = keeper.add(&sample.name, &labels, &label_map, &predicted).map_err(candle_core::Error::wrap)?;
        if kept.binary_search(&index).is_ok() {
            let (photo, label_map, labels) = (sample.photo, sample.label_map, sample.labels);
            kept_pictures.push(Picture {
                scores: scores.clone(),
                photo,
                label_map,
                labels,
                predicted,
                uncertainty: None,
            });
        }
        images.push(scores);
        if progress(images.len()).is_break() {
            return Ok(None);
        }
    }
    let scores = keeper.scores(split, predictor.classes());
    Ok(Some(Evaluation { scores, losses: Vec::new(), images, pictures: kept_pictures, prediction_seconds }))
}
