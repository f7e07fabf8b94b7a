//! Activations by kernels on a CUDA device.

use candle_core::{Error, Result, Tensor};

use super::Activation;
use crate::cuda::{Memory, Stage, address};
use crate::kernel::node;

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
    let x = x.contiguous()?;
    let y = run(stage, "activate", activation, &x, None)?;
    let (stage, input) = (stage.clone(), x.detach());
    node("activation", &[&x], y, x.shape(), move |pass| {
        let gradient = run(&stage, "activate_back", activation, &input, Some(pass.gradient))?;
        Ok([Some(gradient.into_tensor(input.shape()))])
    })
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
        len: i32::try_from(x.elem_count()).map_err(Error::wrap)?,
        slope: activation.slope(),
    };
    // SAFETY: all have `len` values and are alive; the kernel without a gradient reads none.
    unsafe { stage.launch(kernel, (stage.blocks(x.elem_count()), 1), &parameters)? };
    Ok(y)
}
