//! Vectors and products of AVX2 and AVX-512.
//!
//! Every `unsafe` block in here stands on the same ground: `Level::all` makes a level only where the processor has its
//! instructions, `run` alone calls work on it, and loads and stores go where the caller vouches.
#![allow(unsafe_code, reason = "the processor's own instructions, on memory that several threads fill")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::wildcard_imports, reason = "forty instructions of one prefix")]

use std::arch::x86_64::*;

use super::{Isa, Lanes, PANEL, Panels, Rows, Vector};

/// Of two vectors, in each half, the two low or the two high floats of both.
const LOW: i32 = 0b01_00_01_00;
const HIGH: i32 = 0b11_10_11_10;

pub(crate) struct Avx2;

/// Shuffles of AVX2; transforms and products in vectors of sixteen.
pub(crate) struct Avx512;

impl Lanes for __m256 {
    const LEN: usize = 8;

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
    fn mul_add_each(self, factors: Self, term: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, factors, term) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { _mm256_max_ps(self, other) }
    }
}

impl Lanes for __m512 {
    const LEN: usize = 16;

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
    fn mul_add_each(self, factors: Self, term: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factors, term) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { _mm512_max_ps(self, other) }
    }
}

impl Vector for __m256 {
    #[inline(always)]
    fn prefetch(address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
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

/// Calls `$block::<R, P>`, of P panels, on blocks of `$most` rows, and of what is left at the end.
macro_rules! by_rows {
    ($block:ident, $panels:literal, $most:literal, [$($rows:literal)*], $size:expr, $a:expr, $b:expr, $c:expr, $accumulate:expr) => {{
        let ((rows, depth), a, b, c) = ($size, $a, $b, $c);
        let mut at = 0;
        while at < rows {
            // Two blocks of about one size keep more sums in flight than a full one and a rest.
            let left = rows - at;
            let take = if left >= 2 * $most || left == $most { $most } else if left > $most { left.div_ceil(2) } else { left };
            let a = Rows { start: a.start.wrapping_add(at * a.row), ..a };
            let c = c.from(0, at);
            match take {
                $($rows => $block::<$rows, $panels>(depth, a, b, c, $accumulate),)*
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
        panels: usize,
        a: Rows,
        b: Panels<*const f32>,
        c: Panels<*mut f32>,
        accumulate: bool,
    ) {
        for panel in 0..panels {
            let (b, c) = (b.from(panel), c.from(panel, 0));
            // SAFETY: the blocks cover the rows of `a` and `c`, which are as the caller vouches; see above for the level.
            unsafe { by_rows!(block256, 1, 6, [1 2 3 4 5 6], size, a, b, c, accumulate) }
        }
    }
}

impl Isa for Avx512 {
    type V = __m256;
    type Wide = __m512;
    const IS_WIDE: bool = true;

    #[inline(always)]
    unsafe fn product(
        size: (usize, usize),
        panels: usize,
        a: Rows,
        b: Panels<*const f32>,
        c: Panels<*mut f32>,
        accumulate: bool,
    ) {
        let mut panel = 0;
        while panel < panels {
            let (b, c) = (b.from(panel), c.from(panel, 0));
            // SAFETY: as above.
            unsafe {
                panel += match panels - panel {
                    4.. => {
                        by_rows!(block512, 4, 5, [1 2 3 4 5], size, a, b, c, accumulate);
                        4
                    }
                    2.. => {
                        by_rows!(block512, 2, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], size, a, b, c, accumulate);
                        2
                    }
                    _ => {
                        by_rows!(block512, 1, 16, [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16], size, a, b, c, accumulate);
                        1
                    }
                };
            }
        }
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

/// R rows of the product of P panels, which is one, summed in registers.
#[target_feature(enable = "avx2,fma")]
unsafe fn block256<const R: usize, const P: usize>(
    depth: usize,
    a: Rows,
    b: Panels<*const f32>,
    c: Panels<*mut f32>,
    accumulate: bool,
) {
    const { assert!(P == 1) };
    // SAFETY: R rows of `a` and `c`, `depth` columns of `a` and rows of `b`, as the caller of `product` vouches.
    unsafe {
        let (mut low, mut high) = ([_mm256_setzero_ps(); 16], [_mm256_setzero_ps(); 16]);
        // One pointer for every third row: the others are one and two rows on, which addresses can say.
        let mut starts = [a.start, a.start.wrapping_add(3 * a.row)];
        let mut from = b.start;
        for _ in 0..depth {
            let (b_low, b_high) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.wrapping_add(8)));
            rows!(R: I => {
                let a = _mm256_broadcast_ss(&*starts[I / 3 % 2].wrapping_add(I % 3 * a.row));
                low[I] = _mm256_fmadd_ps(a, b_low, low[I]);
                high[I] = _mm256_fmadd_ps(a, b_high, high[I]);
            });
            starts[0] = starts[0].wrapping_add(a.column);
            starts[1] = starts[1].wrapping_add(a.column);
            from = from.wrapping_add(b.row);
        }
        rows!(R: I => {
            let c = c.from(0, I).start;
            if accumulate {
                low[I] = _mm256_add_ps(low[I], _mm256_loadu_ps(c));
                high[I] = _mm256_add_ps(high[I], _mm256_loadu_ps(c.add(8)));
            }
            _mm256_storeu_ps(c, low[I]);
            _mm256_storeu_ps(c.add(8), high[I]);
        });
    }
}

/// Fetches the cache line at any address to a first-level cache.
#[inline(always)]
fn fetch(address: *const f32) {
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// How many steps of the depth ahead rows that lie apart are fetched.
const AHEAD: usize = 8;

/// R rows of the products of P panels, summed in registers. Each number of `a` is loaded for P multiplications: with one, loads take longer
/// than sums on Intel's Ice Lake. Four panels are of large matrices, which come from far: what comes next of them is fetched meanwhile.
#[target_feature(enable = "avx512f")]
unsafe fn block512<const R: usize, const P: usize>(
    depth: usize,
    a: Rows,
    b: Panels<*const f32>,
    c: Panels<*mut f32>,
    accumulate: bool,
) {
    const { assert!(PANEL == 16) };
    // SAFETY: as in `block256`, of P panels; what is fetched need not be valid.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); P]; 16];
        let mut starts = [a.start; 6];
        rows!(R: I => starts[I / 3] = a.start.wrapping_add(I / 3 * 3 * a.row));
        let mut from = b.start;
        let (mut next, mut column) = (a.start.wrapping_add(R * a.row), 0);
        for _ in 0..depth {
            if P == 4 {
                if a.column == 1 {
                    // Rows are contiguous: those below, line by line.
                    fetch(next.wrapping_add(column));
                    column += 16;
                    if column >= depth {
                        (next, column) = (next.wrapping_add(a.row), 0);
                    }
                } else {
                    fetch(starts[0].wrapping_add(AHEAD * a.column));
                    rows!(P: J => fetch(from.wrapping_add(AHEAD * b.row + J * b.panel)));
                }
            }
            let mut right = [_mm512_setzero_ps(); P];
            rows!(P: J => right[J] = _mm512_loadu_ps(from.wrapping_add(J * b.panel)));
            rows!(R: I => {
                let left = _mm512_set1_ps(*starts[I / 3].wrapping_add(I % 3 * a.row));
                rows!(P: J => sums[I][J] = _mm512_fmadd_ps(left, right[J], sums[I][J]));
            });
            rows!(R: I => if I.is_multiple_of(3) {
                starts[I / 3] = starts[I / 3].wrapping_add(a.column);
            });
            from = from.wrapping_add(b.row);
        }
        rows!(R: I => {
            rows!(P: J => {
                let c = c.from(J, I).start;
                if accumulate {
                    sums[I][J] = _mm512_add_ps(sums[I][J], _mm512_loadu_ps(c));
                }
                _mm512_storeu_ps(c, sums[I][J]);
            });
        });
    }
}
