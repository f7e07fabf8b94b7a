//! How well predicted classes match labelled ones.
//!
//! Scores are ratios of counts, and counts are exact: a [`ConfusionMatrix`] or a [`RgbAgreement`] grows image by image, in any
//! order and in any number of parts, and the same pixels always give the same score. A score that has no pixel to speak of is
//! `None`; it is never 0, and never drags a mean down.
//!
//! ```
//! use img2seg_metrics::{ConfusionMatrix, VOID};
//!
//! let mut matrix = ConfusionMatrix::new(3);
//! matrix.add(&[0, 0, 0, 1, VOID], &[0, 0, 1, 1, 0])?;
//!
//! assert_eq!(matrix.pixels(), 4);
//! assert_eq!(matrix.pixel_accuracy(), Some(0.75));
//! assert_eq!(matrix.class_iou(), [Some(2.0 / 3.0), Some(0.5), None]); // class 2 is in neither
//! # Ok::<(), img2seg_metrics::MetricsError>(())
//! ```

pub mod bootstrap;
mod boundary;
mod calibration;
mod confusion_matrix;
mod error;
mod rgb_agreement;

pub use boundary::BoundaryF1;
pub use calibration::{BINS, Calibration, ReliabilityBin};
pub use confusion_matrix::{ConfusionMatrix, VOID};
pub use error::MetricsError;
pub use rgb_agreement::RgbAgreement;
