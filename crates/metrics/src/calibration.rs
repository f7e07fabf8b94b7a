use crate::{MetricsError, VOID};

/// Whether a network is right as often as it is sure: pixels in bins of their confidence, and the expected calibration error
/// of Guo, Pleiss, Sun and Weinberger ("On calibration of modern neural networks", 2017, section 2).
///
/// Confidence is the largest probability of a pixel. Bin m of [`BINS`] holds confidences in (m / 15, (m + 1) / 15].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calibration {
    bins: [Bin; BINS],
}

/// The bins of a [`Calibration`], all of one width.
pub const BINS: usize = 15;

/// Confidences are counted in units of 2^-24: exactly, as f32 in [0.5, 1] is made of them, and to half a unit below.
const ONE: u64 = 1 << 24;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bin {
    pixels: u64,
    right: u64,
    confidence: u64,
}

/// The pixels whose confidence lies in one bin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReliabilityBin {
    /// How many there are.
    pub pixels: u64,
    /// Their mean confidence; `None` if there are none.
    pub confidence: Option<f64>,
    /// The share of them that is right; `None` if there are none.
    pub accuracy: Option<f64>,
}

impl Calibration {
    /// Counts pixels by their confidence, a fraction in [0, 1]. Where the label is [`VOID`] the pixel is skipped.
    ///
    /// Fails, and counts nothing, if the lengths differ or a counted pixel's confidence is outside [0, 1].
    pub fn add(&mut self, labels: &[u32], predicted: &[u32], confidence: &[f32]) -> Result<(), MetricsError> {
        for length in [predicted.len(), confidence.len()] {
            if length != labels.len() {
                return Err(MetricsError::Length { truth: labels.len(), predicted: length });
            }
        }
        let counted = || (0..labels.len()).filter(|&pixel| labels[pixel] != VOID);
        if let Some(pixel) = counted().find(|&pixel| !(0.0..=1.0).contains(&confidence[pixel])) {
            return Err(MetricsError::Confidence { pixel });
        }
        for pixel in counted() {
            let units = (f64::from(confidence[pixel]) * ONE as f64).round() as u64;
            let bin = &mut self.bins[((BINS as u64 * units).saturating_sub(1) / ONE) as usize];
            bin.pixels += 1;
            bin.right += u64::from(labels[pixel] == predicted[pixel]);
            bin.confidence += units;
        }
        Ok(())
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.bins.iter_mut().zip(other.bins) {
            ours.pixels += theirs.pixels;
            ours.right += theirs.right;
            ours.confidence += theirs.confidence;
        }
    }

    /// The expected calibration error: the distance of accuracy and mean confidence of each bin, weighted by its pixels, in [0, 1];
    /// `None` if no pixel was counted.
    pub fn expected_error(&self) -> Option<f64> {
        let pixels: u64 = self.bins.iter().map(|bin| bin.pixels).sum();
        // Exact up to this one division: n_m |accuracy - confidence| is a difference of counts.
        let distance: u64 = self.bins.iter().map(|bin| (ONE * bin.right).abs_diff(bin.confidence)).sum();
        (pixels > 0).then(|| distance as f64 / (pixels as f64 * ONE as f64))
    }

    /// The reliability diagram: the bins from the least confident to the most.
    pub fn bins(&self) -> [ReliabilityBin; BINS] {
        self.bins.map(|bin| {
            let mean = |sum: f64| (bin.pixels > 0).then(|| sum / bin.pixels as f64);
            ReliabilityBin {
                pixels: bin.pixels,
                confidence: mean(bin.confidence as f64 / ONE as f64),
                accuracy: mean(bin.right as f64),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four pixels said at 0.75, three of them right; two at 0.5, one right; one void.
    fn example() -> Calibration {
        let mut calibration = Calibration::default();
        let labels = [1, 1, 1, 1, 0, 0, VOID];
        calibration.add(&labels, &[1, 1, 1, 0, 0, 1, 1], &[0.75, 0.75, 0.75, 0.75, 0.5, 0.5, f32::NAN]).unwrap();
        calibration
    }

    #[test]
    fn who_is_right_as_often_as_sure_has_no_error() {
        assert_eq!(example().expected_error(), Some(0.0));
        let bins = example().bins();
        assert_eq!(bins[11], ReliabilityBin { pixels: 4, confidence: Some(0.75), accuracy: Some(0.75) });
        assert_eq!(bins[7], ReliabilityBin { pixels: 2, confidence: Some(0.5), accuracy: Some(0.5) });
        assert_eq!(bins.iter().map(|bin| bin.pixels).sum::<u64>(), 6);
        assert_eq!(bins[0], ReliabilityBin { pixels: 0, confidence: None, accuracy: None });
    }

    #[test]
    fn errors_are_weighted_by_pixels() {
        let mut calibration = example();
        // Two pixels surely wrong: their bin's distance is 1, with a weight of 2 of 8.
        calibration.add(&[0, 0], &[1, 1], &[1.0, 1.0]).unwrap();
        assert_eq!(calibration.expected_error(), Some(0.25));
        // One right at 0.75 more: |4/5 - 3/4| with a weight of 5 of 9, and 2 of 9.
        calibration.add(&[0], &[0], &[0.75]).unwrap();
        assert!((calibration.expected_error().unwrap() - (0.25 + 2.0) / 9.0).abs() < 1e-12);
        assert_eq!(Calibration::default().expected_error(), None);
    }

    #[test]
    fn bins_are_open_below_and_closed_above() {
        let bin_of = |confidence: f32| {
            let mut calibration = Calibration::default();
            calibration.add(&[0], &[0], &[confidence]).unwrap();
            calibration.bins().iter().position(|bin| bin.pixels == 1).unwrap()
        };
        assert_eq!([0.0, 0.01, 0.2, 0.2001, 0.5999, 0.61, 1.0].map(bin_of), [0, 0, 2, 3, 8, 9, 14]);
    }

    #[test]
    fn merging_is_exact_and_what_cannot_be_counted_is_refused_whole() {
        let (mut twice, mut merged) = (example(), example());
        merged.merge(&example());
        twice.add(&[1, 1, 1, 1, 0, 0], &[1, 1, 1, 0, 0, 1], &[0.75, 0.75, 0.75, 0.75, 0.5, 0.5]).unwrap();
        assert_eq!(merged, twice);
        let mut calibration = example();
        assert_eq!(calibration.add(&[0, 1], &[0, 1], &[0.5]), Err(MetricsError::Length { truth: 2, predicted: 1 }));
        for wrong in [f32::NAN, -0.1, 1.1] {
            assert_eq!(calibration.add(&[0, 1], &[0, 1], &[0.5, wrong]), Err(MetricsError::Confidence { pixel: 1 }));
        }
        assert_eq!(calibration, example());
    }
}
