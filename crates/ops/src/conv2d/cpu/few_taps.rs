//! Convolution at stride 1 whose kernels have so few taps over all channels, as those over a photo, that transforms cost more than they save.
//!
//! Rows of the image are copied between zeros, and vectors of pixels read from there: of a result, all taps are summed in registers; of the
//! kernel's gradient, all pixels of a band of rows.
#![allow(unsafe_code, reason = "pieces of work read shifted rows and write rows of planes")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Ending, PIECES, few_channels};
use crate::conv2d::Geometry;
use crate::kernel::{Isa, LINE, Lanes, Piece, Scratch, Shared, Vector, deal, dealt, run, written};

/// Taps of all channels, and channels out, that are few.
const TAPS: usize = 32;
const CHANNELS: usize = 32;

/// Columns of a result that fill a vector, and pixels that outweigh the copies of rows.
const COLUMNS: usize = 16;
const MANY: usize = 256;

/// Pixels of a band of rows, about: of results, whose image stays in a first-level cache, and of gradients, whose sums in f32 are no longer
/// than a sixteenth of that, or of a row that is longer.
const BAND: usize = 1024;
const GRADIENT_BAND: usize = 4096;

/// Channels of a result that are summed at once.
const ROWS: usize = 4;

/// Rows after which results are fetched ahead.
const AHEAD: usize = 4;

/// Taps whose products with two channels out, or with four where there are registers for it, are summed at once.
const STEPS: usize = 4;

/// Sums of the gradient's products that are taken side by side, by vectors of any length.
const SUMS: usize = 16;

/// Whether the taps of a convolution are few.
pub(super) fn serves(g: &Geometry) -> bool {
    let plain = g.groups == 1 && g.stride == (1, 1) && g.dilation == (1, 1);
    let few = g.in_channels * g.taps() <= TAPS && g.out_channels <= CHANNELS;
    plain && few && g.output.1 >= COLUMNS && g.output_pixels() >= MANY && !few_channels::serves(g)
}

/// Bands of about so many pixels in an image.
fn bands(g: &Geometry, pixels: usize) -> usize {
    g.output_pixels().div_ceil(pixels).min(g.output.0)
}

/// The image and the rows of a band.
fn band(g: &Geometry, bands: usize, at: usize) -> (usize, Range<usize>) {
    let (image, at) = (at / bands, at % bands);
    (image, at * g.output.0 / bands..(at + 1) * g.output.0 / bands)
}

/// What the results of some rows see of an image: all channels, between zeros, and a row of ones.
struct Seen {
    values: Scratch,
    /// Pixels from one row to the next, and from one channel to the next.
    row: usize,
    plane: usize,
    /// Where the ones begin.
    ones: usize,
}

impl Seen {
    #[inline(always)]
    fn new(g: &Geometry, x: &[f32], rows: &Range<usize>) -> Self {
        let row = (g.output.1 + g.kernel.1 - 1).next_multiple_of(LINE);
        let height = rows.len() + g.kernel.0 - 1;
        let (plane, width) = (height * row, g.input.1);
        let ones = g.in_channels * plane;
        let mut values = Scratch::new(ones + g.output.1);
        let inside = g.padding.1.min(row)..(g.padding.1 + width).min(row);
        for (at, to) in values[..ones].chunks_exact_mut(row).enumerate() {
            let (channel, i) = (at / height, at % height);
            let from = (rows.start + i).wrapping_sub(g.padding.0);
            if from < g.input.0 {
                to[..inside.start].fill(0.);
                to[inside.clone()].copy_from_slice(&x[(channel * g.input.0 + from) * width..][..inside.len()]);
                to[inside.end..].fill(0.);
            } else {
                to.fill(0.);
            }
        }
        values[ones..].fill(1.);
        Self { values, row, plane, ones }
    }

    /// Where the pixels begin that a tap sees, those of (channel, i, j).
    #[inline(always)]
    fn offsets(&self, g: &Geometry) -> [usize; TAPS] {
        let mut offsets = [0; TAPS];
        for tap in 0..g.in_channels * g.taps() {
            let (channel, at) = (tap / g.taps(), tap % g.taps());
            offsets[tap] = channel * self.plane + at / g.kernel.1 * self.row + at % g.kernel.1;
        }
        offsets
    }
}

/// `(n, out, h', w')` from `x` `(n, in, h, w)`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], ending: Ending) -> Vec<f32> {
    let len = g.batch * g.out_channels * g.output_pixels();
    let image_len = g.in_channels * g.input_pixels();
    let bands = bands(g, BAND);
    let write = |y: &mut [MaybeUninit<f32>]| {
        let y = Shared::new(y.as_mut_ptr().cast(), len);
        deal(g.batch * bands, |at| {
            let (image, rows) = band(g, bands, at);
            let x = &x[image * image_len..][..image_len];
            run(g.level, Results { g, x, weight, ending, image, rows, y });
        });
    };
    // SAFETY: the pieces cover all bands of all images, and each writes all channels of its own.
    unsafe { written(len, write) }
}

/// All channels of one band of an image.
struct Results<'a> {
    g: &'a Geometry,
    /// All channels in of the image.
    x: &'a [f32],
    weight: &'a [f32],
    ending: Ending<'a>,
    image: usize,
    rows: Range<usize>,
    y: Shared,
}

impl Piece for Results<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let seen = Seen::new(self.g, self.x, &self.rows);
        match self.g.output.1 / I::Wide::LEN {
            // Sixteen sums, which need more than sixteen registers.
            4.. if I::IS_WIDE => self.pixels::<I, 4>(&seen),
            2.. => self.pixels::<I, 2>(&seen),
            _ => self.pixels::<I, 1>(&seen),
        }
    }
}

impl Results<'_> {
    /// Goes along the rows, `V` vectors at a time; the last ones step back to end with the row.
    #[inline(always)]
    fn pixels<I: Isa, const V: usize>(&self, seen: &Seen) {
        let (step, width) = (V * I::Wide::LEN, self.g.output.1);
        assert!(step <= width, "a row of few pixels");
        let offsets = seen.offsets(self.g);
        let offsets = &offsets[..self.g.in_channels * self.g.taps()];
        let reach = (self.rows.len() - 1) * seen.row + width;
        // Said here: where taps are summed, a check of each would have the compiler move all sums about.
        assert!(offsets.iter().all(|offset| offset + reach <= seen.ones), "taps see beyond the rows");
        for row in 0..self.rows.len() {
            self.fetch_next::<I>(row);
            let mut at = 0;
            while at < width {
                let column = at.min(width - step);
                let x = seen.values[row * seen.row + column..].as_ptr();
                let mut out = 0;
                while out < self.g.out_channels {
                    // SAFETY: each tap has a row of `width` pixels from this row on, as asserted, and the vectors end with it.
                    unsafe {
                        match self.g.out_channels - out {
                            1 => self.channels::<I, V, 1>(x, offsets, out, (row, column)),
                            2 => self.channels::<I, V, 2>(x, offsets, out, (row, column)),
                            3 => self.channels::<I, V, 3>(x, offsets, out, (row, column)),
                            _ => self.channels::<I, V, ROWS>(x, offsets, out, (row, column)),
                        }
                    }
                    out += ROWS;
                }
                at += step;
            }
        }
    }

    /// Fetches a row of the image that the next band sees first.
    #[inline(always)]
    fn fetch_next<I: Isa>(&self, row: usize) {
        let (height, width) = self.g.input;
        let row = self.rows.end + self.g.kernel.0 - 1 + row;
        for channel in 0..self.g.in_channels {
            let row = (channel * height + row).wrapping_sub(self.g.padding.0);
            let start = self.x.as_ptr().wrapping_add(row.wrapping_mul(width));
            for at in (0..width).step_by(LINE) {
                I::V::prefetch(start.wrapping_add(at));
            }
        }
    }

    /// `R` channels from `first` on.
    ///
    /// # Safety
    /// `V` vectors can be read from each of the offsets from `x`.
    #[inline(always)]
    unsafe fn channels<I: Isa, const V: usize, const R: usize>(
        &self,
        x: *const f32,
        offsets: &[usize],
        first: usize,
        (row, column): (usize, usize),
    ) {
        let mut sums = [[I::Wide::splat(0.); V]; R];
        let weight = &self.weight[first * offsets.len()..][..R * offsets.len()];
        for (tap, &offset) in offsets.iter().enumerate() {
            let mut pixels = [I::Wide::splat(0.); V];
            for v in 0..V {
                // SAFETY: as the caller vouches.
                pixels[v] = unsafe { I::Wide::load_apart(x.add(offset + v * I::Wide::LEN), 8) };
            }
            for r in 0..R {
                // SAFETY: a channel's kernel has as many numbers as there are taps, and the slice has `R` of them.
                let weight = unsafe { *weight.get_unchecked(r * offsets.len() + tap) };
                for v in 0..V {
                    sums[r][v] = pixels[v].mul_add(weight, sums[r][v]);
                }
            }
        }
        let (height, width) = self.g.output;
        let values = self.ending.end(sums, |r| first + r);
        for r in 0..R {
            let channel = first + r;
            let at = (self.image * self.g.out_channels + channel) * height + self.rows.start + row;
            let to = self.y.start_of(at * width + column, V * I::Wide::LEN);
            for v in 0..V {
                let to = to.wrapping_add(v * I::Wide::LEN);
                I::V::prefetch(to.wrapping_add(AHEAD * width));
                // SAFETY: `start_of` has seen to the pixels, which are in this piece's band.
                unsafe { values[r][v].store_apart(to, 8) };
            }
        }
    }
}

/// The gradients of the kernel, `(out, in, kh, kw)`, and of a bias, `(out)`: that of one more tap, which sees ones.
pub(super) fn parameter_gradients(g: &Geometry, x: &[f32], y: &[f32]) -> [Vec<f32>; 2] {
    let taps = g.in_channels * g.taps();
    let bands = bands(g, GRADIENT_BAND);
    let all = g.batch * bands;
    let parts = PIECES.min(all);
    let parts: Vec<Vec<f64>> = dealt(0..parts, |part| {
        let mut sums = vec![0.; g.out_channels * (taps + 1)];
        for at in part * all / parts..(part + 1) * all / parts {
            let (image, rows) = band(g, bands, at);
            let x = &x[image * g.in_channels * g.input_pixels()..][..g.in_channels * g.input_pixels()];
            let y = &y[image * g.out_channels * g.output_pixels()..][..g.out_channels * g.output_pixels()];
            run(g.level, Products { g, x, y, rows, sums: &mut sums });
        }
        sums
    })
    .collect();
    let sum = |at: usize| parts.iter().map(|sums| sums[at]).sum::<f64>() as f32;
    let weight = (0..g.out_channels * taps).map(|at| sum(at / taps * (taps + 1) + at % taps)).collect();
    [weight, (0..g.out_channels).map(|out| sum(out * (taps + 1) + taps)).collect()]
}

/// Adds the products of one band of an image to the sums `(out, taps and one)`.
struct Products<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    y: &'a [f32],
    rows: Range<usize>,
    sums: &'a mut [f64],
}

impl Piece for Products<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        if I::IS_WIDE { self.add::<I::Wide, 4>() } else { self.add::<I::Wide, 2>() }
    }
}

impl Products<'_> {
    /// Of `OUTS` channels out at once.
    #[inline(always)]
    fn add<W: Lanes, const OUTS: usize>(self) {
        let Self { g, x, y, rows, sums } = self;
        let seen = Seen::new(g, x, &rows);
        let (width, taps) = (g.output.1, g.in_channels * g.taps());
        let offsets = seen.offsets(g);
        for first_out in (0..g.out_channels).step_by(OUTS) {
            let mut gradients = [&y[..0]; OUTS];
            for o in 0..OUTS {
                // Channels that are not there are the last one, again.
                let plane = (first_out + o).min(g.out_channels - 1) * g.output_pixels();
                gradients[o] = &y[plane + rows.start * width..][..rows.len() * width];
            }
            for first in (0..=taps).step_by(STEPS) {
                let mut pixels = [(&seen.values[seen.ones..], 0); STEPS];
                for i in 0..STEPS {
                    if first + i < taps {
                        pixels[i] = (&seen.values[offsets[first + i]..], seen.row);
                    }
                }
                let products = products::<W, OUTS>(pixels, gradients, (rows.len(), width));
                for o in 0..OUTS.min(g.out_channels - first_out) {
                    for i in 0..STEPS.min(taps + 1 - first) {
                        sums[(first_out + o) * (taps + 1) + first + i] += products[o][i];
                    }
                }
            }
        }
    }
}

/// Sums of products of `rows` rows of `width` pixels: of each x, whose rows are so far apart, with each y.
#[inline(always)]
fn products<W: Lanes, const OUTS: usize>(
    x: [(&[f32], usize); STEPS],
    y: [&[f32]; OUTS],
    (rows, width): (usize, usize),
) -> [[f64; STEPS]; OUTS] {
    for i in 0..STEPS {
        assert!((rows - 1) * x[i].1 + width <= x[i].0.len(), "pixels exceed the rows");
    }
    for o in 0..OUTS {
        assert!(rows * width <= y[o].len(), "gradients exceed the rows");
    }
    let whole = width - width % SUMS;
    let mut products = [[[0.; SUMS]; STEPS]; OUTS];
    for part in (0..SUMS).step_by(W::LEN) {
        let mut sums = [[W::splat(0.); STEPS]; OUTS];
        for row in 0..rows {
            let mut at = part;
            while at < whole {
                let (mut xs, mut ys) = ([W::splat(0.); STEPS], [W::splat(0.); OUTS]);
                // SAFETY: in bounds as asserted, since `whole` is no more than `width`, and a vector ends before the next of `SUMS`.
                unsafe {
                    for i in 0..STEPS {
                        xs[i] = W::load_apart(x[i].0.as_ptr().add(row * x[i].1 + at), 8);
                    }
                    for o in 0..OUTS {
                        ys[o] = W::load_apart(y[o].as_ptr().add(row * width + at), 8);
                    }
                }
                for o in 0..OUTS {
                    for i in 0..STEPS {
                        sums[o][i] = xs[i].mul_add_each(ys[o], sums[o][i]);
                    }
                }
                at += SUMS;
            }
        }
        for o in 0..OUTS {
            for i in 0..STEPS {
                // SAFETY: `part` is a multiple of the length, and both are no more than `SUMS`.
                unsafe { sums[o][i].store_apart(products[o][i].as_mut_ptr().add(part), 8) };
            }
        }
    }
    let mut totals = [[0.; STEPS]; OUTS];
    for o in 0..OUTS {
        for i in 0..STEPS {
            for row in 0..rows {
                for at in whole..width {
                    products[o][i][at - whole] += x[i].0[row * x[i].1 + at] * y[o][row * width + at];
                }
            }
            for lanes in [8, 4] {
                for lane in 0..lanes {
                    products[o][i][lane] += products[o][i][lane + lanes];
                }
            }
            for lane in 0..4 {
                totals[o][i] += f64::from(products[o][i][lane]);
            }
        }
    }
    totals
}
