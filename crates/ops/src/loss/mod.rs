//! Losses: one number of a whole batch, with a backward pass that is exact at the ends of the range; and what they are made of.

mod adversarial;
mod bce;
mod cross_entropy;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
mod dice;
mod focal;
mod labels;
mod lovasz;
mod regression;
mod softmax;
mod variational;
mod weighted_sum;

pub use adversarial::{hinge, least_squares, mean};
pub use bce::bce_with_logits;
pub use cross_entropy::cross_entropy;
pub use dice::dice;
pub use focal::focal;
pub use labels::VOID;
pub use lovasz::lovasz_softmax;
pub use regression::{charbonnier, l1, mse};
pub use softmax::softmax;
pub use variational::{gaussian_kl, reparameterize};
pub use weighted_sum::weighted_sum;

use candle_core::{Result, Tensor};

use crate::kernel::{map, node};

/// A loss of one tensor whose gradient the forward pass has made on its way.
fn with_gradient(op: &'static str, x: &Tensor, loss: f64, gradient: Vec<f32>) -> Result<Tensor> {
    let shape = x.shape().clone();
    node(op, &[x], vec![loss as f32], (), move |pass| {
        let scale = pass.gradient.to_scalar::<f32>()?;
        let gradient = map(&gradient, move |gradient| gradient * scale);
        Ok([Some(Tensor::from_vec(gradient, &shape, pass.gradient.device())?), None, None])
    })
}
