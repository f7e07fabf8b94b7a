//! The soft Dice loss: how little predicted and labelled regions overlap.

mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{Device, Result, Tensor};

use super::labels;
use super::softmax;
use crate::kernel::{by_candle, has_kernel, node, values, wide};

/// Keeps the quotient of a class that neither occurs nor is predicted from being 0 / 0; one pixel's worth.
const SMOOTH: f64 = 1.;

/// Mean of `1 - (2 I + 1) / (P + T + 1)` over the classes that occur among the labels, where over all counted pixels of the batch I is
/// the sum of a class's probabilities `softmax(logits)` at its own pixels, P that at all pixels, and T the number of its pixels.
///
/// This is the form of Sudre et al. 2017 (plain sums below the line, where Milletari et al. 2016 have sums of squares), with a smoothing
/// of 1. Logits `(n, c, h, w)`, labels `(n, h, w)` of u32 class ids or [`VOID`](crate::VOID); void pixels count for nothing. With
/// `class_weights` `(c)` the mean over the classes is weighted. A batch without a counted pixel gives 0 and a gradient of zeros.
///
/// # Errors
/// What [`cross_entropy`](crate::cross_entropy) refuses.
pub fn dice(logits: &Tensor, labels: &Tensor, class_weights: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "dice";
    let logits = &wide(logits)?;
    let class_ids = labels::checked(OP, logits, labels, class_weights)?;
    let (_, c, h, w) = logits.dims4()?;
    let counts = labels::counts(&class_ids, c);
    let shares = labels::shares(&counts, class_weights)?;
    let probabilities = softmax::of_counted(OP, logits, labels, &class_ids)?;
    if !has_kernel(logits) {
        let labels = labels.clone();
        return by_candle(OP, &[&probabilities], move |x| composed(&x[0], &labels, &counts, &shares));
    }
    let overlaps = cpu::overlaps(&values(&probabilities)?, &class_ids, c, h * w);
    let classes: Vec<Class> = overlaps
        .iter()
        .zip(counts.iter().zip(&shares))
        .map(|(&[predicted, both], (&count, &share))| Class {
            share,
            above: 2. * both + SMOOTH,
            below: predicted + count as f64 + SMOOTH,
        })
        .collect();
    let loss: f64 = classes.iter().map(|class| class.share * (1. - class.above / class.below)).sum();
    let shape = probabilities.shape().clone();
    node(OP, &[&probabilities], vec![loss as f32], (), move |pass| {
        let scale = f64::from(pass.gradient.to_scalar::<f32>()?);
        let slopes: Vec<[f32; 2]> = classes.iter().map(|class| class.slopes().map(|s| (s * scale) as f32)).collect();
        let gradient = cpu::gradient(&slopes, &class_ids, h * w);
        Ok([Some(Tensor::from_vec(gradient, &shape, pass.gradient.device())?), None, None])
    })
}

/// What a class's quotient is made of.
struct Class {
    /// Its part in the mean.
    share: f64,
    above: f64,
    below: f64,
}

impl Class {
    /// The slope of its part of the loss by its probability at other classes' pixels, and at its own.
    fn slopes(&self) -> [f64; 2] {
        let others = self.share * self.above / (self.below * self.below);
        [others, others - 2. * self.share / self.below]
    }
}

fn composed(probabilities: &Tensor, labels: &Tensor, counts: &[usize], shares: &[f64]) -> Result<Tensor> {
    let (c, dtype, device) = (counts.len(), probabilities.dtype(), probabilities.device());
    let by_class = |x: &Tensor| x.transpose(0, 1)?.contiguous()?.reshape((c, ()))?.sum(1); // (c)
    let constants = |values: &[f64]| Tensor::new(values, &Device::Cpu)?.to_dtype(dtype)?.to_device(device);
    let classes = Tensor::arange(0, c as u32, device)?.reshape((1, c, 1, 1))?;
    let own = labels.unsqueeze(1)?.broadcast_eq(&classes)?.to_dtype(dtype)?; // (n, c, h, w), 1 at a class's own pixels
    let counts: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
    let above = ((by_class(&(probabilities * own)?)? * 2.)? + SMOOTH)?;
    let below = ((by_class(probabilities)? + constants(&counts)?)? + SMOOTH)?;
    ((1. - (above / below)?)? * constants(shares)?)?.sum_all()
}
