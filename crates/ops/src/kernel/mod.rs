//! What kernels stand on: tensors read as slices, results made nodes of a graph, the way back through it, loops, and matrix
//! products.

mod arithmetic;
mod backward;
mod deal;
mod elementwise;
mod matmul;
mod node;
mod order;
mod scratch;
mod simd;
mod sums;
mod values;

pub use arithmetic::{arithmetic, cpu_features, limit_arithmetic};
pub use backward::{Gradients, backward};
pub(crate) use deal::{deal, deal_each, dealt};
#[cfg(test)]
pub(crate) use elementwise::at_lesser_levels;
pub(crate) use elementwise::{
    CHUNK, Work, chunks, chunks_mut, for_each, lanes2, map, map2, scale_by, sum2, update, vectorised, vectorised_work,
    written,
};
pub(crate) use matmul::{Matrix, Shared};
#[cfg(any(test, feature = "cuda"))]
pub(crate) use node::Made;
#[cfg(test)]
pub(crate) use node::Source;
pub(crate) use node::{Gradient, InputGradients, Pass, by_candle, is_tracked, node, node_of_result, wide};
#[cfg(any(test, feature = "cuda"))]
pub(crate) use node::{in_f32, node_taking_bf16};
pub(crate) use order::Order;
pub(crate) use scratch::{LINE, Scratch};
pub(crate) use simd::{Isa, Lanes, Level, Next, PANEL, Panels, Piece, Rows, Vector, anew, run};
pub(crate) use sums::{BLOCK, block_sums, sum_in_f64, sums_of_pairs};
#[cfg(test)]
pub(crate) use values::COMPOSED;
pub(crate) use values::{has_kernel, lend, values};
