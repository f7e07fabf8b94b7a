//! Virtual channels: what a convolution of stride 2 sees of an image is a convolution of stride 1 over four times as many
//! channels, one for each phase (row parity, column parity) of each channel. At stride 1 there is one phase.
//!
//! Virtual channels stand in blocks of eight: eight channels of one phase. The blocks of two neighbouring column parities
//! are neighbours, so that both are read and written together, in whole cache lines.
#![allow(unsafe_code, reason = "planes are shared between threads that each write their own rows and columns")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use std::ops::Range;

use super::strip::Strip;
use crate::kernel::Vector;

/// Channels of a block.
pub(super) const BLOCK: usize = 8;

/// Rows of positions after which pixels are fetched ahead, those of the next row of tiles: the planes of a block are too many streams for
/// the processor to foresee.
const AHEAD: usize = 4;

/// Where the virtual channels of an image lie in its planes: position (i, j) of phase (a, b) is the pixel
/// `(stride i + a + origin.0, stride j + b + origin.1)`, a zero where that is outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lattice {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
    pub(super) origin: (isize, isize),
}

/// The part of `0..len` that `from + i` moves into `0..size`.
#[inline(always)]
fn inside(from: isize, len: usize, size: usize) -> (usize, usize) {
    let first = (-from).clamp(0, len as isize) as usize;
    let end = (size as isize - from).clamp(first as isize, len as isize) as usize;
    (first, end)
}

impl Lattice {
    /// Blocks of eight virtual channels.
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK) * self.stride * self.stride
    }

    /// The first channel of a block, how many of its eight there are, and its phase.
    #[inline(always)]
    pub(super) fn block(&self, block: usize) -> (usize, usize, (usize, usize)) {
        let phases = self.stride * self.stride;
        let (first, phase) = (block / phases * BLOCK, block % phases);
        (first, (self.channels - first).min(BLOCK), (phase / self.stride, phase % self.stride))
    }

    /// How many positions down and across it takes to see the last row and column.
    pub(super) fn positions(&self) -> (usize, usize) {
        let along = |size: usize, origin: isize| (size as isize - 1 - origin) as usize / self.stride + 1;
        (along(self.height, self.origin.0), along(self.width, self.origin.1))
    }

    /// Copies the rows that are `rows` below position `at` of the block and, if `two`, of the next, to these rows of one strip each.
    /// At stride 2 there are always two.
    ///
    /// # Safety
    /// `image` has the planes of these blocks; `strips` have these rows and are this thread's alone.
    #[inline(always)]
    pub(super) unsafe fn gather<V: Vector>(
        &self,
        image: *const f32,
        (block, two): (usize, bool),
        at: (isize, isize),
        rows: Range<usize>,
        strips: [Strip; 2],
    ) {
        let (first, count, (phase, _)) = self.block(block);
        for i in rows {
            let y = self.stride as isize * (at.0 + i as isize) + phase as isize + self.origin.0;
            if y < 0 || y >= self.height as isize {
                for strip in &strips[..=usize::from(two)] {
                    for j in 0..strip.width {
                        // SAFETY: row i of a strip.
                        unsafe { strip.store(i, j, V::splat(0.)) };
                    }
                }
                continue;
            }
            let line = Line {
                start: image.wrapping_add((first * self.height + y as usize) * self.width),
                plane: self.height * self.width,
                channels: count,
                width: self.width,
                ahead: AHEAD * self.stride * self.width,
                from: self.stride as isize * at.1 + self.origin.1,
            };
            // SAFETY: row y of the block's planes; row i of the strips.
            unsafe {
                if self.stride == 1 {
                    line.gather::<V>(strips[0], i);
                    if two {
                        let start = line.start.wrapping_add(BLOCK * line.plane);
                        let channels = BLOCK.min(self.channels - first - BLOCK);
                        Line { start, channels, ..line }.gather::<V>(strips[1], i);
                    }
                } else {
                    line.gather_pairs::<V>(strips, i);
                }
            }
        }
    }

    /// Copies `rows` rows of strips to the block and, if `two`, to the next, from position `at` on; what falls outside the
    /// planes is left out.
    ///
    /// # Safety
    /// `image` has the planes of these blocks, and no other thread writes these pixels; `strips` have `rows` rows.
    #[inline(always)]
    pub(super) unsafe fn scatter<V: Vector>(
        &self,
        image: *mut f32,
        (block, two): (usize, bool),
        at: (isize, isize),
        rows: usize,
        strips: [Strip; 2],
    ) {
        let (first, count, (phase, _)) = self.block(block);
        for i in 0..rows {
            let y = self.stride as isize * (at.0 + i as isize) + phase as isize + self.origin.0;
            if y < 0 || y >= self.height as isize {
                continue;
            }
            let line = Line {
                start: image.wrapping_add((first * self.height + y as usize) * self.width),
                plane: self.height * self.width,
                channels: count,
                width: self.width,
                ahead: AHEAD * self.stride * self.width,
                from: self.stride as isize * at.1 + self.origin.1,
            };
            // SAFETY: row y of the block's planes; row i of the strips.
            unsafe {
                if self.stride == 1 {
                    line.scatter::<V>(strips[0], i);
                    if two {
                        let start = line.start.wrapping_add(BLOCK * line.plane);
                        let channels = BLOCK.min(self.channels - first - BLOCK);
                        Line { start, channels, ..line }.scatter::<V>(strips[1], i);
                    }
                } else {
                    line.scatter_pairs::<V>(strips, i);
                }
            }
        }
    }
}

/// A row of up to eight planes.
#[derive(Clone, Copy)]
struct Line<P> {
    start: P,
    /// Pixels from one plane to the next.
    plane: usize,
    channels: usize,
    width: usize,
    /// Pixels from what is copied to what is fetched.
    ahead: usize,
    /// The column of a strip's first position.
    from: isize,
}

// SAFETY of all blocks below: the methods ask for `channels` planes with a row of `width` pixels and for row i of strips;
// `inside` and `inside_pairs` keep columns in the row. Where a row ends within eight columns, the last eight step back to
// end with it.
#[allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
impl Line<*const f32> {
    #[inline(always)]
    unsafe fn gather<V: Vector>(self, strip: Strip, i: usize) {
        let (begin, end) = inside(self.from, strip.width, self.width);
        for j in 0..begin {
            unsafe { strip.store(i, j, V::splat(0.)) };
        }
        for j in end..strip.width {
            unsafe { strip.store(i, j, V::splat(0.)) };
        }
        if end - begin < BLOCK {
            for j in begin..end {
                unsafe { self.gather_one(strip, i, j, self.from + j as isize) };
            }
            return;
        }
        let mut j = begin;
        // Whole cache lines at once, as in `scatter`.
        while j + 2 * BLOCK <= end {
            let (mut left, mut right) = ([V::splat(0.); BLOCK], [V::splat(0.); BLOCK]);
            for channel in 0..BLOCK {
                if channel < self.channels {
                    let from = self.pixel(channel, self.from + j as isize);
                    V::prefetch(from.wrapping_add(self.ahead));
                    (left[channel], right[channel]) = unsafe { (V::load(from), V::load(from.wrapping_add(BLOCK))) };
                }
            }
            let (left, right) = (V::transpose(left), V::transpose(right));
            for step in 0..BLOCK {
                unsafe {
                    strip.store(i, j + step, left[step]);
                    strip.store(i, j + BLOCK + step, right[step]);
                }
            }
            j += 2 * BLOCK;
        }
        while j < end {
            let at = j.min(end - BLOCK);
            let mut values = [V::splat(0.); BLOCK];
            for channel in 0..BLOCK {
                if channel < self.channels {
                    let from = self.pixel(channel, self.from + at as isize);
                    V::prefetch(from.wrapping_add(self.ahead));
                    values[channel] = unsafe { V::load(from) };
                }
            }
            let values = V::transpose(values);
            for step in 0..BLOCK {
                unsafe { strip.store(i, at + step, values[step]) };
            }
            j += BLOCK;
        }
    }

    #[inline(always)]
    unsafe fn gather_pairs<V: Vector>(self, strips: [Strip; 2], i: usize) {
        let (begin, end) = inside_pairs(self.from, strips[0].width, self.width);
        let whole = if end - begin < BLOCK { begin..begin } else { begin..end };
        for j in 0..strips[0].width {
            if whole.contains(&j) {
                continue;
            }
            for parity in 0..2 {
                unsafe { self.gather_one(strips[parity], i, j, self.from + (2 * j + parity) as isize) };
            }
        }
        let mut j = whole.start;
        while j < whole.end {
            let at = j.min(end - BLOCK);
            let (mut even, mut odd) = ([V::splat(0.); BLOCK], [V::splat(0.); BLOCK]);
            for channel in 0..BLOCK {
                if channel < self.channels {
                    let start = self.pixel(channel, self.from + 2 * at as isize);
                    V::prefetch(start.wrapping_add(self.ahead));
                    let pairs = unsafe { (V::load(start), V::load(start.wrapping_add(BLOCK))) };
                    (even[channel], odd[channel]) = V::split(pairs.0, pairs.1);
                }
            }
            let (even, odd) = (V::transpose(even), V::transpose(odd));
            for step in 0..BLOCK {
                unsafe {
                    strips[0].store(i, at + step, even[step]);
                    strips[1].store(i, at + step, odd[step]);
                }
            }
            j += BLOCK;
        }
    }

    /// One position: column x of all planes, zeros outside.
    #[inline(always)]
    unsafe fn gather_one(self, strip: Strip, i: usize, j: usize, x: isize) {
        let is_inside = x >= 0 && x < self.width as isize;
        for channel in 0..BLOCK {
            let value = if is_inside && channel < self.channels { unsafe { *self.pixel(channel, x) } } else { 0. };
            unsafe { *strip.at(i, j).add(channel) = value };
        }
    }

    #[inline(always)]
    fn pixel(self, channel: usize, x: isize) -> *const f32 {
        self.start.wrapping_add(channel * self.plane).wrapping_offset(x)
    }
}

// SAFETY: as above.
#[allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
impl Line<*mut f32> {
    #[inline(always)]
    unsafe fn scatter<V: Vector>(self, strip: Strip, i: usize) {
        let (begin, end) = inside(self.from, strip.width, self.width);
        if end - begin < BLOCK {
            for j in begin..end {
                unsafe { self.scatter_one(strip, i, j, self.from + j as isize) };
            }
            return;
        }
        let mut j = begin;
        // Whole cache lines at once: planes often lie a multiple of a cache's reach apart, and their lines, written in halves, would drive
        // each other out in between.
        while j + 2 * BLOCK <= end {
            let (left, right) = unsafe { (Self::turned::<V>(strip, i, j), Self::turned::<V>(strip, i, j + BLOCK)) };
            for channel in 0..BLOCK {
                if channel < self.channels {
                    let to = self.pixel(channel, self.from + j as isize);
                    V::prefetch(to.wrapping_add(self.ahead));
                    unsafe {
                        left[channel].store(to);
                        right[channel].store(to.wrapping_add(BLOCK));
                    }
                }
            }
            j += 2 * BLOCK;
        }
        while j < end {
            let at = j.min(end - BLOCK);
            let values = unsafe { Self::turned::<V>(strip, i, at) };
            for channel in 0..BLOCK {
                if channel < self.channels {
                    unsafe { values[channel].store(self.pixel(channel, self.from + at as isize)) };
                }
            }
            j += BLOCK;
        }
    }

    /// Eight positions of a strip from column `j` on, by channel.
    #[inline(always)]
    unsafe fn turned<V: Vector>(strip: Strip, i: usize, j: usize) -> [V; BLOCK] {
        let mut values = [V::splat(0.); BLOCK];
        for step in 0..BLOCK {
            values[step] = unsafe { strip.load(i, j + step) };
        }
        V::transpose(values)
    }

    #[inline(always)]
    unsafe fn scatter_pairs<V: Vector>(self, strips: [Strip; 2], i: usize) {
        let (begin, end) = inside_pairs(self.from, strips[0].width, self.width);
        let whole = if end - begin < BLOCK { begin..begin } else { begin..end };
        for j in 0..strips[0].width {
            if whole.contains(&j) {
                continue;
            }
            for parity in 0..2 {
                unsafe { self.scatter_one(strips[parity], i, j, self.from + (2 * j + parity) as isize) };
            }
        }
        let mut j = whole.start;
        while j < whole.end {
            let at = j.min(end - BLOCK);
            let (mut even, mut odd) = ([V::splat(0.); BLOCK], [V::splat(0.); BLOCK]);
            for step in 0..BLOCK {
                unsafe {
                    even[step] = strips[0].load(i, at + step);
                    odd[step] = strips[1].load(i, at + step);
                }
            }
            let (even, odd) = (V::transpose(even), V::transpose(odd));
            for channel in 0..BLOCK {
                if channel < self.channels {
                    let (low, high) = V::join(even[channel], odd[channel]);
                    let start = self.pixel(channel, self.from + 2 * at as isize);
                    V::prefetch(start.wrapping_add(self.ahead));
                    unsafe {
                        low.store(start);
                        high.store(start.wrapping_add(BLOCK));
                    }
                }
            }
            j += BLOCK;
        }
    }

    /// One position: column x of all planes, if it is inside.
    #[inline(always)]
    unsafe fn scatter_one(self, strip: Strip, i: usize, j: usize, x: isize) {
        if x < 0 || x >= self.width as isize {
            return;
        }
        for channel in 0..BLOCK {
            if channel < self.channels {
                unsafe { *self.pixel(channel, x) = *strip.at(i, j).add(channel) };
            }
        }
    }

    #[inline(always)]
    fn pixel(self, channel: usize, x: isize) -> *mut f32 {
        self.start.wrapping_add(channel * self.plane).wrapping_offset(x)
    }
}

/// The part of `0..len` for which both `from + 2 i` and `from + 2 i + 1` are in `0..size`.
#[inline(always)]
fn inside_pairs(from: isize, len: usize, size: usize) -> (usize, usize) {
    let first = ((1 - from).max(0) as usize / 2).min(len);
    let end = ((size as isize - from).max(0) as usize / 2).clamp(first, len);
    (first, end)
}
