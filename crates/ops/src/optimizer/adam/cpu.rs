//! Adam in one pass over parameter, gradient and moments.

use candle_core::{Result, Tensor, Var};

use super::{Factors, Single};
use crate::kernel::{chunks, chunks_mut, deal_each, lend, values, vectorised};

/// candle lends one tensor at a time for writing, so the loan of the next is taken while the last is held.
pub(super) fn adam_step(parameter: &Var, gradient: &Tensor, first: &Var, second: &Var, f: &Factors) -> Result<()> {
    let gradient = gradient.contiguous()?;
    let gradient = values(&gradient)?;
    let f = Single::from(f);
    lend(parameter, |parameter| {
        lend(first, |first| {
            lend(second, |second| {
                step(parameter, &gradient, first, second, f);
                Ok(())
            })
        })
    })
}

fn step(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], f: Single) {
    let moments = chunks_mut(first).zip(chunks_mut(second));
    let pieces = chunks_mut(parameter).zip(chunks(gradient)).zip(moments);
    deal_each(pieces, |((parameter, gradient), (first, second))| {
        vectorised(|| {
            for ((p, &g), (m, v)) in parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)) {
                let g = g * f.gradient;
                *m = *m * f.beta1 + g * f.rest1;
                *v = *v * f.beta2 + g * g * f.rest2;
                *p = *p * f.keep - f.step_size * (*m / (v.sqrt() * f.inverse_denominator + f.epsilon));
            }
        });
    });
}
