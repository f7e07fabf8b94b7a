//! Eight floats at a time, and the products of matrices that stand in memory as Winograd convolution leaves them: for
//! AVX2, for AVX-512, and in plain Rust, which every other processor vectorises by itself (NEON among them).
//!
//! Piece for a level is inlined into one function that is compiled for it. Closures would not be, and stay slow: there are none
//! on the way.
//!
//! A [`Piece`] is written once and compiled for each [`Level`]; [`run`] chooses.
#![allow(unsafe_code, reason = "vectors are loaded from and stored to blocks of memory that several threads fill")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

/// Columns of a product's second factor and result.
pub(crate) const PANEL: usize = 16;

/// What the processor can do. The result of a work depends on the level, never on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    pub(crate) fn best() -> Self {
        static BEST: std::sync::LazyLock<Level> =
            std::sync::LazyLock::new(|| Level::all().pop().unwrap_or(Level::Portable));
        *BEST
    }
}

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
    /// # Safety
    /// Eight floats can be read from `from` on; if these are sixteen, eight more from `from + gap` on.
    unsafe fn load_apart(from: *const f32, gap: usize) -> Self;
    /// # Safety
    /// As for [`Self::load_apart`], to be written.
    unsafe fn store_apart(self, to: *mut f32, gap: usize);
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once where the processor can.
    fn mul_add(self, factor: f32, term: Self) -> Self;
    /// The larger one, `other` if either is NaN.
    fn max(self, other: Self) -> Self;
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
    /// Fetches the cache line at any address, which need not be valid.
    fn prefetch(address: *const f32);
    /// Rows to columns.
    fn transpose(rows: [Self; 8]) -> [Self; 8];
    /// Sixteen neighbours to those at even and at odd places.
    fn split(low: Self, high: Self) -> (Self, Self);
    /// Back again.
    fn join(even: Self, odd: Self) -> (Self, Self);
}

/// A strided matrix to be read: element (i, j) at `start + i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) start: *const f32,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Vectors and products of one level.
pub(crate) trait Isa {
    type V: Vector;
    /// The most that is computed with at once.
    type Wide: Lanes;
    /// Whether [`Self::Wide`] is sixteen floats.
    const IS_WIDE: bool;

    /// Writes the product of `a` (rows, depth) and `b` (depth, [`PANEL`]), or adds it to what is there, to `c` (rows,
    /// `PANEL`). Each row of `b` and of `c` is contiguous, the next one `b_row` and `c_row` floats on. Every element is
    /// summed over the depth in order.
    ///
    /// # Safety
    /// All elements of `a` and `b` can be read, and all of `c` written (read, too, if `accumulate`), by this thread alone.
    unsafe fn product(size: (usize, usize), a: Rows, b: (*const f32, usize), c: (*mut f32, usize), accumulate: bool);
}

/// Plain Rust.
pub(crate) struct Portable;

/// `a * b + c`, rounded once only where that is one instruction of every processor of this kind.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

impl Lanes for [f32; 8] {
    #[inline(always)]
    unsafe fn load_apart(from: *const f32, _: usize) -> Self {
        // SAFETY: as the caller vouches; an array of floats may be read unaligned.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_apart(self, to: *mut f32, _: usize) {
        // SAFETY: as the caller vouches.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; 8]
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn mul_add(self, factor: f32, term: Self) -> Self {
        std::array::from_fn(|i| mul_add(self[i], factor, term[i]))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
}

impl Vector for [f32; 8] {
    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    fn transpose(rows: [Self; 8]) -> [Self; 8] {
        std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
    }

    #[inline(always)]
    fn split(low: Self, high: Self) -> (Self, Self) {
        let at = |i: usize| if i < 8 { low[i] } else { high[i - 8] };
        (std::array::from_fn(|i| at(2 * i)), std::array::from_fn(|i| at(2 * i + 1)))
    }

    #[inline(always)]
    fn join(even: Self, odd: Self) -> (Self, Self) {
        let at = |i: usize| if i % 2 == 0 { even[i / 2] } else { odd[i / 2] };
        (std::array::from_fn(at), std::array::from_fn(|i| at(i + 8)))
    }
}

impl Isa for Portable {
    type V = [f32; 8];
    type Wide = [f32; 8];
    const IS_WIDE: bool = false;

    #[inline(always)]
    unsafe fn product(
        (rows, depth): (usize, usize),
        a: Rows,
        (b, b_row): (*const f32, usize),
        (c, c_row): (*mut f32, usize),
        accumulate: bool,
    ) {
        /// Sums two rows in registers.
        #[inline(always)]
        unsafe fn block<const R: usize>(
            depth: usize,
            a: Rows,
            b: (*const f32, usize),
            c: (*mut f32, usize),
            add: bool,
        ) {
            let mut sums = [[0f32; PANEL]; R];
            for k in 0..depth {
                // SAFETY: k is below the depth, and both rows are in `a`, as the caller of `product` vouches.
                let (b, a) = unsafe {
                    (b.0.add(k * b.1).cast::<[f32; PANEL]>().read_unaligned(), |i| {
                        *a.start.add(i * a.row + k * a.column)
                    })
                };
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = a(i);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = mul_add(a, b, *sum);
                    }
                }
            }
            for (i, mut sums) in sums.into_iter().enumerate() {
                // SAFETY: row i is in `c`.
                unsafe {
                    let c = c.0.add(i * c.1).cast::<[f32; PANEL]>();
                    if add {
                        let before = c.read_unaligned();
                        sums.iter_mut().zip(before).for_each(|(sum, before)| *sum += before);
                    }
                    c.write_unaligned(sums);
                }
            }
        }
        let mut at = 0;
        while at < rows {
            // SAFETY: rows from `at` on, two where two are left.
            unsafe {
                let a = Rows { start: a.start.add(at * a.row), ..a };
                let c = (c.add(at * c_row), c_row);
                if rows - at >= 2 {
                    block::<2>(depth, a, (b, b_row), c, accumulate);
                } else {
                    block::<1>(depth, a, (b, b_row), c, accumulate);
                }
            }
            at += 2;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Isa, Lanes, PANEL, Rows, Vector};

    /// Of two vectors, in each half, the two low or the two high floats of both.
    const LOW: i32 = 0b01_00_01_00;
    const HIGH: i32 = 0b11_10_11_10;

    pub(crate) struct Avx2;

    /// Shuffles of AVX2; transforms and products in vectors of sixteen.
    pub(crate) struct Avx512;

    // SAFETY of all blocks below: `Level::all` makes a level only where the processor has its instructions, `run` alone
    // calls work on it, and loads and stores go where the caller vouches.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
    impl Lanes for __m256 {
        #[inline(always)]
        unsafe fn load_apart(from: *const f32, _: usize) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store_apart(self, to: *mut f32, _: usize) {
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { _mm256_sub_ps(self, other) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { _mm256_mul_ps(self, other) }
        }

        #[inline(always)]
        fn mul_add(self, factor: f32, term: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, _mm256_set1_ps(factor), term) }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { _mm256_max_ps(self, other) }
        }
    }

    // SAFETY: as above.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
    impl Lanes for __m512 {
        #[inline(always)]
        unsafe fn load_apart(from: *const f32, gap: usize) -> Self {
            unsafe {
                if gap == 8 {
                    return _mm512_loadu_ps(from);
                }
                let low = _mm512_castps256_ps512(_mm256_loadu_ps(from));
                _mm512_insertf32x8::<1>(low, _mm256_loadu_ps(from.wrapping_add(gap)))
            }
        }

        #[inline(always)]
        unsafe fn store_apart(self, to: *mut f32, gap: usize) {
            unsafe {
                if gap == 8 {
                    return _mm512_storeu_ps(to, self);
                }
                _mm256_storeu_ps(to, _mm512_castps512_ps256(self));
                _mm256_storeu_ps(to.wrapping_add(gap), _mm512_extractf32x8_ps::<1>(self));
            }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { _mm512_sub_ps(self, other) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { _mm512_mul_ps(self, other) }
        }

        #[inline(always)]
        fn mul_add(self, factor: f32, term: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, _mm512_set1_ps(factor), term) }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { _mm512_max_ps(self, other) }
        }
    }

    // SAFETY: as above.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
    impl Vector for __m256 {
        #[inline(always)]
        fn prefetch(address: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }

        #[inline(always)]
        fn transpose(r: [Self; 8]) -> [Self; 8] {
            unsafe {
                let (a0, a1) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
                let (a2, a3) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
                let (a4, a5) = (_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5]));
                let (a6, a7) = (_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7]));
                let (b0, b4) = (_mm256_shuffle_ps::<LOW>(a0, a2), _mm256_shuffle_ps::<LOW>(a4, a6));
                let (b1, b5) = (_mm256_shuffle_ps::<HIGH>(a0, a2), _mm256_shuffle_ps::<HIGH>(a4, a6));
                let (b2, b6) = (_mm256_shuffle_ps::<LOW>(a1, a3), _mm256_shuffle_ps::<LOW>(a5, a7));
                let (b3, b7) = (_mm256_shuffle_ps::<HIGH>(a1, a3), _mm256_shuffle_ps::<HIGH>(a5, a7));
                [
                    _mm256_permute2f128_ps::<0x20>(b0, b4),
                    _mm256_permute2f128_ps::<0x20>(b1, b5),
                    _mm256_permute2f128_ps::<0x20>(b2, b6),
                    _mm256_permute2f128_ps::<0x20>(b3, b7),
                    _mm256_permute2f128_ps::<0x31>(b0, b4),
                    _mm256_permute2f128_ps::<0x31>(b1, b5),
                    _mm256_permute2f128_ps::<0x31>(b2, b6),
                    _mm256_permute2f128_ps::<0x31>(b3, b7),
                ]
            }
        }

        #[inline(always)]
        fn split(low: Self, high: Self) -> (Self, Self) {
            unsafe {
                let x = _mm256_permute2f128_ps::<0x20>(low, high);
                let y = _mm256_permute2f128_ps::<0x31>(low, high);
                (_mm256_shuffle_ps::<0b10_00_10_00>(x, y), _mm256_shuffle_ps::<0b11_01_11_01>(x, y))
            }
        }

        #[inline(always)]
        fn join(even: Self, odd: Self) -> (Self, Self) {
            unsafe {
                let (x, y) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
                (_mm256_permute2f128_ps::<0x20>(x, y), _mm256_permute2f128_ps::<0x31>(x, y))
            }
        }
    }

    /// Calls `$block::<R>` on blocks of `$most` rows, and of what is left at the end.
    macro_rules! by_rows {
        ($block:ident, $most:literal, [$($rows:literal)*], $size:expr, $a:expr, $b:expr, $c:expr, $accumulate:expr) => {{
            let ((rows, depth), a, b, c) = ($size, $a, $b, $c);
            let mut at = 0;
            while at < rows {
                // Two blocks of about one size keep more sums in flight than a full one and a rest.
                let left = rows - at;
                let take = if left >= 2 * $most || left == $most { $most } else if left > $most { left.div_ceil(2) } else { left };
                let a = Rows { start: a.start.wrapping_add(at * a.row), ..a };
                let c = (c.0.wrapping_add(at * c.1), c.1);
                match take {
                    $($rows => $block::<$rows>(depth, a, b, c, $accumulate),)*
                    _ => {}
                }
                at += take;
            }
        }};
    }

    impl Isa for Avx2 {
        type V = __m256;
        type Wide = __m256;
        const IS_WIDE: bool = false;

        #[inline(always)]
        unsafe fn product(
            size: (usize, usize),
            a: Rows,
            b: (*const f32, usize),
            c: (*mut f32, usize),
            accumulate: bool,
        ) {
            // SAFETY: the blocks cover the rows of `a` and `c`, which are as the caller vouches; see above for the level.
            unsafe { by_rows!(block256, 6, [1 2 3 4 5 6], size, a, b, c, accumulate) }
        }
    }

    impl Isa for Avx512 {
        type V = __m256;
        type Wide = __m512;
        const IS_WIDE: bool = true;

        #[inline(always)]
        unsafe fn product(
            size: (usize, usize),
            a: Rows,
            b: (*const f32, usize),
            c: (*mut f32, usize),
            accumulate: bool,
        ) {
            // SAFETY: as above.
            unsafe { by_rows!(block512, 16, [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16], size, a, b, c, accumulate) }
        }
    }

    /// Repeats a statement for each of the first R rows: loops over registers are not always unrolled.
    macro_rules! rows {
        ($most:ident: $i:ident => $work:expr) => { rows!(@ [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] $most, $i, $work) };
        (@ [$($number:literal)*] $most:ident, $i:ident, $work:expr) => {$(
            if $number < $most {
                const $i: usize = $number;
                $work
            }
        )*};
    }

    /// R rows of the product, summed in registers.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block256<const R: usize>(
        depth: usize,
        a: Rows,
        (b, b_row): (*const f32, usize),
        (c, c_row): (*mut f32, usize),
        accumulate: bool,
    ) {
        // SAFETY: R rows of `a` and `c`, `depth` columns of `a` and rows of `b`, as the caller of `product` vouches.
        unsafe {
            let (mut low, mut high) = ([_mm256_setzero_ps(); 16], [_mm256_setzero_ps(); 16]);
            // One pointer for every third row: the others are one and two rows on, which addresses can say.
            let mut starts = [a.start, a.start.wrapping_add(3 * a.row)];
            let mut from = b;
            for _ in 0..depth {
                let (b_low, b_high) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.wrapping_add(8)));
                rows!(R: I => {
                    let a = _mm256_broadcast_ss(&*starts[I / 3 % 2].wrapping_add(I % 3 * a.row));
                    low[I] = _mm256_fmadd_ps(a, b_low, low[I]);
                    high[I] = _mm256_fmadd_ps(a, b_high, high[I]);
                });
                starts[0] = starts[0].wrapping_add(a.column);
                starts[1] = starts[1].wrapping_add(a.column);
                from = from.wrapping_add(b_row);
            }
            rows!(R: I => {
                let c = c.wrapping_add(I * c_row);
                if accumulate {
                    low[I] = _mm256_add_ps(low[I], _mm256_loadu_ps(c));
                    high[I] = _mm256_add_ps(high[I], _mm256_loadu_ps(c.add(8)));
                }
                _mm256_storeu_ps(c, low[I]);
                _mm256_storeu_ps(c.add(8), high[I]);
            });
        }
    }

    /// R rows of the product, summed in registers.
    #[target_feature(enable = "avx512f")]
    unsafe fn block512<const R: usize>(
        depth: usize,
        a: Rows,
        (b, b_row): (*const f32, usize),
        (c, c_row): (*mut f32, usize),
        accumulate: bool,
    ) {
        const { assert!(PANEL == 16) };
        // SAFETY: as in `block256`.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); 16];
            let mut starts = [a.start; 6];
            rows!(R: I => starts[I / 3] = a.start.wrapping_add(I / 3 * 3 * a.row));
            let mut from = b;
            for _ in 0..depth {
                let b = _mm512_loadu_ps(from);
                rows!(R: I => {
                    let a = _mm512_set1_ps(*starts[I / 3].wrapping_add(I % 3 * a.row));
                    sums[I] = _mm512_fmadd_ps(a, b, sums[I]);
                });
                rows!(R: I => if I % 3 == 0 {
                    starts[I / 3] = starts[I / 3].wrapping_add(a.column);
                });
                from = from.wrapping_add(b_row);
            }
            rows!(R: I => {
                let c = c.wrapping_add(I * c_row);
                if accumulate {
                    sums[I] = _mm512_add_ps(sums[I], _mm512_loadu_ps(c));
                }
                _mm512_storeu_ps(c, sums[I]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Product<'a> {
        size: (usize, usize),
        a: &'a [f32],
        b: &'a [f32],
        c: &'a mut [f32],
        transposed: bool,
        accumulate: bool,
    }

    impl Piece for Product<'_> {
        #[inline(always)]
        fn run<I: Isa>(self) {
            let (rows, depth) = self.size;
            let (row, column) = if self.transposed { (1, rows) } else { (depth, 1) };
            let a = Rows { start: self.a.as_ptr(), row, column };
            // SAFETY: the test makes slices of these sizes.
            unsafe {
                I::product(self.size, a, (self.b.as_ptr(), PANEL), (self.c.as_mut_ptr(), PANEL), self.accumulate);
            }
        }
    }

    #[test]
    fn products_of_every_level_are_exact_on_small_integers() {
        let number = |i: usize| ((i * 7 + 3) % 11) as f32 - 5.;
        for level in Level::all() {
            for (rows, depth) in (1..40).map(|rows| (rows, rows % 9 + 1)) {
                for (transposed, accumulate) in [(false, false), (true, true)] {
                    let a: Vec<f32> = (0..rows * depth).map(number).collect();
                    let b: Vec<f32> = (0..depth * PANEL).map(|i| number(i + 5)).collect();
                    let mut c = vec![2.; rows * PANEL];
                    let mut expected = vec![if accumulate { 2. } else { 0. }; rows * PANEL];
                    for ((i, j), k) in (0..rows)
                        .flat_map(|i| (0..PANEL).map(move |j| (i, j)))
                        .flat_map(|at| (0..depth).map(move |k| (at, k)))
                    {
                        let a = if transposed { a[k * rows + i] } else { a[i * depth + k] };
                        expected[i * PANEL + j] += a * b[k * PANEL + j];
                    }
                    let work = Product { size: (rows, depth), a: &a, b: &b, c: &mut c, transposed, accumulate };
                    run(level, work);
                    assert_eq!(c, expected, "{level:?} {rows}x{depth}");
                }
            }
        }
    }

    struct Shuffles(Vec<f32>);

    impl Piece for &mut Shuffles {
        #[inline(always)]
        fn run<I: Isa>(self) {
            let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
            // SAFETY: 64 values are 8 rows of 8.
            let rows = std::array::from_fn(|i| unsafe { I::V::load(values[8 * i..8 * i + 8].as_ptr()) });
            let columns = I::V::transpose(rows);
            let (even, odd) = I::V::split(rows[0], rows[1]);
            let (low, high) = I::V::join(even, odd);
            let all = columns.into_iter().chain([even, odd, low, high]);
            self.0 = vec![0.; 12 * 8];
            // SAFETY: as above.
            all.zip(self.0.chunks_exact_mut(8)).for_each(|(vector, to)| unsafe { vector.store(to.as_mut_ptr()) });
        }
    }

    #[test]
    fn vectors_of_every_level_shuffle_alike() {
        let of = |level| {
            let mut shuffles = Shuffles(Vec::new());
            run(level, &mut shuffles);
            shuffles.0
        };
        let plain = of(Level::Portable);
        assert_eq!(plain[..3], [0., 8., 16.]);
        assert_eq!(plain[64..68], [0., 2., 4., 6.]);
        assert_eq!(plain[72..76], [1., 3., 5., 7.]);
        assert_eq!(plain[80..96], (0..16).map(|i| i as f32).collect::<Vec<_>>());
        for level in Level::all() {
            assert_eq!(of(level), plain, "{level:?}");
        }
    }
}
