use std::fmt;

/// How the difference of two tensors is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The L2 norm of the difference over that of PyTorch's tensor.
    Relative,
    /// The largest absolute difference of two elements.
    Largest,
    /// The root of the mean squared difference.
    RootMeanSquare,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relative => "relative L2",
            Self::Largest => "largest difference",
            Self::RootMeanSquare => "rms difference",
        })
    }
}

/// How far apart two tensors may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// What is measured.
    pub measure: Measure,
    /// The largest value that is accepted.
    pub limit: f64,
}

impl Tolerance {
    /// Outputs and gradients, each tensor: `f32` leaves 1e-6 and 8e-6 of them to rounding, and a Winograd convolution some more.
    pub const OUTPUT: Self = Self::new(Measure::Relative, 1e-4);
    /// Losses.
    pub const LOSS: Self = Self::new(Measure::Largest, 1e-4);
    /// Parameters and statistics after training steps.
    pub const TRAINED: Self = Self::new(Measure::Relative, 1e-3);
    /// The output of a trained network.
    pub const TRAINED_OUTPUT: Self = Self::new(Measure::Relative, 1e-2);
    /// The gradient of a bias that a batch norm follows. The norm takes every constant away, so that the true gradient is 0 and what
    /// either side computes is its rounding.
    pub const ZERO_GRADIENT: Self = Self::new(Measure::Largest, 1e-6);

    /// Such a bias after training, and the running mean behind it. Adam makes of any gradient, however small, steps of about the
    /// learning rate; here their directions are those of rounding, and the two sides walk apart.
    pub const fn of_noise(learning_rate: f64) -> Self {
        Self::new(Measure::RootMeanSquare, 3.0 * learning_rate)
    }

    const fn new(measure: Measure, limit: f64) -> Self {
        Self { measure, limit }
    }
}

/// One tensor, computed twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// Its name in the file.
    pub name: String,
    /// [`Measure::Relative`], whatever the tolerance asks for.
    pub relative: f64,
    /// What the tolerance asks for.
    pub error: f64,
    /// How large that may be.
    pub tolerance: Tolerance,
}

impl Quantity {
    pub(super) fn new(name: &str, ours: &[f64], theirs: &[f64], tolerance: Tolerance) -> Self {
        let differences = || ours.iter().zip(theirs).map(|(a, b)| a - b);
        let squared = differences().map(|d| d * d).sum::<f64>();
        let norm = theirs.iter().map(|b| b * b).sum::<f64>().sqrt();
        // Where all should be 0, the norm of what is not.
        let relative = if norm > 0.0 { squared.sqrt() / norm } else { squared.sqrt() };
        let error = match tolerance.measure {
            Measure::Relative => relative,
            // f64::max would lose a NaN.
            Measure::Largest => differences().map(f64::abs).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }),
            Measure::RootMeanSquare => (squared / ours.len().max(1) as f64).sqrt(),
        };
        Self { name: name.to_owned(), relative, error, tolerance }
    }

    /// Whether the error keeps within the tolerance; a NaN does not.
    pub fn is_within(&self) -> bool {
        self.error <= self.tolerance.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(ours: &[f64], theirs: &[f64], measure: Measure) -> f64 {
        Quantity::new("x", ours, theirs, Tolerance::new(measure, 1.0)).error
    }

    #[test]
    fn measures_are_what_they_say() {
        let (ours, theirs) = ([3.0, 4.5, 0.0, 4.0], [3.0, 4.0, 0.0, 5.0]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} is not {b}");
        close(error(&ours, &theirs, Measure::Relative), (1.25f64 / 50.0).sqrt());
        close(error(&ours, &theirs, Measure::Largest), 1.0);
        close(error(&ours, &theirs, Measure::RootMeanSquare), (1.25f64 / 4.0).sqrt());
        close(error(&[3.0, 4.0], &[0.0, 0.0], Measure::Relative), 5.0);
    }

    #[test]
    fn a_nan_is_never_within() {
        for measure in [Measure::Relative, Measure::Largest, Measure::RootMeanSquare] {
            for (ours, theirs) in [([f64::NAN, 1.0], [1.0, 1.0]), ([1.0, 1.0], [f64::NAN, 1.0])] {
                assert!(!Quantity::new("x", &ours, &theirs, Tolerance::new(measure, 1e9)).is_within());
            }
        }
    }
}
