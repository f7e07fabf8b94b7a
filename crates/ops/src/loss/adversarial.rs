//! Losses of a discriminator's logits beside binary cross-entropy, each against one constant.

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda::{self, Kind, Target};
use crate::check::{self, refuse};
#[cfg(feature = "cuda")]
use crate::cuda::Stage;
use crate::kernel::{by_candle, has_kernel, map, node, sum2, values, wide};

/// Mean of `(logits - target)^2`, any shape, without a half: the least squares GAN of Mao et al. 2017, where a discriminator's target
/// is 1 for real and 0 for generated samples, and the generator's is 1.
///
/// # Errors
/// Empty logits.
pub fn least_squares(logits: &Tensor, target: f64) -> Result<Tensor> {
    const OP: &str = "least_squares";
    let logits = &wide(logits)?;
    check::not_empty(OP, "logits", logits)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(logits) {
        return cuda::mean_of(&stage, OP, Kind::Squared, logits, Target::All(target), 0.);
    }
    if !has_kernel(logits) {
        return by_candle(OP, &[logits], move |x| (&x[0] - target)?.sqr()?.mean_all());
    }
    let target = target as f32;
    mean_of(OP, logits, move |x| (x - target) * (x - target), move |x| 2. * (x - target))
}

/// Mean of `max(0, 1 - sign logits)`, any shape: what a discriminator minimises with sign 1 for real and -1 for generated samples (Lim
/// and Ye 2017). The generator's loss is minus the [`mean`] of its samples' logits. The gradient where a logit is `sign` is 0.
///
/// # Errors
/// Empty logits, and a sign that is neither 1 nor -1.
pub fn hinge(logits: &Tensor, sign: f64) -> Result<Tensor> {
    const OP: &str = "hinge";
    let logits = &wide(logits)?;
    check::not_empty(OP, "logits", logits)?;
    if ![1., -1.].contains(&sign) {
        refuse!("{OP}: sign is {sign}, neither 1 nor -1");
    }
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(logits) {
        return cuda::mean_of(&stage, OP, Kind::Hinge, logits, Target::All(sign), 0.);
    }
    if !has_kernel(logits) {
        return by_candle(OP, &[logits], move |x| crate::relu(&(1. - (&x[0] * sign)?)?)?.mean_all());
    }
    let sign = sign as f32;
    // `<=` and not `>`: NaN is neither, and has to pass.
    let beyond = move |x: f32| 1. - sign * x <= 0.;
    let loss = move |x| if beyond(x) { 0. } else { 1. - sign * x };
    mean_of(OP, logits, loss, move |x| if beyond(x) { 0. } else { -sign })
}

/// Mean of all elements, any shape.
///
/// # Errors
/// An empty tensor.
pub fn mean(x: &Tensor) -> Result<Tensor> {
    let x = &wide(x)?;
    check::not_empty("mean", "x", x)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(x) {
        return cuda::mean_of(&stage, "mean", Kind::Mean, x, Target::All(0.), 0.);
    }
    if !has_kernel(x) {
        return by_candle("mean", &[x], |x| x[0].mean_all());
    }
    mean_of("mean", x, |x| x, |_| 1.)
}

/// The mean of a loss of each element, with the loss's slope.
fn mean_of(
    op: &'static str,
    x: &Tensor,
    loss: impl Fn(f32) -> f32 + Sync + Copy,
    slope: impl Fn(f32) -> f32 + Send + Sync + Copy + 'static,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let count = x.elem_count() as f64;
    let total = {
        let x = values(&x)?;
        sum2(&x, &x, move |x, _| loss(x))
    };
    let input = x.detach();
    node(op, &[&x], vec![(total / count) as f32], (), move |pass| {
        let scale = (f64::from(pass.gradient.to_scalar::<f32>()?) / count) as f32;
        let gradient = map(&values(&input)?, move |x| slope(x) * scale);
        Ok([Some(Tensor::from_vec(gradient, input.shape(), input.device())?), None, None])
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Result, Tensor};

    use super::{hinge, least_squares, mean};
    use crate::verify::{self, Case, draw, refusal, values};

    type Loss = fn(&Tensor) -> Result<Tensor>;
    const LOSSES: [Loss; 5] =
        [|x| least_squares(x, 1.), |x| least_squares(x, -0.5), |x| hinge(x, 1.), |x| hinge(x, -1.), mean];

    #[test]
    fn agree_with_pytorch() {
        for case in Case::of_losses("least_squares") {
            let target = case.number("target");
            case.check(&["logits"], &|inputs| least_squares(&inputs[0], target));
        }
        for case in Case::of_losses("hinge") {
            let sign = case.number("sign");
            case.check(&["logits"], &|inputs| hinge(&inputs[0], sign));
        }
        for case in Case::of_losses("mean") {
            case.check(&["x"], &|inputs| mean(&inputs[0]));
        }
    }

    #[test]
    fn hold_everywhere() {
        for loss in LOSSES {
            for shape in [vec![3, 1, 4, 5], vec![1], vec![40_000]] {
                verify::assert_op(&|inputs| loss(&inputs[0]), &[(draw(shape, 1) * 3.).unwrap()]);
            }
        }
    }

    #[test]
    fn a_hinge_is_shut_at_its_sign() {
        for dtype in [DType::F32, DType::F64] {
            let logits = Tensor::new(&[-2f32, -1., 0., 1., 2.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let one = Tensor::new(5f32, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            for (sign, loss, gradient) in [(1., 6. / 5., [-1., -1., -1., 0., 0.]), (-1., 6. / 5., [0., 0., 1., 1., 1.])]
            {
                let op = |inputs: &[Tensor]| hinge(&inputs[0], sign);
                let (y, gradients) = verify::differentiate(&op, std::slice::from_ref(&logits), &one);
                assert!((values(&y)[0] - loss).abs() < 1e-7);
                assert_eq!(values(&gradients[0]), gradient);
            }
        }
    }

    #[test]
    fn nan_passes_and_what_does_not_fit_is_refused_by_name() {
        let nan = Tensor::new(&[f32::NAN, 5., -5.], &Device::Cpu).unwrap();
        for loss in LOSSES {
            assert!(values(&loss(&nan).unwrap())[0].is_nan());
        }
        let empty = Tensor::zeros((0, 1), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(refusal(least_squares(&empty, 1.)), "least_squares: logits is empty: its shape is [0, 1]");
        assert_eq!(refusal(hinge(&empty, 1.)), "hinge: logits is empty: its shape is [0, 1]");
        assert_eq!(refusal(mean(&empty)), "mean: x is empty: its shape is [0, 1]");
        assert_eq!(refusal(hinge(&nan, 0.)), "hinge: sign is 0, neither 1 nor -1");
    }
}
