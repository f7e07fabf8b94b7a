//! What moves parameters, in place: one step of Adam or of gradient descent, and averages that follow.

pub(crate) mod adam;
mod move_towards;
mod sgd;
mod squared_norms;

pub use adam::{AdamParameter, AdamStep, adam_step, adam_steps};
pub use move_towards::move_towards;
pub use sgd::{SgdParameter, SgdStep, sgd_steps};
pub use squared_norms::squared_norms;
