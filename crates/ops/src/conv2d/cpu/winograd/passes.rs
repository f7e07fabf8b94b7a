//! What the pieces of work of a Winograd convolution share: how results are cut into tiles, how values lie in memory, and the
//! three transforms.
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::marker::PhantomData;
use std::ops::Range;

use super::kernel::{Kernel, MOST_PHASES, MOST_TAPS};
use super::lattice::{BLOCK, Lattice};
use super::strip::Strip;
use super::tile::{PanelEnding, Square, Then, both};
use super::transform::{Matrix, Output, Taps, Transform};
use crate::conv2d::cpu::{Ending, Stack};
use crate::kernel::{Isa, PANEL, Scratch, Shared, Vector};

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
pub(super) struct Unit {
    image: usize,
    row: usize,
    column: usize,
    pub(super) tiles: usize,
    /// The number of the first tile, counted over all images.
    pub(super) index: usize,
}

impl Tiling {
    pub(super) fn new<T: Transform>(images: usize, results: (usize, usize), most: usize) -> Self {
        let (rows, columns) = (results.0.div_ceil(T::RESULTS), results.1.div_ceil(T::RESULTS));
        Self { images, rows, columns, segment: columns.div_ceil(columns.div_ceil(most)) }
    }

    /// Images, rows of tiles of each, tiles of a row.
    pub(super) fn grid(&self) -> (usize, usize, usize) {
        (self.images, self.rows, self.columns)
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

    pub(super) fn unit(&self, at: usize) -> Unit {
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
    pub(super) fn square<T: Transform, P>(&self, start: P) -> Square<P> {
        Square { start, row: T::POINTS * self.plane, column: self.plane, next: BLOCK }
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch::new(self.len)
    }
}

/// The shapes of one convolution at stride 1 over virtual channels.
pub(super) struct Pass<T> {
    pub(super) tiling: Tiling,
    pub(super) input: Lattice,
    pub(super) output: Lattice,
    /// Whether tiles are of `input`, and each adds to all of `output` that it reaches; otherwise they are of `output`.
    pub(super) spread: bool,
    pub(super) transform: PhantomData<T>,
}

impl<T> Clone for Pass<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pass<T> {}

impl<T: Transform> Pass<T> {
    pub(super) const POINTS: usize = T::POINTS * T::POINTS;

    /// Channels in, with those that fill up the last block.
    pub(super) fn depth(&self) -> usize {
        self.input.blocks() * BLOCK
    }

    /// Those of them that are not zeros for sure.
    pub(super) fn terms(&self) -> usize {
        if self.input.stride == 1 { self.input.channels } else { self.depth() }
    }

    pub(super) fn panels(&self) -> usize {
        self.output.blocks().div_ceil(PANEL / BLOCK)
    }

    /// Floats from one point of a panel's kernels to the next, each a matrix (channels in, [`PANEL`]): a line more than that, since the same
    /// place at all points would share a set of the cache.
    pub(super) fn kernel_plane(depth: usize) -> usize {
        depth * PANEL + PANEL
    }

    pub(super) fn kernels_of_panel(depth: usize) -> usize {
        Self::POINTS * Self::kernel_plane(depth)
    }

    /// Transforms the tiles of `units`, block by block of a lattice's channels, to `to`. If that is `far`, room for all
    /// tiles instead of those of a piece, the places of the next blocks' values are fetched ahead: they are more streams than the processor
    /// foresees.
    ///
    /// # Safety
    /// `to` has room for the tiles from the first unit's on, and is this thread's alone there.
    #[inline(always)]
    pub(super) unsafe fn transform<M: Matrix, I: Isa>(
        &self,
        lattice: &Lattice,
        images: Stack<&[f32]>,
        units: Range<usize>,
        to: *mut f32,
        layout: Layout,
        far: bool,
    ) {
        const { assert!(M::COLUMNS <= 2 * T::RESULTS, "rows that are moved up would overlap") };
        let side = M::COLUMNS;
        // Rows, and columns, that a tile has in common with its neighbour.
        let shared = side - T::RESULTS;
        let mut space = Scratch::new(Strip::len_of_pair(self.tiling.segment * T::RESULTS + shared, side));
        let first = self.tiling.unit(units.start).index;
        for block in (0..lattice.blocks()).step_by(2) {
            let two = block + 1 < lattice.blocks();
            let mut below = None;
            for at in units.clone() {
                let unit = self.tiling.unit(at);
                let strips = Strip::pair(&mut space, unit.tiles * T::RESULTS + shared, side);
                // Below the unit before, the first rows are its last.
                let known = if below == Some((unit.image, unit.row, unit.column)) { shared } else { 0 };
                below = Some((unit.image, unit.row + 1, unit.column));
                let at = ((unit.row * T::RESULTS) as isize, (unit.column * T::RESULTS) as isize);
                let image = images.image(unit.image, lattice.block(block).0);
                // SAFETY: `image` has seen to the planes of the part; the strips are as large as they say, and as large as those of
                // the unit above, which has as many tiles.
                unsafe {
                    strips[0].move_up(T::RESULTS, known);
                    lattice.gather::<I::V>(image, (block, two), at, known..side, strips);
                }
                let to = to.wrapping_add((unit.index - first) * layout.tile + block * BLOCK);
                for tile in 0..unit.tiles {
                    let from = strips[0].square((0, tile * T::RESULTS));
                    let to = layout.square::<T, _>(to.wrapping_add(tile * layout.tile));
                    if far {
                        for point in 0..Self::POINTS {
                            I::V::prefetch(to.start.wrapping_add(point * layout.plane + PANEL));
                        }
                    }
                    // SAFETY: the tile's part of the strips; the tile's place in `to`.
                    unsafe { both::<M, I>(two, from.read(), to.anew(), Then::Write) };
                }
            }
        }
    }

    /// Transforms the kernels from the channels `ins`, whole sets of phases, to a panel's: to `to`, `plane` floats from one point to the next.
    ///
    /// # Safety
    /// `to` has room for these channels at all points, and is this thread's alone there.
    #[inline(always)]
    pub(super) unsafe fn transform_kernels<I: Isa>(
        &self,
        kernel: &Kernel,
        panel: usize,
        ins: Range<usize>,
        to: *mut f32,
        plane: usize,
    ) {
        let phases = self.input.stride * self.input.stride;
        let mut outs = [(0, 0, (0, 0)); PANEL / BLOCK];
        for half in 0..outs.len() {
            let block = panel * (PANEL / BLOCK) + half;
            if block < self.output.blocks() {
                outs[half] = self.output.block(block);
            }
        }
        let mut starts = [0; MOST_PHASES];
        for phase in 0..phases {
            let (_, _, in_phase) = self.input.block(phase);
            starts[phase] = kernel.first::<T>((in_phase.0 + outs[0].2.0, in_phase.1 + outs[0].2.1)) * PANEL;
        }
        // Both halves of a panel are neighbouring phases of the same channels, or different channels.
        let same = outs[0].2 != outs[1].2;
        let whole = !same && outs[0].1 + outs[1].1 == PANEL && kernel.is_large();
        let (places, mut taps) = (kernel.places::<T>(!I::IS_WIDE), [[[0.; PANEL]; MOST_TAPS]; 2]);
        let channels = ins.len() / phases;
        // All phases of a channel see one kernel, which is read once, and before the channel before it is transformed: vectors are loaded
        // from what was stored in parts, which takes its time.
        for step in 0..=channels {
            if step < channels {
                let (first, lane) = (ins.start + step / BLOCK * phases * BLOCK, step % BLOCK);
                let (first_in, count, _) = self.input.block(first / BLOCK);
                let (start, taps) = ((first_in + lane) * kernel.in_step, &mut taps[step % 2]);
                if I::IS_WIDE && whole && lane < count {
                    kernel.read_whole::<T, I::V, I::Wide>(start + outs[0].0 * kernel.out_step, &places, 0, taps);
                } else {
                    for half in 0..if same { 1 } else { outs.len() } {
                        let start = start + outs[half].0 * kernel.out_step;
                        let outs = if lane < count { outs[half].1 } else { 0 };
                        if !I::IS_WIDE {
                            kernel.read::<I::V>(start, outs, &places, half * BLOCK, taps);
                        } else if outs == BLOCK && kernel.is_large() {
                            kernel.read_whole::<T, I::V, I::V>(start, &places, half * BLOCK, taps);
                        } else {
                            kernel.read_some(start, outs, &places, half * BLOCK, taps);
                        }
                    }
                }
            }
            if step == 0 {
                continue;
            }
            let step = step - 1;
            let (first, lane) = (ins.start + step / BLOCK * phases * BLOCK, step % BLOCK);
            for phase in 0..phases {
                let from = taps[step % 2].as_ptr().cast::<f32>().wrapping_add(starts[phase]);
                let to = to.wrapping_add((first - ins.start + phase * BLOCK + lane) * PANEL);
                let to = Square { start: to, row: T::POINTS * plane, column: plane, next: BLOCK };
                let to = if I::IS_WIDE { to.anew() } else { to };
                // SAFETY: a square of all phases' taps is no larger than an array of them; the kernel's place in `to`.
                unsafe {
                    if same {
                        both::<Taps<T>, I>(true, kernel.square::<T>(from, PANEL, !I::IS_WIDE), to, Then::Write);
                    } else {
                        both::<Taps<T>, I>(true, kernel.square::<T>(from, BLOCK, !I::IS_WIDE), to, Then::Write);
                    }
                }
            }
        }
    }

    /// A panel's blocks of channels out.
    pub(super) fn blocks_of(&self, panel: usize) -> Range<usize> {
        panel * (PANEL / BLOCK)..((panel + 1) * (PANEL / BLOCK)).min(self.output.blocks())
    }

    /// What becomes of the results of a panel's channels.
    pub(super) fn ending_of(&self, panel: usize, ending: Ending) -> PanelEnding {
        let mut of_panel = PanelEnding { scale: [1.; PANEL], shift: [0.; PANEL], activation: ending.activation };
        for (half, block) in self.blocks_of(panel).enumerate() {
            let (channel, count, _) = self.output.block(block);
            for (to, from) in [(&mut of_panel.scale, ending.scale), (&mut of_panel.shift, ending.shift)] {
                if let Some(from) = from {
                    to[half * BLOCK..][..count].copy_from_slice(&from[channel..channel + count]);
                }
            }
        }
        of_panel
    }

    /// Turns the products of the tiles of `units` into results of a panel's channels.
    ///
    /// # Safety
    /// `products` has the tiles from the first unit's on; no other thread writes these results.
    #[inline(always)]
    pub(super) unsafe fn finish<I: Isa>(
        &self,
        products: *const f32,
        layout: Layout,
        panel: usize,
        units: Range<usize>,
        ending: Ending,
        y: Stack<Shared>,
    ) {
        let mut space = Scratch::new(Strip::len_of_pair(self.tiling.segment * T::RESULTS, T::RESULTS));
        let first = self.tiling.unit(units.start).index;
        let (blocks, of_panel) = (self.blocks_of(panel), self.ending_of(panel, ending));
        let two = blocks.len() == 2;
        for unit in units.map(|at| self.tiling.unit(at)) {
            let strips = Strip::pair(&mut space, unit.tiles * T::RESULTS, T::RESULTS);
            let at = ((unit.row * T::RESULTS) as isize, (unit.column * T::RESULTS) as isize);
            for tile in 0..unit.tiles {
                let from = products.wrapping_add((unit.index - first + tile) * layout.tile);
                let to = strips[0].square((0, tile * T::RESULTS));
                // SAFETY: the tile's products; the tile's part of the strips.
                unsafe { both::<Output<T>, I>(two, layout.square::<T, _>(from), to.anew(), Then::End(&of_panel)) };
            }
            let image = y.image(unit.image, self.output.block(blocks.start).0);
            // SAFETY: `image` has seen that the planes are in `y`; their pixels are ours as the caller vouches.
            unsafe { self.output.scatter::<I::V>(image, (blocks.start, two), at, T::RESULTS, strips) };
        }
    }
}
