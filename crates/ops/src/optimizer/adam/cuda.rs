//! Adam by a kernel on a CUDA device.

use candle_core::{Error, Result, Tensor, Var};

use super::{Factors, Single};
use crate::cuda::{Stage, address, address_to_write};

/// The kernel's `struct Adam`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    parameter: u64,
    first: u64,
    second: u64,
    gradient: u64,
    len: i32,
    factors: Single,
}

#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
pub(crate) fn adam_step(
    stage: &Stage,
    parameter: &Var,
    gradient: &Tensor,
    first: &Var,
    second: &Var,
    factors: &Factors,
) -> Result<()> {
    let gradient = gradient.contiguous()?;
    let len = parameter.elem_count();
    let parameters = Parameters {
        parameter: address_to_write(parameter)?,
        first: address_to_write(first)?,
        second: address_to_write(second)?,
        gradient: address(&gradient)?,
        len: i32::try_from(len).map_err(Error::wrap)?,
        factors: Single::from(factors),
    };
    // SAFETY: three variables and their gradient, all of one shape, which the caller has checked; each value is one thread's.
    unsafe { stage.launch("adam", (stage.blocks(len), 1), &parameters) }
}
