//! From files on disk to batches of tensors.

pub mod keyed;

mod augment;
mod classes;
mod config;
mod error;
mod nearest;
mod sample;
mod split;

pub use augment::AugmentConfig;
pub use classes::{Class, ClassTable};
pub use config::{DataConfig, Direction, Layout, MAX_SIDE};
pub use error::DataError;
pub use sample::{Batch, Sample, VOID, photo_tensor};
pub use split::{ParseSplitError, Split};
