//! Convolution, its adjoint and the gradient of its kernel, by im2col and matrix products.
//!
//! Work is cut by shape alone, each piece writes what no other writes, and each element is summed in one order: results
//! have the same bits for any number of threads.
#![allow(unsafe_code, reason = "pieces of work write strided blocks of one result")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

mod columns;
mod ending;
mod few_channels;
mod few_pixels;
mod few_taps;
mod parameters;
mod patches;
mod stack;
#[cfg(test)]
mod tests;
mod winograd;

use std::mem::MaybeUninit;

use super::Geometry;
use crate::Activation;
use crate::kernel::{Matrix, Shared, deal, deal_each, written};
use columns::{TILE, add_to_image, from_image, with_buffer};
pub(crate) use ending::Ending;
pub(crate) use parameters::{
    OfKernel, goes_by_images, parameter_gradients, side_by_side, transposed_parameter_gradients,
};
pub(crate) use stack::Stack;
use stack::parted;

/// Channels of the result that one piece of work computes: enough to outweigh filling the columns again for the next.
const OUT_BLOCK: usize = 128;

/// Pixels of a tile that are too few to outweigh rearranging the kernel.
const FEW_PIXELS: usize = 64;

/// Pieces of work that keep a usual number of threads busy.
const PIECES: usize = 16;

/// `(n, out, h', w')` from `x` `(n, in, h, w)`.
pub(crate) fn forward(g: &Geometry, x: Stack<&[f32]>, weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    if let Some(y) = ended(g, x, weight, Ending::bias(bias)) {
        return y;
    }
    let x = x.joined();
    if few_pixels::serves(g) {
        return few_pixels::forward(g, &x, weight, bias);
    }
    by_columns(g, &x, weight, bias)
}

/// [`forward`] by those algorithms that end sums as they write them.
fn ended(g: &Geometry, x: Stack<&[f32]>, weight: &[f32], ending: Ending) -> Option<Vec<f32>> {
    if !ending.activation.is_maximum() {
        return None;
    }
    if few_channels::serves(g) {
        return Some(few_channels::forward(g, &x.joined(), weight, ending));
    }
    if few_taps::serves(g) {
        return Some(few_taps::forward(g, &x.joined(), weight, ending));
    }
    if patches::serves(g) {
        return Some(patches::forward(g, &x.joined(), weight, ending));
    }
    winograd::forward(g, x, weight, ending)
}

/// [`forward`] and an activation, in the same pass where tiles are computed; the bits are those of one after the other.
pub(crate) fn forward_activated(
    g: &Geometry,
    x: Stack<&[f32]>,
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    if activation == Activation::None {
        return forward(g, x, weight, bias);
    }
    ended(g, x, weight, Ending { activation, ..Ending::bias(bias) }).unwrap_or_else(|| {
        let mut y = forward(g, x, weight, bias);
        Ending { activation, ..Ending::bias(None) }.apply(&mut y, g.out_channels, g.output_pixels());
        y
    })
}

/// [`forward`] with another ending than a bias, for prediction: it may round more.
pub(crate) fn predict(g: &Geometry, x: Stack<&[f32]>, weight: &[f32], ending: Ending) -> Vec<f32> {
    let large = || winograd::forward_in_large_tiles(g, x, weight, ending);
    let done = ending.activation.is_maximum().then(large).flatten().or_else(|| ended(g, x, weight, ending));
    done.unwrap_or_else(|| {
        let mut y = forward(g, x, weight, None);
        ending.apply(&mut y, g.out_channels, g.output_pixels());
        y
    })
}

fn by_columns(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (depth, pixels, planes) = (g.group_in() * g.taps(), g.output_pixels(), g.input_pixels());
    let blocks = g.group_out().div_ceil(OUT_BLOCK);
    let block = g.group_out().div_ceil(blocks);
    let len = g.batch * g.out_channels * pixels;
    let piece = |out: Shared, at: usize| {
        let (at, tile) = (at / g.tiles(), g.tile(at % g.tiles()));
        let (at, first) = (at / blocks, at % blocks * block);
        let (image, group) = (at / g.groups, at % g.groups);
        let first_out = group * g.group_out() + first;
        let count = block.min(g.group_out() - first);
        let start = (image * g.out_channels + first_out) * pixels + tile.start;
        if let Some(bias) = bias {
            for (row, &bias) in bias[first_out..first_out + count].iter().enumerate() {
                // SAFETY: the rows of this tile are this piece's alone; `out` is alive while pieces run.
                unsafe { out.fill(start + row * pixels, tile.len(), bias) };
            }
        }
        let x = &x[(image * g.in_channels + group * g.group_in()) * planes..][..g.group_in() * planes];
        let weight = &weight[first_out * depth..][..count * depth];
        let product = |accumulate, from: usize, len: usize, values: &[f32], row| {
            let a = Matrix { values: &weight[from..], row: depth, column: 1 };
            let b = Matrix { values, row, column: 1 };
            // SAFETY: as above, and the first product accumulates onto the bias only.
            unsafe { out.multiply((start, pixels, 1), accumulate, (count, tile.len(), len), a, b) };
        };
        if g.is_pointwise() {
            return product(bias.is_some(), 0, depth, &x[tile.start..], planes);
        }
        let step = g.group_in().div_ceil(g.group_in().div_ceil(g.channels_at_once()));
        with_buffer(step * g.taps() * tile.len(), |columns| {
            for (at, x) in x.chunks(step * planes).enumerate() {
                from_image(g, x, &tile, columns);
                let len = x.len() / planes * g.taps();
                product(bias.is_some() || at > 0, at * step * g.taps(), len, columns, tile.len());
            }
        });
    };
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = Shared::new(out.as_mut_ptr().cast(), len);
        deal(g.batch * g.groups * blocks * g.tiles(), |at| piece(out, at));
    };
    // SAFETY: the pieces cover all images, groups, channels and tiles, and each product writes all of its block.
    unsafe { written(len, write) }
}

/// The adjoint of [`forward`] in x: `(n, in, h, w)` from `y` `(n, out, h', w')`. `bias` `(in)` is added for the transposed
/// convolution.
pub(crate) fn input_gradient(g: &Geometry, y: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let [x, _] = input_gradients(g, y, weight, bias, g.in_channels);
    x
}

/// [`input_gradient`], the first `first` channels apart from the others.
pub(crate) fn input_gradients(
    g: &Geometry,
    y: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    first: usize,
) -> [Vec<f32>; 2] {
    let ending = Ending::bias(bias);
    patches::input_gradient(g, y, weight, ending, first)
        .or_else(|| winograd::input_gradient(g, y, weight, ending, first))
        .unwrap_or_else(|| parted(without_tiles(g, y, weight, bias), first, g.in_channels, g.input_pixels()))
}

fn without_tiles(g: &Geometry, y: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    if few_channels::serves(g) {
        return few_channels::input_gradient(g, y, weight, Ending::bias(bias));
    }
    if few_pixels::serves(g) {
        return few_pixels::input_gradient(g, y, weight, bias);
    }
    match reversed(g) {
        Some(reversed) => {
            by_columns(&reversed, y, &swapped(weight, (g.groups, g.group_out(), g.group_in(), g.taps())), bias)
        }
        None => scattered(g, y, weight, bias),
    }
}

/// [`input_gradient`] with any ending, for the transposed convolution: with a bias and an activation the bits are those of one after the other.
pub(crate) fn input_gradient_to(g: &Geometry, y: &[f32], weight: &[f32], ending: Ending) -> Vec<f32> {
    let all = g.in_channels;
    let tiles = || {
        patches::input_gradient(g, y, weight, ending, all)
            .or_else(|| winograd::input_gradient(g, y, weight, ending, all))
    };
    if let Some([x, _]) = ending.activation.is_maximum().then(tiles).flatten() {
        return x;
    }
    let (bias, shift) = if ending.scale.is_none() { (ending.shift, None) } else { (None, ending.shift) };
    let mut x = input_gradient(g, y, weight, bias);
    Ending { shift, ..ending }.apply(&mut x, g.in_channels, g.input_pixels());
    x
}

/// With stride 1 the adjoint is a convolution with the flipped kernel, if its padding is not negative. It is not worth it
/// where the result is much smaller than the image: most of its taps would see padding.
fn reversed(g: &Geometry) -> Option<Geometry> {
    let padding = |kernel: usize, dilation: usize, padding: usize| (dilation * (kernel - 1)).checked_sub(padding);
    let vertical = padding(g.kernel.0, g.dilation.0, g.padding.0)?;
    let horizontal = padding(g.kernel.1, g.dilation.1, g.padding.1)?;
    (g.stride == (1, 1) && g.input_pixels() * 2 <= g.output_pixels() * 3).then_some(Geometry {
        in_channels: g.out_channels,
        out_channels: g.in_channels,
        padding: (vertical, horizontal),
        input: g.output,
        output: g.input,
        ..*g
    })
}

/// `(groups, rows, columns, run)` to `(groups, columns, rows, run)`, each run in reverse order: a kernel flipped for the
/// way back, or a plain transposition.
fn swapped(values: &[f32], (groups, rows, columns, run): (usize, usize, usize, usize)) -> Vec<f32> {
    /// Columns that are read together, in runs of whole cache lines.
    const COLUMNS: usize = 16;
    let write = |swapped: &mut [MaybeUninit<f32>]| {
        let group = values.len() / groups;
        let blocks: Vec<_> = swapped
            .chunks_exact_mut(group)
            .zip(values.chunks_exact(group))
            .flat_map(|(swapped, values)| {
                let blocks = swapped.chunks_mut(COLUMNS * rows * run).enumerate();
                blocks.map(move |(at, swapped)| (swapped, &values[at * COLUMNS * run..]))
            })
            .collect();
        deal_each(blocks, |(swapped, values)| {
            for row in 0..rows {
                let runs = values[row * columns * run..].chunks_exact(run);
                for (swapped, values) in swapped.chunks_exact_mut(rows * run).zip(runs) {
                    for (swapped, &value) in swapped[row * run..][..run].iter_mut().zip(values.iter().rev()) {
                        swapped.write(value);
                    }
                }
            }
        });
    };
    // SAFETY: the blocks cover all groups and columns, and each of their rows is written.
    unsafe { written(values.len(), write) }
}

/// The adjoint by col2im: each piece of work owns some channels of one image and adds all that its pixels are sent.
fn scattered(g: &Geometry, y: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (taps, pixels, planes) = (g.taps(), g.output_pixels(), g.input_pixels());
    let shares = PIECES.div_ceil(g.batch * g.groups).max(g.group_in().div_ceil(g.channels_at_once()));
    let block = g.group_in().div_ceil(shares);
    let mut x = vec![0.; g.batch * g.in_channels * planes];
    let pieces: Vec<(usize, usize, &mut [f32])> = x
        .chunks_mut(g.group_in() * planes)
        .enumerate()
        .flat_map(|(at, x)| x.chunks_mut(block * planes).enumerate().map(move |(share, x)| (at, share * block, x)))
        .collect();
    deal_each(pieces, |(at, first, x)| {
        let (image, group) = (at / g.groups, at % g.groups);
        let count = x.len() / planes;
        if let Some(bias) = bias {
            for (plane, &bias) in x.chunks_exact_mut(planes).zip(&bias[group * g.group_in() + first..]) {
                plane.fill(bias);
            }
        }
        let y = &y[(image * g.out_channels + group * g.group_out()) * pixels..][..g.group_out() * pixels];
        let weight = &weight[(group * g.group_out() * g.group_in() + first) * taps..];
        with_buffer(count * taps * TILE.min(pixels), |columns| {
            for tile in (0..g.tiles()).map(|at| g.tile(at)) {
                let a = Matrix { values: weight, row: 1, column: g.group_in() * taps };
                let b = Matrix { values: &y[tile.start..], row: pixels, column: 1 };
                // With few pixels the columns stand transposed: then gemm reads the large kernel as it lies.
                let (row, column) = if tile.len() < FEW_PIXELS { (1, count * taps) } else { (tile.len(), 1) };
                let out = Shared::new(columns.as_mut_ptr(), columns.len());
                // SAFETY: the buffer is this thread's alone.
                unsafe { out.multiply((0, row, column), false, (count * taps, tile.len(), g.group_out()), a, b) };
                add_to_image(g, x, &tile, columns, (row, column));
            }
        });
    });
    x
}
