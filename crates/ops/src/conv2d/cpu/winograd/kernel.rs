//! The kernel of a convolution, whose taps each phase of the image sees a part of: read to where the transforms find them, and its
//! gradient written back.
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use super::lattice::BLOCK;
use super::tile::Square;
use super::transform::Transform;
use crate::kernel::{LINE, Lanes, PANEL, Shared, Vector};

/// Channels in after which kernels, and the places of their gradients, are fetched ahead: they lie too far apart for the processor to foresee.
const AHEAD: usize = 12;

/// Taps that are read at once.
const COLUMNS: usize = 4;

/// Taps of a kernel, at most.
pub(super) const MOST_TAPS: usize = 16;

/// Phases of a kernel, at most.
pub(super) const MOST_PHASES: usize = 4;

/// Numbers from which on a gradient goes past the caches: it would drive out more than it is worth, and none of it is read soon.
const STREAMED: usize = 1 << 20;

/// Sums of squares, of each of eight kernels.
pub(super) type Squares = [f64; BLOCK];

/// A kernel as virtual channels see it.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    pub(super) values: &'a [f32],
    /// (height, width) of the kernel.
    pub(super) size: (usize, usize),
    /// Of the convolution: taps of one phase are this far apart.
    pub(super) stride: usize,
    /// Floats from one channel out, or in, to the next.
    pub(super) out_step: usize,
    pub(super) in_step: usize,
    /// Whether taps are taken in reverse order.
    pub(super) flipped: bool,
}

impl Kernel<'_> {
    /// Where each tap stands in a square of all phases' taps, row by row. Those of one phase are `stride` places apart, if `turned` in their order of
    /// use; otherwise it is the square that is read backwards.
    #[inline(always)]
    pub(super) fn places<T: Transform>(&self, turned: bool) -> [usize; MOST_TAPS] {
        let back = |i: usize| (T::TAPS - 1 - i / self.stride) * self.stride + i % self.stride;
        let along = |i: usize| if turned && self.flipped { back(i) } else { i };
        let mut places = [0; MOST_TAPS];
        for i in 0..self.size.0 {
            for j in 0..self.size.1 {
                places[i * self.size.1 + j] = along(i) * self.stride * T::TAPS + along(j);
            }
        }
        places
    }

    /// Where the first tap of these phases stands in that square.
    #[inline(always)]
    pub(super) fn first<T: Transform>(&self, phase: (usize, usize)) -> usize {
        phase.0 * self.stride * T::TAPS + phase.1
    }

    /// The taps of one phase in their order of use, in a square of all phases' taps whose first of this phase is at `start`; if `turned`, they stand
    /// in that order.
    #[inline(always)]
    pub(super) fn square<T: Transform>(&self, start: *const f32, next: usize, turned: bool) -> Square<*const f32> {
        let column = self.stride * PANEL;
        let row = self.stride * T::TAPS * column;
        if self.flipped && !turned {
            // From the last one backwards.
            let start = start.wrapping_add((T::TAPS - 1) * (row + column));
            return Square { start, row: row.wrapping_neg(), column: column.wrapping_neg(), next };
        }
        Square { start, row, column, next }
    }

    /// Whether [`Self::read_whole`] reads such kernels.
    #[inline(always)]
    pub(super) fn is_large(&self) -> bool {
        self.size.0 * self.size.1 >= COLUMNS
    }

    /// Reads all taps of the kernel at `from` and of those to the next channels out, one for each lane, to the lanes of their places from
    /// `lane` on. There are four taps or more. With AVX2, [`Self::read`] is faster.
    #[inline(always)]
    pub(super) fn read_whole<T: Transform, V: Vector, L: Lanes>(
        &self,
        from: usize,
        places: &[usize; MOST_TAPS],
        lane: usize,
        taps: &mut [[f32; PANEL]; MOST_TAPS],
    ) {
        let count = self.size.0 * self.size.1;
        let kernels = &self.values[from..][..(L::LEN - 1) * self.out_step + count];
        for out in 0..L::LEN {
            V::prefetch(kernels.as_ptr().wrapping_add(out * self.out_step + AHEAD * self.in_step));
        }
        // Of kernels that fill the square each tap stands where its number says, and the compiler knows how many there are.
        let fills = self.size == (self.stride * T::TAPS, self.stride * T::TAPS);
        match count {
            4 if fills => self.read_taps::<L>(kernels, 4, |tap| tap, lane, taps),
            9 if fills => self.read_taps::<L>(kernels, 9, |tap| tap, lane, taps),
            16 if fills => self.read_taps::<L>(kernels, 16, |tap| tap, lane, taps),
            _ => self.read_taps::<L>(kernels, count, |tap| places[tap], lane, taps),
        }
    }

    /// Of as many kernels as there are lanes all taps, each to a place.
    #[inline(always)]
    fn read_taps<L: Lanes>(
        &self,
        kernels: &[f32],
        count: usize,
        place: impl Fn(usize) -> usize,
        lane: usize,
        taps: &mut [[f32; PANEL]; MOST_TAPS],
    ) {
        assert!((L::LEN - 1) * self.out_step + count <= kernels.len(), "taps are missing");
        for first in (0..count).step_by(COLUMNS) {
            // The last four step back to end with the kernel.
            let at = first.min(count - COLUMNS);
            // SAFETY: the slice has all taps of as many kernels as there are lanes.
            let columns = unsafe { L::load_columns(kernels.as_ptr().wrapping_add(at), self.out_step) };
            for i in 0..COLUMNS {
                let to = &mut taps[place(at + i)][lane..][..L::LEN];
                // SAFETY: the slice is as long as the vector.
                unsafe { columns[i].store_apart(to.as_mut_ptr(), BLOCK) };
            }
        }
    }

    /// As [`Self::read`], one number after the other: for the few kernels that [`Self::read_whole`] leaves.
    #[inline(always)]
    pub(super) fn read_some(
        &self,
        from: usize,
        outs: usize,
        places: &[usize; MOST_TAPS],
        lane: usize,
        taps: &mut [[f32; PANEL]; MOST_TAPS],
    ) {
        for at in 0..self.size.0 * self.size.1 {
            for out in 0..BLOCK {
                let value = if out < outs { self.values[from + out * self.out_step + at] } else { 0. };
                taps[places[at]][lane + out] = value;
            }
        }
    }

    /// Reads all taps of the kernel at `from` and of those to the next channels out, `outs` in all, to eight lanes of their places from `lane` on.
    #[inline(always)]
    pub(super) fn read<V: Vector>(
        &self,
        from: usize,
        outs: usize,
        places: &[usize; MOST_TAPS],
        lane: usize,
        taps: &mut [[f32; PANEL]; MOST_TAPS],
    ) {
        let count = self.size.0 * self.size.1;
        let mut at = 0;
        while at < count {
            let some = BLOCK.min(count - at);
            if some == 1 {
                // A tap left over alone, as the ninth of 3x3 is: not worth turning a whole square for.
                let last = &mut taps[places[at]];
                for out in 0..BLOCK {
                    last[lane + out] = if out < outs { self.values[from + at + out * self.out_step] } else { 0. };
                }
                break;
            }
            let mut kernels = [V::splat(0.); BLOCK];
            for out in 0..BLOCK {
                if out < outs {
                    let values = &self.values[from + at + out * self.out_step..];
                    let mut rest = [0.; BLOCK];
                    let mut start = values.as_ptr();
                    if values.len() < BLOCK {
                        rest[..values.len()].copy_from_slice(values);
                        start = rest.as_ptr();
                    }
                    V::prefetch(values.as_ptr().wrapping_add(AHEAD * self.in_step));
                    // SAFETY: both the slice, if it is read, and the array are eight long. What follows this kernel's taps
                    // is not used.
                    kernels[out] = unsafe { V::load(start) };
                }
            }
            let kernels = V::transpose(kernels);
            for i in 0..BLOCK {
                if i < some {
                    // SAFETY: eight of the sixteen floats.
                    unsafe { kernels[i].store(taps[places[at + i]][lane..][..BLOCK].as_mut_ptr()) };
                }
            }
            at += BLOCK;
        }
    }

    /// Whether [`Self::stream`] writes so many such kernels.
    #[inline(always)]
    pub(super) fn is_streamed(&self, kernels: Shared) -> bool {
        self.size.0 * self.size.1 == LINE && kernels.len() >= STREAMED
    }

    /// As [`Self::write`] of eight kernels that are a cache line each, past the caches if they start one. Their squares are added to `squares`:
    /// later they would have to be read from memory again.
    #[inline(always)]
    pub(super) fn stream<V: Vector>(
        &self,
        taps: &[[f32; PANEL]; MOST_TAPS],
        places: &[usize; MOST_TAPS],
        lane: usize,
        to: usize,
        kernels: Shared,
        squares: &mut Squares,
    ) {
        let [mut first, mut second] = [[V::splat(0.); BLOCK]; LINE / BLOCK];
        let [mut of_first, mut of_second] = [[0.; BLOCK]; LINE / BLOCK];
        for i in 0..BLOCK {
            // SAFETY: eight of the sixteen floats, each.
            unsafe {
                first[i] = V::load(taps[places[i]][lane..][..BLOCK].as_ptr());
                second[i] = V::load(taps[places[BLOCK + i]][lane..][..BLOCK].as_ptr());
            }
            first[i].add_squares(&mut of_first);
            second[i].add_squares(&mut of_second);
        }
        for out in 0..BLOCK {
            squares[out] += of_first[out] + of_second[out];
        }
        let [first, second] = [V::transpose(first), V::transpose(second)];
        let starts_line = kernels.start_of(0, 0).addr().is_multiple_of(size_of::<[f32; LINE]>());
        for out in 0..BLOCK {
            let start = kernels.start_of(to + out * self.out_step, LINE);
            // SAFETY: `start_of` has seen to the room, which is this thread's alone; what is streamed starts a line.
            unsafe {
                if starts_line {
                    first[out].stream(start);
                    second[out].stream(start.add(BLOCK));
                } else {
                    first[out].store(start);
                    second[out].store(start.add(BLOCK));
                }
            }
        }
    }

    /// The adjoint of [`Self::read`], from the lanes from `lane` on: writes the kernel at `to` and those to the next channels out, `outs` in all.
    #[inline(always)]
    pub(super) fn write<V: Vector>(
        &self,
        taps: &[[f32; PANEL]; MOST_TAPS],
        places: &[usize; MOST_TAPS],
        lane: usize,
        outs: usize,
        to: usize,
        kernels: Shared,
    ) {
        let count = self.size.0 * self.size.1;
        for from in (0..count).step_by(BLOCK) {
            if from + 1 == count {
                for out in 0..outs {
                    let last = kernels.start_of(to + out * self.out_step + from, 1);
                    // SAFETY: `start_of` has seen to the room, which is this thread's alone.
                    unsafe { last.write(taps[places[from]][lane + out]) };
                }
                break;
            }
            // The last eight of a larger kernel step back to end with it.
            let from = if count < BLOCK { 0 } else { from.min(count - BLOCK) };
            let mut values = [V::splat(0.); BLOCK];
            for i in 0..BLOCK {
                if from + i < count {
                    // SAFETY: eight of the sixteen floats.
                    values[i] = unsafe { V::load(taps[places[from + i]][lane..][..BLOCK].as_ptr()) };
                }
            }
            let values = V::transpose(values);
            for out in 0..BLOCK {
                if out < outs {
                    let some = BLOCK.min(count - from);
                    let start = kernels.start_of(to + out * self.out_step + from, some);
                    V::prefetch(start.wrapping_add(AHEAD * self.in_step));
                    // SAFETY: `start_of` has seen to the room, which is this thread's alone.
                    unsafe {
                        if some == BLOCK {
                            values[out].store(start);
                        } else {
                            let mut rest = [0.; BLOCK];
                            values[out].store(rest.as_mut_ptr());
                            start.copy_from_nonoverlapping(rest.as_ptr(), some);
                        }
                    }
                }
            }
        }
    }
}
