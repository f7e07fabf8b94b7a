//! Activations by kernels on a CUDA device.

use candle_core::{Result, Tensor};

use super::Activation;
use crate::cuda::sums::size;
use crate::cuda::{Memory, Stage, address, is_narrow};
use crate::kernel::{Order, in_f32, node_of_result, node_taking_bf16};

/// The kernels' `struct Activation`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    x: u64,
    gradient: u64,
    y: u64,
    len: i32,
    fours: i32,
    narrow: i32,
    gradient_narrow: i32,
    slope: f32,
}

/// Of f32 or, in the order of pixels, bf16, which the result is then too.
pub(crate) fn apply(stage: &Stage, activation: Activation, x: &Tensor) -> Result<Tensor> {
    let order = Order::of(x);
    let input = order.arrange(&x.detach())?;
    let mut y = memory_like(stage, &input)?;
    let (len, narrow) = (input.elem_count(), is_narrow(&input));
    run(stage, "activate", activation, [address(&input)?, 0, y.address()?], len, [narrow, false])?;
    let stage = stage.clone();
    if activation.keeps_sign() {
        return node_of_result(order, "activation", &[x], y, x.shape(), move |pass, y| {
            Ok([Some(back(&stage, activation, y, pass.gradient)?)])
        });
    }
    node_taking_bf16(order, "activation", &[x], y, x.shape(), move |pass| {
        Ok([Some(back(&stage, activation, &input, pass.gradient)?)])
    })
}

/// The activation of `len` values where they lie.
pub(crate) fn apply_in_place(stage: &Stage, activation: Activation, x: &mut Memory, len: usize) -> Result<()> {
    let (at, narrow) = (x.address()?, x.is_narrow());
    run(stage, "activate", activation, [at, 0, at], len, [narrow, false])
}

/// The gradient before the activation of `x`, or of what has its signs.
pub(crate) fn back(stage: &Stage, activation: Activation, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let mut y = memory_like(stage, x)?;
    let addresses = [address(x)?, address(gradient)?, y.address()?];
    run(stage, "activate_back", activation, addresses, x.elem_count(), [is_narrow(x), is_narrow(gradient)])?;
    y.into_tensor_like(x)
}

fn memory_like(stage: &Stage, x: &Tensor) -> Result<Memory> {
    if is_narrow(x) { stage.narrow_memory(x.elem_count()) } else { stage.memory(x.elem_count()) }
}

/// Of x, gradient and y, of `len` values each; the first and the last are bf16 if `narrow`.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn run(
    stage: &Stage,
    kernel: &'static str,
    activation: Activation,
    [x, gradient, y]: [u64; 3],
    len: usize,
    [narrow, gradient_narrow]: [bool; 2],
) -> Result<()> {
    let fours = len.is_multiple_of(4) && [x, gradient, y].iter().all(|at| at.is_multiple_of(16));
    let parameters = Parameters {
        x,
        gradient,
        y,
        len: size(len)?,
        fours: fours.into(),
        narrow: narrow.into(),
        gradient_narrow: gradient_narrow.into(),
        slope: activation.slope(),
    };
    // SAFETY: all have `len` values in the dtypes said and are alive; the kernel without a gradient reads none. What is written may be what
    // is read, value by value.
    unsafe { stage.launch(kernel, (stage.blocks(len), 1), &parameters) }
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
        let gradient = run_squash(&stage, "squash_back", kind, y, Some(&in_f32(pass.gradient)?))?;
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
