//! Plain Rust.
#![allow(unsafe_code, reason = "vectors are loaded from and stored to blocks of memory that several threads fill")]
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

use super::{Isa, Lanes, Next, PANEL, Panels, Rows, Vector};

/// What every processor can do.
pub(crate) struct Portable;

/// `a * b + c`, rounded once only where that is one instruction of every processor of this kind.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

impl Lanes for [f32; 8] {
    const LEN: usize = 8;

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
    unsafe fn load_columns(from: *const f32, row: usize) -> [Self; 4] {
        // SAFETY: as the caller vouches.
        std::array::from_fn(|j| std::array::from_fn(|i| unsafe { *from.add(i * row + j) }))
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
    fn mul_add_each(self, factors: Self, term: Self) -> Self {
        std::array::from_fn(|i| mul_add(self[i], factors[i], term[i]))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    fn join(even: Self, odd: Self) -> (Self, Self) {
        let at = |i: usize| if i.is_multiple_of(2) { even[i / 2] } else { odd[i / 2] };
        (std::array::from_fn(at), std::array::from_fn(|i| at(i + 8)))
    }
}

impl Vector for [f32; 8] {
    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: as the caller vouches.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    fn fence() {}

    #[inline(always)]
    fn add_squares(self, sums: &mut [f64; 8]) {
        for i in 0..8 {
            sums[i] += f64::from(self[i]) * f64::from(self[i]);
        }
    }

    #[inline(always)]
    fn transpose(rows: [Self; 8]) -> [Self; 8] {
        std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
    }

    #[inline(always)]
    fn split(low: Self, high: Self) -> (Self, Self) {
        let at = |i: usize| if i < 8 { low[i] } else { high[i - 8] };
        (std::array::from_fn(|i| at(2 * i)), std::array::from_fn(|i| at(2 * i + 1)))
    }
}

impl Isa for Portable {
    type V = [f32; 8];
    type Wide = [f32; 8];
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
        /// Sums two rows in registers.
        #[inline(always)]
        unsafe fn block<const R: usize>(depth: usize, a: Rows, b: Panels<*const f32>, c: Panels<*mut f32>, add: bool) {
            let mut sums = [[0f32; PANEL]; R];
            for k in 0..depth {
                // SAFETY: k is below the depth, and both rows are in `a`, as the caller of `product` vouches.
                let (b, a) = unsafe {
                    (b.start.add(k * b.row).cast::<[f32; PANEL]>().read_unaligned(), |i| {
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
                    let c = c.start.add(i * c.row).cast::<[f32; PANEL]>();
                    if add {
                        let before = c.read_unaligned();
                        sums.iter_mut().zip(before).for_each(|(sum, before)| *sum += before);
                    }
                    c.write_unaligned(sums);
                }
            }
        }
        for panel in 0..panels {
            for at in (0..rows).step_by(2) {
                // SAFETY: rows from `at` on, two where two are left.
                unsafe {
                    let a = Rows { start: a.start.add(at * a.row), ..a };
                    let (b, c) = (b.from(panel), c.from(panel, at));
                    if rows - at >= 2 {
                        block::<2>(depth, a, b, c, accumulate);
                    } else {
                        block::<1>(depth, a, b, c, accumulate);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn totals(rows: &[[f32; PANEL]; PANEL]) -> [f32; PANEL] {
        rows.map(|row| {
            let eight: [f32; 8] = std::array::from_fn(|i| row[i] + row[i + 8]);
            let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
            (four[0] + four[2]) + (four[1] + four[3])
        })
    }
}
