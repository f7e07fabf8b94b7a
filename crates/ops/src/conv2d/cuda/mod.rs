//! Convolutions by cuDNN, of f32 and bf16 tensors on a CUDA device.
//!
//! A device is trusted after a trial: its first convolution in a process is preceded by small ones whose right results are
//! known. Where cuDNN is wrong or fails, the composed path goes on serving. Directions and trial know no device, so that they
//! are tested without one.

#[cfg(feature = "cuda")]
mod backend;
#[cfg(feature = "cuda")]
mod cudnn;
mod direction;
mod form;
mod node;
#[cfg(feature = "cuda")]
mod op;
mod phases;
#[cfg(feature = "cuda")]
mod plan;
#[cfg(all(test, feature = "cuda"))]
mod tests;
mod trial;

#[cfg(feature = "cuda")]
pub(crate) use direction::Direction;
#[cfg(feature = "cuda")]
pub(crate) use op::{apply, apply_activated, apply_norm_eval, apply_norm_train, refusal};
pub(crate) use phases::fault as phases_fault;
pub(crate) use trial::drawn;
