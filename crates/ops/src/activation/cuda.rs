//! Activations by kernels on a CUDA device.

use candle_core::{Result, Tensor};

use super::Activation;
use crate::cuda::sums::size;
use crate::cuda::{Memory, Stage, address};
use crate::kernel::{Order, Pass, node_in, node_of_result};

/// The kernels' `struct Activation`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    x: u64,
    gradient: u64,
    y: u64,
    len: i32,
    slope: f32,
}

pub(crate) fn apply(stage: &Stage, activation: Activation, x: &Tensor) -> Result<Tensor> {
    let order = Order::of(x);
    let input = order.arrange(&x.detach())?;
    let y = run(stage, "activate", activation, &input, None)?;
    let stage = stage.clone();
    let back = move |pass: &Pass, x: &Tensor| {
        let gradient = run(&stage, "activate_back", activation, x, Some(pass.gradient))?;
        Ok([Some(gradient.into_tensor_like(x)?)])
    };
    if activation.slope() < 0. {
        return node_in(order, "activation", &[x], y, x.shape(), move |pass| back(pass, &input));
    }
    // A result is above zero where its value is.
    node_of_result(order, "activation", &[x], y, x.shape(), back)
}

#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn run(
    stage: &Stage,
    kernel: &'static str,
    activation: Activation,
    x: &Tensor,
    gradient: Option<&Tensor>,
) -> Result<Memory> {
    let mut y = stage.memory(x.elem_count())?;
    let parameters = Parameters {
        x: address(x)?,
        gradient: gradient.map_or(Ok(0), address)?,
        y: y.address()?,
        len: size(x.elem_count())?,
        slope: activation.slope(),
    };
    // SAFETY: all have `len` values and are alive; the kernel without a gradient reads none.
    unsafe { stage.launch(kernel, (stage.blocks(x.elem_count()), 1), &parameters)? };
    Ok(y)
}

/// The kernels' `struct Squash`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Squash {
    x: u64,
    gradient: u64,
    y: u64,
    len: i32,
    kind: i32,
}

/// Activations whose gradient is a function of their result, as the kernels count them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Tanh,
    Sigmoid,
}

pub(crate) fn squash(stage: &Stage, kind: Kind, x: &Tensor) -> Result<Tensor> {
    let order = Order::of(x);
    let input = order.arrange(&x.detach())?;
    let y = run_squash(stage, "squash", kind, &input, None)?;
    let stage = stage.clone();
    node_of_result(order, "squash", &[x], y, x.shape(), move |pass, y| {
        let gradient = run_squash(&stage, "squash_back", kind, y, Some(pass.gradient))?;
        Ok([Some(gradient.into_tensor_like(y)?)])
    })
}

#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn run_squash(
    stage: &Stage,
    kernel: &'static str,
    kind: Kind,
    x: &Tensor,
    gradient: Option<&Tensor>,
) -> Result<Memory> {
    let mut y = stage.memory(x.elem_count())?;
    let parameters = Squash {
        x: address(x)?,
        gradient: gradient.map_or(Ok(0), address)?,
        y: y.address()?,
        len: size(x.elem_count())?,
        kind: kind as i32,
    };
    // SAFETY: all have `len` values and are alive; the kernel without a gradient reads none.
    unsafe { stage.launch(kernel, (stage.blocks(x.elem_count()), 1), &parameters)? };
    Ok(y)
}
