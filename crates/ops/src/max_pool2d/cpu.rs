//! Max-pooling row by row; the place of each maximum is kept for the backward pass.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for AVX2")]

use rayon::prelude::*;

use crate::kernel::vectorised;

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
    let mut y = vec![0f32; planes * output.0 * output.1];
    let mut places = vec![0u8; y.len()];
    let rows = y.par_chunks_mut(output.1).zip(places.par_chunks_mut(output.1)).enumerate();
    rows.with_min_len(min_rows(output.1)).for_each(|(row, (y, places))| {
        let top = (row / output.0 * input.0 + row % output.0 * kernel) * input.1;
        let window_row = |i: usize| &x[top + i * input.1..][..output.1 * kernel];
        vectorised(|| match kernel {
            2 => forward_row::<2>(window_row, y, places, 2),
            _ => forward_row::<0>(window_row, y, places, kernel),
        });
    });
    (y, places)
}

/// One row of the result. `K` is the kernel where the compiler is to know it, else 0.
#[inline(always)]
fn forward_row<'a, const K: usize>(
    window_row: impl Fn(usize) -> &'a [f32],
    y: &mut [f32],
    places: &mut [u8],
    kernel: usize,
) {
    let kernel = if K > 0 { K } else { kernel };
    for (y, x) in y.iter_mut().zip(window_row(0).chunks_exact(kernel)) {
        *y = x[0];
    }
    for i in 0..kernel {
        for ((y, place), x) in y.iter_mut().zip(&mut *places).zip(window_row(i).chunks_exact(kernel)) {
            for (j, &x) in x.iter().enumerate() {
                // `>` lets the first of equals win; a NaN wins over all, also over itself.
                let wins = x > *y || x.is_nan();
                *y = if wins { x } else { *y };
                *place = if wins { (i * kernel + j) as u8 } else { *place };
            }
        }
    }
}

/// The gradient at the place of each maximum, and 0 elsewhere.
pub(super) fn backward(windows: Windows, gradient: &[f32], places: &[u8]) -> Vec<f32> {
    let Windows { kernel, input, output } = windows;
    let planes = gradient.len() / (output.0 * output.1);
    let mut x = vec![0f32; planes * input.0 * input.1];
    x.par_chunks_mut(input.1).enumerate().with_min_len(min_rows(input.1)).for_each(|(row, x)| {
        let (plane, y) = (row / input.0, row % input.0);
        let window = y / kernel;
        if window >= output.0 {
            return; // left over at the bottom
        }
        let from = (plane * output.0 + window) * output.1;
        let (gradient, places) = (&gradient[from..][..output.1], &places[from..][..output.1]);
        let first = (y % kernel * kernel) as u8;
        vectorised(|| match kernel {
            2 => backward_row::<2>(x, gradient, places, first, 2),
            _ => backward_row::<0>(x, gradient, places, first, kernel),
        });
    });
    x
}

#[inline(always)]
fn backward_row<const K: usize>(x: &mut [f32], gradient: &[f32], places: &[u8], first: u8, kernel: usize) {
    let kernel = if K > 0 { K } else { kernel };
    for (x, (&gradient, &place)) in x.chunks_exact_mut(kernel).zip(gradient.iter().zip(places)) {
        for (j, x) in x.iter_mut().enumerate() {
            *x = if usize::from(place) == usize::from(first) + j { gradient } else { 0. };
        }
    }
}

/// Rows that are worth a piece of work.
fn min_rows(width: usize) -> usize {
    (1 << 12) / width + 1
}
