//! Convolution whose windows are patches side by side, 2x2 at stride 2, and its adjoint, the transposed convolution: products of the kernel, which is
//! read as it lies, and vectors of pixels.
//!
//! Of some neighbouring patches all channels are copied beside each other, pixels of one place in their patches together. Sums stay in registers.
//! Each is taken in the order of [`super::winograd`]'s products, so that it does not matter to a result which of both computes it.
#![allow(unsafe_code, reason = "pieces of work read and write rows of planes")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

mod gradient;

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Ending, winograd};
use crate::conv2d::Geometry;
use crate::kernel::{Isa, LINE, Lanes, Piece, Scratch, Shared, Vector, deal, run, written};

pub(super) use gradient::parameter_gradients;

/// Pixels of a patch.
const PATCH: usize = 4;

/// Patches that are computed at once, and those that a row of them comes in.
const PATCHES: usize = 32;
const EIGHT: usize = 8;

/// Vectors of patches that are summed at once.
const VECTORS: usize = 2;

/// Multiplications of a piece of work, about.
const PRODUCTS: usize = 1 << 20;

/// Sums of a patch that are worth copying it for them alone.
const OUTS: usize = 64;

/// Whether patches lie side by side and cover the image, by eights.
pub(super) fn serves(g: &Geometry) -> bool {
    let plain = g.groups == 1 && g.dilation == (1, 1) && g.padding == (0, 0);
    let patches = g.kernel == (2, 2) && g.stride == (2, 2) && g.input == (2 * g.output.0, 2 * g.output.1);
    plain && patches && g.output.1.is_multiple_of(EIGHT)
}

/// `(n, out, h, w)` from `x` `(n, in, 2h, 2w)`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], ending: Ending) -> Vec<f32> {
    compute::<false>(g, x, weight, ending)
}

/// The adjoint of [`forward`] in x: `(n, in, 2h, 2w)` from `y` `(n, out, h, w)`, or none where patches do not serve, or some channels are wanted apart.
pub(super) fn input_gradient(
    g: &Geometry,
    y: &[f32],
    weight: &[f32],
    ending: Ending,
    first_channels: usize,
) -> Option<[Vec<f32>; 2]> {
    let serves = serves(g) && first_channels == g.in_channels;
    serves.then(|| [compute::<true>(g, y, weight, ending), Vec::new()])
}

fn compute<const BACK: bool>(g: &Geometry, from: &[f32], weight: &[f32], ending: Ending) -> Vec<f32> {
    let (in_image, in_result) = (PATCH * g.in_channels, g.out_channels);
    let (depth, outs) = if BACK { (in_result, in_image) } else { (in_image, in_result) };
    assert_eq!(weight.len(), depth * outs, "weights of another shape");
    let products = PATCHES * depth * outs;
    let tiles = g.output_pixels().div_ceil(PATCHES);
    let tiles_of_piece = (PRODUCTS / products).clamp(1, tiles);
    let pieces_of_image = tiles.div_ceil(tiles_of_piece);
    let outs_of_piece = outs.div_ceil((products / PRODUCTS).clamp(1, outs.div_ceil(OUTS))).next_multiple_of(EIGHT);
    let shares = outs.div_ceil(outs_of_piece);
    let len = g.batch * outs * g.output_pixels();
    let at_once = winograd::depth_at_once(g, depth, BACK);
    let write = |to: &mut [MaybeUninit<f32>]| {
        let to = Shared::new(to.as_mut_ptr().cast(), len);
        deal(g.batch * pieces_of_image * shares, |at| {
            let (at, share) = (at / shares, at % shares);
            let (image, first) = (at / pieces_of_image, at % pieces_of_image * tiles_of_piece);
            let from = &from[image * depth * g.output_pixels()..][..depth * g.output_pixels()];
            let tiles = first..(first + tiles_of_piece).min(tiles);
            let outs = share * outs_of_piece..((share + 1) * outs_of_piece).min(outs);
            run(g.level, Products::<BACK> { g, from, weight, ending, image, tiles, outs, at_once, to });
        });
    };
    // SAFETY: the pieces cover all patches of all images and all that becomes of them, and each writes all of its own.
    unsafe { written(len, write) }
}

/// What becomes of some patches of one image: some channels of the result, or with `BACK` some of the image, each four pixels of a patch.
struct Products<'a, const BACK: bool> {
    g: &'a Geometry,
    /// All channels of the image, or of the result.
    from: &'a [f32],
    weight: &'a [f32],
    ending: Ending<'a>,
    image: usize,
    tiles: Range<usize>,
    outs: Range<usize>,
    /// Terms that are added up before they are added to those before.
    at_once: usize,
    to: Shared,
}

/// Neighbouring patches of an image.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    count: usize,
    /// Where in a plane of the image the upper pixels of each eight patches begin, and those of the tile after this one.
    pixels: [usize; PATCHES / EIGHT],
    next_pixels: [usize; PATCHES / EIGHT],
}

impl Tile {
    #[inline(always)]
    fn new(g: &Geometry, first: usize) -> Self {
        let (mut pixels, mut next_pixels) = ([0; PATCHES / EIGHT], [0; PATCHES / EIGHT]);
        for eight in 0..PATCHES / EIGHT {
            let pixel = |patch: usize| 2 * (patch / g.output.1 * g.input.1 + patch % g.output.1);
            pixels[eight] = pixel(first + eight * EIGHT);
            next_pixels[eight] = pixel(first + PATCHES + eight * EIGHT);
        }
        Self { first, count: PATCHES.min(g.output_pixels() - first), pixels, next_pixels }
    }

    /// Where the upper pixels of the patch number `at` begin, and those of the tile after this one.
    #[inline(always)]
    fn pixels_of(&self, at: usize) -> [usize; 2] {
        let (eight, column) = (at / EIGHT % (PATCHES / EIGHT), 2 * (at % EIGHT));
        [self.pixels[eight] + column, self.next_pixels[eight] + column]
    }
}

impl<const BACK: bool> Piece for Products<'_, BACK> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let patches = self.g.output_pixels();
        let depth = self.from.len() / patches;
        let mut seen = Scratch::new(depth * PATCHES);
        for tile in self.tiles.clone() {
            let tile = Tile::new(self.g, tile * PATCHES);
            if BACK {
                self.copy::<I>(tile, &mut seen);
            } else {
                self.take_apart::<I>(tile, &mut seen);
            }
            for part in (0..tile.count).step_by(VECTORS * I::Wide::LEN) {
                let seen = seen[part..].as_ptr();
                let mut out = self.outs.start;
                while out < self.outs.end {
                    // SAFETY: `seen` has as many vectors of each channel; the weights are all those of the geometry.
                    unsafe {
                        if I::IS_WIDE && (!BACK || out + EIGHT <= self.outs.end) {
                            self.sums::<I, 8>(seen, depth, out, (tile, part));
                            out += 8;
                        } else {
                            self.sums::<I, 4>(seen, depth, out, (tile, part));
                            out += 4;
                        }
                    }
                }
            }
        }
    }
}

impl<const BACK: bool> Products<'_, BACK> {
    /// Copies what is as long as the result, of a tile.
    #[inline(always)]
    fn copy<I: Isa>(&self, Tile { first, count, .. }: Tile, seen: &mut [f32]) {
        let patches = self.g.output_pixels();
        for (plane, seen) in self.from.chunks_exact(patches).zip(seen.chunks_exact_mut(PATCHES)) {
            for at in (0..PATCHES).step_by(LINE) {
                I::V::prefetch(plane.as_ptr().wrapping_add(first + PATCHES + at));
            }
            if count == PATCHES {
                // Of a known size.
                seen.copy_from_slice(&plane[first..][..PATCHES]);
            } else {
                seen[..count].copy_from_slice(&plane[first..][..count]);
                seen[count..].fill(0.);
            }
        }
    }

    /// Copies the pixels of a tile: of each eight channels, for each of the four places in a patch, those of one channel after the other.
    #[inline(always)]
    fn take_apart<I: Isa>(&self, tile: Tile, seen: &mut [f32]) {
        let (height, width) = self.g.input;
        for channel in 0..self.g.in_channels {
            let block = channel / EIGHT * EIGHT;
            let in_block = EIGHT.min(self.g.in_channels - block);
            let plane = &self.from[channel * height * width..][..height * width];
            for row in 0..2 {
                let to = block * PATCH + 2 * row * in_block + channel - block;
                let (even, odd) = (to * PATCHES, (to + in_block) * PATCHES);
                for at in 0..PATCHES / EIGHT {
                    let mut pixels = (I::V::splat(0.), I::V::splat(0.));
                    if at * EIGHT < tile.count {
                        I::V::prefetch(plane.as_ptr().wrapping_add(tile.next_pixels[at] + row * width));
                        let pair = plane[tile.pixels[at] + row * width..][..2 * EIGHT].as_ptr();
                        // SAFETY: the slice has sixteen floats.
                        pixels = unsafe { I::V::split(I::V::load(pair), I::V::load(pair.wrapping_add(EIGHT))) };
                    }
                    let even = seen[even + at * EIGHT..][..EIGHT].as_mut_ptr();
                    // SAFETY: eight floats.
                    unsafe { pixels.0.store(even) };
                    let odd = seen[odd + at * EIGHT..][..EIGHT].as_mut_ptr();
                    // SAFETY: eight floats.
                    unsafe { pixels.1.store(odd) };
                }
            }
        }
    }

    /// Sums `R` outs from `out` on, of some vectors of a tile's patches from one of them on.
    ///
    /// # Safety
    /// `seen` has these vectors of each of the `depth` channels or pixels of patches; if `BACK`, there are `R` outs.
    #[inline(always)]
    unsafe fn sums<I: Isa, const R: usize>(&self, seen: *const f32, depth: usize, out: usize, at: (Tile, usize)) {
        let all_outs = PATCH * self.g.in_channels;
        // From one out to the next, and from one channel of `seen` to the next.
        let (row, step) = if BACK { (1, all_outs) } else { (all_outs, PATCH) };
        let mut starts = [self.weight.as_ptr(); R];
        for r in 0..R {
            // Outs that are not there are the last one, again.
            starts[r] =
                starts[r].wrapping_add(if BACK { out + r } else { (out + r).min(self.g.out_channels - 1) * row });
        }
        let mut total = [[I::Wide::splat(0.); VECTORS]; R];
        for from in (0..depth).step_by(self.at_once) {
            let until = (from + self.at_once).min(depth);
            let mut sums = [[I::Wide::splat(0.); VECTORS]; R];
            let mut done = from;
            while done < until {
                // A run of channels: all of the result, or those of one place in the patches.
                let (offset, count) = if BACK {
                    (done * step, until - done)
                } else {
                    let block = done / (PATCH * EIGHT) * EIGHT;
                    let in_block = EIGHT.min(self.g.in_channels - block);
                    (block * PATCH + (done - block * PATCH) / in_block, in_block)
                };
                let mut weights = starts;
                for r in 0..R {
                    weights[r] = weights[r].wrapping_add(offset);
                }
                // SAFETY: as the caller vouches.
                unsafe {
                    let seen = seen.wrapping_add(done * PATCHES);
                    if !BACK && count == EIGHT {
                        // Numbers that are known to the compiler.
                        add_products::<I::Wide, R>(&mut sums, seen, weights, PATCH, EIGHT);
                    } else {
                        add_products::<I::Wide, R>(&mut sums, seen, weights, step, count);
                    }
                }
                done += count;
            }
            for r in 0..R {
                for v in 0..VECTORS {
                    total[r][v] = if from == 0 { sums[r][v] } else { sums[r][v].add(total[r][v]) };
                }
            }
        }
        if BACK { self.put_together::<I, R>(total, out, at) } else { self.put::<I, R>(total, out, at) }
    }

    /// Writes sums of channels of the result.
    #[inline(always)]
    fn put<I: Isa, const R: usize>(&self, sums: [[I::Wide; VECTORS]; R], out: usize, (tile, part): (Tile, usize)) {
        let first = tile.first + part;
        let patches = self.g.output_pixels();
        let values = self.ending.end(sums, |r| (out + r).min(self.outs.end - 1));
        for r in 0..R.min(self.outs.end - out) {
            let channel = out + r;
            let plane = self.to.start_of((self.image * self.g.out_channels + channel) * patches, patches);
            for v in 0..VECTORS {
                let value = values[r][v];
                let at = first + v * I::Wide::LEN;
                let to = plane.wrapping_add(at);
                I::V::prefetch(to.wrapping_add(PATCHES));
                if at + I::Wide::LEN <= patches {
                    // SAFETY: the plane has these pixels, which are this piece's.
                    unsafe { value.store_apart(to, EIGHT) };
                } else if at < patches {
                    let mut values = [0.; 2 * EIGHT];
                    // SAFETY: the array is as long as the longest vector; the plane ends after eight pixels more, which are this piece's.
                    unsafe {
                        value.store_apart(values.as_mut_ptr(), EIGHT);
                        to.copy_from_nonoverlapping(values.as_ptr(), EIGHT);
                    }
                }
            }
        }
    }

    /// Writes sums of pixels of patches.
    #[inline(always)]
    fn put_together<I: Isa, const R: usize>(
        &self,
        sums: [[I::Wide; VECTORS]; R],
        out: usize,
        (tile, part): (Tile, usize),
    ) {
        let plane_len = self.g.input_pixels();
        let half = I::Wide::LEN / 2;
        let mut places = [[[0; 2]; 2]; VECTORS];
        for v in 0..VECTORS {
            let at = part + v * I::Wide::LEN;
            places[v] = [tile.pixels_of(at), tile.pixels_of(at + half)];
        }
        let values = self.ending.end(sums, |r| (out + r) / PATCH);
        for quarter in 0..R / PATCH {
            let channel = out / PATCH + quarter;
            let plane = self.to.start_of((self.image * self.g.in_channels + channel) * plane_len, plane_len);
            for row in 0..2 {
                for v in 0..VECTORS {
                    let at = PATCH * quarter + 2 * row;
                    let (low, high) = I::Wide::join(values[at][v], values[at + 1][v]);
                    let [low_place, high_place] = places[v];
                    let plane = plane.wrapping_add(row * self.g.input.1);
                    I::V::prefetch(plane.wrapping_add(low_place[1]));
                    I::V::prefetch(plane.wrapping_add(high_place[1]));
                    // SAFETY: the patches are in the plane, each half in one row of it, and this piece's.
                    unsafe {
                        if part + v * I::Wide::LEN < tile.count {
                            low.store_apart(plane.wrapping_add(low_place[0]), EIGHT);
                        }
                        if part + v * I::Wide::LEN + half < tile.count {
                            high.store_apart(plane.wrapping_add(high_place[0]), EIGHT);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of `count` channels: vectors that are [`PATCHES`] apart, and numbers that are `step` apart, of `R` outs.
///
/// # Safety
/// All of them can be read.
#[inline(always)]
unsafe fn add_products<L: Lanes, const R: usize>(
    sums: &mut [[L; VECTORS]; R],
    seen: *const f32,
    weights: [*const f32; R],
    step: usize,
    count: usize,
) {
    for at in 0..count {
        let mut pixels = [L::splat(0.); VECTORS];
        for v in 0..VECTORS {
            // SAFETY: as the caller vouches.
            pixels[v] = unsafe { L::load_apart(seen.add(at * PATCHES + v * L::LEN), EIGHT) };
        }
        for r in 0..R {
            // SAFETY: as above.
            let weight = unsafe { *weights[r].add(at * step) };
            for v in 0..VECTORS {
                sums[r][v] = pixels[v].mul_add(weight, sums[r][v]);
            }
        }
    }
}
