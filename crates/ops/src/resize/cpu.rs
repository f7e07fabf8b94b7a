//! Resampling plane by plane: rows along the width first, which neighbouring rows of the result share, then between rows.
#![allow(unsafe_code, reason = "results are written without being zeroed first")]

use std::mem::MaybeUninit;

use super::Axis;
use crate::kernel::{Scratch, deal_each, vectorised, written};

pub(super) fn forward(x: &[f32], input: (usize, usize), vertical: &Axis, horizontal: &Axis) -> Vec<f32> {
    let (height, width) = (vertical.from.len(), horizontal.from.len());
    let len = x.len() / (input.0 * input.1) * height * width;
    let write = |y: &mut [MaybeUninit<f32>]| {
        deal_each(y.chunks_mut(height * width).zip(x.chunks(input.0 * input.1)), |(y, x)| {
            let mut mixed = Mixed::new(x, input.1, horizontal);
            for (y, (top, bottom, below)) in y.chunks_exact_mut(width).zip(vertical.steps()) {
                let [top, bottom] = mixed.rows(top, if below == 0. { top } else { bottom });
                vectorised(|| {
                    for (y, (&top, &bottom)) in y.iter_mut().zip(top.iter().zip(bottom)) {
                        y.write(mix(top, bottom, below));
                    }
                });
            }
        });
    };
    // SAFETY: every row of every plane is written to whole.
    unsafe { written(len, write) }
}

/// A pixel that the mix leaves out leaves no NaN in it.
#[inline(always)]
#[allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]
fn mix(a: f32, b: f32, weight: f32) -> f32 {
    if weight == 0. { a } else { (1. - weight) * a + weight * b }
}

/// The last two rows of a plane that were resampled along the width.
struct Mixed<'a> {
    x: &'a [f32],
    width: usize,
    horizontal: &'a Axis,
    numbers: [Option<usize>; 2],
    values: Scratch,
}

impl<'a> Mixed<'a> {
    fn new(x: &'a [f32], width: usize, horizontal: &'a Axis) -> Self {
        Self { x, width, horizontal, numbers: [None; 2], values: Scratch::new(2 * horizontal.from.len()) }
    }

    /// Two rows, which may be the same. Rows are asked for from the top down.
    fn rows(&mut self, top: usize, bottom: usize) -> [&[f32]; 2] {
        let places = [top, bottom].map(|row| {
            // Of two rows, one is the other or below it.
            let known = self.numbers.iter().position(|&number| number == Some(row));
            known.unwrap_or_else(|| {
                let place = usize::from(self.numbers[0] > self.numbers[1]);
                self.resample(row, place);
                place
            })
        });
        let halves = self.values.split_at(self.horizontal.from.len());
        places.map(|place| if place == 0 { halves.0 } else { halves.1 })
    }

    fn resample(&mut self, row: usize, place: usize) {
        let x = &self.x[row * self.width..][..self.width];
        let len = self.horizontal.from.len();
        for (y, (left, right, after)) in self.values[place * len..][..len].iter_mut().zip(self.horizontal.steps()) {
            *y = mix(x[left], x[right], after);
        }
        self.numbers[place] = Some(row);
    }
}

pub(super) fn backward(gradient: &[f32], input: (usize, usize), vertical: &Axis, horizontal: &Axis) -> Vec<f32> {
    let width = horizontal.from.len();
    let size = vertical.from.len() * width;
    let planes = gradient.len() / size;
    let mut x = vec![0.; planes * input.0 * input.1];
    deal_each(x.chunks_mut(input.0 * input.1).zip(gradient.chunks(size)), |(x, gradient)| {
        let mut sums = Sums::new(x, input.1, horizontal);
        for (gradient, (top, bottom, below)) in gradient.chunks_exact(width).zip(vertical.steps()) {
            sums.add(top, gradient, 1. - below);
            // As in `mix`, a row of no weight gets no NaN.
            if below != 0. {
                sums.add(bottom, gradient, below);
            }
        }
        sums.finish();
    });
    x
}

/// Gradients of rows of a plane that are not summed up yet: of the last row and the one above it, as wide as the result.
struct Sums<'a> {
    x: &'a mut [f32],
    width: usize,
    horizontal: &'a Axis,
    numbers: [Option<usize>; 2],
    values: Scratch,
}

impl<'a> Sums<'a> {
    fn new(x: &'a mut [f32], width: usize, horizontal: &'a Axis) -> Self {
        Self { x, width, horizontal, numbers: [None; 2], values: Scratch::new(2 * horizontal.from.len()) }
    }

    /// Adds to a row. Rows come from the top down, two of them in turns.
    fn add(&mut self, row: usize, gradient: &[f32], weight: f32) {
        let len = gradient.len();
        let known = self.numbers.iter().position(|&number| number == Some(row));
        let place = known.unwrap_or_else(|| {
            let place = usize::from(self.numbers[0] > self.numbers[1]);
            self.spread(place);
            self.numbers[place] = Some(row);
            self.values[place * len..][..len].fill(0.);
            place
        });
        let sums = &mut self.values[place * len..][..len];
        vectorised(|| sums.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += gradient * weight));
    }

    /// Adds a row's sums to the pixels that they are of.
    fn spread(&mut self, place: usize) {
        let Some(row) = self.numbers[place] else { return };
        let x = &mut self.x[row * self.width..][..self.width];
        let len = self.horizontal.from.len();
        for (&sum, (left, right, after)) in self.values[place * len..][..len].iter().zip(self.horizontal.steps()) {
            x[left] += sum * (1. - after);
            if after != 0. {
                x[right] += sum * after;
            }
        }
    }

    fn finish(mut self) {
        self.spread(0);
        self.spread(1);
    }
}
