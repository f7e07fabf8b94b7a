use crate::confusion_matrix::check;
use crate::{MetricsError, VOID};

/// How well predicted boundaries follow labelled ones: the boundary F1 of Csurka, Larlus and Perronnin ("What is a good evaluation
/// measure for semantic segmentation?", 2013).
///
/// A pixel is on the boundary of its class where one of its four neighbours has another class. A class's precision in an image is the
/// share of its predicted boundary pixels that have a labelled boundary pixel of the class within the tolerance, its recall the
/// share of the labelled ones that have a predicted one, and its F1 their harmonic mean. A class counts in an image where it has a
/// boundary on either side, with an F1 of 0 where it has one on one side only; an image's score is the mean over the classes that
/// count in it, a split's the mean over its images, and a class's the mean over the images that it counts in.
///
/// Where the label is [`VOID`] nothing is a boundary, on either side, and neither is a neighbour of a void pixel or the edge of the image for
/// that alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundaryF1 {
    images: Mean,
    classes: Vec<Mean>,
}

/// A mean whose sum is exact: fractions in units of 2^-32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mean {
    sum: u64,
    count: u64,
}

const ONE: u64 = 1 << 32;

impl Mean {
    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / (self.count as f64 * ONE as f64))
    }
}

impl BoundaryF1 {
    /// Nothing counted yet, for the classes `0..classes`.
    pub fn new(classes: usize) -> Self {
        Self { images: Mean::default(), classes: vec![Mean::default(); classes] }
    }

    /// Scores one image of rows of `width` pixels and returns its score; `None` where neither side has a boundary. Pixels match up to
    /// a distance of `tolerance` between their centres.
    ///
    /// Fails, and counts nothing, where [`ConfusionMatrix::add`](crate::ConfusionMatrix::add) would, and if the pixels are no whole rows.
    pub fn add(
        &mut self,
        labels: &[u32],
        predicted: &[u32],
        width: usize,
        tolerance: usize,
    ) -> Result<Option<f64>, MetricsError> {
        check(labels, predicted, self.classes.len())?;
        if width == 0 || !labels.len().is_multiple_of(width) {
            return Err(MetricsError::Rows { values: labels.len(), width });
        }
        let scored = |pixel: usize| labels[pixel] != VOID;
        let truth = Boundaries::of(labels, scored, width, tolerance);
        let prediction = Boundaries::of(predicted, scored, width, tolerance);
        let disk = disk(tolerance, truth.stride);
        let precision = prediction.matches(&truth, &disk, self.classes.len());
        let recall = truth.matches(&prediction, &disk, self.classes.len());
        let mut image = Mean::default();
        for (class, (precision, recall)) in self.classes.iter_mut().zip(precision.into_iter().zip(recall)) {
            if precision.all + recall.all > 0 {
                let score = Mean { sum: f1(precision, recall), count: 1 };
                class.add(score);
                image.add(score);
            }
        }
        if let Some(mean) = (image.sum + image.count / 2).checked_div(image.count) {
            self.images.add(Mean { sum: mean, count: 1 });
        }
        Ok(image.value())
    }

    /// Adds what another has counted. Fails if it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if self.classes.len() != other.classes.len() {
            return Err(MetricsError::Classes { ours: self.classes.len(), theirs: other.classes.len() });
        }
        self.images.add(other.images);
        self.classes.iter_mut().zip(&other.classes).for_each(|(ours, &theirs)| ours.add(theirs));
        Ok(())
    }

    /// The mean over images; `None` if none had a boundary.
    pub fn mean(&self) -> Option<f64> {
        self.images.value()
    }

    /// For each class the mean over the images that it counts in.
    pub fn per_class(&self) -> Vec<Option<f64>> {
        self.classes.iter().map(|class| class.value()).collect()
    }
}

/// Boundary pixels of a class, and how many of them have a match.
#[derive(Debug, Clone, Copy, Default)]
struct Matches {
    all: u64,
    matched: u64,
}

/// 2 PR / (P + R) of P = p / a and R = r / b, in units of 2^-32 and rounded to the nearest.
fn f1(precision: Matches, recall: Matches) -> u64 {
    let product = u128::from(precision.matched) * u128::from(recall.matched);
    let sum =
        u128::from(precision.matched) * u128::from(recall.all) + u128::from(recall.matched) * u128::from(precision.all);
    (2 * product * u128::from(ONE) + sum / 2).checked_div(sum).unwrap_or(0) as u64
}

/// The boundary pixels of a map of classes.
struct Boundaries {
    /// The class of a boundary pixel, [`VOID`] elsewhere, with as many void pixels around the map as a match may be away.
    classes: Vec<u32>,
    /// Where in it the boundary pixels stand.
    pixels: Vec<usize>,
    stride: usize,
}

impl Boundaries {
    fn of(map: &[u32], scored: impl Fn(usize) -> bool, width: usize, tolerance: usize) -> Self {
        let (height, stride) = (map.len() / width, width + 2 * tolerance);
        let mut classes = vec![VOID; (height + 2 * tolerance) * stride];
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let pixel = y * width + x;
                let other = |neighbour: usize| map[neighbour] != map[pixel] && scored(neighbour);
                let differs = x > 0 && other(pixel - 1)
                    || x + 1 < width && other(pixel + 1)
                    || y > 0 && other(pixel - width)
                    || y + 1 < height && other(pixel + width);
                if differs && scored(pixel) {
                    let at = (y + tolerance) * stride + x + tolerance;
                    classes[at] = map[pixel];
                    pixels.push(at);
                }
            }
        }
        Self { classes, pixels, stride }
    }

    /// For each class, its boundary pixels here and how many have one of `others` on the disk around them.
    fn matches(&self, others: &Self, disk: &[isize], classes: usize) -> Vec<Matches> {
        let mut matches = vec![Matches::default(); classes];
        for &pixel in &self.pixels {
            let class = self.classes[pixel];
            let matched = disk.iter().any(|&offset| others.classes[pixel.wrapping_add_signed(offset)] == class);
            let counts = &mut matches[class as usize];
            counts.all += 1;
            counts.matched += u64::from(matched);
        }
        matches
    }
}

/// The steps from a pixel to all within the tolerance, the nearest first: most pixels that have a match find it soon.
fn disk(tolerance: usize, stride: usize) -> Vec<isize> {
    let reach = tolerance as isize;
    let mut steps: Vec<(isize, isize)> = (-reach..=reach)
        .flat_map(|y| (-reach..=reach).map(move |x| (y * y + x * x, y * stride as isize + x)))
        .filter(|&(squared, _)| squared <= reach * reach)
        .collect();
    steps.sort_unstable();
    steps.into_iter().map(|(_, offset)| offset).collect()
}

#[cfg(test)]
mod tests;
