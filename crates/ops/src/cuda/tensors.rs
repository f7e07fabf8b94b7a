//! Work on many tensors in one launch: a table says where each lies.
#![allow(unsafe_code, reason = "kernels are told where tensors lie")]

use candle_core::{Result, Tensor};

use super::sums::size;
use super::{Memory, Stage, address};
use crate::check::refuse;

/// Blocks that share the largest of the tensors, at most; a few tensors keep a device busy.
const MOST_BLOCKS: usize = 512;

/// The kernels' `struct Entry`, in numbers of 64 bits: three addresses to write to, one to read from, and a length with a mark.
pub(crate) fn entry([parameter, first, second]: [u64; 3], gradient: &Tensor, mark: bool) -> Result<[u64; 5]> {
    let Ok(len) = u32::try_from(size(gradient.elem_count())?) else { refuse!("a tensor of a negative size") };
    Ok([parameter, first, second, address(gradient)?, u64::from(len) | u64::from(mark) << 32])
}

/// Blocks for the largest of these tensors; each is one row.
pub(crate) fn blocks(stage: &Stage, gradients: &[Tensor]) -> usize {
    stage.blocks(gradients.iter().map(Tensor::elem_count).max().unwrap_or(1)).clamp(1, MOST_BLOCKS)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Squares {
    entries: u64,
    parts: u64,
    sums: u64,
    blocks: i32,
}

/// The sum of the squares of each of contiguous tensors, in f64. It waits for the device.
pub(crate) fn squared_norms(stage: &Stage, tensors: &[Tensor]) -> Result<Vec<f64>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let blocks = blocks(stage, tensors);
    let entries = tensors.iter().map(|tensor| entry([0; 3], tensor, false)).collect::<Result<Vec<_>>>()?;
    let mut table = stage.table(entries.as_flattened())?;
    let [mut parts, mut sums]: [Memory; 2] =
        [stage.memory(2 * blocks * tensors.len())?, stage.memory(2 * tensors.len())?]; // each two of f64
    let parameters =
        Squares { entries: table.address()?, parts: parts.address()?, sums: sums.address()?, blocks: size(blocks)? };
    // SAFETY: the table has an entry for each row, of a tensor that is alive; parts and sums were made for as many.
    unsafe {
        stage.launch("squares_parts", (blocks, tensors.len()), &parameters)?;
        stage.launch("squares", (tensors.len(), 1), &parameters)?;
    }
    let halves = sums.into_tensor(2 * tensors.len()).to_vec1::<f32>()?;
    let number = |halves: &[f32]| f64::from_bits(u64::from(halves[0].to_bits()) | u64::from(halves[1].to_bits()) << 32);
    Ok(halves.chunks_exact(2).map(number).collect())
}
