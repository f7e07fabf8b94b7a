//! Two runs on the same images: which is better, by how much, and how sure that is.

use std::collections::BTreeMap;

use img2seg_metrics::ConfusionMatrix;
use img2seg_metrics::bootstrap::{Interval, mean_difference, mean_iou_difference, pixel_accuracy_difference};

use crate::page::Column;
use crate::run::ImageScore;
use crate::table::{Cell, NOTHING, Row, Table};

/// One seed for all: intervals of a comparison rest on the same draws of images.
const SEED: u64 = 0;

/// A run held against the reference, image by image.
pub(crate) struct Paired<'a> {
    pub(crate) reference: &'a Column<'a>,
    pub(crate) column: &'a Column<'a>,
    /// Differences, the reference's score taken off; `None` where there is nothing to resample.
    pub(crate) mean_iou: Option<Interval>,
    pub(crate) pixel_accuracy: Option<Interval>,
    pub(crate) boundary_f1: Option<Interval>,
    /// Images with a higher, and with a lower mean IoU than the reference's.
    pub(crate) higher: usize,
    pub(crate) lower: usize,
    pub(crate) images: usize,
}

/// The images of two runs side by side, in the reference's order; `None` where they are not the same images, by their names and by the
/// digest of the data.
pub(crate) fn matched<'a>(reference: &Column<'a>, column: &Column<'a>) -> Option<Vec<[&'a ImageScore; 2]>> {
    let (first, second) = (reference.evaluation?, column.evaluation?);
    let by_name: BTreeMap<&str, &ImageScore> = second.images.iter().map(|image| (image.name.as_str(), image)).collect();
    let digest = |column: &Column<'a>| column.run.manifest.text(&["data", "digest"]);
    if digest(reference).zip(digest(column)).is_some_and(|(first, second)| first != second) {
        return None;
    }
    let same = first.scores.split == second.scores.split
        && first.images.len() == second.images.len()
        && by_name.len() == second.images.len();
    let pairs = || first.images.iter().map(|image| Some([image, *by_name.get(image.name.as_str())?])).collect();
    if same { pairs() } else { None }
}

impl<'a> Paired<'a> {
    /// Holds a run against the reference; `None` where they were not scored on the same images.
    pub(crate) fn of(reference: &'a Column<'a>, column: &'a Column<'a>) -> Option<Self> {
        let pairs = matched(reference, column).filter(|pairs| !pairs.is_empty())?;
        let classes = reference.run.classes.classes().len();
        let matrices = |side: usize| pairs.iter().map(|pair| matrix(pair[side], classes)).collect::<Option<Vec<_>>>();
        let counted = matrices(0).zip(matrices(1));
        let of_counts = |make: fn(&[ConfusionMatrix], &[ConfusionMatrix], u64) -> _| {
            let (first, second) = counted.as_ref()?;
            let interval: Result<Option<Interval>, _> = make(first, second, SEED);
            interval.ok().flatten()
        };
        let boundaries: Vec<[f64; 2]> =
            pairs.iter().filter_map(|[first, second]| Some([first.boundary_f1?, second.boundary_f1?])).collect();
        let side = |side: usize| boundaries.iter().map(|pair| pair[side]).collect::<Vec<_>>();
        let order = |pair: &[&ImageScore; 2]| pair[1].mean_iou.partial_cmp(&pair[0].mean_iou);
        let count = |wanted| pairs.iter().filter(|pair| order(pair) == Some(wanted)).count();
        Some(Self {
            mean_iou: of_counts(mean_iou_difference),
            pixel_accuracy: of_counts(pixel_accuracy_difference),
            boundary_f1: mean_difference(&side(0), &side(1), SEED).ok().flatten(),
            higher: count(std::cmp::Ordering::Greater),
            lower: count(std::cmp::Ordering::Less),
            images: pairs.len(),
            reference,
            column,
        })
    }

    /// What the mean IoU says, in a sentence.
    pub(crate) fn verdict(&self) -> String {
        let (name, reference) = (&self.column.name, &self.reference.name);
        let Some(Interval { difference, low, high }) = self.mean_iou else {
            return format!(
                "{name} has a higher mean IoU than {reference} on {} of {} images. Their pixels by class were not filed: \
                 evaluate both again for an interval.",
                self.higher, self.images
            );
        };
        let points = |value: f64| format!("{:.2}", 100.0 * value);
        let (images, higher, lower) = (self.images, self.higher, self.lower);
        if low > 0.0 {
            let (by, low, high) = (points(difference), points(low), points(high));
            format!(
                "{name} is better than {reference} by {by} points of mean IoU, 95 % interval {low} to {high}, and on {higher} of {images} \
                 images."
            )
        } else if high < 0.0 {
            let (by, low, high) = (points(-difference), points(-high), points(-low));
            format!(
                "{name} is worse than {reference} by {by} points of mean IoU, 95 % interval {low} to {high}, and on {lower} of {images} \
                 images."
            )
        } else {
            let (by, low, high) = (signed(difference), signed(low), signed(high));
            format!(
                "{name} and {reference} cannot be told apart by {images} images: {by} points of mean IoU, 95 % interval {low} to {high}, \
                 higher on {higher} images and lower on {lower}."
            )
        }
    }
}

/// A difference of fractions in points of percent, with its sign.
pub(crate) fn signed(difference: f64) -> String {
    let text = format!("{:+.2}", 100.0 * difference);
    // No sign on nothing, and a minus as wide as a plus.
    if text.ends_with("0.00") && text.len() == 5 { "0.00".to_owned() } else { text.replace('-', "\u{2212}") }
}

/// All runs held against the reference, a row each; none where no run can be.
pub(crate) fn table(pairs: &[Paired]) -> Option<Table> {
    let reference = pairs.first()?.reference;
    let cell = |interval: Option<Interval>| match interval {
        Some(Interval { difference, low, high }) => {
            Cell { detail: format!("{} to {}", signed(low), signed(high)), ..Cell::new(signed(difference)) }
        }
        None => Cell::new(NOTHING),
    };
    let rows = pairs.iter().map(|pair| Row {
        name: pair.column.name.clone(),
        series: Some(pair.column.series),
        cells: vec![
            cell(pair.mean_iou),
            cell(pair.pixel_accuracy),
            cell(pair.boundary_f1),
            Cell {
                detail: format!("lower on {}", pair.lower),
                ..Cell::new(format!("{} of {}", pair.higher, pair.images))
            },
        ],
    });
    let head = ["Model", "Mean IoU", "Pixel-wise accuracy", "Boundary F1", "Images with a higher mean IoU"];
    Some(Table {
        caption: format!("Differences from {} (points of percent)", reference.name),
        head: head.map(str::to_owned).into(),
        rows: rows.collect(),
        note: "Below each difference stands where 95 of 100 differences lie when the images are drawn anew (10\u{202f}000 paired bootstrap \
               samples). An interval without 0 is a difference that other images of the kind would show too; what another seed of training \
               would change is not in it."
            .to_owned(),
    })
}

fn matrix(image: &ImageScore, classes: usize) -> Option<ConfusionMatrix> {
    let mut matrix = ConfusionMatrix::new(classes);
    matrix.add_sparse(image.confusion.as_ref()?).ok()?;
    Some(matrix)
}

#[cfg(test)]
mod tests {
    use super::signed;

    #[test]
    fn differences_carry_their_sign() {
        let texts = [0.021, -0.5, 0.0, -0.000_01, 0.000_01].map(signed);
        assert_eq!(texts, ["+2.10", "\u{2212}50.00", "0.00", "0.00", "0.00"]);
    }
}
