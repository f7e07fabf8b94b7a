//! Tiles taken through a transform in both directions.
#![allow(unsafe_code, reason = "squares of vectors lie strided in shared memory")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "two indices say which of rows and columns is meant")]

use std::mem::MaybeUninit;

use super::lattice::BLOCK;
use super::transform::{LARGEST, Matrix};
use crate::Activation;
use crate::kernel::{Isa, Lanes, PANEL, anew};

/// A square of blocks of eight channels: (i, j) is at `start + i * row + j * column`, that of the next eight channels `next`
/// floats on. Backwards, to be read, row and column are what wraps around to less.
#[derive(Clone, Copy)]
pub(super) struct Square<P> {
    pub(super) start: P,
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) next: usize,
}

impl Square<*const f32> {
    /// The same to be written, if it was made of what may be.
    #[inline(always)]
    pub(super) fn write(self) -> Square<*mut f32> {
        Square { start: self.start.cast_mut(), row: self.row, column: self.column, next: self.next }
    }
}

impl Square<*mut f32> {
    /// The same, of which the compiler does not work out all places before a loop: [`anew`].
    #[inline(always)]
    pub(super) fn anew(self) -> Self {
        Self { row: anew(self.row), column: anew(self.column), ..self }
    }

    #[inline(always)]
    pub(super) fn read(self) -> Square<*const f32> {
        Square { start: self.start, row: self.row, column: self.column, next: self.next }
    }
}

/// What becomes of each result of a panel's channels: `activation(result * scale + shift)`.
#[derive(Clone, Copy)]
pub(super) struct PanelEnding {
    pub(super) scale: [f32; PANEL],
    pub(super) shift: [f32; PANEL],
    pub(super) activation: Activation,
}

/// What becomes of `M x M^T`.
#[derive(Clone, Copy)]
pub(super) enum Then<'a> {
    /// It is written.
    Write,
    /// It is written as this ends it.
    End(&'a PanelEnding),
    /// It is added to what is there.
    Add,
}

impl PanelEnding {
    /// Ends values of the channels from `first` on.
    #[inline(always)]
    pub(super) fn end<L: Lanes>(&self, value: L, first: usize) -> L {
        // SAFETY: the lanes' part of the arrays.
        let (scale, shift) = unsafe {
            let [scale, shift] = [self.scale[first..].as_ptr(), self.shift[first..].as_ptr()];
            (L::load_apart(scale, BLOCK), L::load_apart(shift, BLOCK))
        };
        let value = value.mul(scale).add(shift);
        match self.activation {
            Activation::None => value,
            Activation::Relu => L::splat(0.).max(value),
            Activation::LeakyRelu(slope) => value.mul(L::splat(slope as f32)).max(value),
        }
    }
}

/// Takes `M x M^T` to `to`, for one block of channels or, if `two`, for the next as well.
///
/// # Safety
/// All vectors of `from` can be read and all of `to` written.
#[inline(always)]
pub(super) unsafe fn both<M: Matrix, I: Isa>(two: bool, from: Square<*const f32>, to: Square<*mut f32>, then: Then) {
    // SAFETY: as the caller vouches.
    unsafe {
        if two && I::IS_WIDE {
            return of_lanes::<M, I::Wide>(from, to, then, 0);
        }
        of_lanes::<M, I::V>(from, to, then, 0);
        if two {
            let from = Square { start: from.start.wrapping_add(from.next), ..from };
            let to = Square { start: to.start.wrapping_add(to.next), ..to };
            of_lanes::<M, I::V>(from, to, then, BLOCK);
        }
    }
}

#[inline(always)]
unsafe fn of_lanes<M: Matrix, L: Lanes>(from: Square<*const f32>, to: Square<*mut f32>, then: Then, first: usize) {
    let zero = L::splat(0.);
    // Zeros would be written for every tile, at a cost that shows in the time of a step.
    let mut columns = [[MaybeUninit::<L>::uninit(); LARGEST]; LARGEST];
    for j in 0..M::COLUMNS {
        let mut column = [zero; LARGEST];
        // One step after the other: sums of both would all be worked out before the loop over tiles, and wait on the stack.
        let top = from.start.wrapping_add(j.wrapping_mul(from.column));
        for i in 0..M::COLUMNS {
            // SAFETY: (i, j) is in the square.
            column[i] = unsafe { L::load_apart(top.wrapping_add(i.wrapping_mul(from.row)), from.next) };
        }
        let column = M::apply(column);
        for i in 0..M::ROWS {
            columns[i][j].write(column[i]);
        }
    }
    for i in 0..M::ROWS {
        let mut row = [zero; LARGEST];
        for j in 0..M::COLUMNS {
            // SAFETY: written above, for all rows and columns.
            row[j] = unsafe { columns[i][j].assume_init() };
        }
        let row = M::apply(row);
        let left = to.start.wrapping_add(i * to.row);
        for j in 0..M::ROWS {
            let place = left.wrapping_add(j * to.column);
            // SAFETY: (i, j) is in the square.
            unsafe {
                let value = match then {
                    Then::Write => row[j],
                    Then::End(ending) => ending.end(row[j], first),
                    Then::Add => L::load_apart(place, to.next).add(row[j]),
                };
                value.store_apart(place, to.next);
            }
        }
    }
}
