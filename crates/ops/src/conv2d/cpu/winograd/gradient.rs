//! The gradient of a convolution's kernel, piece by piece.
#![allow(unsafe_code, reason = "pieces of work read and write strided blocks of shared memory")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::ops::Range;

use super::kernel::{Kernel, MOST_TAPS};
use super::lattice::BLOCK;
use super::passes::{Layout, Pass};
use super::transform::{Input, OutputAdjoint, Square, TapsAdjoint, Then, Transform, both};
use crate::conv2d::cpu::Stack;
use crate::kernel::{Isa, PANEL, Piece, Rows, Scratch, Shared};

/// The sum of each channel over all results, from their tiles, transformed: at the point 1 stands the sum of a tile.
#[inline(always)]
pub(super) fn channel_sums<T: Transform>(ys: &[f32], layout: Layout, tiles: usize, channels: usize) -> Vec<f64> {
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
/// point a matrix (channels in, [`PANEL`]).
pub(super) struct Part<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) x: Stack<&'a [f32]>,
    pub(super) y: Stack<&'a [f32]>,
    pub(super) units: Range<usize>,
    /// Units that are transformed at once.
    pub(super) step: usize,
    pub(super) sums: Shared,
    /// Where in `sums` this part's begin.
    pub(super) offset: usize,
    /// Where sums of the channels out are added.
    pub(super) bias: &'a mut [f64],
}

impl<T: Transform> Piece for Part<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, x, y, units, step, sums, offset, bias } = self;
        let (depth, panels) = (pass.depth(), pass.panels());
        let most = pass.tiling.tiles_of(step);
        let (x_layout, y_layout) = (Layout::new::<T>(most, depth), Layout::new::<T>(most, panels * PANEL));
        let (mut xs, mut ys) = (x_layout.scratch(), y_layout.scratch());
        let sums = sums.start_of(offset, panels * Pass::<T>::POINTS * depth * PANEL);
        for first in units.clone().step_by(step) {
            let chunk = first..(first + step).min(units.end);
            let last = pass.tiling.unit(chunk.end - 1);
            let tiles = last.index + last.tiles - pass.tiling.unit(chunk.start).index;
            // SAFETY: both are large enough for the tiles and points, and this thread's; `start_of` has seen to the sums,
            // which are this part's.
            unsafe {
                let (xs, ys) = (xs.as_mut_ptr(), ys.as_mut_ptr());
                pass.transform::<Input<T>, I>(&pass.input, x, chunk.clone(), xs, x_layout);
                pass.transform::<OutputAdjoint<T>, I>(&pass.output, y, chunk, ys, y_layout);
                for point in 0..Pass::<T>::POINTS {
                    let start = xs.add(point * x_layout.plane).cast_const();
                    let a = Rows { start, row: 1, column: x_layout.tile };
                    for panel in 0..panels {
                        let b = (ys.add(point * y_layout.plane + panel * PANEL).cast_const(), y_layout.tile);
                        let c = (sums.add((panel * Pass::<T>::POINTS + point) * depth * PANEL), PANEL);
                        I::product((pass.terms(), tiles), a, b, c, first > units.start);
                    }
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
pub(super) struct KernelGradient<'a, T> {
    pub(super) pass: Pass<T>,
    /// For each point a matrix (channels in, [`PANEL`]).
    pub(super) sums: &'a [f32],
    pub(super) panel: usize,
    pub(super) ins: Range<usize>,
    /// The kernel whose gradient is written; its values are not read.
    pub(super) kernel: Kernel<'a>,
    pub(super) gradient: Shared,
}

impl<T: Transform> Piece for KernelGradient<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, sums, panel, ins, kernel, gradient } = self;
        let plane = ins.len() * PANEL;
        let blocks = pass.blocks_of(panel);
        let phases = pass.input.stride * pass.input.stride;
        let (places, mut taps) = (kernel.places::<T>(), [[0.; PANEL]; MOST_TAPS]);
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
                // SAFETY: the slice has the sums as far as the last point's; a square of all phases' taps is no larger than the array.
                unsafe { both::<TapsAdjoint<T>, I>(true, from, kernel.square::<T, _>(to, BLOCK), Then::Write) };
            }
            for (half, block) in blocks.clone().enumerate() {
                let (first_out, outs, _) = pass.output.block(block);
                let at = first_out * kernel.out_step + (first_in + lane) * kernel.in_step;
                kernel.write::<I::V>(&taps, &places, half * BLOCK, outs, at, gradient);
            }
        }
    }
}

/// Gradients of kernels from all tiles, transformed.
pub(super) struct Block<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) xs: &'a [f32],
    pub(super) x_layout: Layout,
    pub(super) ys: &'a [f32],
    pub(super) y_layout: Layout,
    pub(super) panel: usize,
    pub(super) ins: Range<usize>,
    pub(super) kernel: Kernel<'a>,
    pub(super) gradient: Shared,
}

impl<T: Transform> Piece for Block<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, xs, x_layout, ys, y_layout, panel, ins, kernel, gradient } = self;
        let mut sums = Scratch::new(Pass::<T>::POINTS * ins.len() * PANEL);
        for point in 0..Pass::<T>::POINTS {
            let a = Rows { start: xs[point * x_layout.plane + ins.start..].as_ptr(), row: 1, column: x_layout.tile };
            let b = (ys[point * y_layout.plane + panel * PANEL..].as_ptr(), y_layout.tile);
            let c = (sums[point * ins.len() * PANEL..].as_mut_ptr(), PANEL);
            // SAFETY: the layouts have all tiles and channels, the sums all points.
            unsafe { I::product((ins.len(), pass.tiling.tiles()), a, b, c, false) };
        }
        KernelGradient { pass, sums: &sums, panel, ins, kernel, gradient }.run::<I>();
    }
}

/// The sums of the transformed kernel's gradient at one point, over all tiles, for some channels in.
pub(super) struct SumsOfPoint<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) xs: &'a [f32],
    pub(super) x_layout: Layout,
    pub(super) ys: &'a [f32],
    pub(super) y_layout: Layout,
    pub(super) point: usize,
    pub(super) ins: Range<usize>,
    pub(super) sums: Shared,
}

impl<T: Transform> Piece for SumsOfPoint<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, xs, x_layout, ys, y_layout, point, ins, sums } = self;
        let depth = pass.depth();
        for first in ins.clone().step_by(PANEL) {
            let rows = PANEL.min(ins.end - first);
            let a = Rows { start: xs[point * x_layout.plane + first..].as_ptr(), row: 1, column: x_layout.tile };
            for panel in 0..pass.panels() {
                let b = (ys[point * y_layout.plane + panel * PANEL..].as_ptr(), y_layout.tile);
                let at = ((panel * Pass::<T>::POINTS + point) * depth + first) * PANEL;
                let c = (sums.start_of(at, rows * PANEL), PANEL);
                // SAFETY: the layouts have all tiles and channels; the sums are this piece's.
                unsafe { I::product((rows, pass.tiling.tiles()), a, b, c, false) };
            }
        }
    }
}
