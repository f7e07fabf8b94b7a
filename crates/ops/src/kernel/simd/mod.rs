//! Eight floats at a time, and the products of matrices that stand in memory as Winograd convolution leaves them: for
//! AVX2, for AVX-512, and in plain Rust, which every other processor vectorises by itself (NEON among them).
//!
//! Piece for a level is inlined into one function that is compiled for it. Closures would not be, and stay slow: there are none
//! on the way.
//!
//! A [`Piece`] is written once and compiled for each [`Level`]; [`run`] chooses.
#![allow(unsafe_code, reason = "vectors are loaded from and stored to blocks of memory that several threads fill")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use portable::Portable;

/// Columns of a product's second factor and result.
pub(crate) const PANEL: usize = 16;

/// What the processor can do. The result of a work depends on the level, never on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// All levels of this processor, the best one last.
    pub(crate) fn all() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            let avx512 = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512dq");
            if avx2 {
                levels.push(Self::Avx2);
            }
            if avx2 && avx512 {
                levels.push(Self::Avx512);
            }
        }
        levels
    }

    /// The level that everything is computed at: the best one, unless [`Level::choose`] came first.
    pub(crate) fn chosen() -> Self {
        *CHOSEN.get_or_init(|| Self::all().pop().unwrap_or(Self::Portable))
    }

    /// Chooses one of [`Level::all`] unless one was chosen before, and returns the chosen one.
    pub(crate) fn choose(level: Self) -> Self {
        *CHOSEN.get_or_init(|| level)
    }

    /// Whether [`Isa::Wide`] is sixteen floats at this level.
    pub(crate) fn is_wide(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => true,
            _ => false,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }
}

static CHOSEN: OnceLock<Level> = OnceLock::new();

/// A piece of work for any instruction set. `run` has to be `#[inline(always)]`, and so all that it calls.
pub(crate) trait Piece {
    fn run<I: Isa>(self);
}

/// Runs a piece of work, compiled for `level`.
pub(crate) fn run(level: Level, work: impl Piece) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2(work: impl Piece) {
            work.run::<x86::Avx2>();
        }
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq")]
        fn avx512(work: impl Piece) {
            work.run::<x86::Avx512>();
        }
        match level {
            Level::Portable => {}
            // SAFETY: `Level::all` makes this level only where the processor has these instructions.
            Level::Avx2 => return unsafe { avx2(work) },
            // SAFETY: as above.
            Level::Avx512 => return unsafe { avx512(work) },
        }
    }
    let _ = level;
    work.run::<Portable>();
}

/// Floats that are computed with side by side: eight, or sixteen of which the last eight lie apart.
pub(crate) trait Lanes: Copy {
    /// How many there are.
    const LEN: usize;
    /// # Safety
    /// Eight floats can be read from `from` on; if these are sixteen, eight more from `from + gap` on.
    unsafe fn load_apart(from: *const f32, gap: usize) -> Self;
    /// # Safety
    /// As for [`Self::load_apart`], to be written.
    unsafe fn store_apart(self, to: *mut f32, gap: usize);
    /// Four columns of a matrix that has a row for each lane, `row` floats from one to the next.
    ///
    /// # Safety
    /// Four floats of each row can be read, the first from `from` on.
    unsafe fn load_columns(from: *const f32, row: usize) -> [Self; 4];
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once where the processor can.
    fn mul_add(self, factor: f32, term: Self) -> Self;
    /// As [`Self::mul_add`], each with a factor of its own.
    fn mul_add_each(self, factors: Self, term: Self) -> Self;
    /// The larger one, `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// Floats at even and at odd places to neighbours: the first half of them and the second.
    fn join(even: Self, odd: Self) -> (Self, Self);
}

/// Eight floats.
pub(crate) trait Vector: Lanes {
    /// # Safety
    /// Eight floats can be read from `from` on.
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller vouches.
        unsafe { Self::load_apart(from, 0) }
    }
    /// # Safety
    /// Eight floats can be written from `to` on.
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the caller vouches.
        unsafe { self.store_apart(to, 0) }
    }
    /// Fetches the cache line at any address, which need not be valid, to a second-level cache.
    fn prefetch(address: *const f32);
    /// Writes to memory past the caches, which do not read there first. Other threads may see it later than what is written after it, until
    /// [`Self::fence`].
    ///
    /// # Safety
    /// Eight floats can be written from `to` on, where half a cache line begins.
    unsafe fn stream(self, to: *mut f32);
    /// Whatever is written from here on is seen no sooner than what was streamed before.
    fn fence();
    /// Adds the square of each, in f64, which holds it exactly, to a sum of its own.
    fn add_squares(self, sums: &mut [f64; 8]);
    /// Rows to columns.
    fn transpose(rows: [Self; 8]) -> [Self; 8];
    /// Sixteen neighbours to those at even and at odd places: [`Lanes::join`] back again.
    fn split(low: Self, high: Self) -> (Self, Self);
}

/// The number itself, of which the compiler no longer knows that it stays the same from one turn of a loop to the next. It would work out all
/// multiples of a distance before the loop, more than there are registers, and load them from the stack again in each turn.
#[inline(always)]
pub(crate) fn anew(mut distance: usize) -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: it does nothing.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) distance, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = &mut distance;
    distance
}

/// A strided matrix to be read: element (i, j) at `start + i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) start: *const f32,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Matrices of [`PANEL`] columns: row i of matrix p, which is contiguous, begins at `start + p * panel + i * row`.
#[derive(Clone, Copy)]
pub(crate) struct Panels<P> {
    pub(crate) start: P,
    pub(crate) row: usize,
    pub(crate) panel: usize,
}

#[cfg(target_arch = "x86_64")]
impl Rows {
    /// The rows from number `row` on.
    #[inline(always)]
    fn from(self, row: usize) -> Self {
        Self { start: self.start.wrapping_add(row * self.row), ..self }
    }

    /// The columns from number `column` on.
    #[inline(always)]
    fn columns_from(self, column: usize) -> Self {
        Self { start: self.start.wrapping_add(column * self.column), ..self }
    }
}

/// How far from the factors of a product those of the next one lie, to be fetched meanwhile.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "nothing is fetched there"))]
pub(crate) struct Next {
    pub(crate) a: usize,
    pub(crate) b: usize,
}

#[cfg(target_arch = "x86_64")]
impl Next {
    /// How far it is from column `at` of `a` and row `at` of `b`.
    #[inline(always)]
    fn less(self, at: usize, a: Rows, b: Panels<*const f32>) -> Self {
        Self { a: self.a.wrapping_sub(at * a.column), b: self.b.wrapping_sub(at * b.row) }
    }
}

impl Panels<*const f32> {
    /// The matrices' rows from number `row` on.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    fn rows_from(self, row: usize) -> Self {
        Self { start: self.start.wrapping_add(row * self.row), ..self }
    }

    /// The matrices from number `panel` on.
    #[inline(always)]
    fn from(self, panel: usize) -> Self {
        Self { start: self.start.wrapping_add(panel * self.panel), ..self }
    }
}

impl Panels<*mut f32> {
    /// The matrices from number `panel` and their row `row` on.
    #[inline(always)]
    fn from(self, panel: usize, row: usize) -> Self {
        Self { start: self.start.wrapping_add(panel * self.panel + row * self.row), ..self }
    }
}

/// Vectors and products of one level.
pub(crate) trait Isa {
    type V: Vector;
    /// The most that is computed with at once.
    type Wide: Lanes;
    /// Whether [`Self::Wide`] is sixteen floats.
    const IS_WIDE: bool;

    /// Writes the products of `a` (rows, depth) and each of the `b` (depth, [`PANEL`]), or adds them to what is there, to the `c` (rows,
    /// `PANEL`). Every element is summed over the depth in order. Where the factors come from far, `next` says where those of the next product
    /// are, which may be outside of all memory.
    ///
    /// # Safety
    /// All elements of `a` and of the `panels` matrices `b` can be read, and all of the `c` written (read, too, if `accumulate`), by this
    /// thread alone.
    unsafe fn product(
        size: (usize, usize),
        panels: usize,
        a: Rows,
        b: Panels<*const f32>,
        c: Panels<*mut f32>,
        accumulate: bool,
        next: Option<Next>,
    );

    /// The total of each row: of floats eight apart, of those four apart, two apart, and of the two that are left.
    fn totals(rows: &[[f32; PANEL]; PANEL]) -> [f32; PANEL];
}
