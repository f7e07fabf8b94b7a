//! Vectors of AVX2 and AVX-512, and in [`products`] products.
//!
//! Every `unsafe` block in here stands on the same ground: `Level::all` makes a level only where the processor has its
//! instructions, `run` alone calls work on it, and loads and stores go where the caller vouches.
#![allow(unsafe_code, reason = "the processor's own instructions, on memory that several threads fill")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "said once for all, above")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::wildcard_imports, reason = "forty instructions of one prefix")]

mod products;

use std::arch::x86_64::*;

use super::{Lanes, PANEL, Vector};

/// Of two vectors, in each half, the two low or the two high floats of both.
const LOW: i32 = 0b01_00_01_00;
const HIGH: i32 = 0b11_10_11_10;

pub(crate) struct Avx2;

/// Shuffles of AVX2; transforms and products in vectors of sixteen.
pub(crate) struct Avx512;

/// Four vectors, turned in each quarter of sixteen bytes: float i of quarter q of vector j changes places with float j of that of vector i.
macro_rules! turned {
    ($rows:expr, $low:ident, $high:ident, $shuffle:ident) => {{
        let [x, y, z, w] = $rows;
        let (low, high, next_low, next_high) = ($low(x, y), $high(x, y), $low(z, w), $high(z, w));
        [
            $shuffle::<LOW>(low, next_low),
            $shuffle::<HIGH>(low, next_low),
            $shuffle::<LOW>(high, next_high),
            $shuffle::<HIGH>(high, next_high),
        ]
    }};
}

/// The same of sixteen floats each.
#[inline(always)]
fn quarters_turned(rows: [__m512; 4]) -> [__m512; 4] {
    unsafe { turned!(rows, _mm512_unpacklo_ps, _mm512_unpackhi_ps, _mm512_shuffle_ps) }
}

/// Of four vectors, in each quarter of sixteen bytes, the total of that quarter of each.
macro_rules! totals_of_quarters {
    ($rows:expr, $low:ident, $high:ident, $shuffle:ident, $add:ident) => {{
        let [x, y, z, w] = $rows;
        let (x, z) = ($add($low(x, y), $high(x, y)), $add($low(z, w), $high(z, w)));
        $add($shuffle::<LOW>(x, z), $shuffle::<HIGH>(x, z))
    }};
}

/// [`super::Isa::totals`]. A vector's quarters come to be four rows, four apart, and then its floats.
#[inline(always)]
fn totals512(rows: &[[f32; PANEL]; PANEL]) -> [f32; PANEL] {
    let mut totals = [0.; PANEL];
    unsafe {
        let halves = |low: usize, high: usize| {
            let (low, high) = (_mm512_loadu_ps(rows[low].as_ptr()), _mm512_loadu_ps(rows[high].as_ptr()));
            _mm512_add_ps(_mm512_shuffle_f32x4::<LOW>(low, high), _mm512_shuffle_f32x4::<HIGH>(low, high))
        };
        let mut quarters = [_mm512_setzero_ps(); 4];
        for (i, quarters) in quarters.iter_mut().enumerate() {
            let (low, high) = (halves(i, i + 4), halves(i + 8, i + 12));
            let [even, odd] =
                [_mm512_shuffle_f32x4::<0b10_00_10_00>(low, high), _mm512_shuffle_f32x4::<0b11_01_11_01>(low, high)];
            *quarters = _mm512_add_ps(even, odd);
        }
        let all =
            totals_of_quarters!(quarters, _mm512_unpacklo_ps, _mm512_unpackhi_ps, _mm512_shuffle_ps, _mm512_add_ps);
        _mm512_storeu_ps(totals.as_mut_ptr(), all);
    }
    totals
}

/// The same for eight rows at a time.
#[inline(always)]
fn totals256(rows: &[[f32; PANEL]; PANEL]) -> [f32; PANEL] {
    let mut totals = [0.; PANEL];
    unsafe {
        let halves = |row: &[f32; PANEL]| {
            _mm256_add_ps(_mm256_loadu_ps(row.as_ptr()), _mm256_loadu_ps(row.as_ptr().wrapping_add(8)))
        };
        for (rows, totals) in rows.chunks_exact(8).zip(totals.chunks_exact_mut(8)) {
            let mut quarters = [_mm256_setzero_ps(); 4];
            for (i, quarters) in quarters.iter_mut().enumerate() {
                let (low, high) = (halves(&rows[i]), halves(&rows[i + 4]));
                let [even, odd] =
                    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)];
                *quarters = _mm256_add_ps(even, odd);
            }
            let all =
                totals_of_quarters!(quarters, _mm256_unpacklo_ps, _mm256_unpackhi_ps, _mm256_shuffle_ps, _mm256_add_ps);
            _mm256_storeu_ps(totals.as_mut_ptr(), all);
        }
    }
    totals
}

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
    unsafe fn load_columns(from: *const f32, row: usize) -> [Self; 4] {
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 4];
            for (i, quarters) in rows.iter_mut().enumerate() {
                let first = from.wrapping_add(i * row);
                *quarters = _mm256_set_m128(_mm_loadu_ps(first.wrapping_add(4 * row)), _mm_loadu_ps(first));
            }
            turned!(rows, _mm256_unpacklo_ps, _mm256_unpackhi_ps, _mm256_shuffle_ps)
        }
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

    #[inline(always)]
    fn join(even: Self, odd: Self) -> (Self, Self) {
        unsafe {
            let (x, y) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
            (_mm256_permute2f128_ps::<0x20>(x, y), _mm256_permute2f128_ps::<0x31>(x, y))
        }
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
    unsafe fn load_columns(from: *const f32, row: usize) -> [Self; 4] {
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 4];
            for (i, quarters) in rows.iter_mut().enumerate() {
                let first = from.wrapping_add(i * row);
                *quarters = _mm512_castps128_ps512(_mm_loadu_ps(first));
                *quarters = _mm512_insertf32x4::<1>(*quarters, _mm_loadu_ps(first.wrapping_add(4 * row)));
                *quarters = _mm512_insertf32x4::<2>(*quarters, _mm_loadu_ps(first.wrapping_add(8 * row)));
                *quarters = _mm512_insertf32x4::<3>(*quarters, _mm_loadu_ps(first.wrapping_add(12 * row)));
            }
            quarters_turned(rows)
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

    #[inline(always)]
    fn join(even: Self, odd: Self) -> (Self, Self) {
        unsafe {
            let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
            (_mm512_permutex2var_ps(even, first, odd), _mm512_permutex2var_ps(even, second, odd))
        }
    }
}

impl Vector for __m256 {
    #[inline(always)]
    fn prefetch(address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        unsafe { _mm256_stream_ps(to, self) }
    }

    #[inline(always)]
    fn fence() {
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn add_squares(self, sums: &mut [f64; 8]) {
        unsafe {
            let low = _mm256_cvtps_pd(_mm256_castps256_ps128(self));
            let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(self));
            let (first, last) = (sums.as_mut_ptr(), sums.as_mut_ptr().add(4));
            _mm256_storeu_pd(first, _mm256_fmadd_pd(low, low, _mm256_loadu_pd(first)));
            _mm256_storeu_pd(last, _mm256_fmadd_pd(high, high, _mm256_loadu_pd(last)));
        }
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
}
