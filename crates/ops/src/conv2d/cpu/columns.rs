//! im2col: the pixels that each tap of the kernel sees, as a matrix with one row per (channel, tap) and one column per
//! pixel of the result. And its adjoint, col2im.

use std::cell::RefCell;
use std::ops::Range;

use crate::conv2d::Geometry;

/// Pixels of the result that one matrix covers, at most.
pub(super) const TILE: usize = 512;

/// Elements of a matrix, at most (unless one channel takes more): half of a usual second-level cache.
const MATRIX: usize = 1 << 17;

impl Geometry {
    /// Taps of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Pixels of a plane of the image.
    pub(in crate::conv2d) fn input_pixels(&self) -> usize {
        self.input.0 * self.input.1
    }

    /// Pixels of a plane of the result.
    pub(in crate::conv2d) fn output_pixels(&self) -> usize {
        self.output.0 * self.output.1
    }

    pub(crate) fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    pub(super) fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Tiles of a plane of the result.
    pub(super) fn tiles(&self) -> usize {
        self.output_pixels().div_ceil(TILE)
    }

    pub(super) fn tile(&self, at: usize) -> Range<usize> {
        at * TILE..((at + 1) * TILE).min(self.output_pixels())
    }

    /// Channels whose columns fit in one matrix.
    pub(super) fn channels_at_once(&self) -> usize {
        (MATRIX / (self.taps() * TILE.min(self.output_pixels()))).clamp(1, self.group_in())
    }

    /// Whether the columns of a plane are the plane. The plane may be the larger one: a transposed convolution with output padding has rows
    /// that no tap meets.
    pub(super) fn is_pointwise(&self) -> bool {
        let alike = self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == (0, 0);
        alike && self.input == self.output
    }
}

/// Calls `work` with this thread's buffer, of whatever content.
pub(super) fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0.);
        }
        work(&mut buffer[..len])
    })
}

/// A piece of a row of the result and the pixels of the image that a tap sees from there.
struct Piece {
    /// Where the piece starts in the tile.
    at: usize,
    /// Pixels before the image, in it, and behind it.
    before: usize,
    inside: usize,
    behind: usize,
    /// The first pixel inside, in its plane.
    from: usize,
}

/// The pieces of a tile as the tap (i, j) sees them.
fn pieces(g: &Geometry, tile: &Range<usize>, (i, j): (usize, usize)) -> impl Iterator<Item = Piece> {
    let (g, tile) = (*g, tile.clone());
    let width = g.output.1;
    // Columns of the result that see columns of the image: 0 <= x stride + j dilation - padding < width of the image.
    let offset = j * g.dilation.1;
    let first = g.padding.1.saturating_sub(offset).div_ceil(g.stride.1);
    let end = (g.input.1 + g.padding.1).saturating_sub(offset).div_ceil(g.stride.1);
    (tile.start / width..tile.end.div_ceil(width)).map(move |y| {
        let start = (y * width).max(tile.start);
        let (x0, x1) = (start - y * width, ((y + 1) * width).min(tile.end) - y * width);
        let row = (y * g.stride.0 + i * g.dilation.0).wrapping_sub(g.padding.0);
        let (first, end) = if row < g.input.0 { (first.clamp(x0, x1), end.clamp(x0, x1)) } else { (x1, x1) };
        let end = end.max(first);
        let from = if first < end { row * g.input.1 + first * g.stride.1 + offset - g.padding.1 } else { 0 };
        Piece { at: start - tile.start, before: first - x0, inside: end - first, behind: x1 - end, from }
    })
}

/// Fills `columns` `(planes * taps, tile)` from whole planes of the image.
pub(super) fn from_image(g: &Geometry, planes: &[f32], tile: &Range<usize>, columns: &mut [f32]) {
    let rows = planes.chunks_exact(g.input_pixels()).flat_map(|plane| (0..g.taps()).map(move |tap| (plane, tap)));
    for ((plane, tap), row) in rows.zip(columns.chunks_exact_mut(tile.len())) {
        for piece in pieces(g, tile, (tap / g.kernel.1, tap % g.kernel.1)) {
            let (before, rest) = row[piece.at..].split_at_mut(piece.before);
            let (inside, rest) = rest.split_at_mut(piece.inside);
            before.fill(0.);
            rest[..piece.behind].fill(0.);
            if g.stride.1 == 1 {
                inside.copy_from_slice(&plane[piece.from..piece.from + piece.inside]);
            } else {
                for (value, &pixel) in inside.iter_mut().zip(plane[piece.from..].iter().step_by(g.stride.1)) {
                    *value = pixel;
                }
            }
        }
    }
}

/// Adds `columns`, row i and column j at `i * strides.0 + j * strides.1`, to the pixels of the planes that they would have
/// been filled from.
pub(super) fn add_to_image(
    g: &Geometry,
    planes: &mut [f32],
    tile: &Range<usize>,
    columns: &[f32],
    strides: (usize, usize),
) {
    for (at, plane) in planes.chunks_exact_mut(g.input_pixels()).enumerate() {
        for tap in 0..g.taps() {
            let row = &columns[(at * g.taps() + tap) * strides.0..];
            for piece in pieces(g, tile, (tap / g.kernel.1, tap % g.kernel.1)) {
                if piece.inside == 0 {
                    continue;
                }
                let first = (piece.at + piece.before) * strides.1;
                if strides.1 == 1 && g.stride.1 == 1 {
                    for (pixel, &value) in plane[piece.from..].iter_mut().zip(&row[first..first + piece.inside]) {
                        *pixel += value;
                    }
                } else {
                    let values = row[first..].iter().step_by(strides.1).take(piece.inside);
                    for (pixel, &value) in plane[piece.from..].iter_mut().step_by(g.stride.1).zip(values) {
                        *pixel += value;
                    }
                }
            }
        }
    }
}
