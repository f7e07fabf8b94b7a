//! Activations, with PyTorch's gradients at zero (candle's ReLU has 1 there, its leaky ReLU the mean of both slopes).

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

pub(crate) use composed::minus_absolute;

/// What a normalisation applies to its result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The result as it is.
    None,
    /// `max(x, 0)`; gradient 0 at 0.
    Relu,
    /// `x` above zero and the slope times `x` elsewhere; gradient at 0 is the slope.
    LeakyRelu(f64),
}

impl Activation {
    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Relu => relu(x),
            Self::LeakyRelu(slope) => leaky_relu(x, slope),
        }
    }
}

/// `max(x, 0)` of any shape; the gradient at 0 is 0.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    composed::relu(x)
}

/// `x` above zero and `slope * x` elsewhere; the gradient at 0 is the slope.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    composed::leaky_relu(x, slope)
}

/// Hyperbolic tangent of any shape.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    x.tanh()
}

/// `1 / (1 + exp(-x))` of any shape, without overflow at either end.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    composed::sigmoid(x)
}
