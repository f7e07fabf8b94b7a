//! Strips: rows of planes with their channels innermost, where tiles are transformed from and to.
#![allow(unsafe_code, reason = "strips are memory of a thread that vectors are read from and written to")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

use super::lattice::BLOCK;
use super::tile::Square;
use crate::kernel::Vector;

/// Floats of a position in a pair of strips.
const POSITION: usize = 2 * BLOCK;

/// Eight planes side by side: a row of `width` positions of eight floats for each row of the planes. Two strips share a memory,
/// in which the second's eight follow the first's at every position.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    start: *mut f32,
    pub(super) width: usize,
}

impl Strip {
    /// Floats that a pair of strips takes.
    pub(super) fn len_of_pair(width: usize, rows: usize) -> usize {
        rows * width * POSITION
    }

    /// Two strips of this width and `rows` rows.
    pub(super) fn pair(space: &mut [f32], width: usize, rows: usize) -> [Self; 2] {
        assert!(Self::len_of_pair(width, rows) <= space.len(), "strips exceed their memory");
        let start = space.as_mut_ptr();
        [Self { start, width }, Self { start: start.wrapping_add(BLOCK), width }]
    }

    #[inline(always)]
    pub(super) fn at(self, row: usize, column: usize) -> *mut f32 {
        self.start.wrapping_add((row * self.width + column) * POSITION)
    }

    /// The vectors from this row and column on of the first of two strips, and those of the second.
    #[inline(always)]
    pub(super) fn square(self, (row, column): (usize, usize)) -> Square<*mut f32> {
        Square { start: self.at(row, column), row: self.width * POSITION, column: POSITION, next: BLOCK }
    }

    /// Copies `count` rows from row `from` on of both strips to their first rows.
    ///
    /// # Safety
    /// This is the first of two strips, which have these rows and are this thread's alone; `count` is at most `from`.
    #[inline(always)]
    pub(super) unsafe fn move_up(self, from: usize, count: usize) {
        // SAFETY: as the caller vouches; the rows do not overlap.
        unsafe { self.start.copy_from_nonoverlapping(self.at(from, 0), Self::len_of_pair(self.width, count)) };
    }

    /// # Safety
    /// The strip has this row and column.
    #[inline(always)]
    pub(super) unsafe fn load<V: Vector>(self, row: usize, column: usize) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load(self.at(row, column)) }
    }

    /// # Safety
    /// The strip has this row and column, and is this thread's alone.
    #[inline(always)]
    pub(super) unsafe fn store<V: Vector>(self, row: usize, column: usize, value: V) {
        // SAFETY: as the caller vouches.
        unsafe { value.store(self.at(row, column)) }
    }
}
