//! Activations, with PyTorch's gradients at zero (candle's ReLU has 1 there, its leaky ReLU the mean of both slopes).

mod composed;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

pub(crate) use composed::minus_absolute;
pub(crate) use cpu::{Activate, ForActivation, exp_negative, ln_normal, sigmoid as sigmoid_of};

use crate::check::{self, refuse};
#[cfg(feature = "cuda")]
use crate::cuda::Stage;
use crate::kernel::{Order, Pass, by_candle, has_kernel, map, map2, node, node_of_result, update, values, wide};
use cpu::{LeakyRelu, Relu};

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
    /// The activation of `x`, of any shape.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Relu => relu(x),
            Self::LeakyRelu(slope) => leaky_relu(x, slope),
        }
    }

    /// Whether a result is above zero where its value is, so that the way back can do with it.
    pub(crate) fn keeps_sign(self) -> bool {
        self.slope() >= 0.
    }

    /// Whether it is `max(x, slope x)`, and that is NaN where it should be: as vectors of sums are ended before they are written.
    pub(crate) fn is_maximum(self) -> bool {
        match self {
            Self::None | Self::Relu => true,
            Self::LeakyRelu(slope) => slope <= 1. && slope != 0.,
        }
    }

    /// Turns gradients into those before the activation of `x`, or of what has its signs.
    pub(crate) fn go_back(self, gradients: &mut [f32], x: &[f32]) {
        match self {
            Self::None => {}
            Self::Relu => update(gradients, x, |gradient, x| Relu.gradient(x, gradient)),
            Self::LeakyRelu(slope) => {
                let activation = LeakyRelu(slope as f32);
                update(gradients, x, move |gradient, x| activation.gradient(x, gradient));
            }
        }
    }

    /// What values that are not above zero are multiplied by.
    pub(crate) fn slope(self) -> f32 {
        match self {
            Self::None => 1.,
            Self::Relu => 0.,
            Self::LeakyRelu(slope) => slope as f32,
        }
    }
}

/// `max(x, 0)` of any shape; the gradient at 0 is 0.
///
/// # Errors
/// An empty tensor.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    check::not_empty("relu", "x", x)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of_image(x) {
        return cuda::apply(&stage, Activation::Relu, x);
    }
    if !has_kernel(x) {
        return composed::relu(x);
    }
    // The result says as much about the gradient as x does, and the next op keeps it anyway.
    from_result("relu", x, |x| Relu.value(x), |y, gradient| Relu.gradient(y, gradient))
}

/// `x` above zero and `slope * x` elsewhere; the gradient at 0 is the slope.
///
/// # Errors
/// An empty tensor.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    check::not_empty("leaky_relu", "x", x)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of_image(x) {
        return cuda::apply(&stage, Activation::LeakyRelu(slope), x);
    }
    if !has_kernel(x) {
        return composed::leaky_relu(x, slope);
    }
    let activation = LeakyRelu(slope as f32);
    let x = x.contiguous()?;
    let y = map(&values(&x)?, move |x| activation.value(x));
    let input = x.detach();
    node("leaky_relu", &[&x], y, x.shape(), move |pass| {
        let back = |gradient: &mut [f32], x: &[f32]| Activation::LeakyRelu(slope).go_back(gradient, x);
        Ok([Some(pass.overwritten(&input, back)?.0), None, None])
    })
}

/// The activation of `a + b`, two tensors of one shape: the end of a residual block.
///
/// # Errors
/// Empty tensors, and tensors of different shapes.
pub fn add(a: &Tensor, b: &Tensor, activation: Activation) -> Result<Tensor> {
    const OP: &str = "add";
    let [a, b] = [&wide(a)?, &wide(b)?];
    check::same_shape(OP, "b", b, a)?;
    check::not_empty(OP, "a", a)?;
    if !has_kernel(a) {
        return activation.apply(&by_candle(OP, &[a, b], |x| &x[0] + &x[1])?);
    }
    if !activation.keeps_sign() {
        return activation.apply(&add(a, b, Activation::None)?);
    }
    let [a, b] = [a.contiguous()?, b.contiguous()?];
    let y = {
        let (a, b) = (&*values(&a)?, &*values(&b)?);
        match activation {
            Activation::None => map2(a, b, |a, b| a + b),
            Activation::Relu => map2(a, b, |a, b| Relu.value(a + b)),
            Activation::LeakyRelu(slope) => {
                let activation = LeakyRelu(slope as f32);
                map2(a, b, move |a, b| activation.value(a + b))
            }
        }
    };
    // Each gradient has its own storage: those of other uses are added in place.
    let shared = |pass: &Pass, gradient: Tensor| {
        let of_b = pass.needed[1].then(|| if pass.needed[0] { gradient.copy() } else { Ok(gradient.clone()) });
        Ok([pass.needed[0].then_some(gradient), of_b.transpose()?])
    };
    if activation == Activation::None {
        return node(OP, &[&a, &b], y, a.shape(), move |pass| shared(pass, pass.take_gradient()?));
    }
    node_of_result(Order::Planes, OP, &[&a, &b], y, a.shape(), move |pass, y| {
        let (gradient, ()) = pass.overwritten(y, |gradient, y| activation.go_back(gradient, y))?;
        shared(pass, gradient)
    })
}

/// `bound * tanh(x / bound)` of any shape: x near 0, and never beyond `bound`, with a gradient everywhere.
///
/// # Errors
/// An empty tensor, and a bound that is not positive.
pub fn soft_clamp(x: &Tensor, bound: f64) -> Result<Tensor> {
    if !(bound > 0. && bound.is_finite()) {
        refuse!("soft_clamp: bound {bound} is not positive");
    }
    check::not_empty("soft_clamp", "x", x)?;
    let x = &wide(x)?;
    if !has_kernel(x) {
        return by_candle("soft_clamp", &[x], move |x| (&x[0] / bound)?.tanh()? * bound);
    }
    let (bound, inverse) = (bound as f32, (1. / bound) as f32);
    from_result(
        "soft_clamp",
        x,
        move |x| bound * cpu::tanh(x * inverse),
        move |y, gradient| gradient * (1. - (y * inverse) * (y * inverse)),
    )
}

/// Hyperbolic tangent of any shape.
///
/// # Errors
/// An empty tensor.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    check::not_empty("tanh", "x", x)?;
    let x = &wide(x)?;
    if !has_kernel(x) {
        #[cfg(feature = "cuda")]
        if let Some(stage) = Stage::of(x) {
            return cuda::squash(&stage, cuda::Kind::Tanh, x);
        }
        return by_candle("tanh", &[x], |x| x[0].tanh());
    }
    from_result("tanh", x, cpu::tanh, |y, gradient| gradient * (1. - y * y))
}

/// `1 / (1 + exp(-x))` of any shape, without overflow at either end.
///
/// # Errors
/// An empty tensor.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    check::not_empty("sigmoid", "x", x)?;
    let x = &wide(x)?;
    if !has_kernel(x) {
        #[cfg(feature = "cuda")]
        if let Some(stage) = Stage::of(x) {
            return cuda::squash(&stage, cuda::Kind::Sigmoid, x);
        }
        return by_candle("sigmoid", &[x], |x| composed::sigmoid(&x[0]));
    }
    from_result("sigmoid", x, cpu::sigmoid, |y, gradient| gradient * y * (1. - y))
}

/// An activation whose gradient is a function of its result.
fn from_result(
    name: &'static str,
    x: &Tensor,
    value: impl Fn(f32) -> f32 + Sync + Copy,
    gradient: impl Fn(f32, f32) -> f32 + Send + Sync + Copy + 'static,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = map(&values(&x)?, value);
    node_of_result(Order::Planes, name, &[&x], y, x.shape(), move |pass, y| {
        let back = |of_y: &mut [f32], y: &[f32]| update(of_y, y, move |of_y, y| gradient(y, of_y));
        Ok([Some(pass.overwritten(y, back)?.0)])
    })
}
