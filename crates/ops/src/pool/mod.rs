//! Pooling over windows and over whole planes.

pub(crate) mod max_pool2d;
mod planes;

pub use max_pool2d::max_pool2d;
pub use planes::{global_avg_pool, spread};
