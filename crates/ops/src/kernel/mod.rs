//! What kernels stand on: tensors read as slices, results made nodes of a graph, the way back through it, loops, and matrix
//! products.

mod backward;
mod elementwise;
mod matmul;
mod node;
mod scratch;
mod simd;

pub use backward::{Gradients, backward};
pub(crate) use elementwise::{CHUNK, lanes, lanes2, map, map2, sum, sum2, vectorised, written};
pub(crate) use matmul::{Matrix, Shared};
#[cfg(test)]
pub(crate) use node::Source;
pub(crate) use node::{InputGradients, Pass, Values, has_kernel, lend, node, values};
pub(crate) use scratch::Scratch;
pub(crate) use simd::{Isa, Level, PANEL, Rows, Vector, Work, run};
