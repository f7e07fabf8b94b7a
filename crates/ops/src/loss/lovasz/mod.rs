//! The Lovász-softmax loss: a surrogate of 1 - mean `IoU` that has a gradient.

mod cpu;
mod order;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Result, Tensor};

use super::{labels, softmax, with_gradient};
use crate::kernel::{by_candle, has_kernel, values, wide};
use order::Jaccard;

/// The Lovász-softmax loss of Berman et al. 2018 over the whole batch, as a mean over the classes that occur among the labels.
///
/// A class's errors are `1 - p` at its own pixels and `p` at all others, p being its probability `softmax(logits)`. In the order of
/// falling errors, each counts for as much as the Jaccard loss `1 - intersection / union` rises when its pixel is the next to be wrong.
/// Equal errors go in the order of their pixels. Logits `(n, c, h, w)`, labels `(n, h, w)` of u32 class ids or [`VOID`](crate::VOID);
/// void pixels are left out, and a batch without another gives 0 and a gradient of zeros.
///
/// # Errors
/// What [`cross_entropy`](crate::cross_entropy) refuses.
pub fn lovasz_softmax(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    const OP: &str = "lovasz_softmax";
    let logits = &wide(logits)?;
    let class_ids = labels::checked(OP, logits, labels, None)?;
    let (_, c, h, w) = logits.dims4()?;
    let counts = labels::counts(&class_ids, c);
    let probabilities = softmax::of_counted(OP, logits, labels, &class_ids)?;
    if !has_kernel(logits) {
        return by_candle(OP, &[&probabilities], move |x| composed(&x[0], &class_ids, &counts));
    }
    let (loss, gradient) = cpu::lovasz(&values(&probabilities)?, &class_ids, &counts, h * w);
    with_gradient(OP, &probabilities, loss, gradient)
}

/// The loss is linear in the probabilities as long as their order stays, and the slopes come from the host.
fn composed(probabilities: &Tensor, class_ids: &[u32], counts: &[usize]) -> Result<Tensor> {
    let (n, c, h, w) = probabilities.dims4()?;
    let share = labels::shares(counts, None)?.into_iter().fold(0., f64::max); // that of each class that occurs
    let p: Vec<f64> = probabilities.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let (mut slopes, mut constant) = (vec![0.; p.len()], 0.);
    for class in (0..c).filter(|&class| counts[class] > 0) {
        let mut errors: Vec<(f64, usize)> = Vec::new();
        for (at, &label) in class_ids.iter().enumerate().filter(|&(_, &label)| label != labels::VOID) {
            let p = p[(at / (h * w) * c + class) * h * w + at % (h * w)];
            errors.push((if label as usize == class { 1. - p } else { p }, at));
        }
        errors.sort_by(|(a, _), (b, _)| b.total_cmp(a)); // stable
        let mut jaccard = Jaccard::new(counts[class]);
        for (_, at) in errors {
            let is_own = class_ids[at] as usize == class;
            let rise = share * jaccard.rise(is_own);
            slopes[(at / (h * w) * c + class) * h * w + at % (h * w)] = if is_own { -rise } else { rise };
            constant += if is_own { rise } else { 0. };
        }
    }
    let slopes = Tensor::from_vec(slopes, (n, c, h, w), &Device::Cpu)?.to_dtype(probabilities.dtype())?;
    (probabilities * slopes.to_device(probabilities.device())?)?.sum_all()? + constant
}
