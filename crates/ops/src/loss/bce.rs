//! Binary cross-entropy of logits against one constant target.

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda::{self, Kind, Target};
use crate::activation::{exp_negative, ln_normal, minus_absolute, sigmoid_of};
use crate::check;
#[cfg(feature = "cuda")]
use crate::cuda::Stage;
use crate::kernel::{by_candle, has_kernel, map, node, sum2, values, wide};

/// Mean of `-(target log s + (1 - target) log (1 - s))` with `s = sigmoid(logits)`, any shape; `target` in 0..=1.
///
/// Computed as `max(z, 0) - z target + log(1 + exp(-|z|))`, finite for every finite logit; candle-nn's takes the logarithm
/// of a sigmoid that has underflowed.
///
/// # Errors
/// Empty logits.
pub fn bce_with_logits(logits: &Tensor, target: f64) -> Result<Tensor> {
    const OP: &str = "bce_with_logits";
    let logits = &wide(logits)?;
    check::not_empty(OP, "logits", logits)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(logits) {
        return cuda::mean_of(&stage, OP, Kind::CrossEntropy, logits, Target::All(target), 0.);
    }
    if !has_kernel(logits) {
        return by_candle(OP, &[logits], move |x| composed(&x[0], target));
    }
    let logits = logits.contiguous()?;
    let count = logits.elem_count() as f64;
    let loss = {
        let (logits, target) = (values(&logits)?, target as f32);
        sum2(&logits, &logits, move |z, _| {
            let e = exp_negative(-z.abs());
            // ln(1 + e), and what rounding 1 + e has cost a small e.
            let one = 1. + e;
            (if z <= 0. { 0. } else { z }) - z * target + (ln_normal(one) + (e - (one - 1.)) / one)
        })
    };
    let input = logits.detach();
    node(OP, &[&logits], vec![(loss / count) as f32], (), move |pass| {
        let scale = (f64::from(pass.gradient.to_scalar::<f32>()?) / count) as f32;
        let gradient = map(&values(&input)?, move |z| (sigmoid_of(z) - target as f32) * scale);
        Ok([Some(Tensor::from_vec(gradient, input.shape(), input.device())?), None, None])
    })
}

fn composed(logits: &Tensor, target: f64) -> Result<Tensor> {
    let above = logits.ge(0f64)?.where_cond(logits, &logits.zeros_like()?)?;
    let tail = (minus_absolute(logits)?.exp()? + 1.)?.log()?;
    ((above - (logits * target)?)? + tail)?.mean_all()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::bce_with_logits;
    use crate::verify::{self, draw, refusal};

    #[test]
    fn holds_everywhere() {
        for target in [0., 1., 0.9] {
            for shape in [vec![3, 1, 4, 5], vec![1], vec![40_000]] {
                let logits = (draw(shape, 1) * 5.).unwrap();
                verify::assert_op(&|inputs| bce_with_logits(&inputs[0], target), &[logits]);
            }
        }
    }

    #[test]
    fn is_exact_at_both_ends() {
        for dtype in [DType::F32, DType::F64] {
            let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
            for (logit, target, loss, gradient) in
                [(100f32, 1., 0., 0.), (100., 0., 100., 1.), (-100., 1., 100., -1.), (-100., 0., 0., 0.)]
            {
                let logits = Tensor::new(&[logit], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let op = |inputs: &[Tensor]| bce_with_logits(&inputs[0], target);
                let (y, gradients) = verify::differentiate(&op, &[logits], &one);
                assert!((verify::values(&y)[0] - loss).abs() < 1e-30);
                assert!((verify::values(&gradients[0])[0] - gradient).abs() < 1e-30);
            }
        }
        let zero = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let (y, gradients) = verify::differentiate(
            &|inputs| bce_with_logits(&inputs[0], 1.),
            &[zero],
            &Tensor::ones((), DType::F32, &Device::Cpu).unwrap(),
        );
        assert!((verify::values(&y)[0] - std::f64::consts::LN_2).abs() < 1e-7);
        assert_eq!(verify::values(&gradients[0]), [-0.5]);
    }

    #[test]
    fn small_losses_keep_their_digits() {
        for i in 0..80u8 {
            let z = f32::from(i) * 0.5;
            let logits = Tensor::new(&[z], &Device::Cpu).unwrap();
            let actual = verify::values(&bce_with_logits(&logits, 1.).unwrap())[0];
            let expected = (-f64::from(z)).exp().ln_1p();
            assert!((actual - expected).abs() <= 5e-7 * expected, "{z}: {actual}, not {expected}");
        }
    }

    #[test]
    fn nan_passes_and_nothing_is_refused() {
        let nan = Tensor::new(&[f32::NAN, 0.], &Device::Cpu).unwrap();
        assert!(verify::values(&bce_with_logits(&nan, 1.).unwrap())[0].is_nan());
        let empty = Tensor::zeros((0, 1), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(refusal(bce_with_logits(&empty, 1.)), "bce_with_logits: logits is empty: its shape is [0, 1]");
    }
}
