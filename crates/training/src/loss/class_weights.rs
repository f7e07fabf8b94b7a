//! How much each class counts in a loss.

use candle_core::{Device, Tensor};
use img2seg_data::Dataset;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::TrainingError;

/// How much the pixels of each class count. What depends on how often classes occur is taken from the train split when a run begins,
/// and stands as `fixed` in the run's own recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClassWeights {
    /// All alike.
    None,
    /// The inverse of a class's share of the labelled pixels, the mean over the classes being 1.
    Inverse,
    /// The root of that inverse, the mean over the classes being 1: between all pixels alike and all classes alike.
    InverseRoot,
    /// That inverse to this power, above 0, the mean over the classes being 1: 0.5 is its root, and the less the more alike.
    InversePower(f64),
    /// The median of the classes' frequencies by the class's own, where a frequency is the class's share of the labelled pixels of
    /// those images that it occurs in (Eigen and Fergus 2015, section 6.3.2).
    MedianFrequency,
    /// These, one for each class, 0 or more.
    Fixed(Vec<f64>),
}

/// How often a class occurs in a split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Frequency {
    /// Its pixels.
    pixels: u64,
    /// The labelled pixels of all images that it occurs in.
    pixels_where_present: u64,
}

impl ClassWeights {
    pub(crate) fn validate(&self, key: &str) -> Result<(), String> {
        match self {
            Self::Fixed(weights) if !weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0) => {
                Err(format!("{key}.fixed: must be 0 or more"))
            }
            Self::InversePower(power) if !(power.is_finite() && *power > 0.0) => {
                Err(format!("{key}.inverse-power: must be above 0"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the weights depend on data.
    fn is_open(&self) -> bool {
        matches!(self, Self::Inverse | Self::InverseRoot | Self::InversePower(_) | Self::MedianFrequency)
    }

    /// Becomes `settled` if that is what it may have become.
    pub(crate) fn take_settled(&mut self, settled: &Self) {
        if self.is_open() && matches!(settled, Self::Fixed(_)) {
            self.clone_from(settled);
        }
    }

    /// Fills in what depends on how often classes occur in `train`, whose labels are read for it.
    pub(crate) fn settle<'a>(
        weights: impl Iterator<Item = &'a mut Self>,
        train: &Dataset,
    ) -> Result<(), TrainingError> {
        let mut frequencies = None;
        for weights in weights.filter(|weights| weights.is_open()) {
            let frequencies = match &frequencies {
                Some(found) => found,
                None => frequencies.insert(count(train)?),
            };
            *weights = Self::Fixed(weights.of(frequencies));
        }
        Ok(())
    }

    /// The weights; 0 for a class that does not occur. Rounded, so that a recipe with them can be read.
    fn of(&self, frequencies: &[Frequency]) -> Vec<f64> {
        let labelled: u64 = frequencies.iter().map(|of| of.pixels).sum();
        let ratio = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        let shares: Vec<f64> = frequencies.iter().map(|of| ratio(of.pixels, labelled)).collect();
        let local: Vec<f64> = frequencies.iter().map(|of| ratio(of.pixels, of.pixels_where_present)).collect();
        let inverse = |share: &f64| if *share > 0.0 { 1.0 / share } else { 0.0 };
        let scaled_to_mean_1 = |weights: Vec<f64>| {
            let mean =
                weights.iter().sum::<f64>() / weights.iter().filter(|weight| **weight > 0.0).count().max(1) as f64;
            weights.into_iter().map(|weight| weight / mean.max(f64::MIN_POSITIVE)).collect()
        };
        let weights: Vec<f64> = match self {
            Self::Fixed(weights) => weights.clone(),
            Self::None => vec![1.0; frequencies.len()],
            Self::Inverse => scaled_to_mean_1(shares.iter().map(inverse).collect()),
            Self::InverseRoot => scaled_to_mean_1(shares.iter().map(|share| inverse(share).sqrt()).collect()),
            Self::InversePower(power) => {
                scaled_to_mean_1(shares.iter().map(|share| inverse(share).powf(*power)).collect())
            }
            Self::MedianFrequency => {
                let median = median(local.iter().copied().filter(|share| *share > 0.0).collect());
                local.iter().map(|share| median * inverse(share)).collect()
            }
        };
        weights.into_iter().map(|weight| (weight * 1e6).round() / 1e6).collect()
    }

    /// As many weights as classes (c), or none where all are alike.
    ///
    /// # Errors
    /// Another number of weights, and weights that have not been settled.
    pub(crate) fn tensor(&self, classes: usize, device: &Device) -> candle_core::Result<Option<Tensor>> {
        match self {
            Self::Fixed(weights) if weights.len() == classes => {
                let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
                Tensor::from_vec(weights, classes, device).map(Some)
            }
            Self::Fixed(weights) => {
                candle_core::bail!("class_weights.fixed: {} weights for {classes} classes", weights.len())
            }
            // Before a run begins, a learner is only built to see whether it can be.
            _ => Ok(None),
        }
    }
}

/// Counts image by image, in parallel; sums of integers have no order.
fn count(train: &Dataset) -> Result<Vec<Frequency>, TrainingError> {
    let classes = train.table().len();
    let of_image = |i: usize| -> Result<Vec<Frequency>, img2seg_data::DataError> {
        Ok(of_labels(&train.sample(i)?.labels, classes))
    };
    let add = |mut sums: Vec<Frequency>, more: Vec<Frequency>| {
        for (sum, more) in sums.iter_mut().zip(more) {
            sum.pixels += more.pixels;
            sum.pixels_where_present += more.pixels_where_present;
        }
        sums
    };
    let none = || vec![Frequency::default(); classes];
    Ok((0..train.len()).into_par_iter().map(of_image).try_reduce(none, |a, b| Ok(add(a, b)))?)
}

fn of_labels(labels: &[u8], classes: usize) -> Vec<Frequency> {
    let mut pixels = vec![0_u64; classes];
    for &label in labels {
        if let Some(count) = pixels.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    let labelled = pixels.iter().sum();
    let frequency = |pixels| Frequency { pixels, pixels_where_present: if pixels > 0 { labelled } else { 0 } };
    pixels.into_iter().map(frequency).collect()
}

/// The middle value, or the mean of the two middle ones; 1 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 1.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two images of 8 labelled pixels: class 0 has 12, class 1 has 3 of one image, class 2 has 1 of the other, class 3 none.
    fn frequencies() -> Vec<Frequency> {
        let mut sums = of_labels(&[0, 0, 0, 0, 0, 1, 1, 1, 255], 4);
        for (sum, more) in sums.iter_mut().zip(of_labels(&[0, 0, 0, 0, 0, 0, 0, 2, 255], 4)) {
            sum.pixels += more.pixels;
            sum.pixels_where_present += more.pixels_where_present;
        }
        sums
    }

    #[test]
    fn weights_follow_their_formulas() {
        let close = |weights: ClassWeights, expected: [f64; 4]| {
            let found = weights.of(&frequencies());
            assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{found:?}");
        };
        close(ClassWeights::None, [1.0; 4]);
        // 16 / 12, 16 / 3 and 16 / 1 have the mean 68 / 9.
        close(ClassWeights::Inverse, [3.0 / 17.0, 12.0 / 17.0, 36.0 / 17.0, 0.0]);
        let roots = [(4_f64 / 3.0).sqrt(), (16_f64 / 3.0).sqrt(), 4.0];
        let mean = roots.iter().sum::<f64>() / 3.0;
        close(ClassWeights::InverseRoot, [roots[0] / mean, roots[1] / mean, roots[2] / mean, 0.0]);
        close(ClassWeights::InversePower(0.5), [roots[0] / mean, roots[1] / mean, roots[2] / mean, 0.0]);
        close(ClassWeights::InversePower(1.0), [3.0 / 17.0, 12.0 / 17.0, 36.0 / 17.0, 0.0]);
        // 12 of 16, 3 of 8, 1 of 8.
        close(ClassWeights::MedianFrequency, [0.5, 1.0, 3.0, 0.0]);
        close(ClassWeights::Fixed(vec![1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn as_many_weights_as_classes_are_needed() {
        let fixed = ClassWeights::Fixed(vec![1.0, 2.0]);
        assert_eq!(fixed.tensor(2, &Device::Cpu).unwrap().unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        let error = fixed.tensor(3, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("2 weights for 3 classes"), "{error}");
        assert!(ClassWeights::Fixed(vec![-1.0]).validate("key").unwrap_err().starts_with("key.fixed: "));
        for power in [0.0, -1.0, f64::NAN] {
            let error = ClassWeights::InversePower(power).validate("key").unwrap_err();
            assert!(error.starts_with("key.inverse-power: "), "{error}");
        }
        assert_eq!(median(vec![3.0, 1.0, 2.0, 10.0]).to_bits(), 2.5f64.to_bits());
    }
}
