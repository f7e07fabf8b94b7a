//! The passes of a Winograd convolution, each over a part that no other piece of work writes.
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::marker::PhantomData;
use std::ops::Range;

use super::DEPTH;
use super::lattice::{BLOCK, Lattice, Strip};
use super::transform::{Input, Matrix, Output, OutputAdjoint, PanelEnding, Square, Taps, TapsAdjoint, Transform, both};
use crate::conv2d::cpu::Ending;
use crate::kernel::{Isa, Lanes, PANEL, Piece, Rows, Scratch, Shared, Vector};

/// Results cut into tiles, tiles into units: pieces of a row of tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiling {
    images: usize,
    rows: usize,
    columns: usize,
    /// Tiles of a unit, at most.
    segment: usize,
}

/// Some tiles beside each other.
#[derive(Debug, Clone, Copy)]
struct Unit {
    image: usize,
    row: usize,
    column: usize,
    tiles: usize,
    /// The number of the first tile, counted over all images.
    index: usize,
}

impl Tiling {
    pub(super) fn new<T: Transform>(images: usize, results: (usize, usize), most: usize) -> Self {
        let (rows, columns) = (results.0.div_ceil(T::RESULTS), results.1.div_ceil(T::RESULTS));
        Self { images, rows, columns, segment: columns.div_ceil(columns.div_ceil(most)) }
    }

    pub(super) fn tiles(&self) -> usize {
        self.images * self.rows * self.columns
    }

    pub(super) fn units(&self) -> usize {
        self.images * self.rows * self.columns.div_ceil(self.segment)
    }

    /// Units of about `tiles` tiles.
    pub(super) fn units_of(&self, tiles: usize) -> usize {
        (tiles / self.segment).max(1)
    }

    /// Tiles of `units` units, at most.
    pub(super) fn tiles_of(&self, units: usize) -> usize {
        units * self.segment
    }

    fn unit(&self, at: usize) -> Unit {
        let in_row = self.columns.div_ceil(self.segment);
        let (line, column) = (at / in_row, at % in_row * self.segment);
        Unit {
            image: line / self.rows,
            row: line % self.rows,
            column,
            tiles: self.segment.min(self.columns - column),
            index: line * self.columns + column,
        }
    }
}

/// How values of tiles at points lie in memory: point p of tile t begins at `p * plane + t * tile`. Neither is a power of
/// two, whose multiples would share a set of the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) tile: usize,
    pub(super) plane: usize,
    pub(super) len: usize,
}

impl Layout {
    pub(super) fn new<T: Transform>(tiles: usize, channels: usize) -> Self {
        let tile = if channels >= 2 * PANEL { channels.next_multiple_of(PANEL) + PANEL } else { channels };
        let plane = tiles * tile + PANEL;
        Self { tile, plane, len: T::POINTS * T::POINTS * plane }
    }

    /// The values of a tile at all points.
    #[inline(always)]
    fn square<T: Transform, P>(&self, start: P) -> Square<P> {
        Square { start, row: T::POINTS * self.plane, column: self.plane, next: BLOCK }
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch::new(self.len)
    }
}

/// Channels in after which kernels are fetched ahead: they lie too far apart for the processor to foresee.
const AHEAD: usize = 4;

/// Taps of a kernel, at most.
pub(super) const MOST_TAPS: usize = 16;

/// A kernel as virtual channels see it.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    pub(super) values: &'a [f32],
    /// (height, width) of the kernel.
    pub(super) size: (usize, usize),
    /// Of the convolution: taps of one phase are this far apart.
    pub(super) stride: usize,
    /// Floats from one channel out, or in, to the next.
    pub(super) out_step: usize,
    pub(super) in_step: usize,
    /// Whether taps are taken in reverse order.
    pub(super) flipped: bool,
}

impl Kernel<'_> {
    /// Where tap (i, j) of these phases is in the kernel, if it is.
    #[inline(always)]
    fn tap<T: Transform>(&self, (i, j): (usize, usize), phase: (usize, usize)) -> Option<usize> {
        let turn = |i: usize| if self.flipped { T::TAPS - 1 - i } else { i };
        let (i, j) = (self.stride * turn(i) + phase.0, self.stride * turn(j) + phase.1);
        (i < self.size.0 && j < self.size.1).then_some(i * self.size.1 + j)
    }

    /// Reads all taps of the kernel at `from` and of those to the next channels out, `outs` in all and beside each other.
    #[inline(always)]
    fn read<V: Vector>(&self, from: usize, outs: usize, taps: &mut [V; MOST_TAPS]) {
        if outs == 0 {
            *taps = [V::splat(0.); MOST_TAPS];
            return;
        }
        let count = self.size.0 * self.size.1;
        let mut at = 0;
        while at < count {
            let some = BLOCK.min(count - at);
            let mut kernels = [V::splat(0.); BLOCK];
            for out in 0..BLOCK {
                if out < outs {
                    let values = &self.values[from + at + out * self.out_step..];
                    let mut rest = [0.; BLOCK];
                    let mut start = values.as_ptr();
                    if values.len() < BLOCK {
                        rest[..values.len()].copy_from_slice(values);
                        start = rest.as_ptr();
                    }
                    V::prefetch(values.as_ptr().wrapping_add(AHEAD * self.in_step));
                    // SAFETY: both the slice, if it is read, and the array are eight long. What follows this kernel's taps
                    // is not used.
                    kernels[out] = unsafe { V::load(start) };
                }
            }
            let kernels = V::transpose(kernels);
            for i in 0..BLOCK {
                if i < some {
                    taps[at + i] = kernels[i];
                }
            }
            at += BLOCK;
        }
    }
}

/// The shapes of one convolution at stride 1 over virtual channels.
pub(super) struct Pass<T> {
    pub(super) tiling: Tiling,
    pub(super) input: Lattice,
    pub(super) output: Lattice,
    pub(super) transform: PhantomData<T>,
}

impl<T> Clone for Pass<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pass<T> {}

impl<T: Transform> Pass<T> {
    const POINTS: usize = T::POINTS * T::POINTS;

    /// Channels in, with those that fill up the last block.
    pub(super) fn depth(&self) -> usize {
        self.input.blocks() * BLOCK
    }

    pub(super) fn panels(&self) -> usize {
        self.output.blocks().div_ceil(PANEL / BLOCK)
    }

    /// The kernels of one panel: for every point a matrix (channels in, [`PANEL`]), `plane` floats from one to the next.
    pub(super) fn kernel_plane(depth: usize) -> usize {
        depth * PANEL + PANEL
    }

    pub(super) fn kernels_of_panel(depth: usize) -> usize {
        Self::POINTS * Self::kernel_plane(depth)
    }

    /// Transforms the tiles of `units`, block by block of a lattice's channels, to `to`.
    ///
    /// # Safety
    /// `to` has room for the tiles from the first unit's on, and is this thread's alone there.
    #[inline(always)]
    unsafe fn transform<M: Matrix, I: Isa>(
        &self,
        lattice: &Lattice,
        images: &[f32],
        units: Range<usize>,
        to: *mut f32,
        layout: Layout,
    ) {
        let side = M::COLUMNS;
        let width = self.tiling.segment * T::RESULTS + side - T::RESULTS;
        let mut space = Scratch::new(2 * side * width * BLOCK);
        let first = self.tiling.unit(units.start).index;
        for unit in units.map(|at| self.tiling.unit(at)) {
            let image = images[unit.image * lattice.image_len()..].as_ptr();
            let width = unit.tiles * T::RESULTS + side - T::RESULTS;
            let strips = strips(&mut space, width, side);
            let at = ((unit.row * T::RESULTS) as isize, (unit.column * T::RESULTS) as isize);
            for block in (0..lattice.blocks()).step_by(2) {
                let two = block + 1 < lattice.blocks();
                // SAFETY: the slice begins with this image; the strips are as large as they say.
                unsafe { lattice.gather::<I::V>(image, (block, two), at, side, strips) };
                let to = to.wrapping_add((unit.index - first) * layout.tile + block * BLOCK);
                for tile in 0..unit.tiles {
                    let from = strips[0].square(tile * T::RESULTS, strips[1]);
                    let to = layout.square::<T, _>(to.wrapping_add(tile * layout.tile));
                    // SAFETY: the tile's part of the strips; the tile's place in `to`.
                    unsafe { both::<M, I>(two, from.read(), to, None) };
                }
            }
        }
    }

    /// Transforms the kernels from the channels `ins` to a panel's, to `to`.
    ///
    /// # Safety
    /// `to` has room for [`Self::kernels_of_panel`] of these channels, and is this thread's alone.
    #[inline(always)]
    unsafe fn transform_kernels<I: Isa>(&self, kernel: &Kernel, panel: usize, ins: Range<usize>, to: *mut f32) {
        let plane = Self::kernel_plane(ins.len());
        let mut all = [I::V::splat(0.); MOST_TAPS];
        let mut taps = [[0.; PANEL]; 9];
        for at in ins.clone() {
            let (first_in, count, in_phase) = self.input.block(at / BLOCK);
            let channel = first_in + at % BLOCK;
            for half in 0..PANEL / BLOCK {
                let out = panel * (PANEL / BLOCK) + half;
                let (first_out, outs, out_phase) =
                    if out < self.output.blocks() { self.output.block(out) } else { (0, 0, (0, 0)) };
                let outs = if at % BLOCK < count { outs } else { 0 };
                let phase = (in_phase.0 + out_phase.0, in_phase.1 + out_phase.1);
                kernel.read(first_out * kernel.out_step + channel * kernel.in_step, outs, &mut all);
                for i in 0..T::TAPS {
                    for j in 0..T::TAPS {
                        let tap = match kernel.tap::<T>((i, j), phase) {
                            Some(tap) => all[tap],
                            None => I::V::splat(0.),
                        };
                        // SAFETY: eight of the sixteen floats.
                        unsafe { tap.store(taps[i * T::TAPS + j][half * BLOCK..][..BLOCK].as_mut_ptr()) };
                    }
                }
            }
            let to = to.wrapping_add((at - ins.start) * PANEL);
            let from = Square { start: taps.as_ptr().cast(), row: T::TAPS * PANEL, column: PANEL, next: BLOCK };
            let to = Square { start: to, row: T::POINTS * plane, column: plane, next: BLOCK };
            // SAFETY: arrays of a panel; the kernel's place in `to`.
            unsafe { both::<Taps<T>, I>(true, from, to, None) };
        }
    }

    /// Turns the products of the tiles of `units` into results of a panel's channels.
    ///
    /// # Safety
    /// `products` has the tiles from the first unit's on; no other thread writes these results.
    #[inline(always)]
    unsafe fn finish<I: Isa>(
        &self,
        products: *const f32,
        layout: Layout,
        panel: usize,
        units: Range<usize>,
        ending: Ending,
        y: Shared,
    ) {
        let mut space = Scratch::new(2 * T::RESULTS * self.tiling.segment * T::RESULTS * BLOCK);
        let first = self.tiling.unit(units.start).index;
        let blocks = panel * (PANEL / BLOCK)..((panel + 1) * (PANEL / BLOCK)).min(self.output.blocks());
        let mut of_panel = PanelEnding { scale: [1.; PANEL], shift: [0.; PANEL], activation: ending.activation };
        for (half, block) in blocks.clone().enumerate() {
            let (channel, count, _) = self.output.block(block);
            for (to, from) in [(&mut of_panel.scale, ending.scale), (&mut of_panel.shift, ending.shift)] {
                if let Some(from) = from {
                    to[half * BLOCK..][..count].copy_from_slice(&from[channel..channel + count]);
                }
            }
        }
        for unit in units.map(|at| self.tiling.unit(at)) {
            let strips = strips(&mut space, unit.tiles * T::RESULTS, T::RESULTS);
            let at = ((unit.row * T::RESULTS) as isize, (unit.column * T::RESULTS) as isize);
            let two = blocks.len() == 2;
            // SAFETY of the loop: the tile's products; the tile's part of the strips.
            for tile in 0..unit.tiles {
                let from = products.wrapping_add((unit.index - first + tile) * layout.tile);
                let to = strips[0].square(tile * T::RESULTS, strips[1]);
                unsafe { both::<Output<T>, I>(two, layout.square::<T, _>(from), to, Some(&of_panel)) };
            }
            let image = y.start_of(unit.image * self.output.image_len(), self.output.image_len());
            // SAFETY: `start_of` has seen that the image is in `y`; its pixels are ours as the caller vouches.
            unsafe { self.output.scatter::<I::V>(image, (blocks.start, two), at, T::RESULTS, strips) };
        }
    }
}

/// Two strips of this width and `rows` rows.
fn strips(space: &mut Scratch, width: usize, rows: usize) -> [Strip; 2] {
    assert!(2 * width * rows * BLOCK <= space.len(), "strips exceed their memory");
    let start = space.as_mut_ptr();
    [Strip { start, width }, Strip { start: start.wrapping_add(width * rows * BLOCK), width }]
}

/// Transforms all kernels of a panel.
pub(super) struct Kernels<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) kernel: Kernel<'a>,
    pub(super) panel: usize,
    pub(super) to: Shared,
}

impl<T: Transform> Piece for Kernels<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let len = Pass::<T>::kernels_of_panel(self.pass.depth());
        let to = self.to.start_of(self.panel * len, len);
        // SAFETY: `start_of` has seen to the room; a panel's kernels are transformed once.
        unsafe { self.pass.transform_kernels::<I>(&self.kernel, self.panel, 0..self.pass.depth(), to) };
    }
}

/// Computes all results of some units, with all kernels transformed.
pub(super) struct Chunk<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) x: &'a [f32],
    pub(super) kernels: &'a [f32],
    pub(super) ending: Ending<'a>,
    pub(super) units: Range<usize>,
    pub(super) y: Shared,
}

impl<T: Transform> Piece for Chunk<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, x, kernels, ending, units, y } = self;
        let depth = pass.depth();
        let most = pass.tiling.tiles_of(units.len());
        let (values_layout, products_layout) = (Layout::new::<T>(most, depth), Layout::new::<T>(most, PANEL));
        let (mut values, mut products) = (values_layout.scratch(), products_layout.scratch());
        let last = pass.tiling.unit(units.end - 1);
        let tiles = last.index + last.tiles - pass.tiling.unit(units.start).index;
        // SAFETY: both are large enough for the tiles and points, and this thread's; the units' results are this piece's.
        unsafe {
            let (values, products) = (values.as_mut_ptr(), products.as_mut_ptr());
            pass.transform::<Input<T>, I>(&pass.input, x, units.clone(), values, values_layout);
            for panel in 0..pass.panels() {
                let len = Pass::<T>::kernels_of_panel(depth);
                let kernels = kernels[panel * len..][..len].as_ptr();
                for point in 0..Pass::<T>::POINTS {
                    let start = values.add(point * values_layout.plane).cast_const();
                    let a = Rows { start, row: values_layout.tile, column: 1 };
                    let b = (kernels.add(point * Pass::<T>::kernel_plane(depth)), PANEL);
                    let c = (products.add(point * products_layout.plane), products_layout.tile);
                    I::product((tiles, depth), a, b, c, false);
                }
                pass.finish::<I>(products, products_layout, panel, units.clone(), ending, y);
            }
        }
    }
}

/// Transforms the tiles of a unit of images, or with `ADJOINT` of results.
pub(super) struct Tiles<'a, T, const ADJOINT: bool> {
    pub(super) pass: Pass<T>,
    pub(super) images: &'a [f32],
    pub(super) unit: usize,
    pub(super) to: Shared,
    pub(super) layout: Layout,
}

impl<T: Transform, const ADJOINT: bool> Piece for Tiles<'_, T, ADJOINT> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, images, unit, to, layout } = self;
        let index = pass.tiling.unit(unit).index * layout.tile;
        let to = to.start_of(index, layout.len - index);
        // SAFETY: the layout has room for all tiles; a unit's tiles are this piece's.
        unsafe {
            if ADJOINT {
                pass.transform::<OutputAdjoint<T>, I>(&pass.output, images, unit..unit + 1, to, layout);
            } else {
                pass.transform::<Input<T>, I>(&pass.input, images, unit..unit + 1, to, layout);
            }
        }
    }
}

/// Computes all results of some panels' channels from all tiles, transformed.
pub(super) struct Panels<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) values: &'a [f32],
    pub(super) layout: Layout,
    pub(super) kernel: Kernel<'a>,
    pub(super) ending: Ending<'a>,
    pub(super) panels: Range<usize>,
    pub(super) y: Shared,
}

impl<T: Transform> Piece for Panels<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, values, layout, kernel, ending, panels, y } = self;
        let tiles = pass.tiling.tiles();
        let products_layout = Layout::new::<T>(tiles, PANEL);
        let mut products = Scratch::new(panels.len() * products_layout.len);
        let len = Pass::<T>::kernels_of_panel(DEPTH.min(pass.depth()));
        let mut kernels = Scratch::new(panels.len() * len);
        // SAFETY: all are large enough for the tiles, points and channels; the panels' results are this piece's.
        unsafe {
            let (products, kernels) = (products.as_mut_ptr(), kernels.as_mut_ptr());
            for first in (0..pass.depth()).step_by(DEPTH) {
                let ins = first..(first + DEPTH).min(pass.depth());
                for (at, panel) in panels.clone().enumerate() {
                    pass.transform_kernels::<I>(&kernel, panel, ins.clone(), kernels.add(at * len));
                }
                for point in 0..Pass::<T>::POINTS {
                    let start = values[point * layout.plane + first..].as_ptr();
                    let a = Rows { start, row: layout.tile, column: 1 };
                    // The values of a point come from far; all panels use them while they are near.
                    for at in 0..panels.len() {
                        let b = kernels.add(at * len + point * Pass::<T>::kernel_plane(ins.len())).cast_const();
                        let c = products.add(at * products_layout.len + point * products_layout.plane);
                        I::product((tiles, ins.len()), a, (b, PANEL), (c, products_layout.tile), first > 0);
                    }
                }
            }
            for (at, panel) in panels.enumerate() {
                let products = products.add(at * products_layout.len);
                pass.finish::<I>(products, products_layout, panel, 0..pass.tiling.units(), ending, y);
            }
        }
    }
}

/// The products of all channels at one point, of some tiles: the matrices of a point stay in a second-level cache.
pub(super) struct Point<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) values: &'a [f32],
    pub(super) layout: Layout,
    /// All kernels, transformed.
    pub(super) kernels: &'a [f32],
    pub(super) point: usize,
    pub(super) tiles: Range<usize>,
    /// For each panel the products of all tiles.
    pub(super) products: Shared,
    pub(super) products_layout: Layout,
}

impl<T: Transform> Piece for Point<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, values, layout, kernels, point, tiles, products, products_layout } = self;
        let depth = pass.depth();
        let start = values[point * layout.plane + tiles.start * layout.tile..].as_ptr();
        let a = Rows { start, row: layout.tile, column: 1 };
        for panel in 0..pass.panels() {
            let kernels = &kernels[panel * Pass::<T>::kernels_of_panel(depth)..];
            let b = (kernels[point * Pass::<T>::kernel_plane(depth)..].as_ptr(), PANEL);
            let at = panel * products_layout.len + point * products_layout.plane + tiles.start * products_layout.tile;
            let c = (products.start_of(at, tiles.len() * products_layout.tile), products_layout.tile);
            // SAFETY: the layouts have these tiles and the kernels all channels; the products are this piece's.
            unsafe { I::product((tiles.len(), depth), a, b, c, false) };
        }
    }
}

/// Turns the products of all tiles into the results of a panel's channels.
pub(super) struct Results<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) products: &'a [f32],
    pub(super) products_layout: Layout,
    pub(super) ending: Ending<'a>,
    pub(super) panel: usize,
    pub(super) y: Shared,
}

impl<T: Transform> Piece for Results<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, products, products_layout, ending, panel, y } = self;
        let products = products[panel * products_layout.len..][..products_layout.len].as_ptr();
        // SAFETY: the slice has all tiles and points; a panel's results are this piece's.
        unsafe { pass.finish::<I>(products, products_layout, panel, 0..pass.tiling.units(), ending, y) };
    }
}

/// Sums, over the tiles of some units, of the transformed kernel's gradient: for each panel of channels out and each
/// point a matrix (channels in, [`PANEL`]).
pub(super) struct Part<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
    pub(super) units: Range<usize>,
    /// Units that are transformed at once.
    pub(super) step: usize,
    pub(super) sums: Shared,
    /// Where in `sums` this part's begin.
    pub(super) offset: usize,
}

impl<T: Transform> Piece for Part<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, x, y, units, step, sums, offset } = self;
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
                        I::product((depth, tiles), a, b, c, first > units.start);
                    }
                }
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
        let blocks = panel * (PANEL / BLOCK)..((panel + 1) * (PANEL / BLOCK)).min(pass.output.blocks());
        for at in ins.clone() {
            let (first_in, count, phase) = pass.input.block(at / BLOCK);
            if at % BLOCK >= count {
                continue;
            }
            let from = &sums[(at - ins.start) * PANEL..];
            let mut taps = [[0.; PANEL]; 9];
            assert!((Pass::<T>::POINTS - 1) * plane + PANEL <= from.len(), "sums of some points are missing");
            let from = Square { start: from.as_ptr(), row: T::POINTS * plane, column: plane, next: BLOCK };
            let to = Square { start: taps.as_mut_ptr().cast(), row: T::TAPS * PANEL, column: PANEL, next: BLOCK };
            // SAFETY: the slice has the sums as far as the last point's; arrays of a panel.
            unsafe { both::<TapsAdjoint<T>, I>(true, from, to, None) };
            for i in 0..T::TAPS {
                for j in 0..T::TAPS {
                    let Some(tap) = kernel.tap::<T>((i, j), phase) else { continue };
                    for (half, block) in blocks.clone().enumerate() {
                        let (first_out, outs, _) = pass.output.block(block);
                        for lane in 0..outs {
                            let channels =
                                ((first_out + lane) * kernel.out_step, (first_in + at % BLOCK) * kernel.in_step);
                            let to = gradient.start_of(channels.0 + channels.1 + tap, 1);
                            // SAFETY: `start_of` has seen to the place; this kernel's gradient is this piece's alone.
                            unsafe { to.write(taps[i * T::TAPS + j][half * BLOCK + lane]) };
                        }
                    }
                }
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
pub(super) struct PointSums<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) xs: &'a [f32],
    pub(super) x_layout: Layout,
    pub(super) ys: &'a [f32],
    pub(super) y_layout: Layout,
    pub(super) point: usize,
    pub(super) ins: Range<usize>,
    pub(super) sums: Shared,
}

impl<T: Transform> Piece for PointSums<'_, T> {
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
