use crate::MetricsError;

/// How often predicted colours agree with those of a label map, without going through classes.
///
/// "Pixel accuracy" of a network that paints its label map can be read in several ways; these are the ones that need no class
/// table. Two black pixels have the same `argmax` as two red ones, and a grey with a little noise has any `argmax` at all: none of
/// these readings replaces the accuracy of the decoded classes. Every pixel counts, void colours too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RgbAgreement {
    pixels: u64,
    argmax: u64,
    within: [u64; TOLERANCES.len()],
}

const TOLERANCES: [f32; 3] = [5.0, 10.0, 25.0];

impl RgbAgreement {
    /// Counts the pixels of one image. Both slices hold its red, its green and its blue plane, one after the other; the prediction
    /// is on the scale of 0 to 255, and may overshoot it. A pixel with a NaN agrees in no reading.
    ///
    /// Fails, and counts nothing, if the lengths differ or are no multiple of three.
    pub fn add(&mut self, truth: &[u8], predicted: &[f32]) -> Result<(), MetricsError> {
        if truth.len() != predicted.len() {
            return Err(MetricsError::Length { truth: truth.len(), predicted: predicted.len() });
        }
        if !truth.len().is_multiple_of(3) {
            return Err(MetricsError::Planes { values: truth.len() });
        }
        let pixels = truth.len() / 3;
        for pixel in 0..pixels {
            let truth = [0, 1, 2].map(|plane| f32::from(truth[plane * pixels + pixel]));
            let predicted = [0, 1, 2].map(|plane| predicted[plane * pixels + pixel]);
            if predicted.iter().any(|value| value.is_nan()) {
                continue;
            }
            self.argmax += u64::from(argmax(truth) == argmax(predicted));
            let furthest = truth.iter().zip(predicted).map(|(t, p)| (t - p).abs()).fold(0.0, f32::max);
            for (count, tolerance) in self.within.iter_mut().zip(TOLERANCES) {
                *count += u64::from(furthest <= tolerance);
            }
        }
        self.pixels += pixels as u64;
        Ok(())
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.pixels += other.pixels;
        self.argmax += other.argmax;
        self.within.iter_mut().zip(other.within).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// Pixels counted.
    pub fn pixels(&self) -> u64 {
        self.pixels
    }

    /// The fraction of pixels whose largest channel is the same one; of equal channels the first counts, as in PyTorch's argmax.
    pub fn argmax(&self) -> Option<f64> {
        self.fraction(self.argmax)
    }

    /// The fraction of pixels all of whose channels are at most 5 of 255 off.
    pub fn within_5(&self) -> Option<f64> {
        self.fraction(self.within[0])
    }

    /// The fraction of pixels all of whose channels are at most 10 of 255 off.
    pub fn within_10(&self) -> Option<f64> {
        self.fraction(self.within[1])
    }

    /// The fraction of pixels all of whose channels are at most 25 of 255 off.
    pub fn within_25(&self) -> Option<f64> {
        self.fraction(self.within[2])
    }

    fn fraction(&self, agreeing: u64) -> Option<f64> {
        (self.pixels > 0).then(|| agreeing as f64 / self.pixels as f64)
    }
}

/// The channel of the first maximum.
fn argmax([r, g, b]: [f32; 3]) -> usize {
    if r >= g && r >= b {
        0
    } else if g >= b {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_those_worked_out_by_hand() {
        // Per pixel: (truth) (prediction), the largest difference, whether the argmax agrees.
        let pixels: [([u8; 3], [f32; 3]); 5] = [
            ([128, 64, 128], [128.0, 64.0, 128.0]), // 0, yes: red is the first of two maxima on both sides
            ([128, 64, 128], [124.0, 64.0, 129.0]), // 4, no: blue overtook red
            ([70, 70, 70], [60.0, 65.0, 64.0]),     // 10, no: red, then green
            ([0, 0, 255], [-20.0, 0.0, 270.0]),     // 20, yes; beyond the scale counts as it is
            ([10, 200, 30], [10.0, 225.5, 30.0]),   // 25.5, yes
        ];
        let planes = |value: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            (0..3).flat_map(|plane| (0..5).map(move |pixel| (pixel, plane))).map(|(p, c)| value(p, c)).collect()
        };
        let truth: Vec<u8> = planes(&|p, c| f32::from(pixels[p].0[c])).into_iter().map(|v| v as u8).collect();
        let predicted = planes(&|p, c| pixels[p].1[c]);

        let mut agreement = RgbAgreement::default();
        agreement.add(&truth, &predicted).unwrap();
        assert_eq!(agreement.pixels(), 5);
        assert_eq!(agreement.argmax(), Some(0.6));
        assert_eq!(agreement.within_5(), Some(0.4));
        assert_eq!(agreement.within_10(), Some(0.6)); // 10 is within 10
        assert_eq!(agreement.within_25(), Some(0.8));

        let mut twice = agreement;
        twice.merge(&agreement);
        assert_eq!((twice.pixels(), twice.argmax()), (10, Some(0.6)));
    }

    #[test]
    fn of_equal_channels_the_first_is_the_largest() {
        let found = [[7.0; 3], [1.0, 7.0, 7.0], [7.0, 1.0, 7.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]].map(argmax);
        assert_eq!(found, [0, 1, 0, 2, 1]);
    }

    #[test]
    fn a_nan_agrees_with_nothing() {
        let mut agreement = RgbAgreement::default();
        agreement.add(&[9, 0, 0], &[9.0, f32::NAN, 0.0]).unwrap();
        assert_eq!((agreement.argmax(), agreement.within_25()), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn nothing_counted_is_no_score_and_wrong_lengths_are_refused() {
        let mut agreement = RgbAgreement::default();
        assert_eq!((agreement.argmax(), agreement.within_5()), (None, None));
        assert_eq!(agreement.add(&[1, 2], &[1.0]), Err(MetricsError::Length { truth: 2, predicted: 1 }));
        assert_eq!(agreement.add(&[1; 4], &[1.0; 4]), Err(MetricsError::Planes { values: 4 }));
        assert_eq!(agreement, RgbAgreement::default());
    }
}
