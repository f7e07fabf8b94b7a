//! Winograd convolution of kernels up to 4x4 at strides 1 and 2, in all three directions.
//!
//! An image is cut into tiles of m x m results. Of each, `B^T x B` is a column of values at (m + r - 1)^2 points; at every
//! point the columns of all tiles make a matrix (tiles, channels in), which is multiplied by the matrix (channels in,
//! channels out) of the transformed kernel; `A^T m A` of the product is the tile's result. The input gradient is the same
//! with the kernel turned round, or, where that takes fewer tiles, the exact adjoint ([`spread`]). The weight gradient is the adjoint
//! in the kernel: at every point the product of the transposed matrix of the image with that of `A y A^T`, and `G^T u G` of that.
//!
//! Work is cut by shape alone, and each number is summed in one order: results have the same bits for any number of threads.
#![allow(unsafe_code, reason = "pieces of work read and write strided blocks of shared memory")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

mod gradient;
mod kernel;
mod lattice;
mod many_points;
mod passes;
mod results;
mod spread;
mod strip;
mod tile;
mod transform;

use std::marker::PhantomData;

use self::kernel::Kernel;
use self::lattice::Lattice;
use self::many_points::{F4x4, F5x4, F6x3};
use self::passes::{Layout, Pass, Tiling};
use self::results::{Chunk, FromFewTiles, Kernels, ProductsOfPoint, Results, Tiles};
use self::transform::{F1x1, F3x2, F4x2, F4x3, Transform};
use super::stack::parted;
use super::{Ending, OfKernel, Stack, few_channels};
use crate::conv2d::{Exactness, Geometry};
use crate::kernel::{Level, PANEL, Scratch, Shared, deal, run, written};

/// Floats that the tiles of one piece of work take at all points: what stays in a second-level cache.
const VALUES: usize = 110_000;

/// With no more tiles than this all are transformed first, and then each kernel is used once.
const FEW_TILES: usize = 256;

/// Kernels (channels in times channels out) from which on it pays to use each once.
const MANY_KERNELS: usize = 128 * 128;

/// Kernels up to which large tiles pay: with more, what they are transformed to (64 numbers each) is far from where it is multiplied.
const KERNELS_OF_LARGE_TILES: usize = 128 * 64;

/// Channels in that are worked on at once, so that what comes of them stays in a cache; a multiple of the blocks of all phases.
const DEPTH: usize = 64;

/// Channels in whose kernels, or the gradients of these, are one piece of work where all of them are transformed: the blocks of all phases.
const FEW_DEPTH: usize = 32;

/// Floats that the kernels of one panel take at all points, transformed at once into a cache.
const KERNEL_VALUES: usize = 36 * DEPTH * PANEL;

/// Panels that are computed at once, from the same values.
const PANELS: usize = 2;

/// The same with AVX-512, which multiplies as many at once.
const MOST_PANELS: usize = 4;

/// Tiles that are multiplied by all kernels of one point at once.
const TILES_OF_POINT: usize = 128;

/// The transforms to choose among, by what a kernel's phases have along one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    F5x4,
    F4x4,
    F4x3,
    F4x2,
    F3x2,
    F1x1,
}

/// The transform for this convolution with so many results, if one serves better than im2col, and the products that it takes for
/// each pair of channels and phase.
fn choose(g: &Geometry, results: (usize, usize)) -> Option<(Choice, usize)> {
    let stride = g.stride.0;
    if g.groups != 1 || g.dilation != (1, 1) || g.stride.1 != stride || stride > 2 || few_channels::serves(g) {
        return None;
    }
    if g.kernel.0 > 4 || g.kernel.1 > 4 {
        return None;
    }
    let taps = g.kernel.0.max(g.kernel.1).div_ceil(stride);
    let choice = match taps {
        // At stride 2 a smaller kernel than 2x2 leaves phases without a tap, which would be multiplied by zeros.
        1 => return (g.kernel == (stride, stride)).then_some((Choice::F1x1, products::<F1x1>(results))),
        2 if products::<F3x2>(results) < products::<F4x2>(results) => (Choice::F3x2, products::<F3x2>(results)),
        2 => (Choice::F4x2, products::<F4x2>(results)),
        3 => (Choice::F4x3, products::<F4x3>(results)),
        4 if products::<F5x4>(results) < products::<F4x4>(results) => (Choice::F5x4, products::<F5x4>(results)),
        4 => (Choice::F4x4, products::<F4x4>(results)),
        _ => return None,
    };
    let directly = results.0 * results.1 * g.taps();
    (g.exactness == Exactness::Fast && choice.1 * stride * stride * 4 <= directly * 3).then_some(choice)
}

/// Products of each pair of channels.
fn products<T: Transform>(results: (usize, usize)) -> usize {
    results.0.div_ceil(T::RESULTS) * results.1.div_ceil(T::RESULTS) * T::POINTS * T::POINTS
}

/// Evaluates an expression with `$transform` the type of a choice.
macro_rules! with_transform {
    ($choice:expr, $transform:ident => $work:expr) => {
        with_transform!(@ [F5x4 F4x4 F4x3 F4x2 F3x2 F1x1] $choice, $transform, $work)
    };
    (@ [$($name:ident)*] $choice:expr, $transform:ident, $work:expr) => {
        match $choice {$(
            Choice::$name => {
                type $transform = $name;
                $work
            }
        )*}
    };
}

/// How the convolution sees its image, position by position of the result.
fn image_of(g: &Geometry) -> Lattice {
    let origin = (-(g.padding.0 as isize), -(g.padding.1 as isize));
    Lattice { channels: g.in_channels, height: g.input.0, width: g.input.1, stride: g.stride.0, origin }
}

fn result_of(g: &Geometry) -> Lattice {
    Lattice { channels: g.out_channels, height: g.output.0, width: g.output.1, stride: 1, origin: (0, 0) }
}

fn kernel_of<'a>(g: &Geometry, values: &'a [f32]) -> Kernel<'a> {
    let out_step = g.in_channels * g.taps();
    Kernel { values, size: g.kernel, stride: g.stride.0, out_step, in_step: g.taps(), flipped: false }
}

/// `(n, out, h', w')` from `x` `(n, in, h, w)`, or none where Winograd does not serve.
pub(super) fn forward(g: &Geometry, x: Stack<&[f32]>, weight: &[f32], ending: Ending) -> Option<Vec<f32>> {
    let (choice, _) = choose(g, g.output)?;
    Some(with_transform!(choice, T => forward_by::<T>(g, x, weight, ending)))
}

/// [`forward`] in tiles of 6x6 results, or none where smaller ones serve as well. They take a sixth fewer products of an image of 64x64
/// or 128x128, and round more: what is learned from is computed in smaller ones throughout.
pub(super) fn forward_in_large_tiles(
    g: &Geometry,
    x: Stack<&[f32]>,
    weight: &[f32],
    ending: Ending,
) -> Option<Vec<f32>> {
    let (choice, of_smaller) = choose(g, g.output)?;
    let products = products::<F6x3>(g.output);
    let few_kernels = g.in_channels >= PANEL && g.in_channels * g.out_channels <= KERNELS_OF_LARGE_TILES;
    (choice == Choice::F4x3 && few_kernels && 10 * products <= 9 * of_smaller)
        .then(|| forward_by::<F6x3>(g, x, weight, ending))
}

fn forward_by<T: Transform + Send + Sync>(g: &Geometry, x: Stack<&[f32]>, weight: &[f32], ending: Ending) -> Vec<f32> {
    let joined = if x.has_whole(PANEL) { None } else { Some(x.joined()) };
    let x = joined.as_deref().map_or(x, |x| g.images(x));
    let pass = pass_of::<T>(g.batch, g.output, (image_of(g), result_of(g)), false);
    let [y, _] = correlate(g.level, pass, x, kernel_of(g, weight), ending, g.out_channels);
    y
}

/// The adjoint of [`forward`] in x: `(n, in, h, w)` from `y` `(n, out, h', w')`, the first `first` channels apart from the others.
pub(super) fn input_gradient(
    g: &Geometry,
    y: &[f32],
    weight: &[f32],
    ending: Ending,
    first_channels: usize,
) -> Option<[Vec<f32>; 2]> {
    if first_channels != g.in_channels && !first_channels.is_multiple_of(PANEL) {
        let [x, _] = input_gradient(g, y, weight, ending, g.in_channels)?;
        return Some(parted(x, first_channels, g.in_channels, g.input_pixels()));
    }
    let y = g.results(y);
    // Position m of phase a of the image is the pixel `stride m + a - padding`; the first and the last that are inside:
    let stride = g.stride.0;
    let first = (g.padding.0 / stride, g.padding.1 / stride);
    let positions = |size: usize, padding: usize, first: usize| (size - 1 + padding) / stride + 1 - first;
    let results = (positions(g.input.0, g.padding.0, first.0), positions(g.input.1, g.padding.1, first.1));
    let turned = choose(g, results);
    let spread = choose(g, g.output).filter(|&(_, products)| turned.is_none_or(|(_, of_turned)| products < of_turned));
    let forth = kernel_of(g, weight);
    let kernel = Kernel { out_step: forth.in_step, in_step: forth.out_step, ..forth };
    if let Some((choice, _)) = spread {
        let done = with_transform!(choice, T => {
            let pass = pass_of::<T>(g.batch, g.output, (result_of(g), image_of(g)), true);
            few_tiles(&pass).then(|| correlate(g.level, pass, y, kernel, ending, first_channels))
        });
        if done.is_some() {
            return done;
        }
    }
    let (choice, _) = turned?;
    let kernel = Kernel { flipped: true, ..kernel };
    let start = |first: usize, padding: usize| (stride * first) as isize - padding as isize;
    let output = Lattice { origin: (start(first.0, g.padding.0), start(first.1, g.padding.1)), ..image_of(g) };
    Some(with_transform!(choice, T => {
        // Every position sees as many results as there are taps, the last one its own.
        let origin = (first.0 as isize - (T::TAPS as isize - 1), first.1 as isize - (T::TAPS as isize - 1));
        let pass = pass_of::<T>(g.batch, results, (Lattice { origin, ..result_of(g) }, output), false);
        correlate(g.level, pass, y, kernel, ending, first_channels)
    }))
}

/// The gradient of the kernel, `(out, in, kh, kw)`, and of a bias, `(out)`, or nothing in its place.
pub(super) fn parameter_gradients(
    g: &Geometry,
    x: Stack<&[f32]>,
    y: &[f32],
    with_bias: bool,
) -> Option<(OfKernel, Vec<f32>)> {
    let (choice, _) = choose(g, g.output)?;
    let lattices = (image_of(g), result_of(g));
    let joined = if x.has_whole(PANEL) { None } else { Some(x.joined()) };
    let x = joined.as_deref().map_or(x, |x| g.images(x));
    let y = g.results(y);
    let biases = if with_bias { g.out_channels } else { 0 };
    Some(with_transform!(choice, T => gradient::of_parameters::<T>(g, lattices, x, y, biases)))
}

fn pass_of<T: Transform>(
    images: usize,
    results: (usize, usize),
    (input, output): (Lattice, Lattice),
    spread: bool,
) -> Pass<T> {
    let tiling = Tiling::new::<T>(images, results, tiles_at_once::<T>(&input));
    Pass { tiling, input, output, spread, transform: PhantomData }
}

/// Tiles of one piece of work.
fn tiles_at_once<T: Transform>(input: &Lattice) -> usize {
    let points = T::POINTS * T::POINTS;
    // With a single point a tile is a result, and some tens of them fill registers as well as hundreds.
    let most = if points == 1 { 128 } else { 1152 / points };
    (VALUES / (points * input.blocks() * 8)).clamp(most.min(32), most.max(32))
}

/// Results of the pass, the first `first` channels apart from the others.
fn correlate<T: Transform + Send + Sync>(
    level: Level,
    pass: Pass<T>,
    x: Stack<&[f32]>,
    kernel: Kernel,
    ending: Ending,
    first: usize,
) -> [Vec<f32>; 2] {
    let Pass { tiling, input, output, .. } = pass;
    let pixels = output.height * output.width;
    let write = |y: [Shared; 2]| {
        let y = Stack::new(y, first, output.channels, pixels);
        if few_tiles(&pass) {
            let layout = Layout::new::<T>(tiling.tiles(), pass.depth());
            let mut values = layout.scratch();
            let to = Shared::new(values.as_mut_ptr(), values.len());
            deal(tiling.units(), |unit| {
                if pass.spread {
                    run(level, Tiles::<T, true> { pass, lattice: input, images: x, unit, to, layout });
                } else {
                    run(level, Tiles::<T, false> { pass, lattice: input, images: x, unit, to, layout });
                }
            });
            if by_points(&pass) {
                let kernels = transformed_kernels(level, &pass, kernel);
                point_by_point(level, &pass, (&values, layout), &kernels, ending, y);
                return;
            }
            let most = panels_of_few_tiles(level, pass.panels());
            deal(pass.panels().div_ceil(most), |at| {
                let panels = at * most..((at + 1) * most).min(pass.panels());
                run(level, FromFewTiles { pass, values: &values, layout, kernel, ending, panels, y });
            });
        } else {
            let kernels = transformed_kernels(level, &pass, kernel);
            // At least two pieces, or all threads would wait for one.
            let step = tiling.units_of(tiles_at_once::<T>(&input)).min(tiling.units().div_ceil(2));
            deal(tiling.units().div_ceil(step), |at| {
                let units = at * step..((at + 1) * step).min(tiling.units());
                run(level, Chunk { pass, x, kernels: &kernels, ending, units, y });
            });
        }
    };
    let lens = [first, output.channels - first].map(|channels| tiling.grid().0 * channels * pixels);
    let mut others = Vec::new();
    // SAFETY: tiles cover all results, or what is spread all positions, and each is scattered to its place in its part.
    unsafe {
        let first = written(lens[0], |y| {
            let y = Shared::new(y.as_mut_ptr().cast(), lens[0]);
            others = written(lens[1], |z| write([y, Shared::new(z.as_mut_ptr().cast(), lens[1])]));
        });
        [first, others]
    }
}

/// Whether all tiles are transformed before any is multiplied.
fn few_tiles<T: Transform>(pass: &Pass<T>) -> bool {
    pass.tiling.tiles() <= FEW_TILES && pass.depth() * pass.panels() * PANEL >= MANY_KERNELS
}

/// Panels that are computed at once from few tiles, whose values come from far: as many as are multiplied at once, but at least two pieces.
fn panels_of_few_tiles(level: Level, panels: usize) -> usize {
    if level.is_wide() && panels >= 2 * MOST_PANELS { MOST_PANELS } else { PANELS }
}

/// Terms of a sum that are added up before they are added to those before, where convolutions of 2x2 at stride 2 without padding are computed here,
/// or with `back` their adjoints: [`super::patches`] keeps to it.
pub(super) fn depth_at_once(g: &Geometry, depth: usize, back: bool) -> usize {
    let (input, output) = if back { (result_of(g), image_of(g)) } else { (image_of(g), result_of(g)) };
    let pass = pass_of::<F1x1>(g.batch, g.output, (input, output), false);
    if few_tiles(&pass) { DEPTH } else { depth }
}

/// Whether it pays to keep all products of the few tiles, so that each transformed value and kernel is read once: with both
/// many tiles and many channels.
fn by_points<T: Transform>(pass: &Pass<T>) -> bool {
    let (tiles, depth) = (pass.tiling.tiles(), pass.depth());
    T::POINTS > 1 && tiles * depth > 128 * (tiles + depth)
}

fn transformed_kernels<T: Transform + Send + Sync>(level: Level, pass: &Pass<T>, kernel: Kernel) -> Scratch {
    let mut kernels = Scratch::new(pass.panels() * Pass::<T>::kernels_of_panel(pass.depth()));
    let to = Shared::new(kernels.as_mut_ptr(), kernels.len());
    let (depth, steps) = (pass.depth(), pass.depth().div_ceil(FEW_DEPTH));
    deal(pass.panels() * steps, |at| {
        let (panel, first) = (at / steps, at % steps * FEW_DEPTH);
        run(level, Kernels { pass: *pass, kernel, panel, ins: first..(first + FEW_DEPTH).min(depth), to });
    });
    kernels
}

/// Multiplies all tiles by all kernels, both transformed, point by point, and transforms the products back.
fn point_by_point<T: Transform + Send + Sync>(
    level: Level,
    &pass: &Pass<T>,
    (values, layout): (&[f32], Layout),
    kernels: &[f32],
    ending: Ending,
    y: Stack<Shared>,
) {
    let tiles = pass.tiling.tiles();
    let products_layout = Layout::new::<T>(tiles, PANEL);
    let mut products = Scratch::new(pass.panels() * products_layout.len);
    let shared = Shared::new(products.as_mut_ptr(), products.len());
    let steps = tiles.div_ceil(TILES_OF_POINT);
    deal(T::POINTS * T::POINTS * steps, |at| {
        let (point, first) = (at / steps, at % steps * TILES_OF_POINT);
        let tiles = first..(first + TILES_OF_POINT).min(tiles);
        run(level, ProductsOfPoint { pass, values, layout, kernels, point, tiles, products: shared, products_layout });
    });
    deal(pass.panels(), |panel| {
        run(level, Results { pass, products: &products, products_layout, ending, panel, y });
    });
}
