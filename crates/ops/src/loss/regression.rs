//! Losses on values: mean squared and mean absolute error, and what lies between.

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda::{self, Kind, Target};
use crate::check::{self, refuse};
#[cfg(feature = "cuda")]
use crate::cuda::Stage;
use crate::kernel::{by_candle, has_kernel, map2, node, sum2, values, wide};

/// Mean of `(prediction - target)^2`, any shape.
///
/// # Errors
/// Empty or mismatching arguments.
pub fn mse(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let [prediction, target] = [&wide(prediction)?, &wide(target)?];
    check_pair("mse", prediction, target)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(prediction) {
        return cuda::mean_of(&stage, "mse", Kind::Squared, prediction, Target::Each(target), 0.);
    }
    if !has_kernel(prediction) {
        return by_candle("mse", &[prediction, target], |x| (&x[0] - &x[1])?.sqr()?.mean_all());
    }
    mean_of_differences("mse", prediction, target, |d| d * d, |d| 2. * d)
}

/// Mean of `|prediction - target|`, any shape; the gradient of a difference of 0 is 0 (candle's `abs` has 1).
///
/// # Errors
/// Empty or mismatching arguments.
pub fn l1(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let [prediction, target] = [&wide(prediction)?, &wide(target)?];
    check_pair("l1", prediction, target)?;
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(prediction) {
        return cuda::mean_of(&stage, "l1", Kind::Absolute, prediction, Target::Each(target), 0.);
    }
    if !has_kernel(prediction) {
        return by_candle("l1", &[prediction, target], |x| {
            let difference = (&x[0] - &x[1])?;
            let sign = difference.detach().sign()?;
            (difference * sign)?.mean_all()
        });
    }
    mean_of_differences("l1", prediction, target, f32::abs, |d| if d == 0. { d } else { 1f32.copysign(d) })
}

/// Mean of `sqrt((prediction - target)^2 + epsilon^2)`, any shape: [`l1`] with a smooth bottom of width epsilon, in Lai et al. 2017
/// (`LapSRN`) 0.001 for colours in 0..=1; the penalty is Charbonnier's (1994). It is epsilon where both agree.
///
/// # Errors
/// Empty or mismatching arguments, and an epsilon whose square is not a normal f32 above 0.
pub fn charbonnier(prediction: &Tensor, target: &Tensor, epsilon: f64) -> Result<Tensor> {
    const OP: &str = "charbonnier";
    let [prediction, target] = [&wide(prediction)?, &wide(target)?];
    check_pair(OP, prediction, target)?;
    let square = (epsilon * epsilon) as f32;
    if !(epsilon > 0. && square.is_normal()) {
        refuse!("{OP}: epsilon is {epsilon}, not a number above 0 with a square that f32 can hold");
    }
    #[cfg(feature = "cuda")]
    if let Some(stage) = Stage::of(prediction) {
        return cuda::mean_of(&stage, OP, Kind::Charbonnier, prediction, Target::Each(target), epsilon);
    }
    if !has_kernel(prediction) {
        let penalty = move |x: &[Tensor]| ((&x[0] - &x[1])?.sqr()? + epsilon * epsilon)?.sqrt()?.mean_all();
        return by_candle(OP, &[prediction, target], penalty);
    }
    let root = move |d: f32| (d * d + square).sqrt();
    mean_of_differences(OP, prediction, target, root, move |d| d / root(d))
}

fn check_pair(op: &str, prediction: &Tensor, target: &Tensor) -> Result<()> {
    check::not_empty(op, "prediction", prediction)?;
    check::same_shape(op, "target", target, prediction)
}

/// The mean of a loss of each difference, with the loss's slope.
fn mean_of_differences(
    op: &'static str,
    prediction: &Tensor,
    target: &Tensor,
    loss: impl Fn(f32) -> f32 + Sync + Copy,
    slope: impl Fn(f32) -> f32 + Send + Sync + Copy + 'static,
) -> Result<Tensor> {
    let [prediction, target] = [prediction.contiguous()?, target.contiguous()?];
    let count = prediction.elem_count() as f64;
    let total = sum2(&values(&prediction)?, &values(&target)?, move |p, t| loss(p - t));
    let (p, t) = (prediction.detach(), target.detach());
    node(op, &[&prediction, &target], vec![(total / count) as f32], (), move |pass| {
        let scale = (f64::from(pass.gradient.to_scalar::<f32>()?) / count) as f32;
        let towards = |sign: f32| {
            let gradient = map2(&values(&p)?, &values(&t)?, move |p, t| slope(p - t) * (sign * scale));
            Tensor::from_vec(gradient, p.shape(), p.device())
        };
        let [for_prediction, for_target, ..] = pass.needed;
        Ok([for_prediction.then(|| towards(1.)).transpose()?, for_target.then(|| towards(-1.)).transpose()?, None])
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Result, Tensor};

    use super::{charbonnier, l1, mse};
    use crate::verify::{self, Case, draw, refusal};

    type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

    #[test]
    fn holds_everywhere() {
        for loss in [mse as Loss, l1] {
            for shape in [vec![2, 3, 5, 4], vec![1], vec![40_000]] {
                let inputs = [draw(shape.clone(), 1), draw(shape, 2)];
                verify::assert_op(&|inputs| loss(&inputs[0], &inputs[1]), &inputs);
                verify::assert_op(&|i| loss(&i[0], &inputs[1].to_dtype(i[0].dtype())?), &inputs[..1]);
            }
        }
    }

    #[test]
    fn charbonnier_agrees_with_pytorch() {
        for case in Case::of_losses("charbonnier") {
            let epsilon = case.number("epsilon");
            case.check(&["prediction", "target"], &|inputs| charbonnier(&inputs[0], &inputs[1], epsilon));
        }
    }

    #[test]
    fn charbonnier_lies_between_both() {
        let [x, target] = [draw((3, 50), 1), draw((3, 50), 2)];
        for epsilon in [0.01, 0.5, 10.] {
            verify::assert_op(&|inputs| charbonnier(&inputs[0], &inputs[1], epsilon), &[x.clone(), target.clone()]);
        }
        let value = |epsilon| verify::values(&charbonnier(&x, &target, epsilon).unwrap())[0];
        let [absolute, squared] = [l1, mse].map(|loss| verify::values(&loss(&x, &target).unwrap())[0]);
        assert!((value(1e-6) - absolute).abs() < 1e-6);
        assert!((value(100.) - (100. + squared / 200.)).abs() < 1e-4);
        let same = verify::values(&charbonnier(&x, &x, 0.25).unwrap())[0];
        assert!((same - 0.25).abs() < 1e-7, "{same}");
        for (epsilon, text) in [(0., "0"), (-1., "-1"), (1e-30, "0.000000000000000000000000000001"), (f64::NAN, "NaN")]
        {
            let expected =
                format!("charbonnier: epsilon is {text}, not a number above 0 with a square that f32 can hold");
            assert_eq!(refusal(charbonnier(&x, &target, epsilon)), expected);
        }
    }

    #[test]
    fn no_difference_has_no_gradient() {
        for dtype in [DType::F32, DType::F64] {
            let x = Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let target = Tensor::new(&[1f32, 4.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
            for (loss, value, gradient) in [(mse as Loss, 2., [0., -2.]), (l1, 1., [0., -0.5])] {
                let (y, gradients) = verify::differentiate(&|i| loss(&i[0], &target), std::slice::from_ref(&x), &one);
                assert_eq!(verify::values(&y), [value]);
                assert_eq!(verify::values(&gradients[0]), gradient);
            }
        }
    }

    #[test]
    fn nan_passes_and_mismatches_are_refused() {
        let nan = Tensor::new(&[f32::NAN, 0.], &Device::Cpu).unwrap();
        for loss in [mse as Loss, l1, |x, target| charbonnier(x, target, 0.1)] {
            assert!(verify::values(&loss(&nan, &draw(2, 1)).unwrap())[0].is_nan());
        }
        assert_eq!(refusal(mse(&nan, &draw(3, 1))), "mse: target has shape [3], not [2]");
        assert_eq!(refusal(l1(&draw((2, 0), 1), &draw((2, 0), 1))), "l1: prediction is empty: its shape is [2, 0]");
    }
}
