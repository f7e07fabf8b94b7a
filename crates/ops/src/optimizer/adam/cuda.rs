//! Adam by a kernel on a CUDA device, all parameters in one launch.

use candle_core::{Result, Tensor};

use super::{AdamParameter, Factors, Single};
use crate::cuda::{Stage, address_to_write, tensors};

/// The kernel's `struct Adam`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    entries: u64,
    lasting: Single,
    decaying: Single,
}

/// Rows of blocks that a launch has at most.
const MOST_ROWS: usize = 65_535;

/// `factors` are for parameters that do not decay, and for those that do.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
pub(crate) fn adam_steps(stage: &Stage, parameters: &[AdamParameter], factors: [&Factors; 2]) -> Result<()> {
    let [lasting, decaying] = factors.map(Single::from);
    for parameters in parameters.chunks(MOST_ROWS) {
        let gradient = |of: &AdamParameter| of.gradient.detach().contiguous();
        let gradients = parameters.iter().map(gradient).collect::<Result<Vec<Tensor>>>()?;
        let entry = |(of, gradient): (&AdamParameter, &Tensor)| {
            let [parameter, first, second] = [of.parameter, of.first_moment, of.second_moment];
            let written = [address_to_write(parameter)?, address_to_write(first)?, address_to_write(second)?];
            tensors::entry(written, gradient, of.decays)
        };
        let entries = parameters.iter().zip(&gradients).map(entry).collect::<Result<Vec<_>>>()?;
        let mut table = stage.table(entries.as_flattened())?;
        let of = Parameters { entries: table.address()?, lasting, decaying };
        let blocks = (tensors::blocks(stage, &gradients), parameters.len());
        // SAFETY: of each entry three variables and their gradient, all of one shape and no variable twice, which the caller has checked;
        // each value is one thread's.
        unsafe { stage.launch("adam", blocks, &of)? };
    }
    Ok(())
}
