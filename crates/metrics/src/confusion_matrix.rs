use crate::MetricsError;

/// The label of a pixel that belongs to no evaluated class. It is never counted.
pub const VOID: u32 = 255;

/// How many pixels of each class were predicted as each class.
///
/// The scores are those of the FCN paper (Long, Shelhamer and Darrell 2015, section 5), taken over all counted pixels of all images
/// rather than averaged over images. A class that occurs in neither truth nor prediction takes no part in any mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>, // [truth][prediction], row-major
}

impl ConfusionMatrix {
    /// An empty matrix for the classes `0..classes`, at most 255 of them: label 255 is void.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts pixels. Where the label is [`VOID`] the pixel is skipped, whatever was predicted there.
    ///
    /// Fails, and counts nothing, if the lengths differ or if a counted pixel's label or prediction is outside `0..classes`.
    pub fn add(&mut self, labels: &[u32], predicted: &[u32]) -> Result<(), MetricsError> {
        check(labels, predicted, self.classes)?;
        for (&label, &predicted) in labels.iter().zip(predicted).filter(|(label, _)| **label != VOID) {
            self.counts[label as usize * self.classes + predicted as usize] += 1;
        }
        Ok(())
    }

    /// Adds what another matrix has counted. Fails if it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if self.classes != other.classes {
            return Err(MetricsError::Classes { ours: self.classes, theirs: other.classes });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
        Ok(())
    }

    /// The counts that are not 0, as `[truth, predicted, count]` in rising order: an image has few of all pairs.
    pub fn sparse(&self) -> Vec<[u64; 3]> {
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.map(|(at, &count)| [(at / self.classes) as u64, (at % self.classes) as u64, count]).collect()
    }

    /// Adds `[truth, predicted, count]` triples, as [`sparse`](Self::sparse) gives them.
    ///
    /// Fails, and adds nothing, if one is not of the classes `0..classes`.
    pub fn add_sparse(&mut self, counts: &[[u64; 3]]) -> Result<(), MetricsError> {
        let classes = self.classes;
        for (pixel, &[label, predicted, _]) in counts.iter().enumerate() {
            let clipped = |class: u64| u32::try_from(class).unwrap_or(u32::MAX);
            if label >= classes as u64 {
                return Err(MetricsError::Label { label: clipped(label), pixel, classes });
            }
            if predicted >= classes as u64 {
                return Err(MetricsError::Prediction { predicted: clipped(predicted), pixel, classes });
            }
        }
        for &[label, predicted, count] in counts {
            let sum = &mut self.counts[label as usize * classes + predicted as usize];
            *sum = sum.saturating_add(count);
        }
        Ok(())
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pixels of class `truth` that were predicted as class `predicted`; 0 if either is no class.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        if truth < self.classes && predicted < self.classes { self.counts[truth * self.classes + predicted] } else { 0 }
    }

    /// Pixels counted.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The fraction of counted pixels whose class was predicted; `None` if none was counted.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        ratio((0..self.classes).map(|class| self.count(class, class)).sum(), self.pixels())
    }

    /// For each class, the fraction of its pixels that were predicted as it; `None` if it has no pixel in the truth.
    pub fn per_class_accuracy(&self) -> Vec<Option<f64>> {
        (0..self.classes).map(|class| ratio(self.count(class, class), self.labelled(class))).collect()
    }

    /// The mean of [`per_class_accuracy`](Self::per_class_accuracy) over the classes that have one.
    pub fn class_accuracy(&self) -> Option<f64> {
        mean(&self.per_class_accuracy())
    }

    /// For each class, intersection over union of its pixels in truth and prediction; `None` if it is in neither.
    pub fn class_iou(&self) -> Vec<Option<f64>> {
        (0..self.classes)
            .map(|class| {
                let both = self.count(class, class);
                ratio(both, self.labelled(class) + self.predicted(class) - both)
            })
            .collect()
    }

    /// The mean of [`class_iou`](Self::class_iou) over the classes that have one.
    pub fn mean_iou(&self) -> Option<f64> {
        mean(&self.class_iou())
    }

    /// The mean of [`class_iou`](Self::class_iou), each class weighted by its share of the labelled pixels.
    pub fn frequency_weighted_iou(&self) -> Option<f64> {
        let pixels = self.pixels();
        (pixels > 0).then(|| {
            let weighted = |(class, iou): (usize, Option<f64>)| iou.unwrap_or(0.0) * self.labelled(class) as f64;
            self.class_iou().into_iter().enumerate().map(weighted).sum::<f64>() / pixels as f64
        })
    }

    /// For each class, the fraction of the pixels predicted as it that are it; `None` if none is.
    pub fn per_class_precision(&self) -> Vec<Option<f64>> {
        (0..self.classes).map(|class| ratio(self.count(class, class), self.predicted(class))).collect()
    }

    /// Pixels that the truth gives to a class; 0 if it is none.
    pub fn labelled(&self, class: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Pixels that the prediction gives to a class, void ones left out; 0 if it is none.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|truth| self.count(truth, class)).sum()
    }
}

/// Refuses maps of different lengths, and scored pixels that are of none of `0..classes`.
pub(crate) fn check(labels: &[u32], predicted: &[u32], classes: usize) -> Result<(), MetricsError> {
    if labels.len() != predicted.len() {
        return Err(MetricsError::Length { truth: labels.len(), predicted: predicted.len() });
    }
    for (pixel, (&label, &predicted)) in labels.iter().zip(predicted).enumerate().filter(|(_, pair)| *pair.0 != VOID) {
        if label as usize >= classes {
            return Err(MetricsError::Label { label, pixel, classes });
        }
        if predicted as usize >= classes {
            return Err(MetricsError::Prediction { predicted, pixel, classes });
        }
    }
    Ok(())
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(scores: &[Option<f64>]) -> Option<f64> {
    let present = scores.iter().flatten().count();
    (present > 0).then(|| scores.iter().flatten().sum::<f64>() / present as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four classes: 0 and 1 on both sides, 2 predicted but never there, 3 nowhere.
    ///
    /// ```text
    ///            predicted 0  1  2
    /// truth 0              4  1  1
    /// truth 1              2  2  0
    /// ```
    fn example() -> ConfusionMatrix {
        let mut matrix = ConfusionMatrix::new(4);
        let labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, VOID, VOID];
        let predicted = [0, 0, 0, 0, 1, 2, 0, 0, 1, 1, 3, 255];
        matrix.add(&labels, &predicted).unwrap();
        matrix
    }

    fn close(actual: Option<f64>, expected: f64) {
        assert!((actual.unwrap() - expected).abs() < 1e-15, "{actual:?} is not {expected}");
    }

    #[test]
    fn scores_are_those_worked_out_by_hand() {
        let matrix = example();
        assert_eq!(matrix.pixels(), 10);
        assert_eq!([matrix.count(0, 0), matrix.count(0, 1), matrix.count(0, 2), matrix.count(1, 0)], [4, 1, 1, 2]);
        assert_eq!(matrix.count(0, 4), 0);
        close(matrix.pixel_accuracy(), 0.6); // (4 + 2) / 10
        assert_eq!(matrix.per_class_accuracy(), [Some(4.0 / 6.0), Some(0.5), None, None]);
        close(matrix.class_accuracy(), 7.0 / 12.0); // (2/3 + 1/2) / 2
        assert_eq!(matrix.class_iou(), [Some(0.5), Some(0.4), Some(0.0), None]); // 4/8, 2/5, 0/1
        close(matrix.mean_iou(), 0.3); // over three classes, not four
        close(matrix.frequency_weighted_iou(), 0.46); // 0.6 * 0.5 + 0.4 * 0.4
    }

    #[test]
    fn a_perfect_prediction_scores_one_whatever_is_absent() {
        let mut matrix = ConfusionMatrix::new(19);
        matrix.add(&[3, 7, 18], &[3, 7, 18]).unwrap();
        let all =
            [matrix.pixel_accuracy(), matrix.class_accuracy(), matrix.mean_iou(), matrix.frequency_weighted_iou()];
        assert_eq!(all, [Some(1.0); 4]);
        assert_eq!(matrix.class_iou().iter().flatten().count(), 3);
    }

    #[test]
    fn precision_is_of_what_was_predicted() {
        assert_eq!(example().per_class_precision(), [Some(4.0 / 6.0), Some(2.0 / 3.0), Some(0.0), None]);
    }

    #[test]
    fn sparse_counts_are_all_there_is() {
        let sparse = example().sparse();
        assert_eq!(sparse, [[0, 0, 4], [0, 1, 1], [0, 2, 1], [1, 0, 2], [1, 1, 2]]);
        let mut again = ConfusionMatrix::new(4);
        again.add_sparse(&sparse).unwrap();
        assert_eq!(again, example());
        let error = again.add_sparse(&[[0, 0, 1], [0, 4, 1]]).unwrap_err();
        assert_eq!(error, MetricsError::Prediction { predicted: 4, pixel: 1, classes: 4 });
        assert!(again.add_sparse(&[[u64::MAX, 0, 1]]).is_err());
        assert_eq!(again, example());
    }

    #[test]
    fn nothing_counted_is_no_score() {
        let mut matrix = ConfusionMatrix::new(2);
        matrix.add(&[VOID, VOID], &[0, 1]).unwrap();
        matrix.add(&[], &[]).unwrap();
        assert_eq!(matrix.pixels(), 0);
        let all =
            [matrix.pixel_accuracy(), matrix.class_accuracy(), matrix.mean_iou(), matrix.frequency_weighted_iou()];
        assert_eq!(all, [None; 4]);
        assert_eq!(matrix.class_iou(), [None, None]);
        assert_eq!(ConfusionMatrix::new(0).mean_iou(), None);
    }

    #[test]
    fn merging_parts_counts_as_the_whole() {
        let mut parts = ConfusionMatrix::new(4);
        parts.merge(&example()).unwrap();
        parts.merge(&example()).unwrap();
        assert_eq!(parts.pixels(), 20);
        assert_eq!(parts.count(1, 0), 4);
        assert_eq!(parts.class_iou(), example().class_iou());
        let error = parts.merge(&ConfusionMatrix::new(3)).unwrap_err();
        assert_eq!(error, MetricsError::Classes { ours: 4, theirs: 3 });
        assert_eq!(error.to_string(), "confusion matrix of 3 classes: cannot be added to one of 4");
    }

    #[test]
    fn what_cannot_be_counted_is_refused_whole() {
        let mut matrix = example();
        let refusals = [
            (matrix.add(&[0, 1], &[0]), MetricsError::Length { truth: 2, predicted: 1 }),
            (matrix.add(&[0, 4], &[0, 0]), MetricsError::Label { label: 4, pixel: 1, classes: 4 }),
            (matrix.add(&[0, 0], &[0, 255]), MetricsError::Prediction { predicted: 255, pixel: 1, classes: 4 }),
        ];
        for (result, expected) in refusals {
            assert_eq!(result.unwrap_err(), expected);
        }
        assert_eq!(matrix, example());
    }
}
