//! The order of errors, and what each place in it counts for.

/// Bits of a key that one pass sorts by: three passes sort all 32.
const DIGIT: u32 = 11;
const DIGITS: usize = 3;

/// An error with its pixel as a number that is the smaller the larger the error is; of equal errors that of the earlier pixel is smaller.
/// Errors are 0 or more, so that their bits are ordered as they are; NaN is above all.
pub(super) fn key(error: f32, pixel: u32) -> u64 {
    u64::from(!error.to_bits()) << 32 | u64::from(pixel)
}

/// The error and the pixel that a key was made of.
pub(super) fn error_and_pixel(key: u64) -> (f32, u32) {
    (f32::from_bits(!((key >> 32) as u32)), key as u32)
}

/// Sorts keys by their errors, and leaves those of equal errors in their order: a radix sort from the lowest digit to the highest.
pub(super) fn sort(mut keys: Vec<u64>) -> Vec<u64> {
    let digit = |key: u64, at: usize| (key >> (32 + at as u32 * DIGIT)) as usize & ((1 << DIGIT) - 1);
    let mut starts = vec![[0usize; DIGITS]; 1 << DIGIT];
    for &key in &keys {
        for at in 0..DIGITS {
            starts[digit(key, at)][at] += 1;
        }
    }
    let mut next = [0; DIGITS];
    for starts in &mut starts {
        for (start, next) in starts.iter_mut().zip(&mut next) {
            *next += std::mem::replace(start, *next);
        }
    }
    let mut sorted = vec![0; keys.len()];
    for at in 0..DIGITS {
        for &key in &keys {
            let start = &mut starts[digit(key, at)][at];
            sorted[*start] = key;
            *start += 1;
        }
        std::mem::swap(&mut keys, &mut sorted);
    }
    keys
}

/// The Jaccard loss `1 - intersection / union` of a class as one pixel after the other turns wrong, from none on.
pub(super) struct Jaccard {
    intersection: f64,
    union: f64,
}

impl Jaccard {
    /// Of a class of `count` pixels.
    pub(super) fn new(count: usize) -> Self {
        Self { intersection: count as f64, union: count as f64 }
    }

    /// By how much the loss rises with the next pixel, which is one of the class or is not. Written without the difference of two
    /// losses, which of many pixels would have few digits.
    pub(super) fn rise(&mut self, is_own: bool) -> f64 {
        if is_own {
            self.intersection -= 1.;
            1. / self.union
        } else {
            let rise = self.intersection / (self.union * (self.union + 1.));
            self.union += 1.;
            rise
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fall_and_equal_ones_keep_their_order() {
        let errors = [0.25f32, 1., 0., 0.25, f32::NAN, 1e-30, 0.25, 0.999_999_94, 0.];
        let keys = errors.iter().enumerate().map(|(pixel, &error)| key(error, pixel as u32)).collect();
        let pixels: Vec<u32> = sort(keys).into_iter().map(|key| error_and_pixel(key).1).collect();
        assert_eq!(pixels, [4, 1, 7, 0, 3, 6, 5, 2, 8]);
        assert_eq!(error_and_pixel(key(0.625, u32::MAX)), (0.625, u32::MAX));
        assert!(sort(Vec::new()).is_empty());
    }

    #[test]
    fn many_are_sorted_as_the_standard_library_sorts_them() {
        let keys: Vec<u64> =
            (0..50_000u32).map(|i| key((i.wrapping_mul(2_654_435_761) >> 12) as f32 / 1e6, i)).collect();
        let mut expected = keys.clone();
        expected.sort_unstable();
        assert!(sort(keys) == expected);
    }

    #[test]
    fn rises_are_differences_of_the_loss() {
        let wrong = [true, false, false, true, false, true];
        let mut jaccard = Jaccard::new(3);
        let mut sum = 0.;
        for last in 0..wrong.len() {
            sum += jaccard.rise(wrong[last]);
            let own = wrong[..=last].iter().filter(|&&own| own).count() as f64;
            let loss = 1. - (3. - own) / (3. + (last as f64 + 1. - own));
            assert!((sum - loss).abs() < 1e-15, "{last}: {sum}, not {loss}");
        }
        assert!((sum - 1.).abs() < 1e-15);
    }
}
