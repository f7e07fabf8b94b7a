//! 1x1 convolution of few channels: a product so flat that to rearrange its factors, as gemm does, takes longer than to compute it.
//!
//! Sums stay in registers: of a result, over the channels; of the kernel's gradient, over the pixels. Where channels out are more than are
//! summed at once, and channels in many, the channels of some pixels are gathered before they are read again and again: planes lie so far apart
//! that a first-level cache would not keep them.
#![allow(unsafe_code, reason = "pieces of work read and write rows of planes")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Ending, PIECES, swapped};
use crate::conv2d::Geometry;
use crate::kernel::{Isa, Lanes, Piece, Shared, Vector, deal, dealt, run, written};

/// Channels, in and out, that are few.
const FEW: usize = 64;

/// Pixels of a plane that outweigh those computed twice where vectors do not come out even; more than are computed at once.
const MANY: usize = 256;

/// Pixels of a plane that one piece of work goes through at once, at most.
const TILE: usize = 1024;

/// Pixels whose channels are gathered, or read where they lie, and how many of those ahead are fetched.
const GATHERED: usize = 64;
const AHEAD: usize = 2 * GATHERED;

/// Channels in whose pixels a first-level cache keeps where they lie.
const NEAR: usize = 8;

/// Channels of a result that are summed at once.
const ROWS: usize = 6;

/// Channels out whose products with some channels in are summed at once.
const OUTS: usize = 3;

/// Sums of a product of the gradient that are taken side by side, in one vector or in two.
const SUMS: usize = 16;

/// Whether gemm would rearrange more than it computes.
pub(super) fn serves(g: &Geometry) -> bool {
    g.is_pointwise() && g.groups == 1 && g.in_channels <= FEW && g.out_channels <= FEW && g.output_pixels() >= MANY
}

fn tiles(g: &Geometry) -> usize {
    g.output_pixels().div_ceil(TILE)
}

/// Tiles of about one size, none of them small.
fn tile(g: &Geometry, at: usize) -> Range<usize> {
    let (pixels, tiles) = (g.output_pixels(), tiles(g));
    at * pixels / tiles..(at + 1) * pixels / tiles
}

/// `(n, out, h, w)` from `x` `(n, in, h, w)`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], ending: Ending) -> Vec<f32> {
    let plane = g.output_pixels();
    let len = g.batch * g.out_channels * plane;
    let write = |y: &mut [MaybeUninit<f32>]| {
        let y = Shared::new(y.as_mut_ptr().cast(), len);
        deal(g.batch * tiles(g), |at| {
            let (image, pixels) = (at / tiles(g), tile(g, at % tiles(g)));
            let x = &x[image * g.in_channels * plane..][..g.in_channels * plane];
            run(g.level, Results { x, weight, ending, plane, pixels, image, y });
        });
    };
    // SAFETY: the pieces cover all tiles of all images, and each writes all channels of its own.
    unsafe { written(len, write) }
}

/// The adjoint of [`forward`] in x: `(n, in, h, w)` from `y` `(n, out, h, w)`.
pub(super) fn input_gradient(g: &Geometry, y: &[f32], weight: &[f32], ending: Ending) -> Vec<f32> {
    let back = Geometry { in_channels: g.out_channels, out_channels: g.in_channels, ..*g };
    forward(&back, y, &swapped(weight, (1, g.out_channels, g.in_channels, 1)), ending)
}

/// All channels of one tile of an image.
struct Results<'a> {
    /// The channels in of the image.
    x: &'a [f32],
    weight: &'a [f32],
    ending: Ending<'a>,
    plane: usize,
    pixels: Range<usize>,
    image: usize,
    y: Shared,
}

impl Piece for Results<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        if I::IS_WIDE { self.pixels::<I, 4>() } else { self.pixels::<I, 2>() }
    }
}

impl Results<'_> {
    /// Goes along the tile, by some pixels; the last ones step back to end with it.
    #[inline(always)]
    fn pixels<I: Isa, const V: usize>(&self) {
        assert!(GATHERED <= self.pixels.len(), "a tile of few pixels");
        let (ins, outs) = self.channel_counts();
        let mut gathered = [MaybeUninit::uninit(); FEW * GATHERED];
        let mut at = self.pixels.start;
        while at < self.pixels.end {
            let first = at.min(self.pixels.end - GATHERED);
            at += GATHERED;
            let (mut x, mut step) = (&self.x[first..], self.plane);
            if outs > ROWS && ins > NEAR {
                for (channel, to) in gathered.chunks_exact_mut(GATHERED).enumerate().take(ins) {
                    to.write_copy_of_slice(&self.x[channel * self.plane + first..][..GATHERED]);
                }
                // SAFETY: these have been written.
                (x, step) = (unsafe { gathered[..ins * GATHERED].assume_init_ref() }, GATHERED);
            }
            let groups = outs.div_ceil(ROWS);
            for group in 0..groups {
                // Of about one size: a group of one would wait for its sums.
                self.channels::<I, V>(x, step, first, (group * outs / groups, (group + 1) * outs / groups));
            }
        }
    }

    /// Channels in and channels out.
    #[inline(always)]
    fn channel_counts(&self) -> (usize, usize) {
        let ins = self.x.len() / self.plane;
        (ins, self.weight.len() / ins)
    }

    /// Channels from `first` to `end`, at most [`ROWS`], of some pixels, those from `at` on: `x` has them of each channel in, `step` floats apart.
    #[inline(always)]
    fn channels<I: Isa, const V: usize>(&self, x: &[f32], step: usize, at: usize, (first, end): (usize, usize)) {
        match end - first {
            1 => self.rows::<I, V, 1>(x, step, at, first),
            2 => self.rows::<I, V, 2>(x, step, at, first),
            3 => self.rows::<I, V, 3>(x, step, at, first),
            4 => self.rows::<I, V, 4>(x, step, at, first),
            5 => self.rows::<I, V, 5>(x, step, at, first),
            _ => self.rows::<I, V, ROWS>(x, step, at, first),
        }
    }

    #[inline(always)]
    fn rows<I: Isa, const V: usize, const R: usize>(&self, x: &[f32], step: usize, at: usize, first: usize) {
        let (ins, outs) = self.channel_counts();
        let weight = &self.weight[first * ins..][..R * ins];
        assert!((ins - 1) * step + GATHERED <= x.len(), "pixels of some channels are missing");
        for part in (0..GATHERED).step_by(V * I::Wide::LEN) {
            let mut sums = [[I::Wide::splat(0.); V]; R];
            for channel in 0..ins {
                let mut pixels = [I::Wide::splat(0.); V];
                for v in 0..V {
                    let from = x.as_ptr().wrapping_add(channel * step + part + v * I::Wide::LEN);
                    if step != GATHERED {
                        I::V::prefetch(from.wrapping_add(AHEAD));
                    }
                    // SAFETY: `part` is a multiple of what is read, which `GATHERED` is too, and the slice as long as asserted.
                    pixels[v] = unsafe { I::Wide::load_apart(from, 8) };
                }
                for r in 0..R {
                    // SAFETY: a row of the kernel has `ins` elements, and the slice `R` rows.
                    let weight = unsafe { *weight.get_unchecked(r * ins + channel) };
                    for v in 0..V {
                        sums[r][v] = pixels[v].mul_add(weight, sums[r][v]);
                    }
                }
            }
            let values = self.ending.end(sums, |r| first + r);
            for r in 0..R {
                let channel = first + r;
                let to = self.y.start_of((self.image * outs + channel) * self.plane + at + part, V * I::Wide::LEN);
                for v in 0..V {
                    let to = to.wrapping_add(v * I::Wide::LEN);
                    I::V::prefetch(to.wrapping_add(AHEAD));
                    // SAFETY: `start_of` has seen to the pixels, which are in this piece's tile.
                    unsafe { values[r][v].store_apart(to, 8) };
                }
            }
        }
    }
}

/// The gradient of the kernel, `(out, in, 1, 1)`.
pub(super) fn weight_gradient(g: &Geometry, x: &[f32], y: &[f32]) -> Vec<f32> {
    let (all, plane) = (g.batch * tiles(g), g.output_pixels());
    let parts = PIECES.min(all);
    let parts: Vec<Vec<f64>> = dealt(0..parts, |part| {
        let mut sums = vec![0.; g.out_channels * g.in_channels];
        for at in part * all / parts..(part + 1) * all / parts {
            let (image, pixels) = (at / tiles(g), tile(g, at % tiles(g)));
            let x = &x[image * g.in_channels * plane..][..g.in_channels * plane];
            let y = &y[image * g.out_channels * plane..][..g.out_channels * plane];
            run(g.level, Products { x, y, plane, pixels, sums: &mut sums });
        }
        sums
    })
    .collect();
    (0..g.out_channels * g.in_channels).map(|at| parts.iter().map(|sums| sums[at]).sum::<f64>() as f32).collect()
}

/// Adds the products of one tile of an image to the sums `(out, in)`.
struct Products<'a> {
    x: &'a [f32],
    y: &'a [f32],
    plane: usize,
    pixels: Range<usize>,
    sums: &'a mut [f64],
}

impl Piece for Products<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        if I::IS_WIDE { self.add::<I::Wide, 1, 4>() } else { self.add::<I::Wide, 2, 2>() }
    }
}

impl Products<'_> {
    /// With `INS` channels in at once, by `V` vectors.
    #[inline(always)]
    fn add<W: Lanes, const V: usize, const INS: usize>(self) {
        let Self { x, y, plane, pixels, sums } = self;
        let (ins, outs) = (x.len() / plane, y.len() / plane);
        for first_out in (0..outs).step_by(OUTS) {
            for first_in in (0..ins).step_by(INS) {
                // Channels that are not there are the last one, again.
                let mut rows = [&x[..0]; INS];
                for i in 0..INS {
                    rows[i] = &x[(first_in + i).min(ins - 1) * plane..][pixels.clone()];
                }
                let mut gradients = [&y[..0]; OUTS];
                for o in 0..OUTS {
                    gradients[o] = &y[(first_out + o).min(outs - 1) * plane..][pixels.clone()];
                }
                let products = products::<W, V, INS>(rows, gradients);
                for o in 0..OUTS.min(outs - first_out) {
                    for i in 0..INS.min(ins - first_in) {
                        let mut sum = 0.;
                        for &product in &products[o][i] {
                            sum += f64::from(product);
                        }
                        sums[(first_out + o) * ins + first_in + i] += sum;
                    }
                }
            }
        }
    }
}

/// Sums of products of rows of one length: those of all pixels that are alike modulo [`SUMS`].
#[inline(always)]
fn products<W: Lanes, const V: usize, const INS: usize>(
    x: [&[f32]; INS],
    y: [&[f32]; OUTS],
) -> [[[f32; SUMS]; INS]; OUTS] {
    assert_eq!(V * W::LEN, SUMS);
    let pixels = x[0].len();
    let whole = pixels - pixels % SUMS;
    let mut sums = [[[W::splat(0.); V]; INS]; OUTS];
    for at in (0..whole).step_by(SUMS) {
        for v in 0..V {
            let (mut xs, mut ys) = ([W::splat(0.); INS], [W::splat(0.); OUTS]);
            // SAFETY: all rows have as many pixels as the first, and `whole` is no more than that.
            unsafe {
                for i in 0..INS {
                    xs[i] = W::load_apart(x[i].as_ptr().add(at + v * W::LEN), 8);
                }
                for o in 0..OUTS {
                    ys[o] = W::load_apart(y[o].as_ptr().add(at + v * W::LEN), 8);
                }
            }
            for o in 0..OUTS {
                for i in 0..INS {
                    sums[o][i][v] = xs[i].mul_add_each(ys[o], sums[o][i][v]);
                }
            }
        }
    }
    let mut products = [[[0.; SUMS]; INS]; OUTS];
    for o in 0..OUTS {
        for i in 0..INS {
            for v in 0..V {
                // SAFETY: the vectors fill all `SUMS`.
                unsafe { sums[o][i][v].store_apart(products[o][i].as_mut_ptr().add(v * W::LEN), 8) };
            }
            for at in whole..pixels {
                products[o][i][at - whole] += x[i][at] * y[o][at];
            }
        }
    }
    products
}
