//! Resampling plane by plane.

use rayon::prelude::*;

use super::Axis;

pub(super) fn forward(x: &[f32], input: (usize, usize), vertical: &Axis, horizontal: &Axis) -> Vec<f32> {
    let width = horizontal.from.len();
    let planes = x.len() / (input.0 * input.1);
    let mut y = vec![0.; planes * vertical.from.len() * width];
    y.par_chunks_mut(vertical.from.len() * width).zip(x.par_chunks(input.0 * input.1)).for_each(|(y, x)| {
        for (y, (top, bottom, below)) in y.chunks_exact_mut(width).zip(vertical.steps()) {
            let top = &x[top * input.1..][..input.1];
            let bottom = &x[bottom * input.1..][..input.1];
            for (y, (left, right, after)) in y.iter_mut().zip(horizontal.steps()) {
                *y = mix(mix(top[left], top[right], after), mix(bottom[left], bottom[right], after), below);
            }
        }
    });
    y
}

/// A pixel that the mix leaves out leaves no NaN in it.
fn mix(a: f32, b: f32, weight: f32) -> f32 {
    if weight == 0. { a } else { (1. - weight) * a + weight * b }
}

pub(super) fn backward(gradient: &[f32], input: (usize, usize), vertical: &Axis, horizontal: &Axis) -> Vec<f32> {
    let width = horizontal.from.len();
    let size = vertical.from.len() * width;
    let planes = gradient.len() / size;
    let mut x = vec![0.; planes * input.0 * input.1];
    x.par_chunks_mut(input.0 * input.1).zip(gradient.par_chunks(size)).for_each(|(x, gradient)| {
        for (gradient, (top, bottom, below)) in gradient.chunks_exact(width).zip(vertical.steps()) {
            let (top, bottom) = (top * input.1, bottom * input.1);
            for (&gradient, (left, right, after)) in gradient.iter().zip(horizontal.steps()) {
                let mut row = |start: usize, gradient: f32| {
                    x[start + left] += gradient * (1. - after);
                    if after != 0. {
                        x[start + right] += gradient * after;
                    }
                };
                // As in `mix`, a pixel of no weight gets no NaN.
                row(top, gradient * (1. - below));
                if below != 0. {
                    row(bottom, gradient * below);
                }
            }
        }
    });
    x
}
