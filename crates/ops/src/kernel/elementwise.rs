//! Loops over flat memory: in parallel by chunks of one size, so that sums have one order for any number of threads.
#![allow(
    unsafe_code,
    reason = "vectors are filled without being zeroed first, and compiled for what the processor has"
)]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use super::deal::{deal_each, dealt};
#[cfg(target_arch = "x86_64")]
use super::simd::Level;
use super::sums::sums_of_pairs;
use super::values::has_kernel;

/// Elements of one piece of work.
pub(crate) const CHUNK: usize = 1 << 14;

/// A slice cut into pieces of work.
pub(crate) fn chunks<T>(x: &[T]) -> impl Iterator<Item = &[T]> {
    x.chunks(CHUNK)
}

/// [`chunks`] to be written.
pub(crate) fn chunks_mut<T>(x: &mut [T]) -> impl Iterator<Item = &mut [T]> {
    x.chunks_mut(CHUNK)
}

/// Does `work` for each of many tensors, side by side. Those that are not ours to compute are done one after the other by the caller: on a device
/// each thread may have an order of its own, and none among threads.
pub(crate) fn for_each<T: Sync>(
    all: &[T],
    tensor: impl Fn(&T) -> &Tensor,
    work: impl Fn(&T) -> Result<()> + Send + Sync,
) -> Result<()> {
    if all.iter().all(|one| has_kernel(tensor(one))) {
        dealt(all, work).collect()
    } else {
        all.iter().try_for_each(work)
    }
}

/// Work with loops. A closure's body is inlined where the compiler likes, this one's, if `run` is `#[inline(always)]`, for sure.
pub(crate) trait Work {
    /// What it gives.
    type Output;
    /// Does it.
    fn run(self) -> Self::Output;
}

struct Closure<F>(F);

impl<R, F: FnOnce() -> R> Work for Closure<F> {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        (self.0)()
    }
}

/// How many of the best levels loops pass over, in a test that all give the same bits.
#[cfg(test)]
static PASSED_OVER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Does `work` once for each level below the best, with loops compiled for it. No two tests do so at once.
#[cfg(test)]
pub(crate) fn at_lesser_levels(mut work: impl FnMut()) {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for passed_over in 1..super::simd::Level::all().len() {
        PASSED_OVER.store(passed_over, std::sync::atomic::Ordering::Relaxed);
        work();
    }
    PASSED_OVER.store(0, std::sync::atomic::Ordering::Relaxed);
}

/// The level that loops are compiled for.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn level() -> Level {
    #[cfg(test)]
    if let passed_over @ 1.. = PASSED_OVER.load(std::sync::atomic::Ordering::Relaxed) {
        return Level::all().into_iter().rev().nth(passed_over).unwrap_or(Level::Portable);
    }
    Level::chosen()
}

/// Does `work` in a copy that is compiled for the chosen level, alone: what it becomes does not depend on what is around it. Products and sums
/// are not fused, so that all copies have the same bits.
#[inline(always)]
pub(crate) fn vectorised_work<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn avx2<W: Work>(work: W) -> W::Output {
            work.run()
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512vl,avx512dq")]
        fn avx512<W: Work>(work: W) -> W::Output {
            work.run()
        }
        match level() {
            Level::Portable => {}
            // SAFETY: `Level::all` makes this level only where the processor has these instructions.
            Level::Avx2 => return unsafe { avx2(work) },
            // SAFETY: as above.
            Level::Avx512 => return unsafe { avx512(work) },
        }
    }
    work.run()
}

/// As [`vectorised_work`], for a closure of a single simple loop.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    vectorised_work(Closure(work))
}

/// A vector that `write` fills, without being zeroed first.
///
/// # Safety
/// `write` has to write every element.
pub(crate) unsafe fn written<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values: Vec<T> = Vec::with_capacity(len);
    // Bits of NaN, which show where nothing is written.
    #[cfg(test)]
    // SAFETY: the capacity is at least `len`.
    unsafe {
        values.as_mut_ptr().write_bytes(0xff, len);
    }
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller says that each element is written.
    unsafe { values.set_len(len) };
    values
}

/// `f` of each element. What `f` captures by value (`move`) stays in registers; behind a reference it would be read again
/// for each element, and keep the loop from being vectorised.
pub(crate) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync + Copy) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        deal_each(chunks_mut(out).zip(chunks(x)), |(out, x)| {
            vectorised(move || {
                for (out, &x) in out.iter_mut().zip(x) {
                    out.write(f(x));
                }
            });
        });
    };
    // SAFETY: the chunks cover `out` and `x`, which are of one length.
    unsafe { written(x.len(), write) }
}

/// `f` of each pair of elements of two slices of one length; see [`map`].
pub(crate) fn map2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Copy) -> Vec<f32> {
    assert_eq!(x.len(), y.len());
    let write = |out: &mut [MaybeUninit<f32>]| {
        deal_each(chunks_mut(out).zip(chunks(x).zip(chunks(y))), |(out, (x, y))| {
            vectorised(move || {
                for (out, (&x, &y)) in out.iter_mut().zip(x.iter().zip(y)) {
                    out.write(f(x, y));
                }
            });
        });
    };
    // SAFETY: the chunks cover `out`, `x` and `y`, which are of one length.
    unsafe { written(x.len(), write) }
}

/// Each element of `y` becomes `f` of it and of that of `x`, of the same length; see [`map`].
pub(crate) fn update(y: &mut [f32], x: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Copy) {
    assert_eq!(y.len(), x.len());
    deal_each(chunks_mut(y).zip(chunks(x)), |(y, x)| {
        vectorised(move || {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(*y, x);
            }
        });
    });
}

/// Multiplies each element.
pub(crate) fn scale_by(x: &mut [f32], factor: f32) {
    deal_each(chunks_mut(x), |x| vectorised(|| x.iter_mut().for_each(|x| *x *= factor)));
}

/// The sum of `f` over all pairs of elements of two slices of one length; see [`sums_of_pairs`].
pub(crate) fn sum2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Copy) -> f64 {
    assert_eq!(x.len(), y.len());
    dealt(chunks(x).zip(chunks(y)), |(x, y)| vectorised_work(Sum { x, y, f })).sum()
}

struct Sum<'a, F> {
    x: &'a [f32],
    y: &'a [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32 + Copy> Work for Sum<'_, F> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let f = self.f;
        sums_of_pairs(self.x, self.y, move |x, y| [f(x, y)])[0]
    }
}

/// Elements that are summed side by side.
const LANES: usize = 8;

/// Sums over two slices of one length, `LANES` of them side by side so that they vectorise.
#[inline(always)]
pub(crate) fn lanes2<const S: usize>(x: &[f32], y: &[f32], add: impl Fn(&mut [f64; S], f32, f32)) -> [f64; S] {
    let mut sums = [[0f64; S]; LANES];
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = x.remainder().iter().zip(y.remainder());
    for (x, y) in x.zip(y) {
        for lane in 0..LANES {
            add(&mut sums[lane], x[lane], y[lane]);
        }
    }
    for (sums, (&x, &y)) in sums.iter_mut().zip(rest) {
        add(sums, x, y);
    }
    std::array::from_fn(|s| sums.iter().map(|lane| lane[s]).sum())
}
