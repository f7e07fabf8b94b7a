//! How sure a difference between two networks is: the paired percentile bootstrap (Efron and Tibshirani, "An introduction to
//! the bootstrap", 1993, chapter 13).
//!
//! Images are what is drawn at random: as many as there are, with replacement, the same ones for both networks. The score
//! is made anew from each draw, and the middle 95 % of the differences are the interval. Draws depend on the seed and the number of
//! images alone.

use crate::{ConfusionMatrix, MetricsError};

/// Draws of all images; the ends of a 95 % interval then rest on the 250 smallest and largest differences.
pub const RESAMPLES: usize = 10_000;

/// A difference and where it lies in 95 of 100 such samples of images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The second score minus the first, on all images.
    pub difference: f64,
    /// Below it lie 2.5 % of the resampled differences.
    pub low: f64,
    /// Above it lie 2.5 % of the resampled differences.
    pub high: f64,
}

/// The difference `second - first` of means over images, such as of their boundary F1; `None` without images.
///
/// Fails if there are not equally many values on both sides.
pub fn mean_difference(first: &[f64], second: &[f64], seed: u64) -> Result<Option<Interval>, MetricsError> {
    same_length(first.len(), second.len())?;
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
    let mean = |counts: &[u32]| {
        let sum: f64 = differences.iter().zip(counts).map(|(value, &count)| value * f64::from(count)).sum();
        Some(sum / differences.len() as f64)
    };
    Ok(interval(differences.len(), seed, mean))
}

/// The difference `second - first` of the pixel accuracies of all images together, from the matrix of each image; `None` without
/// labelled pixels.
///
/// Fails if there are not equally many matrices on both sides, all of equally many classes.
pub fn pixel_accuracy_difference(
    first: &[ConfusionMatrix],
    second: &[ConfusionMatrix],
    seed: u64,
) -> Result<Option<Interval>, MetricsError> {
    let tally = |matrix: &ConfusionMatrix, sums: &mut Vec<u64>| {
        sums.push((0..matrix.classes()).map(|class| matrix.count(class, class)).sum());
        sums.push(matrix.pixels());
    };
    difference(first, second, seed, tally)
}

/// The difference `second - first` of the mean IoU of all images together, from the matrix of each image: the matrices of a draw are
/// added up before the score is made. `None` without labelled pixels.
///
/// Fails if there are not equally many matrices on both sides, all of equally many classes.
pub fn mean_iou_difference(
    first: &[ConfusionMatrix],
    second: &[ConfusionMatrix],
    seed: u64,
) -> Result<Option<Interval>, MetricsError> {
    let tally = |matrix: &ConfusionMatrix, sums: &mut Vec<u64>| {
        for class in 0..matrix.classes() {
            let both = matrix.count(class, class);
            sums.extend([both, matrix.labelled(class) + matrix.predicted(class) - both]);
        }
    };
    difference(first, second, seed, tally)
}

/// The difference of the mean over (part, whole) pairs of part / whole, pairs without a whole left out. `tally` gives an image's
/// pairs, which add up over images.
fn difference(
    first: &[ConfusionMatrix],
    second: &[ConfusionMatrix],
    seed: u64,
    tally: impl Fn(&ConfusionMatrix, &mut Vec<u64>),
) -> Result<Option<Interval>, MetricsError> {
    same_length(first.len(), second.len())?;
    let classes = first.first().map_or(0, ConfusionMatrix::classes);
    if let Some(other) = first.iter().chain(second).find(|matrix| matrix.classes() != classes) {
        return Err(MetricsError::Classes { ours: classes, theirs: other.classes() });
    }
    let tallies = [first, second].map(|matrices| {
        let mut sums = Vec::new();
        for matrix in matrices {
            tally(matrix, &mut sums);
        }
        sums
    });
    let images = first.len();
    let mut sums = vec![0; tallies[0].len().checked_div(images).unwrap_or(0)];
    let difference = |counts: &[u32]| {
        let mut score = |tallies: &[u64]| {
            sums.fill(0);
            for (image, &count) in tallies.chunks_exact(sums.len()).zip(counts).filter(|(_, count)| **count > 0) {
                sums.iter_mut().zip(image).for_each(|(sum, value)| *sum += u64::from(count) * value);
            }
            let pairs = sums.as_chunks::<2>().0.iter().filter(|[_, whole]| *whole > 0);
            let present = pairs.clone().count();
            (present > 0).then(|| pairs.map(|[part, whole]| *part as f64 / *whole as f64).sum::<f64>() / present as f64)
        };
        Some(-score(&tallies[0])? + score(&tallies[1])?)
    };
    Ok(interval(images, seed, difference))
}

fn same_length(first: usize, second: usize) -> Result<(), MetricsError> {
    if first == second { Ok(()) } else { Err(MetricsError::Length { truth: first, predicted: second }) }
}

/// The interval of a statistic of images, which are given as how often each was drawn. Draws for which it has no value are left out.
fn interval(images: usize, seed: u64, mut statistic: impl FnMut(&[u32]) -> Option<f64>) -> Option<Interval> {
    let mut counts = vec![1; images];
    let difference = if images == 0 { None } else { statistic(&counts) }?;
    let mut generator = SplitMix64(seed);
    let mut differences = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        counts.fill(0);
        for _ in 0..images {
            counts[generator.below(images)] += 1;
        }
        differences.extend(statistic(&counts));
    }
    differences.sort_unstable_by(f64::total_cmp);
    let beyond = differences.len() / 40; // 2.5 %
    let low = differences.get(beyond).copied().unwrap_or(difference);
    let high = differences.len().checked_sub(beyond + 1).map_or(difference, |last| differences[last]);
    Some(Interval { difference, low, high })
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    /// Uniform in 0..`n`, with a bias below n / 2^64.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(mixed ^ (mixed >> 31)) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator's published values for seed 1234567, as the high bits of a product with 2^32.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut generator = SplitMix64(1_234_567);
        let published: [u64; 3] = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(published.map(|_| generator.below(1 << 32)), published.map(|value| (value >> 32) as usize));
    }

    /// The standard deviation of a mean of n values is theirs by the root of n: 1.96 of it is half the interval.
    #[test]
    fn intervals_of_means_are_as_wide_as_theory_says() {
        let first: Vec<f64> = (0..400).map(|i| f64::from(i * 37 % 101) / 101.0).collect();
        let second: Vec<f64> =
            first.iter().enumerate().map(|(i, x)| x + 0.1 + if i % 2 == 0 { 0.2 } else { -0.2 }).collect();
        let found = mean_difference(&first, &second, 5).unwrap().unwrap();
        let half = 1.96 * 0.2 / 20.0;
        assert!((found.difference - 0.1).abs() < 1e-12);
        assert!((found.low - (0.1 - half)).abs() < 0.001 && (found.high - (0.1 + half)).abs() < 0.001, "{found:?}");
        assert_eq!(mean_difference(&first, &second, 5).unwrap(), Some(found));
        assert_ne!(mean_difference(&first, &second, 6).unwrap(), Some(found));
    }

    fn matrix(pixels: &[(u32, u32)]) -> ConfusionMatrix {
        let mut matrix = ConfusionMatrix::new(3);
        let (labels, predicted): (Vec<u32>, Vec<u32>) = pixels.iter().copied().unzip();
        matrix.add(&labels, &predicted).unwrap();
        matrix
    }

    #[test]
    fn differences_are_those_of_the_scores_of_all_images() {
        let first: Vec<_> =
            (0..30).map(|i| matrix(&[(0, 0), (0, 1), (1, 1), (2, if i % 3 == 0 { 2 } else { 0 })])).collect();
        let second: Vec<_> = (0..30).map(|i| matrix(&[(0, 0), (0, i % 2), (1, 1), (2, 2)])).collect();
        let whole = |matrices: &[ConfusionMatrix]| {
            let mut whole = ConfusionMatrix::new(3);
            for matrix in matrices {
                whole.merge(matrix).unwrap();
            }
            whole
        };
        let (a, b) = (whole(&first), whole(&second));
        let iou = mean_iou_difference(&first, &second, 1).unwrap().unwrap();
        assert!((iou.difference - (b.mean_iou().unwrap() - a.mean_iou().unwrap())).abs() < 1e-15);
        assert!(0.0 < iou.low && iou.low < iou.difference && iou.difference < iou.high, "{iou:?}");
        let accuracy = pixel_accuracy_difference(&first, &second, 1).unwrap().unwrap();
        assert!((accuracy.difference - (b.pixel_accuracy().unwrap() - a.pixel_accuracy().unwrap())).abs() < 1e-15);
        // Images of one size: the accuracy of all is the mean of theirs, and so is each draw of them.
        let means =
            |matrices: &[ConfusionMatrix]| matrices.iter().map(|m| m.pixel_accuracy().unwrap()).collect::<Vec<_>>();
        let mean = mean_difference(&means(&first), &means(&second), 1).unwrap().unwrap();
        assert!((mean.low - accuracy.low).abs() < 1e-12 && (mean.high - accuracy.high).abs() < 1e-12);
        // The other way round.
        let back = mean_iou_difference(&second, &first, 1).unwrap().unwrap();
        assert_eq!((back.difference, back.low, back.high), (-iou.difference, -iou.high, -iou.low));
        let same = mean_iou_difference(&first, &first, 1).unwrap().unwrap();
        assert_eq!((same.low, same.high), (0.0, 0.0));
    }

    #[test]
    fn nothing_to_compare_is_no_interval() {
        assert_eq!(mean_difference(&[], &[], 0), Ok(None));
        assert_eq!(mean_iou_difference(&[], &[], 0), Ok(None));
        assert_eq!(mean_iou_difference(&[matrix(&[])], &[matrix(&[])], 0), Ok(None));
        assert_eq!(mean_difference(&[1.0], &[], 0), Err(MetricsError::Length { truth: 1, predicted: 0 }));
        let other = [ConfusionMatrix::new(2)];
        let error = mean_iou_difference(&[matrix(&[])], &other, 0);
        assert_eq!(error, Err(MetricsError::Classes { ours: 3, theirs: 2 }));
        // A class that only one of two images has is absent from some draws, and these count without it.
        let (a, b) = ([matrix(&[(0, 0)]), matrix(&[])], [matrix(&[(0, 1)]), matrix(&[])]);
        assert_eq!(mean_iou_difference(&a, &b, 0).unwrap().map(|found| found.difference), Some(-1.0));
    }
}
