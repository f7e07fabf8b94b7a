//! The gradients of a kernel whose windows are patches side by side, and of a bias of the image, which a transposed convolution has: products of
//! gradients and of pixels, each in vectors of neighbouring ones, and sums of pixels.
//!
//! The four pixels of each patch are taken apart, so that those of one place and channel make a row as long as that of a channel of the gradient.
//! Each number of the kernel gets the product of two such rows, of which sixteen sums side by side stay in registers until the rows end.
#![allow(unsafe_code, reason = "vectors are loaded from and stored to rows of buffers")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{EIGHT, PATCH};
use crate::conv2d::Geometry;
use crate::conv2d::cpu::PIECES;
use crate::kernel::{
    CHUNK, Isa, Lanes, PANEL, Piece, Scratch, Shared, Vector, Work, chunks_mut, deal_each, dealt, run, vectorised_work,
    written,
};

/// Patches of a tile, of one image or of several.
const PATCHES: usize = 512;

/// Channels of the image that a piece of work takes apart.
const CHANNELS: usize = 16;

/// Channels of the gradient, and rows of pixels, whose products are summed at once: those of a row of a pair stand beside each other.
const OUTS: usize = 8;
const PAIR: usize = 2;

/// Sums of which all parts are added up at once.
const SOME: usize = 64;

/// The gradient of the kernel, `(out, in, 2, 2)`, and the sums of the image's channels, `(in)`.
pub(in crate::conv2d::cpu) fn parameter_gradients(g: &Geometry, x: &[f32], y: &[f32]) -> [Vec<f32>; 2] {
    let len = g.out_channels * g.in_channels * PATCH;
    let blocks = g.in_channels.div_ceil(CHANNELS);
    let tiles = (g.batch * g.output_pixels()).div_ceil(PATCHES);
    let parts = PIECES.div_ceil(blocks).min(tiles);
    let mut pixels: Vec<Vec<f64>> = Vec::new();
    let write = |sums: &mut [MaybeUninit<f32>]| {
        let sums = Shared::new(sums.as_mut_ptr().cast(), parts * len);
        let piece = |at: usize| {
            let (block, part) = (at % blocks, at / blocks);
            let ins = block * CHANNELS..((block + 1) * CHANNELS).min(g.in_channels);
            let tiles = part * tiles / parts..(part + 1) * tiles / parts;
            let mut pixels = vec![0.; ins.len()];
            run(g.level, Part { g, x, y, ins, tiles, sums, offset: part * len, pixels: &mut pixels });
            pixels
        };
        pixels = dealt(0..blocks * parts, piece).collect();
    };
    // SAFETY: the pieces cover all parts, and of each all channels; no part is without a tile.
    let sums = unsafe { written(parts * len, write) };
    let pixels_of = |channel: usize| {
        let of_parts = pixels.iter().skip(channel / CHANNELS).step_by(blocks);
        of_parts.map(|sums| sums[channel % CHANNELS]).sum::<f64>() as f32
    };
    let image = (0..g.in_channels).map(pixels_of).collect();
    if parts == 1 {
        return [sums, image];
    }
    let write = |total: &mut [MaybeUninit<f32>]| {
        deal_each(chunks_mut(total).enumerate(), |(at, total)| {
            vectorised_work(Total { sums: &sums[at * CHUNK..], len, to: total });
        });
    };
    // SAFETY: the chunks cover the total, and each is written whole.
    let kernel = unsafe { written(len, write) };
    [kernel, image]
}

/// Adds up the parts of some sums, which are `len` floats apart.
struct Total<'a> {
    sums: &'a [f32],
    len: usize,
    to: &'a mut [MaybeUninit<f32>],
}

impl Work for Total<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (blocks, rest) = self.to.as_chunks_mut::<SOME>();
        for (at, total) in blocks.iter_mut().enumerate() {
            let mut sums = [0.; SOME];
            for part in self.sums.chunks(self.len) {
                let part: &[f32; SOME] = part[at * SOME..].first_chunk().expect("a part has as many sums as the total");
                for i in 0..SOME {
                    sums[i] += f64::from(part[i]);
                }
            }
            *total = sums.map(|sum| MaybeUninit::new(sum as f32));
        }
        let done = blocks.len() * SOME;
        for (at, total) in rest.iter_mut().enumerate() {
            let parts = self.sums.chunks(self.len).map(|part| f64::from(part[done + at]));
            total.write(parts.sum::<f64>() as f32);
        }
    }
}

/// The gradient of the kernels over some channels of the image, summed over some tiles.
struct Part<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    y: &'a [f32],
    ins: Range<usize>,
    tiles: Range<usize>,
    sums: Shared,
    /// Where in `sums` this part's begin.
    offset: usize,
    /// Where the pixels of each channel are added.
    pixels: &'a mut [f64],
}

/// Where the first of each eight patches of a tile are: its upper pixels in the first channel of the image, and its place in the gradient's.
struct Places {
    pixels: [usize; PATCHES / EIGHT],
    results: [usize; PATCHES / EIGHT],
    /// How many eights there are.
    count: usize,
    /// Patches that the rows of the tile have: no less than there are, a multiple of what is summed side by side.
    len: usize,
}

impl Places {
    #[inline(always)]
    fn new(g: &Geometry, tile: usize) -> Self {
        let (patches, width) = (g.output_pixels(), g.output.1);
        let first = tile * PATCHES;
        let count = (g.batch * patches - first).min(PATCHES) / EIGHT;
        let (mut pixels, mut results) = ([0; PATCHES / EIGHT], [0; PATCHES / EIGHT]);
        let (mut image, mut patch) = (first / patches, first % patches);
        let (mut row, mut column) = (patch / width, patch % width);
        for at in 0..count {
            pixels[at] = image * g.in_channels * g.input_pixels() + 2 * (row * g.input.1 + column);
            results[at] = image * g.out_channels * patches + patch;
            (patch, column) = (patch + EIGHT, column + EIGHT);
            if column == width {
                (row, column) = (row + 1, 0);
            }
            if patch == patches {
                (image, patch, row) = (image + 1, 0, 0);
            }
        }
        Self { pixels, results, count, len: (count * EIGHT).next_multiple_of(PANEL) }
    }
}

impl Piece for Part<'_> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let g = self.g;
        let rows = PATCH * self.ins.len();
        let mut seen = Scratch::new(rows * PATCHES);
        let mut gradients = Scratch::new(OUTS * PATCHES);
        let mut products = [[0.; PATCH * CHANNELS]; OUTS];
        for tile in self.tiles.clone() {
            let places = Places::new(g, tile);
            self.take_apart::<I>(&places, &mut seen);
            for first in (0..g.out_channels).step_by(OUTS) {
                self.copy::<I>(&places, first, &mut gradients);
                for row in (0..rows).step_by(PAIR) {
                    let seen = &seen[row * PATCHES..][..PAIR * PATCHES];
                    let sums = if I::IS_WIDE {
                        sums::<I::Wide, OUTS>(&gradients, seen, places.len)
                    } else {
                        sums::<I::Wide, { OUTS / 4 }>(&gradients, seen, places.len)
                    };
                    let totals = I::totals(&sums);
                    for out in 0..OUTS {
                        for at in 0..PAIR {
                            products[out][row + at] = totals[PAIR * out + at];
                        }
                    }
                }
                for out in 0..OUTS.min(g.out_channels - first) {
                    let at = ((first + out) * g.in_channels + self.ins.start) * PATCH;
                    let to = self.sums.start_of(self.offset + at, rows);
                    for (at, &product) in products[out][..rows].iter().enumerate() {
                        let to = to.wrapping_add(at);
                        // SAFETY: `start_of` has seen to the sums, which are this piece's, and written with its first tile.
                        unsafe { to.write(if tile == self.tiles.start { product } else { *to + product }) };
                    }
                }
            }
        }
    }
}

impl Part<'_> {
    /// Copies the pixels of a tile, those of one channel and place in the patches to a row, and adds them up.
    #[inline(always)]
    fn take_apart<I: Isa>(&mut self, places: &Places, seen: &mut [f32]) {
        let (plane, width) = (self.g.input_pixels(), self.g.input.1);
        for (at, rows) in seen.chunks_exact_mut(PATCH * PATCHES).enumerate() {
            let channel = (self.ins.start + at) * plane;
            let mut total = 0.;
            for (row, pair) in rows.chunks_exact_mut(2 * PATCHES).enumerate() {
                let (even, odd) = pair.split_at_mut(PATCHES);
                let eights = even.chunks_exact_mut(EIGHT).zip(odd.chunks_exact_mut(EIGHT));
                let mut sums = (I::V::splat(0.), I::V::splat(0.));
                for ((even, odd), &pixel) in eights.zip(&places.pixels[..places.count]) {
                    let from = self.x[channel + pixel + row * width..][..2 * EIGHT].as_ptr();
                    I::V::prefetch(from.wrapping_add(plane));
                    // SAFETY: the slice has sixteen floats, the chunks eight.
                    unsafe {
                        let pixels = I::V::split(I::V::load(from), I::V::load(from.wrapping_add(EIGHT)));
                        pixels.0.store(even.as_mut_ptr());
                        pixels.1.store(odd.as_mut_ptr());
                        sums = (sums.0.add(pixels.0), sums.1.add(pixels.1));
                    }
                }
                let mut lanes = [0.; 2 * EIGHT];
                // SAFETY: eight floats each.
                unsafe {
                    sums.0.store(lanes.as_mut_ptr());
                    sums.1.store(lanes[EIGHT..].as_mut_ptr());
                }
                for lane in lanes {
                    total += f64::from(lane);
                }
                even[places.count * EIGHT..places.len].fill(0.);
                odd[places.count * EIGHT..places.len].fill(0.);
            }
            self.pixels[at] += total;
        }
    }

    /// Copies the gradient of some channels, each to a row; of channels that are not there the last one's, again.
    #[inline(always)]
    fn copy<I: Isa>(&self, places: &Places, first: usize, gradients: &mut [f32]) {
        let plane = self.g.output_pixels();
        for (at, to) in gradients.chunks_exact_mut(PATCHES).enumerate() {
            let channel = (first + at).min(self.g.out_channels - 1) * plane;
            for (to, &patch) in to.chunks_exact_mut(EIGHT).zip(&places.results[..places.count]) {
                let from = self.y[channel + patch..][..EIGHT].as_ptr();
                I::V::prefetch(from.wrapping_add(OUTS * plane));
                // SAFETY: the slice has eight floats, and so has the chunk.
                unsafe { I::V::load(from).store(to.as_mut_ptr()) };
            }
            to[places.count * EIGHT..places.len].fill(0.);
        }
    }
}

/// Sums of products of rows of `len` floats, [`PATCHES`] apart: of each gradient with each of a pair, those of all patches that are alike modulo
/// [`PANEL`]. `O` gradients are taken at once.
#[inline(always)]
fn sums<W: Lanes, const O: usize>(gradients: &[f32], seen: &[f32], len: usize) -> [[f32; PANEL]; PANEL] {
    const { assert!(OUTS * PAIR == PANEL) };
    assert!(len.is_multiple_of(PANEL) && len <= PATCHES, "rows of another length");
    assert!(OUTS * PATCHES <= gradients.len() && PAIR * PATCHES <= seen.len(), "rows are missing");
    let mut all = [[0.; PANEL]; PANEL];
    for lane in (0..PANEL).step_by(W::LEN) {
        for first in (0..OUTS).step_by(O) {
            let mut sums = [[W::splat(0.); PAIR]; O];
            let mut at = lane;
            while at < len {
                let mut pixels = [W::splat(0.); PAIR];
                // SAFETY: the rows are there, as asserted, and a vector ends before the next of `PANEL` begins.
                unsafe {
                    for i in 0..PAIR {
                        pixels[i] = W::load_apart(seen.as_ptr().add(i * PATCHES + at), 8);
                    }
                    for o in 0..O {
                        let gradient = W::load_apart(gradients.as_ptr().add((first + o) * PATCHES + at), 8);
                        for i in 0..PAIR {
                            sums[o][i] = pixels[i].mul_add_each(gradient, sums[o][i]);
                        }
                    }
                }
                at += PANEL;
            }
            for o in 0..O {
                for i in 0..PAIR {
                    // SAFETY: `lane` is a multiple of the length, and both are no more than `PANEL`.
                    unsafe { sums[o][i].store_apart(all[PAIR * (first + o) + i].as_mut_ptr().add(lane), 8) };
                }
            }
        }
    }
    all
}
