//! Convolution with a large kernel and few pixels: what counts is to read each weight once, for all images together.
//!
//! The pixels that each result sees stand in one row (im2col, turned on its side), so that the products are those of
//! matrices (pixels, depth) and (depth, [`PANEL`]), where a panel is sixteen channels out, or sixteen taps of channels in.
#![allow(unsafe_code, reason = "pieces of work write strided blocks of one result")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::ops::Range;

use super::columns::from_image;
use crate::conv2d::Geometry;
use crate::kernel::{Isa, PANEL, Panels, Piece, Rows, Scratch, Shared, Vector, deal, deal_each, run, written};

/// Results of all images that are few.
const FEW: usize = 1024;

/// Weights that outweigh turning the pixels on their side.
const MANY: usize = 1 << 19;

/// Rows of a panel that are packed at once, into a first-level cache.
const DEPTH: usize = 256;

/// Whether each weight is used too seldom for the other algorithms.
pub(super) fn serves(g: &Geometry) -> bool {
    let weights = g.in_channels * g.out_channels * g.taps();
    g.groups == 1 && g.batch * g.output_pixels() <= FEW && weights >= MANY && g.out_channels >= PANEL
}

/// A matrix with a row for each result of all images.
struct Pixels {
    values: Scratch,
    row: usize,
}

impl Pixels {
    fn new(rows: usize, columns: usize) -> Self {
        // No power of two, whose multiples would share a set of the cache.
        let row = columns.next_multiple_of(PANEL) + PANEL;
        Self { values: Scratch::new(rows * row), row }
    }
}

/// What each result sees: its row has the pixels under (channel, tap).
fn seen(g: &Geometry, x: &[f32]) -> Pixels {
    let (taps, pixels) = (g.taps(), g.output_pixels());
    let mut seen = Pixels::new(g.batch * pixels, g.in_channels * taps);
    let row = seen.row;
    let shared = Shared::new(seen.values.as_mut_ptr(), seen.values.len());
    deal(g.batch * g.in_channels, |at| {
        let (image, channel) = (at / g.in_channels, at % g.in_channels);
        let mut columns = Scratch::new(taps * pixels);
        from_image(g, &x[at * g.input_pixels()..][..g.input_pixels()], &(0..pixels), &mut columns);
        for pixel in 0..pixels {
            let to = shared.start_of((image * pixels + pixel) * row + channel * taps, taps);
            for tap in 0..taps {
                // SAFETY: this channel's columns of this image's rows are this piece's alone.
                unsafe { to.add(tap).write(columns[tap * pixels + pixel]) };
            }
        }
    });
    seen
}

/// The channels of each result, in a row.
fn turned(g: &Geometry, y: &[f32]) -> Pixels {
    let pixels = g.output_pixels();
    let mut turned = Pixels::new(g.batch * pixels, g.out_channels);
    let row = turned.row;
    deal_each(turned.values.chunks_mut(row).enumerate(), |(at, row)| {
        let (image, pixel) = (at / pixels, at % pixels);
        let y = &y[image * g.out_channels * pixels + pixel..];
        row.iter_mut().zip(y.iter().step_by(pixels)).take(g.out_channels).for_each(|(to, &value)| *to = value);
    });
    turned
}

/// `(n, out, h', w')` from `x` `(n, in, h, w)`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let pixels = seen(g, x);
    let len = g.batch * g.out_channels * g.output_pixels();
    let write = |y: Shared| {
        deal(g.out_channels.div_ceil(PANEL), |panel| {
            run(g.level, Outs { g, pixels: &pixels, weight, bias, panel, y });
        });
    };
    // SAFETY: the panels cover all channels, and each writes all pixels of its own.
    unsafe { written(len, |y| write(Shared::new(y.as_mut_ptr().cast(), len))) }
}

/// One panel of channels out.
struct Outs<'a> {
    g: &'a Geometry,
    pixels: &'a Pixels,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    panel: usize,
    y: Shared,
}

impl Piece for Outs<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { g, pixels, weight, bias, panel, y } = self;
        let (depth, plane) = (g.in_channels * g.taps(), g.output_pixels());
        let rows = g.batch * plane;
        let first = panel * PANEL;
        let outs = PANEL.min(g.out_channels - first);
        let (mut packed, mut products) = (Scratch::new(DEPTH * PANEL), Scratch::new(rows * PANEL));
        for from in (0..depth).step_by(DEPTH) {
            let count = DEPTH.min(depth - from);
            pack::<I::V>(&weight[first * depth + from..], depth, (outs, count), &mut packed);
            let a = Rows { start: pixels.values[from..].as_ptr(), row: pixels.row, column: 1 };
            let b = Panels { start: packed.as_ptr(), row: PANEL, panel: 0 };
            let c = Panels { start: products.as_mut_ptr(), row: PANEL, panel: 0 };
            // SAFETY: the pixels have all rows and columns; both buffers are this thread's.
            unsafe { I::product((rows, count), 1, a, b, c, from > 0, None) };
        }
        for image in 0..g.batch {
            for out in 0..outs {
                let shift = bias.map_or(0., |bias| bias[first + out]);
                let to = y.start_of((image * g.out_channels + first + out) * plane, plane);
                for pixel in 0..plane {
                    let value = products[(image * plane + pixel) * PANEL + out] + shift;
                    // SAFETY: `start_of` has seen to the plane, which is this piece's.
                    unsafe { to.add(pixel).write(value) };
                }
            }
        }
    }
}

/// Turns `rows` of `weight`, `row` floats apart, `count` columns of each, into rows of sixteen. Rows that are not there give
/// zeros.
#[inline(always)]
fn pack<V: Vector>(weight: &[f32], row: usize, (rows, count): (usize, usize), to: &mut [f32]) {
    const EIGHT: usize = 8;
    for half in 0..PANEL / EIGHT {
        let rows = rows.saturating_sub(half * EIGHT).min(EIGHT);
        let mut at = 0;
        while at + EIGHT <= count && rows == EIGHT {
            let mut values = [V::splat(0.); EIGHT];
            for i in 0..EIGHT {
                // SAFETY: the slice is eight long.
                values[i] = unsafe { V::load(weight[(half * EIGHT + i) * row + at..][..EIGHT].as_ptr()) };
            }
            let values = V::transpose(values);
            for i in 0..EIGHT {
                // SAFETY: as above.
                unsafe { values[i].store(to[(at + i) * PANEL + half * EIGHT..][..EIGHT].as_mut_ptr()) };
            }
            at += EIGHT;
        }
        for at in at..count {
            for i in 0..EIGHT {
                let value = if i < rows { weight[(half * EIGHT + i) * row + at] } else { 0. };
                to[at * PANEL + half * EIGHT + i] = value;
            }
        }
    }
}

/// The adjoint of [`forward`] in x: `(n, in, h, w)` from `y` `(n, out, h', w')`.
pub(super) fn input_gradient(g: &Geometry, y: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let pixels = turned(g, y);
    let plane = g.input_pixels();
    let mut x = vec![0.; g.batch * g.in_channels * plane];
    let shared = Shared::new(x.as_mut_ptr(), x.len());
    // Sixteen channels have a whole number of panels.
    deal(g.in_channels.div_ceil(PANEL), |at| {
        let channels = at * PANEL..((at + 1) * PANEL).min(g.in_channels);
        for image in 0..g.batch {
            for channel in channels.clone() {
                let shift = bias.map_or(0., |bias| bias[channel]);
                // SAFETY: these channels are this piece's.
                unsafe { shared.fill((image * g.in_channels + channel) * plane, plane, shift) };
            }
        }
        run(g.level, Ins { g, pixels: &pixels, weight, channels, x: shared });
    });
    x
}

/// Sixteen channels in.
struct Ins<'a> {
    g: &'a Geometry,
    pixels: &'a Pixels,
    weight: &'a [f32],
    channels: Range<usize>,
    x: Shared,
}

impl Piece for Ins<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { g, pixels, weight, channels, x } = self;
        let (taps, plane, results) = (g.taps(), g.input_pixels(), g.output_pixels());
        let (depth, rows) = (g.in_channels * taps, g.batch * results);
        let (mut packed, mut products) = (Scratch::new(DEPTH * PANEL), Scratch::new(rows * PANEL));
        for first in (channels.start * taps..channels.end * taps).step_by(PANEL) {
            let columns = PANEL.min(channels.end * taps - first);
            for from in (0..g.out_channels).step_by(DEPTH) {
                let count = DEPTH.min(g.out_channels - from);
                for i in 0..count {
                    let to = &mut packed[i * PANEL..][..PANEL];
                    to[columns..].fill(0.);
                    to[..columns].copy_from_slice(&weight[(from + i) * depth + first..][..columns]);
                }
                let a = Rows { start: pixels.values[from..].as_ptr(), row: pixels.row, column: 1 };
                let b = Panels { start: packed.as_ptr(), row: PANEL, panel: 0 };
                let c = Panels { start: products.as_mut_ptr(), row: PANEL, panel: 0 };
                // SAFETY: the pixels have all rows and columns; both buffers are this thread's.
                unsafe { I::product((rows, count), 1, a, b, c, from > 0, None) };
            }
            for column in 0..columns {
                let (channel, tap) = ((first + column) / taps, (first + column) % taps);
                let (i, j) = (tap / g.kernel.1 * g.dilation.0, tap % g.kernel.1 * g.dilation.1);
                for at in 0..rows {
                    let (image, pixel) = (at / results, at % results);
                    let row = (pixel / g.output.1 * g.stride.0 + i).wrapping_sub(g.padding.0);
                    let column_of = (pixel % g.output.1 * g.stride.1 + j).wrapping_sub(g.padding.1);
                    if row < g.input.0 && column_of < g.input.1 {
                        let place = (image * g.in_channels + channel) * plane + row * g.input.1 + column_of;
                        // SAFETY: `start_of` has seen to the place, whose channel is this piece's.
                        unsafe { *x.start_of(place, 1) += products[at * PANEL + column] };
                    }
                }
            }
        }
    }
}

/// The gradient of the kernel, `(out, in, kh, kw)`.
pub(super) fn weight_gradient(g: &Geometry, x: &[f32], y: &[f32]) -> Vec<f32> {
    /// Channels out, and panels of taps, of one piece of work.
    const OUTS: usize = 64;
    const PANELS: usize = 128;
    let (xs, ys) = (seen(g, x), turned(g, y));
    let depth = g.in_channels * g.taps();
    let len = g.out_channels * depth;
    let write = |gradient: Shared| {
        let pieces: Vec<_> = (0..depth)
            .step_by(PANELS * PANEL)
            .flat_map(|tap| (0..g.out_channels).step_by(OUTS).map(move |out| (tap, out)))
            .collect();
        deal_each(pieces, |(tap, out)| {
            let taps = tap..(tap + PANELS * PANEL).min(depth);
            let outs = out..(out + OUTS).min(g.out_channels);
            run(g.level, Weights { rows: g.batch * g.output_pixels(), depth, xs: &xs, ys: &ys, taps, outs, gradient });
        });
    };
    // SAFETY: the pieces cover all channels out and all taps, and each writes all of its block.
    unsafe { written(len, |gradient| write(Shared::new(gradient.as_mut_ptr().cast(), len))) }
}

/// The gradients of some taps to some channels out.
struct Weights<'a> {
    /// Results of all images.
    rows: usize,
    /// Taps of all channels in.
    depth: usize,
    xs: &'a Pixels,
    ys: &'a Pixels,
    taps: Range<usize>,
    outs: Range<usize>,
    gradient: Shared,
}

impl Piece for Weights<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { rows, depth, xs, ys, taps, outs, gradient } = self;
        let a = Rows { start: ys.values[outs.start..].as_ptr(), row: 1, column: ys.row };
        let columns = taps.len() % PANEL;
        let whole = taps.start..taps.end - columns;
        for first in whole.clone().step_by(2 * PANEL) {
            let panels = (whole.end - first).min(2 * PANEL) / PANEL;
            let to = gradient.start_of(outs.start * depth + first, (outs.len() - 1) * depth + panels * PANEL);
            let b = Panels { start: xs.values[first..].as_ptr(), row: xs.row, panel: PANEL };
            let c = Panels { start: to, row: depth, panel: PANEL };
            // SAFETY: both matrices have all rows and columns; `start_of` has seen to the block, which is this piece's.
            unsafe { I::product((outs.len(), rows), panels, a, b, c, false, None) };
        }
        if columns > 0 {
            // A panel that is not whole goes through a buffer.
            let mut rest = Scratch::new(outs.len() * PANEL);
            let to = gradient.start_of(outs.start * depth + whole.end, (outs.len() - 1) * depth + columns);
            let b = Panels { start: xs.values[whole.end..].as_ptr(), row: xs.row, panel: 0 };
            let c = Panels { start: rest.as_mut_ptr(), row: PANEL, panel: 0 };
            // SAFETY: as above, with columns padded to a whole panel.
            unsafe { I::product((outs.len(), rows), 1, a, b, c, false, None) };
            for (i, row) in rest.chunks_exact(PANEL).enumerate().take(outs.len()) {
                for (j, &value) in row[..columns].iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { to.add(i * depth + j).write(value) };
                }
            }
        }
    }
}
