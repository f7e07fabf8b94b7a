//! Max-pooling row by row; the place of each maximum is kept for the backward pass.
#![allow(unsafe_code, reason = "results are written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use crate::kernel::{Work, deal_each, vectorised_work, written};

/// Pixels of a piece of work, about.
const PIECE: usize = 1 << 12;

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

impl Windows {
    /// Where the pixels of a row of windows begin, of all the planes' rows.
    #[inline(always)]
    fn top(self, row: usize) -> usize {
        (row / self.output.0 * self.input.0 + row % self.output.0 * self.kernel) * self.input.1
    }

    /// Rows of results that are worth a piece of work.
    fn rows_of_piece(self) -> usize {
        PIECE / self.output.1 + 1
    }
}

/// The maxima, and in which place (row by row) of its window each stands.
pub(super) fn forward(windows: Windows, x: &[f32]) -> (Vec<f32>, Vec<u8>) {
    let Windows { kernel, input, output } = windows;
    let len = x.len() / (input.0 * input.1) * output.0 * output.1;
    let piece = windows.rows_of_piece() * output.1;
    let write = |y: &mut [MaybeUninit<f32>], places: &mut [MaybeUninit<u8>]| {
        deal_each(y.chunks_mut(piece).zip(places.chunks_mut(piece)).enumerate(), |(at, (y, places))| {
            let first = at * windows.rows_of_piece();
            if kernel == 2 {
                return vectorised_work(Pairs { windows, x, first, y, places });
            }
            let rows = y.chunks_exact_mut(output.1).zip(places.chunks_exact_mut(output.1));
            for (row, (y, places)) in rows.enumerate() {
                let top = windows.top(first + row);
                let window_row = |i: usize| &x[top + i * input.1..][..output.1 * kernel];
                forward_row(window_row, y, places, kernel);
            }
        });
    };
    let mut places = Vec::new();
    // SAFETY: the pieces cover the result and the places, and both ways write all of a row.
    let y = unsafe { written(len, |y| places = written(len, |places| write(y, places))) };
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
        deal_each(y.chunks_mut(windows.rows_of_piece() * output.1).enumerate(), |(at, y)| {
            vectorised_work(PairMaxima { windows, x, first: at * windows.rows_of_piece(), y });
        });
    };
    // SAFETY: the pieces cover the result, and `PairMaxima` writes all of its rows.
    unsafe { written(len, write) }
}

/// Rows of the maxima of 2x2 windows, from row `first` on. It goes through each upper row of pixels and then through the lower one, as they lie in
/// memory, so that the processor fetches them ahead.
struct PairMaxima<'a> {
    windows: Windows,
    x: &'a [f32],
    first: usize,
    y: &'a mut [MaybeUninit<f32>],
}

impl Work for PairMaxima<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { windows, x, first, y } = self;
        let width = windows.output.1;
        // As in `Pairs`.
        let larger = |best: f32, x: f32| if (x > best) | x.is_nan() { x } else { best };
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            let upper = &x[windows.top(first + row)..];
            let (upper, lower) = (&upper[..2 * width], &upper[windows.input.1..][..2 * width]);
            for (y, upper) in y.iter_mut().zip(upper.as_chunks::<2>().0) {
                y.write(larger(upper[0], upper[1]));
            }
            for (y, lower) in y.iter_mut().zip(lower.as_chunks::<2>().0) {
                // SAFETY: written above; both rows have a pair for each result.
                let y = unsafe { y.assume_init_mut() };
                *y = larger(*y, larger(lower[0], lower[1]));
            }
        }
    }
}

/// Rows of the result of 2x2 windows, computed as in `PairMaxima`.
struct Pairs<'a> {
    windows: Windows,
    x: &'a [f32],
    first: usize,
    y: &'a mut [MaybeUninit<f32>],
    places: &'a mut [MaybeUninit<u8>],
}

impl Work for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { windows, x, first, y, places } = self;
        let width = windows.output.1;
        // `>` lets the first of equals win; a NaN wins over all, also over itself. `|` leaves no jump.
        let choose = |(best, at): (f32, u32), x: f32, place: u32| {
            let wins = (x > best) | x.is_nan();
            (if wins { x } else { best }, if wins { place } else { at })
        };
        for (row, (y, places)) in y.chunks_exact_mut(width).zip(places.chunks_exact_mut(width)).enumerate() {
            let upper = &x[windows.top(first + row)..];
            let (upper, lower) = (&upper[..2 * width], &upper[windows.input.1..][..2 * width]);
            for ((y, place), upper) in y.iter_mut().zip(&mut *places).zip(upper.as_chunks::<2>().0) {
                let (best, at) = choose((upper[0], 0), upper[1], 1);
                y.write(best);
                place.write(at as u8);
            }
            for ((y, place), lower) in y.iter_mut().zip(places).zip(lower.as_chunks::<2>().0) {
                // SAFETY: written above; both rows have a pair for each result.
                let (y, place) = unsafe { (y.assume_init_mut(), place.assume_init_mut()) };
                let best = choose((*y, u32::from(*place)), lower[0], 2);
                let (best, at) = choose(best, lower[1], 3);
                *y = best;
                *place = at as u8;
            }
        }
    }
}

/// One row of the result of other windows.
fn forward_row<'a>(
    window_row: impl Fn(usize) -> &'a [f32],
    y: &mut [MaybeUninit<f32>],
    places: &mut [MaybeUninit<u8>],
    kernel: usize,
) {
    for (window, (y, place)) in y.iter_mut().zip(places).enumerate() {
        let (mut best, mut at) = (window_row(0)[window * kernel], 0);
        for i in 0..kernel {
            for (j, &x) in window_row(i)[window * kernel..][..kernel].iter().enumerate() {
                // `>` lets the first of equals win; a NaN wins over all, also over itself.
                if x > best || x.is_nan() {
                    (best, at) = (x, (i * kernel + j) as u8);
                }
            }
        }
        y.write(best);
        place.write(at);
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
    let Windows { input, output, .. } = windows;
    let pixels = output.0 * output.1;
    let planes_of_piece = PIECE / (input.0 * input.1) + 1;
    let gradients = gradient.chunks(planes_of_piece * pixels).zip(places.chunks(planes_of_piece * pixels));
    let pieces = x.chunks_mut(planes_of_piece * input.0 * input.1).zip(gradients);
    deal_each(pieces, |(x, (gradient, places))| vectorised_work(Spread { windows, x, gradient, places, put }));
}

/// Some planes.
struct Spread<'a, T, P> {
    windows: Windows,
    x: &'a mut [T],
    gradient: &'a [f32],
    places: &'a [u8],
    put: P,
}

impl<T, P: Fn(&mut T, f32) + Copy> Work for Spread<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.windows.kernel {
            2 => self.planes::<2>(),
            _ => self.planes::<0>(),
        }
    }
}

impl<T, P: Fn(&mut T, f32) + Copy> Spread<'_, T, P> {
    /// With the kernel known, if it is not 0.
    #[inline(always)]
    fn planes<const K: usize>(self) {
        let Self { windows: Windows { kernel, input, output }, x, gradient, places, put } = self;
        let kernel = if K > 0 { K } else { kernel };
        let pixels = output.0 * output.1;
        let planes = gradient.chunks_exact(pixels).zip(places.chunks_exact(pixels));
        for (x, (gradient, places)) in x.chunks_exact_mut(input.0 * input.1).zip(planes) {
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
                    for (x, (&gradient, &place)) in x.chunks_exact_mut(kernel).zip(gradient.iter().zip(places)) {
                        for (j, x) in x.iter_mut().enumerate() {
                            // A mask where a choice would be compiled to a jump.
                            let chosen = 0u32.wrapping_sub(u32::from(usize::from(place) == i * kernel + j));
                            put(x, f32::from_bits(gradient.to_bits() & chosen));
                        }
                    }
                }
            }
        }
    }
}
