use std::fmt;

/// Why pixels could not be counted. Nothing is counted when one of these is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsError {
    /// Truth and prediction are not of one length.
    Length {
        /// Values in the truth.
        truth: usize,
        /// Values in the prediction.
        predicted: usize,
    },
    /// A colour image whose length is no multiple of three.
    Planes {
        /// Values in the image.
        values: usize,
    },
    /// A label that is neither a class nor void.
    Label {
        /// The label.
        label: u32,
        /// Its position.
        pixel: usize,
        /// Classes of the matrix.
        classes: usize,
    },
    /// A prediction that is no class.
    Prediction {
        /// The prediction.
        predicted: u32,
        /// Its position.
        pixel: usize,
        /// Classes of the matrix.
        classes: usize,
    },
    /// Two matrices that do not count the same number of classes.
    Classes {
        /// Classes of the matrix that was to grow.
        ours: usize,
        /// Classes of the other.
        theirs: usize,
    },
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { truth, predicted } => {
                write!(f, "truth and prediction: {truth} and {predicted} values, not equally many")
            }
            Self::Planes { values } => write!(f, "colour image: {values} values are not three planes of one size"),
            Self::Label { label, pixel, classes } => {
                write!(f, "label {label} of pixel {pixel}: neither void nor one of {classes} classes")
            }
            Self::Prediction { predicted, pixel, classes } => {
                write!(f, "prediction {predicted} of pixel {pixel}: not one of {classes} classes")
            }
            Self::Classes { ours, theirs } => {
                write!(f, "confusion matrix of {theirs} classes: cannot be added to one of {ours}")
            }
        }
    }
}

impl std::error::Error for MetricsError {}
