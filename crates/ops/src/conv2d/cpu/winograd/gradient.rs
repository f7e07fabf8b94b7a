//! The gradients of a convolution's kernel and bias.
#![allow(unsafe_code, reason = "pieces of work read and write strided blocks of shared memory")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::marker::PhantomData;
use std::ops::Range;

use super::kernel::{Kernel, MOST_TAPS, Squares};
use super::lattice::{BLOCK, Lattice};
use super::passes::{Layout, Pass, Tiling};
use super::results::Tiles;
use super::tile::{Square, Then, both};
use super::transform::{Input, OutputAdjoint, TapsAdjoint, Transform};
use super::{DEPTH, FEW_DEPTH, MOST_PANELS, PANELS, VALUES, by_points, few_tiles, kernel_of};
use crate::conv2d::Geometry;
use crate::conv2d::cpu::{OfKernel, Stack};
use crate::kernel::{
    CHUNK, Isa, Next, PANEL, Panels, Piece, Rows, Scratch, Shared, Vector, chunks_mut, deal, deal_each, run,
    vectorised, written,
};

/// Tiles that a weight gradient sums up one after the other, at most; longer sums in f32 would round more than 1e-6.
const LONGEST_SUM: usize = 256;

/// Channels in whose kernels' gradients are summed at once, at most; a multiple of the blocks of all phases.
const GRADIENT_DEPTH: usize = 64;

/// Floats that such sums take, which stay in a second-level cache.
const GRADIENT_VALUES: usize = 36 * GRADIENT_DEPTH * MOST_PANELS * PANEL;

/// Parts that the sums of a weight gradient are dealt into: as many as keep a usual number of threads busy, as leave each so many
/// chunks of tiles to sum up before its sums are written, and as memory for so many floats allows.
const PARTS: usize = 16;
const FEWEST_PARTS: usize = 4;
const CHUNKS_OF_PART: usize = 4;
const PARTS_LEN: usize = 1 << 21;

/// The gradient of the kernel, and of a bias of so many channels: the adjoint of the forward pass in both.
pub(super) fn of_parameters<T: Transform + Send + Sync>(
    g: &Geometry,
    lattices: (Lattice, Lattice),
    x: Stack<&[f32]>,
    y: Stack<&[f32]>,
    biases: usize,
) -> (OfKernel, Vec<f32>) {
    let len = g.out_channels * g.in_channels * g.taps();
    let (mut squared_norm, mut bias) = (None, Vec::new());
    let mut fill = |to: Shared| (squared_norm, bias) = write::<T>(g, lattices, x, y, to, biases);
    // SAFETY: each tap belongs to one phase, and each phase's kernels from all channels to all are written.
    let values = unsafe { written(len, |to| fill(Shared::new(to.as_mut_ptr().cast(), len))) };
    (OfKernel { values, squared_norm }, bias)
}

/// Writes the gradient of the kernel, and gives the sum of its squares, if that has been taken, and the gradient of the bias.
fn write<T: Transform + Send + Sync>(
    g: &Geometry,
    (input, output): (Lattice, Lattice),
    x: Stack<&[f32]>,
    y: Stack<&[f32]>,
    gradient: Shared,
    biases: usize,
) -> (Option<f64>, Vec<f32>) {
    let (level, points) = (g.level, T::POINTS * T::POINTS);
    let channels = input.blocks() * 8 + output.channels;
    let most = (2 * VALUES / (points * channels)).clamp(32, (3456 / points).min(LONGEST_SUM));
    let tiling = Tiling::new::<T>(g.batch, g.output, most);
    let pass = Pass::<T> { tiling, input, output, spread: false, transform: PhantomData };
    let (depth, panels) = (pass.depth(), pass.panels());
    let kernel = kernel_of(g, &[]);
    let panel_len = Pass::<T>::kernels_of_panel(depth);
    // Kernels that are left over of a block of eight are not streamed, nor their squares summed.
    let all_are_summed = kernel.is_streamed(gradient) && g.out_channels.is_multiple_of(BLOCK);
    let sum = |squares: Vec<f64>| all_are_summed.then(|| squares.into_iter().sum());
    let finish = |sums: &[f32]| {
        let steps = depth.div_ceil(FEW_DEPTH);
        let mut squares = vec![0.; panels * steps];
        deal_each(squares.iter_mut().enumerate(), |(at, squares)| {
            let (panel, first) = (at / steps, at % steps * FEW_DEPTH);
            let (plane, ins) = (Pass::<T>::kernel_plane(depth), first..(first + FEW_DEPTH).min(depth));
            let sums = &sums[panel * panel_len..][..panel_len][first * PANEL..];
            run(level, KernelGradient { pass, sums, plane, panel, ins, kernel, gradient, squares });
        });
        sum(squares)
    };
    if few_tiles(&pass) {
        let x_layout = Layout::new::<T>(tiling.tiles(), depth);
        let y_layout = Layout::new::<T>(tiling.tiles(), panels * PANEL);
        let (mut xs, mut ys) = (x_layout.scratch(), y_layout.scratch());
        let to = [Shared::new(xs.as_mut_ptr(), xs.len()), Shared::new(ys.as_mut_ptr(), ys.len())];
        deal(2 * tiling.units(), |at| match (at / 2, at % 2) {
            (unit, 0) => {
                run(level, Tiles::<T, false> { pass, lattice: input, images: x, unit, to: to[0], layout: x_layout });
            }
            (unit, _) => {
                run(level, Tiles::<T, true> { pass, lattice: output, images: y, unit, to: to[1], layout: y_layout });
            }
        });
        let bias = channel_sums::<T>(&ys, y_layout, tiling.tiles(), biases);
        let bias = bias.into_iter().map(|sum| sum as f32).collect();
        if !by_points(&pass) {
            let most = if level.is_wide() { MOST_PANELS } else { PANELS };
            let at_once =
                (GRADIENT_VALUES / (points * most * PANEL) / FEW_DEPTH * FEW_DEPTH).clamp(FEW_DEPTH, GRADIENT_DEPTH);
            let block = |panel| (0..depth).step_by(at_once).map(move |ins| (panel, ins));
            let blocks: Vec<_> = (0..panels).step_by(most).flat_map(block).collect();
            let mut squares = vec![0.; blocks.len()];
            deal_each(blocks.into_iter().zip(&mut squares), |((panel, first), squares)| {
                let (panels, ins) = (panel..(panel + most).min(panels), first..(first + at_once).min(depth));
                run(
                    level,
                    Block { pass, xs: &xs, x_layout, ys: &ys, y_layout, panels, ins, kernel, gradient, squares },
                );
            });
            return (sum(squares), bias);
        }
        let mut sums = Scratch::new(panels * panel_len);
        let shared = Shared::new(sums.as_mut_ptr(), sums.len());
        let steps = depth.div_ceil(DEPTH);
        deal(points * steps, |at| {
            let (point, first) = (at / steps, at % steps * DEPTH);
            let ins = first..(first + DEPTH).min(depth);
            run(level, SumsOfPoint { pass, xs: &xs, x_layout, ys: &ys, y_layout, point, ins, sums: shared });
        });
        return (finish(&sums), bias);
    }
    let step = tiling.units_of(most);
    let chunks = tiling.units().div_ceil(step);
    let len = panels * panel_len;
    let parts = (PARTS_LEN / len).min(chunks / CHUNKS_OF_PART).clamp(FEWEST_PARTS, PARTS).min(chunks);
    let mut sums = Scratch::new(parts * len);
    let shared = Shared::new(sums.as_mut_ptr(), sums.len());
    let mut bias = vec![vec![0.; biases]; parts];
    deal_each(bias.iter_mut().enumerate(), |(part, bias)| {
        let units = chunks * part / parts * step..(chunks * (part + 1) / parts * step).min(tiling.units());
        run(level, Part { pass, x, y, units, step, sums: shared, offset: part * len, bias });
    });
    let (total, rest) = sums.split_at_mut(len);
    let total = &mut total[..];
    deal_each(chunks_mut(total).enumerate(), |(at, total)| {
        for part in rest.chunks_exact(len) {
            vectorised(|| total.iter_mut().zip(&part[at * CHUNK..]).for_each(|(total, part)| *total += part));
        }
    });
    let bias = (0..biases).map(|channel| bias.iter().map(|sums| sums[channel]).sum::<f64>() as f32).collect();
    (finish(total), bias)
}

/// The sum of each channel over all results, from their tiles, transformed: at the point 1 stands the sum of a tile.
#[inline(always)]
fn channel_sums<T: Transform>(ys: &[f32], layout: Layout, tiles: usize, channels: usize) -> Vec<f64> {
    let one = if T::POINTS > 1 { T::POINTS + 1 } else { 0 };
    let mut sums = vec![0.; channels];
    for tile in 0..tiles {
        let values = &ys[one * layout.plane + tile * layout.tile..][..channels];
        for channel in 0..channels {
            sums[channel] += f64::from(values[channel]);
        }
    }
    sums
}

/// Sums, over the tiles of some units, of the transformed kernel's gradient: for each panel of channels out and each
/// point a matrix (channels in, [`PANEL`]), laid out as kernels are.
struct Part<'a, T> {
    pass: Pass<T>,
    x: Stack<&'a [f32]>,
    y: Stack<&'a [f32]>,
    units: Range<usize>,
    /// Units that are transformed at once.
    step: usize,
    sums: Shared,
    /// Where in `sums` this part's begin.
    offset: usize,
    /// Where sums of the channels out are added.
    bias: &'a mut [f64],
}

impl<T: Transform> Piece for Part<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, x, y, units, step, sums, offset, bias } = self;
        let (depth, panels) = (pass.depth(), pass.panels());
        let most = pass.tiling.tiles_of(step);
        let (x_layout, y_layout) = (Layout::new::<T>(most, depth), Layout::new::<T>(most, panels * PANEL));
        let (mut xs, mut ys) = (x_layout.scratch(), y_layout.scratch());
        let sums = sums.start_of(offset, panels * Pass::<T>::kernels_of_panel(depth));
        for first in units.clone().step_by(step) {
            let chunk = first..(first + step).min(units.end);
            let last = pass.tiling.unit(chunk.end - 1);
            let tiles = last.index + last.tiles - pass.tiling.unit(chunk.start).index;
            // SAFETY: both are large enough for the tiles and points, and this thread's; `start_of` has seen to the sums,
            // which are this part's.
            unsafe {
                let (xs, ys) = (xs.as_mut_ptr(), ys.as_mut_ptr());
                pass.transform::<Input<T>, I>(&pass.input, x, chunk.clone(), xs, x_layout, false);
                pass.transform::<OutputAdjoint<T>, I>(&pass.output, y, chunk, ys, y_layout, false);
                for point in 0..Pass::<T>::POINTS {
                    let start = xs.add(point * x_layout.plane).cast_const();
                    let a = Rows { start, row: 1, column: x_layout.tile };
                    let start = ys.add(point * y_layout.plane).cast_const();
                    let b = Panels { start, row: y_layout.tile, panel: PANEL };
                    let start = sums.add(point * Pass::<T>::kernel_plane(depth));
                    let c = Panels { start, row: PANEL, panel: Pass::<T>::kernels_of_panel(depth) };
                    I::product((pass.terms(), tiles), panels, a, b, c, first > units.start, None);
                }
            }
            let sums = channel_sums::<T>(&ys, y_layout, tiles, bias.len());
            for channel in 0..bias.len() {
                bias[channel] += sums[channel];
            }
        }
    }
}

/// Turns sums at points into gradients of kernels, `ins` channels to a panel's.
struct KernelGradient<'a, T> {
    pass: Pass<T>,
    /// For each point a matrix (channels in, [`PANEL`]), `plane` floats from one to the next.
    sums: &'a [f32],
    plane: usize,
    panel: usize,
    ins: Range<usize>,
    /// The kernel whose gradient is written; its values are not read.
    kernel: Kernel<'a>,
    gradient: Shared,
    /// Where the squares of what goes past the caches are added.
    squares: &'a mut f64,
}

impl<T: Transform> Piece for KernelGradient<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, sums, plane, panel, ins, kernel, gradient, squares } = self;
        let blocks = pass.blocks_of(panel);
        let phases = pass.input.stride * pass.input.stride;
        let (places, mut taps) = (kernel.places::<T>(true), [[0.; PANEL]; MOST_TAPS]);
        let (streamed, mut of_lanes) = (kernel.is_streamed(gradient), Squares::default());
        // All phases of a channel have parts of one kernel, which is written once.
        for step in 0..ins.len() / phases {
            let (first, lane) = (ins.start + step / BLOCK * phases * BLOCK, step % BLOCK);
            let (first_in, count, _) = pass.input.block(first / BLOCK);
            if lane >= count {
                continue;
            }
            for phase in 0..phases {
                let at = first + phase * BLOCK + lane;
                let (_, _, phase) = pass.input.block(at / BLOCK);
                let from = &sums[(at - ins.start) * PANEL..];
                assert!((Pass::<T>::POINTS - 1) * plane + PANEL <= from.len(), "sums of some points are missing");
                let from = Square { start: from.as_ptr(), row: T::POINTS * plane, column: plane, next: BLOCK };
                let to = taps.as_mut_ptr().cast::<f32>().wrapping_add(kernel.first::<T>(phase) * PANEL);
                let to = kernel.square::<T>(to.cast_const(), BLOCK, true).write();
                let to = if I::IS_WIDE { to.anew() } else { to };
                // SAFETY: the slice has the sums as far as the last point's; a square of all phases' taps is no larger than the array.
                unsafe { both::<TapsAdjoint<T>, I>(true, from, to, Then::Write) };
            }
            for (half, block) in blocks.clone().enumerate() {
                let (first_out, outs, _) = pass.output.block(block);
                let at = first_out * kernel.out_step + (first_in + lane) * kernel.in_step;
                if streamed && outs == BLOCK {
                    kernel.stream::<I::V>(&taps, &places, half * BLOCK, at, gradient, &mut of_lanes);
                } else {
                    kernel.write::<I::V>(&taps, &places, half * BLOCK, outs, at, gradient);
                }
            }
        }
        if streamed {
            I::V::fence();
            *squares += of_lanes.iter().sum::<f64>();
        }
    }
}

/// Gradients of kernels from all tiles, transformed.
struct Block<'a, T> {
    pass: Pass<T>,
    xs: &'a [f32],
    x_layout: Layout,
    ys: &'a [f32],
    y_layout: Layout,
    panels: Range<usize>,
    ins: Range<usize>,
    kernel: Kernel<'a>,
    gradient: Shared,
    squares: &'a mut f64,
}

impl<T: Transform> Piece for Block<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, xs, x_layout, ys, y_layout, panels, ins, kernel, gradient, squares } = self;
        let (plane, len) = (Pass::<T>::kernel_plane(ins.len()), Pass::<T>::kernels_of_panel(ins.len()));
        let mut sums = Scratch::new(panels.len() * len);
        let next = Some(Next { a: x_layout.plane, b: y_layout.plane });
        for point in 0..Pass::<T>::POINTS {
            let a = Rows { start: xs[point * x_layout.plane + ins.start..].as_ptr(), row: 1, column: x_layout.tile };
            let start = ys[point * y_layout.plane + panels.start * PANEL..].as_ptr();
            let b = Panels { start, row: y_layout.tile, panel: PANEL };
            let c = Panels { start: sums[point * plane..].as_mut_ptr(), row: PANEL, panel: len };
            // SAFETY: the layouts have all tiles and channels, the sums all points and these panels.
            unsafe { I::product((ins.len(), pass.tiling.tiles()), panels.len(), a, b, c, false, next) };
        }
        for (panel, sums) in panels.zip(sums.chunks_exact(len)) {
            let (ins, squares) = (ins.clone(), &mut *squares);
            KernelGradient { pass, sums, plane, panel, ins, kernel, gradient, squares }.run::<I>();
        }
    }
}

/// The sums of the transformed kernel's gradient at one point, over all tiles, for some channels in.
struct SumsOfPoint<'a, T> {
    pass: Pass<T>,
    xs: &'a [f32],
    x_layout: Layout,
    ys: &'a [f32],
    y_layout: Layout,
    point: usize,
    ins: Range<usize>,
    sums: Shared,
}

impl<T: Transform> Piece for SumsOfPoint<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, xs, x_layout, ys, y_layout, point, ins, sums } = self;
        let depth = pass.depth();
        for first in ins.clone().step_by(PANEL) {
            let rows = PANEL.min(ins.end - first);
            let a = Rows { start: xs[point * x_layout.plane + first..].as_ptr(), row: 1, column: x_layout.tile };
            let b = Panels { start: ys[point * y_layout.plane..].as_ptr(), row: y_layout.tile, panel: PANEL };
            let panel = Pass::<T>::kernels_of_panel(depth);
            let at = point * Pass::<T>::kernel_plane(depth) + first * PANEL;
            let start = sums.start_of(at, (pass.panels() - 1) * panel + rows * PANEL);
            // SAFETY: the layouts have all tiles and channels; the sums are this piece's.
            unsafe {
                let c = Panels { start, row: PANEL, panel };
                I::product((rows, pass.tiling.tiles()), pass.panels(), a, b, c, false, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transform::F4x2;
    use super::super::{image_of, result_of};
    use super::*;
    use crate::conv2d::{Conv2d, geometry};
    use crate::kernel::{LINE, Level};
    use crate::verify::draw;

    /// Neither count of channels is a multiple of a panel's. The larger image is gone through point by point.
    #[test]
    fn gradients_past_the_caches_are_those_through_them() {
        for size in [8, 104] {
            let (x, weight) = (draw((1, 260, size, size), 1), draw((264, 260, 4, 4), 2));
            let mut g = geometry(&x, &weight, None, Conv2d::new(2, 1)).unwrap();
            let x = x.flatten_all().unwrap().to_vec1().unwrap();
            let (y, len) = (draw(264 * size * size / 4, 3).to_vec1().unwrap(), weight.elem_count());
            for level in Level::all() {
                g.level = level;
                let written = |(from, threads)| {
                    let mut memory = Scratch::new(len + LINE);
                    let to = Shared::new(memory[from..].as_mut_ptr(), len);
                    let write = || write::<F4x2>(&g, (image_of(&g), result_of(&g)), g.images(&x), g.results(&y), to, 0);
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let (norm, _) = pool.install(write);
                    (memory[from..][..len].to_vec(), norm.unwrap())
                };
                let (values, norm) = written((0, 2));
                assert!(written((1, 3)) == (values.clone(), norm), "{level:?}");
                let expected: f64 = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
                assert!((norm / expected - 1.).abs() < 1e-12, "{level:?}: {norm}, not {expected}");
            }
        }
    }
}
