//! A small run directory for tests, as training would leave it.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use img2seg_data::ClassTable;
use serde_json::{Value, json};

/// What the network puts out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Classes,
    Colors,
}

/// Ends with a name that a careless page would run.
pub(crate) const HOSTILE: &str = "left \"turn\" <script>alert(1)</script>";

pub(crate) fn write_run(dir: &Path, output: Output, accuracy: f64) {
    unfinished(dir);
    let colors = output == Output::Colors;
    let (names, values) = if colors { ("generator discriminator", "0.5 0.25") } else { ("loss", "0.5") };
    let steps: Vec<String> = (1..=4u64).map(|step| format!("{} {step} {values}\n", step.div_ceil(2))).collect();
    write(dir, "losses.txt", &format!("# epoch step {names}\n{}", steps.concat()));
    let first = names.split(' ').next().unwrap();
    for epoch in 1..=2 {
        let line = json!({
            "epoch": epoch,
            "step": 2 * epoch,
            "learning_rate": 0.001,
            "losses": { "train": { first: 0.5 }, "val": { first: 1.0 / f64::from(epoch) } },
            "train": scores("train", accuracy + 0.05, output),
            "val": scores("val", accuracy, output),
        });
        append(dir, "metrics.jsonl", &line.to_string());
        let time = json!({ "epoch": epoch, "train_seconds": 61.5, "evaluation_seconds": 2, "images_per_second": 12.5 });
        append(dir, "times.jsonl", &time.to_string());
    }
    evaluate(dir, "val", output, accuracy);
}

/// A run that has only just begun.
pub(crate) fn unfinished(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    write(dir, "config.toml", "recipe = \"fake <b>\"\n\n[data]\nheight = 4\n");
    write(dir, "classes.toml", &ClassTable::load("camvid").unwrap().to_toml());
    let manifest = r#"{"program":"img2seg","seed":7,"device":"cpu","threads":2,"parameters":{"generator":1234567,"discriminator":89},
        "data":{"root":"pairs & more","digest":"00ff","train_images":12,"val_images":3},"recipe":"fake"}"#;
    write(dir, "manifest.json", manifest);
}

/// Writes `evaluation/SPLIT` with one picture, half right and half wrong, its last pixel void.
pub(crate) fn evaluate(dir: &Path, split: &str, output: Output, accuracy: f64) {
    let evaluation = dir.join("evaluation").join(split);
    let picture = evaluation.join("pictures/000");
    fs::create_dir_all(&picture).unwrap();
    let mut scores = scores(split, accuracy, output);
    for (key, value) in [
        ("checkpoint", json!("best")),
        ("epoch", json!(2)),
        ("seconds", json!(1.5)),
        ("seconds_per_image", json!(0.0125)),
    ] {
        scores[key] = value;
    }
    let details = details(output, accuracy);
    for (key, value) in details.as_object().unwrap() {
        scores[key] = value.clone();
    }
    write(&evaluation, "scores.json", &scores.to_string());
    let image = json!({ "name": HOSTILE, "pixel_accuracy": 0.5, "mean_iou": null }).to_string();
    let right = (16.0 * accuracy) as u64;
    let more = (1..=2).map(|index| {
        let confusion = [[3, 3, right - index], [3, 1, 16 - right + index]];
        let scores = (accuracy - f64::from(index as u32) / 16.0, accuracy / 2.0, accuracy - 0.1);
        json!({ "name": format!("00{index}"), "pixel_accuracy": scores.0, "mean_iou": scores.1, "boundary_f1": scores.2,
            "confusion": confusion })
    });
    let first = json!({ "name": HOSTILE, "pixel_accuracy": 0.5, "mean_iou": null, "confusion": [] });
    let lines: Vec<String> = std::iter::once(first).chain(more).map(|line| format!("{line}\n")).collect();
    write(&evaluation, "images.jsonl", &lines.concat());
    write(&picture, "picture.json", &image);
    let table = ClassTable::load("camvid").unwrap();
    let colors = |label: u8| Rgb(table.color_of(label));
    RgbImage::from_fn(4, 4, |x, y| Rgb([60 * x as u8, 60 * y as u8, 9])).save(picture.join("photo.png")).unwrap();
    RgbImage::from_pixel(4, 4, colors(3)).save(picture.join("truth.png")).unwrap();
    let predicted = |x| if x < 2 { 3 } else { 1 };
    RgbImage::from_fn(4, 4, |x, _| colors(predicted(x))).save(picture.join("prediction.png")).unwrap();
    let truth = |x, y| Luma([if (x, y) == (3, 3) { 255 } else { 3 }]);
    GrayImage::from_fn(4, 4, truth).save(picture.join("truth-labels.png")).unwrap();
    GrayImage::from_fn(4, 4, |x, _| Luma([predicted(x)])).save(picture.join("prediction-labels.png")).unwrap();
}

/// What evaluation adds to the scores of training: of 32 pixels of roads, all wrong ones are called building.
fn details(output: Output, accuracy: f64) -> Value {
    let mut confusion = vec![vec![0_u64; 11]; 11];
    let right = 2 * (16.0 * accuracy) as u64 - 3;
    (confusion[3][3], confusion[3][1]) = (right, 32 - right);
    let bins = [
        json!({ "pixels": 30, "confidence": 0.9, "accuracy": 0.75 }),
        json!({ "pixels": 0, "confidence": null, "accuracy": null }),
    ];
    json!({
        "boundary_f1": accuracy - 0.1,
        "class_boundary_f1": { "Road": accuracy - 0.1, "Car": null },
        "class_precision": { "Road": 1.0 },
        "class_recall": { "Road": 0.65 },
        "calibration": (output == Output::Classes).then(|| json!({ "expected_error": 0.15, "bins": bins })),
        "confusion": confusion,
    })
}

/// Two classes are there, nine are absent.
fn scores(split: &str, accuracy: f64, output: Output) -> Value {
    let agreement = json!({ "argmax": 0.61, "within_5": 0.11, "within_10": 0.22, "within_25": 0.33 });
    json!({
        "split": split,
        "images": 3,
        "pixels": 45,
        "pixel_accuracy": accuracy,
        "class_accuracy": 0.4,
        "mean_iou": accuracy / 2.0,
        "frequency_weighted_iou": 0.7,
        "class_iou": { "Road": 0.875, "Building": 0.125, "Car": null },
        "rgb_agreement": (output == Output::Colors).then_some(agreement),
    })
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn append(dir: &Path, name: &str, line: &str) {
    let path = dir.join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, format!("{text}{line}\n")).unwrap();
}
