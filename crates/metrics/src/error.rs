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
    /// A map of classes whose length is no multiple of its width.
    Rows {
        /// Values in the map.
        values: usize,
        /// Pixels that a row is said to have.
        width: usize,
    },
    /// A confidence outside [0, 1].
    Confidence {
        /// Its position.
        pixel: usize,
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
            Self::Rows { values, width } => write!(f, "map of classes: {values} values are not rows of {width}"),
            Self::Confidence { pixel } => write!(f, "confidence of pixel {pixel}: not in 0..=1"),
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
