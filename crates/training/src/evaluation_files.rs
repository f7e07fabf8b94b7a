//! `evaluation/SPLIT/` of a run directory: the scores of a whole split, each image's, and a dozen pictures.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use image::GrayImage;
use img2seg_data::{ClassTable, Dataset, Loader, Split};
use serde_json::{Value, json};

use crate::checkpoint::{Progress, Which};
use crate::evaluate::{Evaluation, Picture, Scoring, evaluate, evaluate_at_original_size};
use crate::predict::{Inference, Predictor};
use crate::run_dir::{readable_by_all, sync_directory, unfinished_folder, write_whole};
use crate::{RunDir, TrainingError};

/// Pictures that an evaluation keeps for the report.
pub const PICTURES: usize = 12;

/// What of a run is scored, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluating {
    /// The split.
    pub split: Split,
    /// The checkpoint.
    pub which: Which,
    /// How predictions are made.
    pub inference: Inference,
    /// At the size of the files, instead of the size that the run was trained at. Tiles make it so, too.
    pub at_original_size: bool,
}

impl Evaluating {
    /// The best checkpoint, as the recipe has it.
    pub fn best(split: Split) -> Self {
        Self { split, which: Which::Best, inference: Inference::default(), at_original_size: false }
    }
}

/// Scores a checkpoint of a run on a split of the data below `root` and files the result. `progress` is told images done and all.
pub fn evaluate_run(
    run: &RunDir,
    root: &Path,
    asked: Evaluating,
    device: &Device,
    mut progress: impl FnMut(usize, usize),
) -> Result<Evaluation, TrainingError> {
    let config = run.config()?;
    let predictor = Predictor::open(run, asked.which, asked.inference, device)?;
    let classes = Arc::new(predictor.classes().clone());
    let dataset = Dataset::open(root, asked.split, &config.data, classes.clone())?;
    let total = dataset.len();
    let done = |images| {
        progress(images, total);
        ControlFlow::Continue(())
    };
    let split = asked.split.name();
    let at_original_size = asked.at_original_size || asked.inference.tiles;
    let evaluation = if at_original_size {
        evaluate_at_original_size(&predictor, &dataset, split, PICTURES, done)?
    } else {
        let loader = Loader::new(dataset, config.loader(), config.data.augment.clone(), config.seed)?;
        let scoring = Scoring { split, tta: predictor.tta(), pictures: PICTURES, details: true };
        evaluate(predictor.learner(), &loader, &classes, device, scoring, done)?
    };
    let evaluation = evaluation.ok_or_else(|| candle_core::Error::Msg("scoring was broken off".to_owned()))?;
    let how = json!({
        "tta": predictor.tta().to_string(),
        "tiles": asked.inference.tiles,
        "at_original_size": at_original_size,
    });
    write(run, asked, &how, predictor.progress(), &evaluation, &classes)?;
    Ok(evaluation)
}

/// Writes the directory beside the old one and puts it in its place.
fn write(
    run: &RunDir,
    Evaluating { split, which, .. }: Evaluating,
    how: &Value,
    trained: &Progress,
    evaluation: &Evaluation,
    classes: &ClassTable,
) -> Result<(), TrainingError> {
    let directory = run.file("evaluation");
    let in_directory = || TrainingError::file(&directory);
    fs::create_dir_all(&directory).map_err(in_directory())?;
    let new = unfinished_folder(&directory).map_err(in_directory())?;

    let mut scores = serde_json::to_value(&evaluation.scores).map_err(candle_core::Error::wrap)?;
    let epoch = match (which, trained.best) {
        (Which::Best, Some(best)) => best.epoch,
        _ => trained.epochs,
    };
    scores["checkpoint"] = json!(which.name());
    scores["inference"] = how.clone();
    scores["epoch"] = json!(epoch);
    scores["seconds"] = json!(evaluation.prediction_seconds);
    scores["seconds_per_image"] = json!(evaluation.prediction_seconds / evaluation.images.len().max(1) as f64);
    let text = serde_json::to_string_pretty(&scores).map_err(candle_core::Error::wrap)?;
    write_whole(&new.path().join("scores.json"), format!("{text}\n").as_bytes())?;

    let lines: Vec<String> = evaluation
        .images
        .iter()
        .map(|image| serde_json::to_string(image).map(|line| line + "\n"))
        .collect::<Result<_, _>>()
        .map_err(candle_core::Error::wrap)?;
    write_whole(&new.path().join("images.jsonl"), lines.concat().as_bytes())?;

    for (index, picture) in evaluation.pictures.iter().enumerate() {
        let folder = new.path().join("pictures").join(format!("{:02}", index + 1));
        fs::create_dir_all(&folder).map_err(TrainingError::file(&folder))?;
        write_picture(&folder, picture, classes)?;
    }

    let target = directory.join(split.name());
    let swap = || {
        readable_by_all(new.path())?;
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(new.path(), &target)?;
        sync_directory(&directory)
    };
    swap().map_err(TrainingError::file(&target))
}

fn write_picture(folder: &Path, picture: &Picture, classes: &ClassTable) -> Result<(), TrainingError> {
    let labels = |labels: &[u8]| {
        let (height, width) = (picture.predicted.height as u32, picture.predicted.width as u32);
        GrayImage::from_fn(width, height, |x, y| image::Luma([labels[(y * width + x) as usize]]))
    };
    let save = |name: &str, image: image::DynamicImage| {
        let path = folder.join(name);
        image.save(&path).map_err(|error| TrainingError::file(&path)(std::io::Error::other(error)))
    };
    save("photo.png", picture.photo.clone().into())?;
    save("truth.png", picture.label_map.clone().into())?;
    save("prediction.png", picture.predicted.to_image(classes).into())?;
    save("truth-labels.png", labels(&picture.labels).into())?;
    save("prediction-labels.png", labels(&picture.predicted.labels).into())?;
    if let Some(uncertainty) = &picture.uncertainty {
        let levels: Vec<u8> = uncertainty.iter().map(|share| (share * 255.0).round() as u8).collect();
        save("uncertainty.png", labels(&levels).into())?;
    }
    let text = serde_json::to_string(&picture.scores).map_err(candle_core::Error::wrap)?;
    write_whole(&folder.join("picture.json"), text.as_bytes())
}
