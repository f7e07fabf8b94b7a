//! Normalisations: of what a layer gives, by the statistics of a batch or of an image, and of a layer's weight, by its spectral norm.

pub(crate) mod batch_norm;
mod group_norm;
mod instance_norm;
mod spectral_norm;

pub use batch_norm::{BatchStatistics, NormEval, NormTrain, batch_norm_eval, batch_norm_train};
pub use group_norm::group_norm;
pub use instance_norm::instance_norm;
pub use spectral_norm::{power_iteration, spectral_norm};
