//! The results of a convolution, forward or back to its image, piece by piece.
#![allow(unsafe_code, reason = "pieces of work read and write strided blocks of shared memory")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::ops::Range;

use super::kernel::Kernel;
use super::lattice::{BLOCK, Lattice};
use super::passes::{Layout, Pass};
use super::transform::{Input, OutputAdjoint, Transform};
use super::{DEPTH, KERNEL_VALUES, MOST_PANELS, PANELS};
use crate::conv2d::cpu::{Ending, Stack};
use crate::kernel::{Isa, PANEL, Panels, Piece, Rows, Scratch, Shared};

/// Transforms the kernels from some channels to a panel's.
pub(super) struct Kernels<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) kernel: Kernel<'a>,
    pub(super) panel: usize,
    pub(super) ins: Range<usize>,
    /// For the kernels of all panels.
    pub(super) to: Shared,
}

impl<T: Transform> Piece for Kernels<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, kernel, panel, ins, to } = self;
        let (plane, len) = (Pass::<T>::kernel_plane(pass.depth()), Pass::<T>::kernels_of_panel(pass.depth()));
        let to = to.start_of(panel * len, len).wrapping_add(ins.start * PANEL);
        // SAFETY: `start_of` has seen to the room; each channel's kernels to a panel's are transformed once.
        unsafe { pass.transform_kernels::<I>(&kernel, panel, ins, to, plane) };
    }
}

/// Computes all results of some units, with all kernels transformed.
pub(super) struct Chunk<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) x: Stack<&'a [f32]>,
    pub(super) kernels: &'a [f32],
    pub(super) ending: Ending<'a>,
    pub(super) units: Range<usize>,
    pub(super) y: Stack<Shared>,
}

impl<T: Transform> Piece for Chunk<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, x, kernels, ending, units, y } = self;
        let depth = pass.depth();
        let tiles = pass.tiling.tiles_of(units.len());
        let (values_layout, products_layout) = (Layout::new::<T>(tiles, depth), Layout::new::<T>(tiles, PANEL));
        let mut values = values_layout.scratch();
        let most = if I::IS_WIDE && pass.panels() >= MOST_PANELS { MOST_PANELS } else { PANELS };
        let mut products = Scratch::new(most.min(pass.panels()) * products_layout.len);
        let last = pass.tiling.unit(units.end - 1);
        let tiles = last.index + last.tiles - pass.tiling.unit(units.start).index;
        // SAFETY: both are large enough for the tiles and points, and this thread's; the units' results are this piece's.
        unsafe {
            let (values, products) = (values.as_mut_ptr(), products.as_mut_ptr());
            pass.transform::<Input<T>, I>(&pass.input, x, units.clone(), values, values_layout, false);
            for first in (0..pass.panels()).step_by(most) {
                let panels = first..(first + most).min(pass.panels());
                let len = Pass::<T>::kernels_of_panel(depth);
                let kernels = kernels[first * len..][..panels.len() * len].as_ptr();
                for point in 0..Pass::<T>::POINTS {
                    let start = values.add(point * values_layout.plane).cast_const();
                    let a = Rows { start, row: values_layout.tile, column: 1 };
                    let start = kernels.add(point * Pass::<T>::kernel_plane(depth));
                    let b = Panels { start, row: PANEL, panel: len };
                    let start = products.add(point * products_layout.plane);
                    let c = Panels { start, row: products_layout.tile, panel: products_layout.len };
                    I::product((tiles, pass.terms()), panels.len(), a, b, c, false, None);
                }
                for (at, panel) in panels.enumerate() {
                    let products = products.add(at * products_layout.len);
                    pass.finish::<I>(products, products_layout, panel, units.clone(), ending, y);
                }
            }
        }
    }
}

/// Transforms the tiles of a unit of images as seen through `lattice`, or with `ADJOINT` of results.
pub(super) struct Tiles<'a, T, const ADJOINT: bool> {
    pub(super) pass: Pass<T>,
    pub(super) lattice: Lattice,
    pub(super) images: Stack<&'a [f32]>,
    pub(super) unit: usize,
    pub(super) to: Shared,
    pub(super) layout: Layout,
}

impl<T: Transform, const ADJOINT: bool> Piece for Tiles<'_, T, ADJOINT> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, lattice, images, unit, to, layout } = self;
        let index = pass.tiling.unit(unit).index * layout.tile;
        let to = to.start_of(index, layout.len - index);
        // SAFETY: the layout has room for all tiles; a unit's tiles are this piece's.
        unsafe {
            if ADJOINT {
                pass.transform::<OutputAdjoint<T>, I>(&lattice, images, unit..unit + 1, to, layout, true);
            } else {
                pass.transform::<Input<T>, I>(&lattice, images, unit..unit + 1, to, layout, true);
            }
        }
    }
}

/// Computes all results of some panels' channels from all tiles, transformed.
pub(super) struct FromFewTiles<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) values: &'a [f32],
    pub(super) layout: Layout,
    pub(super) kernel: Kernel<'a>,
    pub(super) ending: Ending<'a>,
    pub(super) panels: Range<usize>,
    pub(super) y: Stack<Shared>,
}

impl<T: Transform> Piece for FromFewTiles<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, values, layout, kernel, ending, panels, y } = self;
        let tiles = pass.tiling.tiles();
        let products_layout = Layout::new::<T>(tiles, PANEL);
        let mut products = Scratch::new(panels.len() * products_layout.len);
        let step = (KERNEL_VALUES / (Pass::<T>::POINTS * PANEL) / BLOCK * BLOCK).min(DEPTH);
        let len = Pass::<T>::kernels_of_panel(step.min(pass.depth()));
        let mut kernels = Scratch::new(panels.len() * len);
        // SAFETY: all are large enough for the tiles, points and channels; the panels' results are this piece's.
        unsafe {
            let (products, kernels) = (products.as_mut_ptr(), kernels.as_mut_ptr());
            for first in (0..pass.depth()).step_by(step) {
                let ins = first..(first + step).min(pass.depth());
                for (at, panel) in panels.clone().enumerate() {
                    let plane = Pass::<T>::kernel_plane(ins.len());
                    pass.transform_kernels::<I>(&kernel, panel, ins.clone(), kernels.add(at * len), plane);
                }
                for point in 0..Pass::<T>::POINTS {
                    let start = values[point * layout.plane + first..].as_ptr();
                    let a = Rows { start, row: layout.tile, column: 1 };
                    // The values of a point come from far; all panels use them while they are near.
                    let start = kernels.add(point * Pass::<T>::kernel_plane(ins.len())).cast_const();
                    let b = Panels { start, row: PANEL, panel: len };
                    let start = products.add(point * products_layout.plane);
                    let c = Panels { start, row: products_layout.tile, panel: products_layout.len };
                    I::product((tiles, ins.len()), panels.len(), a, b, c, first > 0, None);
                }
            }
            for (at, panel) in panels.enumerate() {
                let products = products.add(at * products_layout.len);
                pass.finish_all::<I>(products, products_layout, panel, ending, y);
            }
        }
    }
}

/// The products of all channels at one point, of some tiles: the matrices of a point stay in a second-level cache.
pub(super) struct ProductsOfPoint<'a, T> {
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

impl<T: Transform> Piece for ProductsOfPoint<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, values, layout, kernels, point, tiles, products, products_layout } = self;
        let depth = pass.depth();
        let start = values[point * layout.plane + tiles.start * layout.tile..].as_ptr();
        let a = Rows { start, row: layout.tile, column: 1 };
        let kernels_of_panel = Pass::<T>::kernels_of_panel(depth);
        assert_eq!(kernels.len(), pass.panels() * kernels_of_panel);
        let start = kernels[point * Pass::<T>::kernel_plane(depth)..].as_ptr();
        let b = Panels { start, row: PANEL, panel: kernels_of_panel };
        let at = point * products_layout.plane + tiles.start * products_layout.tile;
        let len = (pass.panels() - 1) * products_layout.len + tiles.len() * products_layout.tile;
        let c = products.start_of(at, len);
        let c = Panels { start: c, row: products_layout.tile, panel: products_layout.len };
        // SAFETY: the layouts have these tiles and the kernels all channels; the products are this piece's.
        unsafe { I::product((tiles.len(), depth), pass.panels(), a, b, c, false, None) };
    }
}

/// Turns the products of all tiles into the results of a panel's channels.
pub(super) struct Results<'a, T> {
    pub(super) pass: Pass<T>,
    pub(super) products: &'a [f32],
    pub(super) products_layout: Layout,
    pub(super) ending: Ending<'a>,
    pub(super) panel: usize,
    pub(super) y: Stack<Shared>,
}

impl<T: Transform> Piece for Results<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, products, products_layout, ending, panel, y } = self;
        let products = products[panel * products_layout.len..][..products_layout.len].as_ptr();
        // SAFETY: the slice has all tiles and points; a panel's results are this piece's.
        unsafe { pass.finish_all::<I>(products, products_layout, panel, ending, y) };
    }
}
