//! Max-pooling row by row; the place of each maximum is kept for the backward pass.
#![allow(unsafe_code, reason = "results are written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::kernel::{Work, vectorised_work, written};

/// Places in a window are u8.
pub(super) const LARGEST_KERNEL: usize = 16;

/// Planes of one size and the windows in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub(super) kernel: usize,
    /// (height, width) of a plane of the image.
    pub(super) input: (usize, usize),
    /// (height, width) of a plane of the result.
    pub(super) output: (usize, usize),
}

/// The maxima, and in which place (row by row) of its window each stands.
pub(super) fn forward(windows: Windows, x: &[f32]) -> (Vec<f32>, Vec<u8>) {
    let Windows { kernel, input, output } = windows;
    let planes = x.len() / (input.0 * input.1);
    let len = planes * output.0 * output.1;
    let mut places = vec![0u8; len];
    let write = |y: &mut [MaybeUninit<f32>]| {
        let rows = y.par_chunks_mut(output.1).zip(places.par_chunks_mut(output.1)).enumerate();
        by_pieces(rows, output.1).for_each(|(row, (y, places))| {
            let top = (row / output.0 * input.0 + row % output.0 * kernel) * input.1;
            let window_row = |i: usize| &x[top + i * input.1..][..output.1 * kernel];
            match kernel {
                2 => vectorised_work(Pairs { upper: window_row(0), lower: window_row(1), y, places }),
                _ => forward_row(window_row, y, places, kernel),
            }
        });
    };
    // SAFETY: the rows cover the result, and both ways write all of a row.
    let y = unsafe { written(len, write) };
    (y, places)
}

/// The maxima alone, where no gradient will be asked for.
pub(super) fn maxima(windows: Windows, x: &[f32]) -> Vec<f32> {
    let Windows { kernel, input, output } = windows;
    if kernel != 2 {
        return forward(windows, x).0;
    }
    let len = x.len() / (input.0 * input.1) * output.0 * output.1;
    let write = |y: &mut [MaybeUninit<f32>]| {
        by_pieces(y.par_chunks_mut(output.1).enumerate(), output.1).for_each(|(row, y)| {
            let top = (row / output.0 * input.0 + row % output.0 * kernel) * input.1;
            let [upper, lower] = [0, 1].map(|i| &x[top + i * input.1..][..output.1 * kernel]);
            vectorised_work(PairMaxima { upper, lower, y });
        });
    };
    // SAFETY: the rows cover the result, and `PairMaxima` writes all of a row.
    unsafe { written(len, write) }
}

/// One row of the maxima of 2x2 windows. It goes through the upper row of pixels and then through the lower one, as they lie in memory, so
/// that the processor fetches them ahead.
struct PairMaxima<'a> {
    upper: &'a [f32],
    lower: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
}

impl Work for PairMaxima<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // As in `Pairs`.
        let larger = |best: f32, x: f32| if (x > best) | x.is_nan() { x } else { best };
        for (y, upper) in self.y.iter_mut().zip(self.upper.chunks_exact(2)) {
            y.write(larger(upper[0], upper[1]));
        }
        for (y, lower) in self.y.iter_mut().zip(self.lower.chunks_exact(2)) {
            // SAFETY: written above; both rows have a pair for each result.
            let y = unsafe { y.assume_init_mut() };
            *y = larger(*y, larger(lower[0], lower[1]));
        }
    }
}

/// One row of the result of 2x2 windows, computed as in `PairMaxima`.
struct Pairs<'a> {
    upper: &'a [f32],
    lower: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
    places: &'a mut [u8],
}

impl Work for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // `>` lets the first of equals win; a NaN wins over all, also over itself. `|` leaves no jump.
        let choose = |(best, at): (f32, u32), x: f32, place: u32| {
            let wins = (x > best) | x.is_nan();
            (if wins { x } else { best }, if wins { place } else { at })
        };
        for ((y, place), upper) in self.y.iter_mut().zip(&mut *self.places).zip(self.upper.chunks_exact(2)) {
            let (best, at) = choose((upper[0], 0), upper[1], 1);
            y.write(best);
            *place = at as u8;
        }
        for ((y, place), lower) in self.y.iter_mut().zip(self.places).zip(self.lower.chunks_exact(2)) {
            // SAFETY: written above; both rows have a pair for each result.
            let y = unsafe { y.assume_init_mut() };
            let best = choose((*y, u32::from(*place)), lower[0], 2);
            let (best, at) = choose(best, lower[1], 3);
            *y = best;
            *place = at as u8;
        }
    }
}

/// One row of the result of other windows.
fn forward_row<'a>(
    window_row: impl Fn(usize) -> &'a [f32],
    y: &mut [MaybeUninit<f32>],
    places: &mut [u8],
    kernel: usize,
) {
    for (window, (y, place)) in y.iter_mut().zip(places).enumerate() {
        let mut best = window_row(0)[window * kernel];
        for i in 0..kernel {
            for (j, &x) in window_row(i)[window * kernel..][..kernel].iter().enumerate() {
                // `>` lets the first of equals win; a NaN wins over all, also over itself.
                if x > best || x.is_nan() {
                    (best, *place) = (x, (i * kernel + j) as u8);
                }
            }
        }
        y.write(best);
    }
}

/// The gradient at the place of each maximum, and 0 elsewhere.
pub(super) fn backward(windows: Windows, gradient: &[f32], places: &[u8]) -> Vec<f32> {
    let planes = gradient.len() / (windows.output.0 * windows.output.1);
    let write = |x: &mut [MaybeUninit<f32>]| {
        spread(windows, gradient, places, x, |x, value| {
            x.write(value);
        });
    };
    // SAFETY: `spread` goes to every pixel.
    unsafe { written(planes * windows.input.0 * windows.input.1, write) }
}

/// Adds to `sum` what [`backward`] gives.
pub(super) fn add_backward(windows: Windows, gradient: &[f32], places: &[u8], sum: &mut [f32]) {
    spread(windows, gradient, places, sum, |sum, value| *sum += value);
}

/// Puts to each pixel what comes back to it.
fn spread<T: Send>(
    windows: Windows,
    gradient: &[f32],
    places: &[u8],
    x: &mut [T],
    put: impl Fn(&mut T, f32) + Copy + Send + Sync,
) {
    let Windows { kernel, input, output } = windows;
    let pixels = output.0 * output.1;
    let planes = x.par_chunks_mut(input.0 * input.1).zip(gradient.par_chunks(pixels).zip(places.par_chunks(pixels)));
    by_pieces(planes, input.0 * input.1).for_each(|(x, (gradient, places))| {
        let (x, below) = x.split_at_mut(output.0 * kernel * input.1);
        // Left over at the bottom, and at the right.
        for x in below {
            put(x, 0.);
        }
        let rows = gradient.chunks_exact(output.1).zip(places.chunks_exact(output.1));
        for (x, (gradient, places)) in x.chunks_exact_mut(kernel * input.1).zip(rows) {
            for (i, x) in x.chunks_exact_mut(input.1).enumerate() {
                let (x, right) = x.split_at_mut(output.1 * kernel);
                for x in right {
                    put(x, 0.);
                }
                let first = (i * kernel) as u8;
                vectorised_work(Spread { x, gradient, places, first, kernel, put });
            }
        }
    });
}

/// A row of pixels, whose windows count from place `first` on in it.
struct Spread<'a, T, P> {
    x: &'a mut [T],
    gradient: &'a [f32],
    places: &'a [u8],
    first: u8,
    kernel: usize,
    put: P,
}

impl<T, P: Fn(&mut T, f32) + Copy> Work for Spread<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.kernel {
            2 => self.windows::<2>(),
            _ => self.windows::<0>(),
        }
    }
}

impl<T, P: Fn(&mut T, f32) + Copy> Spread<'_, T, P> {
    /// With the kernel known, if it is not 0.
    #[inline(always)]
    fn windows<const K: usize>(self) {
        let Self { x, gradient, places, first, kernel, put } = self;
        let kernel = if K > 0 { K } else { kernel };
        for (x, (&gradient, &place)) in x.chunks_exact_mut(kernel).zip(gradient.iter().zip(places)) {
            for (j, x) in x.iter_mut().enumerate() {
                // A mask where a choice would be compiled to a jump.
                let chosen = 0u32.wrapping_sub(u32::from(u32::from(place) == u32::from(first) + j as u32));
                put(x, f32::from_bits(gradient.to_bits() & chosen));
            }
        }
    }
}

/// What stands for rows, or planes, of so many pixels, handed out by as many as are worth a piece of work.
fn by_pieces<I: IndexedParallelIterator>(rows: I, pixels: usize) -> impl IndexedParallelIterator<Item = I::Item> {
    let rows_of_piece = (1 << 12) / pixels + 1;
    rows.with_max_len(rows_of_piece).with_min_len(rows_of_piece)
}
