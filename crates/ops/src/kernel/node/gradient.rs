//! Gradients as passes give them.

use candle_core::Tensor;

/// The gradient of an input.
#[derive(Debug)]
pub(crate) struct Gradient {
    pub(crate) tensor: Tensor,
    /// The sum of its squares, if whoever computed it has that too.
    pub(crate) squared_norm: Option<f64>,
}

impl From<Tensor> for Gradient {
    fn from(tensor: Tensor) -> Self {
        Self { tensor, squared_norm: None }
    }
}
