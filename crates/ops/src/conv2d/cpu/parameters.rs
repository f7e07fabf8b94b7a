//! The gradients of a convolution's kernel and bias, each by the algorithm that its shape chooses.
#![allow(unsafe_code, reason = "pieces of work write strided blocks of one result")]

use std::ops::Range;

use candle_core::{Device, Result, Shape, Tensor};

use super::columns::{TILE, from_image, with_buffer};
use super::{OUT_BLOCK, PIECES, Stack, few_channels, few_pixels, few_taps, patches, swapped, winograd};
use crate::conv2d::Geometry;
use crate::kernel::{Gradient, Matrix, Shared, deal, dealt, sums_of_pairs, vectorised};

/// Products of a convolution that take a thread a few thousandths of a second by Winograd.
const SOON: usize = 400_000_000;

/// Numbers of an image, or of a result, that are far more than the caches of a core keep.
const FAR_MORE: usize = 1 << 20;

/// The gradient of a kernel, `(out, in / groups, kh, kw)`.
#[derive(Debug)]
pub(crate) struct OfKernel {
    pub(crate) values: Vec<f32>,
    /// The sum of its squares, if that has been taken on the way: by shape alone, since there are other orders to add up in.
    pub(crate) squared_norm: Option<f64>,
}

impl From<Vec<f32>> for OfKernel {
    fn from(values: Vec<f32>) -> Self {
        Self { values, squared_norm: None }
    }
}

impl OfKernel {
    /// As a tensor.
    pub(crate) fn into_gradient(self, shape: impl Into<Shape>, device: &Device) -> Result<Gradient> {
        let Self { values, squared_norm } = self;
        Ok(Gradient { tensor: Tensor::from_vec(values, shape.into(), device)?, squared_norm })
    }
}

/// The gradients of the kernel and of the bias, `(out)`, as far as they are needed.
pub(crate) fn parameter_gradients(
    g: &Geometry,
    x: Stack<&[f32]>,
    y: &[f32],
    [needs_weight, needs_bias]: [bool; 2],
) -> (Option<OfKernel>, Option<Vec<f32>>) {
    // A bias without its kernel, which is rare, takes the time of both: its bits do not depend on what else is needed.
    if needs_bias && let Some((weight, bias)) = with_bias(g, x, y) {
        return (needs_weight.then_some(weight), Some(bias));
    }
    let weight = || needs_weight.then(|| weight_gradient(g, x, y));
    let bias = || needs_bias.then(|| bias_gradient(y, g.out_channels, g.output_pixels()));
    side_by_side(g, weight, bias)
}

/// [`parameter_gradients`] of the transposed convolution, whose result has the shape of the image, and x that of y: the bias is of the image's channels.
pub(crate) fn transposed_parameter_gradients(
    g: &Geometry,
    x: Stack<&[f32]>,
    y: &[f32],
    [needs_weight, needs_bias]: [bool; 2],
) -> (Option<OfKernel>, Option<Vec<f32>>) {
    if needs_bias && patches::serves(g) {
        let [weight, bias] = patches::parameter_gradients(g, &x.joined(), y);
        return (needs_weight.then_some(weight.into()), Some(bias));
    }
    let weight = || needs_weight.then(|| weight_gradient(g, x, y));
    let bias = || needs_bias.then(|| bias_gradient(&x.joined(), g.in_channels, g.input_pixels()));
    side_by_side(g, weight, bias)
}

/// Both gradients by those algorithms that have that of a bias for nothing.
fn with_bias(g: &Geometry, x: Stack<&[f32]>, y: &[f32]) -> Option<(OfKernel, Vec<f32>)> {
    if few_taps::serves(g) {
        let [weight, bias] = few_taps::parameter_gradients(g, &x.joined(), y);
        return Some((weight.into(), bias));
    }
    if patches::serves(g) {
        return None;
    }
    winograd::parameter_gradients(g, x, y, true)
}

/// The gradient of the kernel.
fn weight_gradient(g: &Geometry, x: Stack<&[f32]>, y: &[f32]) -> OfKernel {
    if few_taps::serves(g) {
        let [weight, _] = few_taps::parameter_gradients(g, &x.joined(), y);
        return weight.into();
    }
    if patches::serves(g) {
        let [weight, _] = patches::parameter_gradients(g, &x.joined(), y);
        return weight.into();
    }
    if let Some((weight, _)) = winograd::parameter_gradients(g, x, y, false) {
        return weight;
    }
    let x = &*x.joined();
    if few_channels::serves(g) {
        return few_channels::weight_gradient(g, x, y).into();
    }
    if few_pixels::serves(g) {
        return few_pixels::weight_gradient(g, x, y).into();
    }
    by_columns(g, x, y).into()
}

/// The gradient of the kernel by products with columns (im2col).
fn by_columns(g: &Geometry, x: &[f32], y: &[f32]) -> Vec<f32> {
    let (taps, pixels, planes) = (g.taps(), g.output_pixels(), g.input_pixels());
    let depth = g.group_in() * taps;
    let len = g.out_channels * depth;
    let out_blocks = g.group_out().div_ceil(OUT_BLOCK);
    let out_block = g.group_out().div_ceil(out_blocks);
    let in_blocks = g.group_in().div_ceil(g.channels_at_once());
    let in_block = g.group_in().div_ceil(in_blocks);
    let blocks = g.groups * out_blocks * in_blocks;
    let tiles = g.batch * g.tiles();
    // Sums over parts of the pixels, added up in order at the end.
    let parts = PIECES.div_ceil(blocks).min(tiles);
    // Of few channels the sums stand transposed: then gemm rearranges the gradient, not the larger columns.
    let transposed = g.group_out() < OUT_BLOCK;
    let (row, column) = if transposed { (1, g.group_out()) } else { (depth, 1) };
    let mut sums = vec![0.; parts * len];
    let shared = Shared::new(sums.as_mut_ptr(), sums.len());
    deal(blocks * parts, |at| {
        let (block, part) = (at / parts, at % parts);
        let (block, first_in) = (block / in_blocks, block % in_blocks * in_block);
        let (group, first_out) = (block / out_blocks, block % out_blocks * out_block);
        let ins = in_block.min(g.group_in() - first_in);
        let outs = out_block.min(g.group_out() - first_out);
        let start = part * len + group * g.group_out() * depth + first_out * row + first_in * taps * column;
        let first_out = group * g.group_out() + first_out;
        let product = |tile: &Range<usize>, y: &[f32], values: &[f32], step: usize| {
            let a = Matrix { values: &y[tile.start..], row: pixels, column: 1 };
            let b = Matrix { values, row: 1, column: step };
            // SAFETY: this block of this part is this piece's alone, zeroed above, and `sums` is alive while pieces run.
            unsafe { shared.multiply((start, row, column), true, (outs, ins * taps, tile.len()), a, b) };
        };
        with_buffer(if g.is_pointwise() { 0 } else { ins * taps * TILE.min(pixels) }, |columns| {
            for at in part * tiles / parts..(part + 1) * tiles / parts {
                let (image, tile) = (at / g.tiles(), g.tile(at % g.tiles()));
                let y = &y[(image * g.out_channels + first_out) * pixels..][..outs * pixels];
                let first_in = image * g.in_channels + group * g.group_in() + first_in;
                let x = &x[first_in * planes..][..ins * planes];
                if g.is_pointwise() {
                    product(&tile, y, &x[tile.start..], planes);
                } else {
                    from_image(g, x, &tile, columns);
                    product(&tile, y, columns, tile.len());
                }
            }
        });
    });
    let (weight, rest) = sums.split_at_mut(len);
    for part in rest.chunks_exact(len) {
        weight.iter_mut().zip(part).for_each(|(weight, part)| *weight += part);
    }
    if transposed {
        return swapped(weight, (g.groups, depth, g.group_out(), 1));
    }
    sums.truncate(len);
    sums
}

/// Both, and at once where each is soon done: a thread for which the one has no pieces left goes on with the other. What takes long is better
/// done alone, with the caches to itself.
pub(crate) fn side_by_side<A: Send, B: Send>(
    g: &Geometry,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if is_soon_done(g) { rayon::join(a, b) } else { (a(), b()) }
}

fn is_soon_done(g: &Geometry) -> bool {
    g.batch * g.output_pixels() * g.out_channels * g.group_in() * g.taps() <= SOON
}

/// Whether all threads had better compute the gradients of parameters, and then all of them that of the image. Each then goes through its own part
/// of the batch, as it does in every other op. Where one thread has the parameters and another the image, both go through all of it, and what
/// they wait for is memory, where it is large and soon done: the more so if the one has no cache in common with the other.
pub(crate) fn goes_by_images(g: &Geometry) -> bool {
    let numbers = (g.in_channels * g.input_pixels()).max(g.out_channels * g.output_pixels());
    g.batch * numbers >= FAR_MORE && is_soon_done(g)
}

/// The gradient of a bias: the sum of each channel of `y` `(n, channels, pixels)`.
fn bias_gradient(y: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let sum = |plane: &[f32]| vectorised(|| sums_of_pairs(plane, plane, |value, _| [value])[0]);
    let planes: Vec<f64> = dealt(y.chunks(pixels), sum).collect();
    (0..channels).map(|at| planes.iter().skip(at).step_by(channels).sum::<f64>() as f32).collect()
}
