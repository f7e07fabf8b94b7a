//! The adjoint of a convolution in its image, tile by tile of what the convolution gave: `B ((G w G^T) . (A y A^T)) B^T` is what a tile
//! adds to the m + r - 1 pixels a side that it saw.
//!
//! The convolution with a turned kernel gives the same, of tiles of the image, which has r - 1 more pixels a side than there are
//! results: five results of four taps, the bottleneck of the lab's generator, are one tile here and four there.
#![allow(unsafe_code, reason = "pieces of work read and write strided blocks of shared memory")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

use super::lattice::BLOCK;
use super::passes::{Layout, Pass};
use super::strip::Strip;
use super::tile::{Then, both};
use super::transform::{InputAdjoint, Transform};
use crate::conv2d::cpu::{Ending, Stack};
use crate::kernel::{Isa, Scratch, Shared, Vector};

impl<T: Transform> Pass<T> {
    /// Turns the products of all tiles into results of a panel's channels, either way.
    ///
    /// # Safety
    /// As for both ways.
    #[inline(always)]
    pub(super) unsafe fn finish_all<I: Isa>(
        &self,
        products: *const f32,
        layout: Layout,
        panel: usize,
        ending: Ending,
        y: Stack<Shared>,
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            if self.spread {
                self.finish_spread::<I>(products, layout, panel, ending, y);
            } else {
                self.finish::<I>(products, layout, panel, 0..self.tiling.units(), ending, y);
            }
        }
    }

    /// Adds up what the products of all tiles make of a panel's channels.
    ///
    /// # Safety
    /// `products` has all tiles; no other thread writes these channels.
    #[inline(always)]
    unsafe fn finish_spread<I: Isa>(
        &self,
        products: *const f32,
        layout: Layout,
        panel: usize,
        ending: Ending,
        y: Stack<Shared>,
    ) {
        let (blocks, of_panel) = (self.blocks_of(panel), self.ending_of(panel, ending));
        let (images, tiles_down, tiles_across) = self.tiling.grid();
        let positions = self.output.positions();
        let reached = |tiles: usize| tiles * T::RESULTS + T::TAPS - 1;
        let (rows, width) = (positions.0.max(reached(tiles_down)), positions.1.max(reached(tiles_across)));
        let mut space = Scratch::new(Strip::len_of_pair(width, rows));
        let two = blocks.len() == 2;
        for image in 0..images {
            space.fill(0.);
            let strips = Strip::pair(&mut space, width, rows);
            for row in 0..tiles_down {
                for column in 0..tiles_across {
                    let tile = (image * tiles_down + row) * tiles_across + column;
                    let from = layout.square::<T, _>(products.wrapping_add(tile * layout.tile));
                    let to = strips[0].square((row * T::RESULTS, column * T::RESULTS));
                    // SAFETY: the tile's products; the pixels that it saw are in the strips.
                    unsafe { both::<InputAdjoint<T>, I>(two, from, to.anew(), Then::Add) };
                }
            }
            for (at, values) in space.chunks_exact_mut(BLOCK).enumerate() {
                // SAFETY: eight floats.
                unsafe {
                    let ended = of_panel.end(I::V::load(values.as_ptr()), at % 2 * BLOCK);
                    ended.store(values.as_mut_ptr());
                }
            }
            let image = y.image(image, self.output.block(blocks.start).0);
            // SAFETY: `image` has seen that the planes are in `y`; the panel's channels are ours as the caller vouches.
            unsafe { self.output.scatter::<I::V>(image, (blocks.start, two), (0, 0), rows, strips) };
        }
    }
}
