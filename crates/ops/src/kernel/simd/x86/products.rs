//! Products of AVX2 and AVX-512, summed in registers.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::{Isa, Next, PANEL, Panels, Rows};
use super::{Avx2, Avx512, quarters_turned, totals256, totals512};

/// Evaluates `$block` for the rows from `$at` on, `$R` at once: `$most`, and what is left at the end.
macro_rules! by_rows {
    ($rows:expr, $most:literal, [$($number:literal)*], |$at:ident, $R:ident| $block:expr) => {{
        let (rows, mut $at) = ($rows, 0);
        while $at < rows {
            // Two blocks of about one size keep more sums in flight than a full one and a rest.
            let left = rows - $at;
            let take = if left >= 2 * $most || left == $most { $most } else if left > $most { left.div_ceil(2) } else { left };
            match take {
                $($number => {
                    const $R: usize = $number;
                    $block
                })*
                _ => {}
            }
            $at += take;
        }
    }};
}

impl Isa for Avx2 {
    type V = __m256;
    type Wide = __m256;
    const IS_WIDE: bool = false;

    #[inline(always)]
    unsafe fn product(
        (rows, depth): (usize, usize),
        panels: usize,
        a: Rows,
        b: Panels<*const f32>,
        c: Panels<*mut f32>,
        accumulate: bool,
        _: Option<Next>,
    ) {
        for panel in 0..panels {
            let (b, c) = (b.from(panel), c.from(panel, 0));
            // SAFETY: the blocks cover the rows of `a` and `c`, which are as the caller vouches; see above for the level.
            unsafe {
                by_rows!(rows, 6, [1 2 3 4 5 6], |at, R| block256::<R>(depth, a.from(at), b, c.from(0, at), accumulate));
            }
        }
    }

    #[inline(always)]
    fn totals(rows: &[[f32; PANEL]; PANEL]) -> [f32; PANEL] {
        totals256(rows)
    }
}

impl Isa for Avx512 {
    type V = __m256;
    type Wide = __m512;
    const IS_WIDE: bool = true;

    #[inline(always)]
    unsafe fn product(
        (rows, depth): (usize, usize),
        panels: usize,
        a: Rows,
        b: Panels<*const f32>,
        c: Panels<*mut f32>,
        accumulate: bool,
        next: Option<Next>,
    ) {
        let begin = if accumulate { Begin::ThenAdd } else { Begin::New };
        let whole = next.is_none() || accumulate;
        let step = if whole { depth } else { DEPTH_AT_ONCE };
        let mut panel = 0;
        while panel < panels {
            let left = panels - panel;
            let (b, c) = (b.from(panel), c.from(panel, 0));
            // SAFETY: as above.
            unsafe {
                if left >= 4 {
                    let next = if left >= 8 { Some(Next { a: 0, b: 4 * b.panel }) } else { next };
                    four_panels((rows, depth), step, a, b, c, begin, next);
                    panel += 4;
                } else if left >= 2 {
                    by_rows!(rows, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], |at, R| {
                        block512::<R, 2>(depth, a.from(at), b, c.from(0, at), begin, next);
                    });
                    panel += 2;
                } else {
                    let squares = if a.row == 1 { rows / PANEL } else { 0 };
                    for square in 0..squares {
                        square512(depth, a.from(square * PANEL), b, c.from(0, square * PANEL), begin);
                    }
                    let (a, c) = (a.from(squares * PANEL), c.from(0, squares * PANEL));
                    by_rows!(rows - squares * PANEL, 16, [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16], |at, R| {
                        block512::<R, 1>(depth, a.from(at), b, c.from(0, at), begin, next);
                    });
                    panel += 1;
                }
            }
        }
    }

    #[inline(always)]
    fn totals(rows: &[[f32; PANEL]; PANEL]) -> [f32; PANEL] {
        totals512(rows)
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

/// The address itself, of which the compiler no longer knows how far it is from others. It would go from row to row by adding the distance to
/// one address over and over, each sum after the other: with sixteen rows that takes twice as long as what is multiplied.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "the pointer is handed on, not followed")]
fn opaque(mut address: *const f32) -> *const f32 {
    // SAFETY: it does nothing.
    unsafe { asm!("/* {} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags)) };
    address
}

/// R rows of the product, summed in registers.
#[target_feature(enable = "avx2,fma")]
unsafe fn block256<const R: usize>(
    depth: usize,
    a: Rows,
    b: Panels<*const f32>,
    c: Panels<*mut f32>,
    accumulate: bool,
) {
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
            starts[0] = opaque(starts[0].wrapping_add(a.column));
            starts[1] = opaque(starts[1].wrapping_add(a.column));
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

/// What sums begin with: nothing; nothing, and what is there is added at the end; what is there, of four panels alone.
#[derive(Clone, Copy)]
enum Begin {
    New,
    ThenAdd,
    Continue,
}

/// Steps of the depth that four panels are multiplied by at once where the next product is far: so many of both factors and of those of the
/// next, each of 64 columns, have about the size of a first-level cache.
const DEPTH_AT_ONCE: usize = 64;

/// The products of four panels, `step` steps of the depth after the others.
#[inline(always)]
unsafe fn four_panels(
    (rows, depth): (usize, usize),
    step: usize,
    a: Rows,
    b: Panels<*const f32>,
    c: Panels<*mut f32>,
    begin: Begin,
    next: Option<Next>,
) {
    let mut first = 0;
    while first < depth {
        let (a, b, left) = (a.columns_from(first), b.rows_from(first), depth - first);
        let begin = if first > 0 { Begin::Continue } else { begin };
        let next = if left > step {
            Some(Next { a: step * a.column, b: step * b.row })
        } else {
            next.map(|next| next.less(first, a, b))
        };
        by_rows!(rows, 5, [1 2 3 4 5], |at, R| {
            // Each block fetches its part of `a`, and lines of one panel.
            let next = next.map(|next| Next { b: next.b.wrapping_add(at / 5 % 4 * b.panel), ..next });
            // SAFETY: as for `block512`.
            unsafe { block512::<R, 4>(left.min(step), a.from(at), b, c.from(0, at), begin, next) };
        });
        first += step;
    }
}

/// R rows of the products of P panels, summed in registers. Each number of `a` is loaded for P multiplications: with one, loads take longer
/// than sums on Intel's Ice Lake. Four panels are of large matrices, which come from far: what is multiplied next is fetched meanwhile, which
/// is the rows below of contiguous ones.
#[target_feature(enable = "avx512f")]
unsafe fn block512<const R: usize, const P: usize>(
    depth: usize,
    a: Rows,
    b: Panels<*const f32>,
    c: Panels<*mut f32>,
    begin: Begin,
    next: Option<Next>,
) {
    const { assert!(PANEL == 16) };
    // SAFETY: as in `block256`, of P panels; what is fetched need not be valid.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); P]; 16];
        if P == 4 && matches!(begin, Begin::Continue) {
            rows!(R: I => { rows!(P: J => sums[I][J] = _mm512_loadu_ps(c.from(J, I).start)); });
        }
        let mut starts = [a.start; 6];
        rows!(R: I => starts[I / 3] = a.start.wrapping_add(I / 3 * 3 * a.row));
        let mut from = b.start;
        let (mut below, mut column) = (a.start.wrapping_add(R * a.row), 0);
        for _ in 0..depth {
            if P == 4 && a.column == 1 {
                fetch(below.wrapping_add(column));
                column += 16;
                if column >= depth {
                    (below, column) = (below.wrapping_add(a.row), 0);
                }
            } else if P == 4
                && let Some(next) = next
            {
                fetch(starts[0].wrapping_add(next.a));
                fetch(from.wrapping_add(next.b));
            }
            let mut right = [_mm512_setzero_ps(); P];
            rows!(P: J => right[J] = _mm512_loadu_ps(from.wrapping_add(J * b.panel)));
            rows!(R: I => {
                let left = _mm512_set1_ps(*starts[I / 3].wrapping_add(I % 3 * a.row));
                rows!(P: J => sums[I][J] = _mm512_fmadd_ps(left, right[J], sums[I][J]));
            });
            rows!(R: I => if I.is_multiple_of(3) {
                starts[I / 3] = opaque(starts[I / 3].wrapping_add(a.column));
            });
            from = from.wrapping_add(b.row);
        }
        rows!(R: I => {
            rows!(P: J => {
                let c = c.from(J, I).start;
                if matches!(begin, Begin::ThenAdd) {
                    sums[I][J] = _mm512_add_ps(sums[I][J], _mm512_loadu_ps(c));
                }
                _mm512_storeu_ps(c, sums[I][J]);
            });
        });
    }
}

/// Quarters of a vector, and floats of a quarter.
const QUARTERS: usize = 4;

/// Sixteen rows, side by side, of the product of one panel: a quarter of them, in each quarter of a vector, times one column of each quarter of
/// the panel, so that five loads serve sixteen multiplications.
#[target_feature(enable = "avx512f")]
unsafe fn square512(depth: usize, a: Rows, b: Panels<*const f32>, c: Panels<*mut f32>, begin: Begin) {
    // SAFETY: as in `block256`, of sixteen rows.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); QUARTERS]; QUARTERS];
        let (mut lefts, mut from) = (a.start, b.start);
        for _ in 0..depth {
            let right = _mm512_loadu_ps(from);
            let rights = [
                _mm512_permute_ps::<0b00_00_00_00>(right),
                _mm512_permute_ps::<0b01_01_01_01>(right),
                _mm512_permute_ps::<0b10_10_10_10>(right),
                _mm512_permute_ps::<0b11_11_11_11>(right),
            ];
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = _mm512_broadcast_f32x4(_mm_loadu_ps(lefts.wrapping_add(i * QUARTERS)));
                for (sum, right) in sums.iter_mut().zip(rights) {
                    *sum = _mm512_fmadd_ps(left, right, *sum);
                }
            }
            lefts = lefts.wrapping_add(a.column);
            from = from.wrapping_add(b.row);
        }
        for (i, rows) in sums.into_iter().enumerate() {
            for (j, mut sum) in quarters_turned(rows).into_iter().enumerate() {
                let c = c.from(0, i * QUARTERS + j).start;
                if matches!(begin, Begin::ThenAdd) {
                    sum = _mm512_add_ps(sum, _mm512_loadu_ps(c));
                }
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}
