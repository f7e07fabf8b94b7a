//! What kernels stand on: tensors read as slices, results made nodes of candle's graph, loops, and matrix products.

mod elementwise;
mod matmul;
mod node;
mod scratch;
mod simd;

pub(crate) use elementwise::{CHUNK, lanes, lanes2, map, map2, sum, sum2, vectorised, written};
pub(crate) use matmul::{Matrix, Shared};
pub(crate) use node::{Gradients, Pass, has_kernel, node, values};
pub(crate) use scratch::Scratch;
pub(crate) use simd::{Isa, Level, PANEL, Rows, Vector, Work, run};
