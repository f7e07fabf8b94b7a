//! What a run's scores must be before anything is made of them.

use img2seg_data::ClassTable;

use super::{ImageScore, Scores};

/// More pixels than any split has; sums of so many stay far below what a u64 holds.
const MOST_PIXELS: u64 = 1 << 44;
/// More bins than any reliability diagram needs.
const MOST_BINS: usize = 100;

/// Checks that scores speak of the table's classes, and that their counts are those of pixels.
pub(super) fn scores(scores: &Scores, classes: &ClassTable) -> Result<(), String> {
    for (key, by_name) in [
        ("class_iou", &scores.class_iou),
        ("class_boundary_f1", &scores.class_boundary_f1),
        ("class_precision", &scores.class_precision),
        ("class_recall", &scores.class_recall),
    ] {
        if let Some(name) = by_name.keys().find(|name| classes.classes().iter().all(|class| class.name != **name)) {
            return Err(format!("{key} names the class `{name}`, which classes.toml does not"));
        }
    }
    let (confusion, count) = (&scores.confusion, classes.classes().len());
    if !confusion.is_empty() && (confusion.len() != count || confusion.iter().any(|row| row.len() != count)) {
        return Err(format!("confusion is not a square of the {count} classes of classes.toml"));
    }
    if confusion.iter().flatten().any(|&pixels| pixels > MOST_PIXELS) {
        return Err("confusion counts more pixels than a split has".to_owned());
    }
    match &scores.calibration {
        Some(calibration) if calibration.bins.len() > MOST_BINS => {
            Err(format!("calibration has {} bins, more than {MOST_BINS}", calibration.bins.len()))
        }
        _ => Ok(()),
    }
}

/// The same for one image.
pub(super) fn image(image: &ImageScore, classes: &ClassTable) -> Result<(), String> {
    let count = classes.classes().len() as u64;
    match image.confusion.iter().flatten().find(|[truth, predicted, _]| truth.max(predicted) >= &count) {
        Some(triple) => Err(format!("confusion has {triple:?}, but there are {count} classes")),
        None if image.confusion.iter().flatten().any(|[.., pixels]| *pixels > u64::from(u32::MAX)) => {
            Err("confusion counts more pixels than an image has".to_owned())
        }
        None => Ok(()),
    }
}
