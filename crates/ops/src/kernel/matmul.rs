//! Matrix products on one thread, by the `gemm` crate: AVX2, AVX-512 or NEON as the processor has them.
#![allow(
    unsafe_code,
    reason = "gemm takes pointers, and results are strided blocks of tensors that several threads fill"
)]

/// A matrix in a slice: element (i, j) at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Matrix<'_> {
    fn assert_holds(self, rows: usize, columns: usize) {
        assert!((rows - 1) * self.row + (columns - 1) * self.column < self.values.len(), "matrix exceeds its slice");
    }
}

/// Memory that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: only `multiply` and `fill` write through it, whose callers vouch that no two threads write one element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Memory that outlives all uses of what is returned; the caller sees to that.
    pub(crate) fn new(start: *mut f32, len: usize) -> Self {
        Self { start, len }
    }

    /// How many elements there are.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// The address of `offset`, from which on there are `len` elements. To write there takes what [`Shared::fill`] does.
    pub(crate) fn start_of(self, offset: usize, len: usize) -> *mut f32 {
        assert!(offset + len <= self.len, "{len} elements from {offset} on exceed the memory of {}", self.len);
        self.start.wrapping_add(offset)
    }

    /// Writes `value` to `len` elements from `offset` on.
    ///
    /// # Safety
    /// The memory is alive, and no other thread uses these elements.
    pub(crate) unsafe fn fill(self, offset: usize, len: usize, value: f32) {
        assert!(offset + len <= self.len, "fill exceeds the memory");
        // SAFETY: in bounds as asserted; alive and ours alone as the caller vouches.
        (0..len).for_each(|i| unsafe { self.start.add(offset + i).write(value) });
    }

    /// Writes the product of `a` `(m, k)` and `b` `(k, n)`, added to what is there if `accumulate`, to the elements
    /// `offset + i * row + j * column`.
    ///
    /// # Safety
    /// The memory is alive, no other thread uses these elements, and they are written before if `accumulate`.
    pub(crate) unsafe fn multiply(
        self,
        (offset, row, column): (usize, usize, usize),
        accumulate: bool,
        (m, n, k): (usize, usize, usize),
        a: Matrix,
        b: Matrix,
    ) {
        assert!(m > 0 && n > 0 && k > 0, "product of an empty matrix");
        assert!(offset + (m - 1) * row + (n - 1) * column < self.len, "product exceeds the memory");
        a.assert_holds(m, k);
        b.assert_holds(k, n);
        // SAFETY: all three matrices are in bounds as asserted; the result is alive and ours alone as the caller vouches,
        // and gemm does not read it unless `accumulate`.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.start.add(offset),
                column as isize,
                row as isize,
                accumulate,
                a.values.as_ptr(),
                a.column as isize,
                a.row as isize,
                b.values.as_ptr(),
                b.column as isize,
                b.row as isize,
                1.,
                1.,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}
