//! A variational autoencoder's diagonal Gaussian: how far it lies from the standard normal distribution, and samples of it.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use candle_core::{Result, Tensor};

use crate::activation::exp_negative;
use crate::check;
use crate::kernel::{by_candle, has_kernel, map, map2, node, sum2, values, wide};

/// Kullback-Leibler divergence of the normal distributions of means and logarithms of variances `(n, ...)` from the standard one: the
/// sum of `-(1 + v - m^2 - exp(v)) / 2` over each sample's latent dimensions, and the mean of these sums over the batch (Kingma and
/// Welling 2014, appendix B).
///
/// # Errors
/// Empty or mismatching arguments, and ones without a dimension for the batch.
pub fn gaussian_kl(mean: &Tensor, log_variance: &Tensor) -> Result<Tensor> {
    const OP: &str = "gaussian_kl";
    let [mean, log_variance] = [&wide(mean)?, &wide(log_variance)?];
    check::not_empty(OP, "mean", mean)?;
    check::same_shape(OP, "log_variance", log_variance, mean)?;
    let Some(&n) = mean.dims().first() else { check::refuse!("{OP}: mean has shape [], not (n, ...)") };
    let n = n as f64;
    if !has_kernel(mean) {
        return by_candle(OP, &[mean, log_variance], move |x| {
            let excess = ((x[1].exp()? - &x[1])? - 1.)?;
            ((x[0].sqr()? + excess)?.sum_all()? * 0.5)? / n
        });
    }
    let [mean, log_variance] = [mean.contiguous()?, log_variance.contiguous()?];
    let total = sum2(&values(&mean)?, &values(&log_variance)?, |m, v| m * m + excess(v));
    let (m, v) = (mean.detach(), log_variance.detach());
    node(OP, &[&mean, &log_variance], vec![(0.5 * total / n) as f32], (), move |pass| {
        let scale = (f64::from(pass.gradient.to_scalar::<f32>()?) / n) as f32;
        let [for_mean, for_log_variance, ..] = pass.needed;
        let tensor = |gradient: Vec<f32>| Tensor::from_vec(gradient, m.shape(), m.device());
        let for_mean = for_mean.then(|| tensor(map(&values(&m)?, move |m| m * scale)));
        let for_log_variance =
            for_log_variance.then(|| tensor(map(&values(&v)?, move |v| (excess(v) + v) * (0.5 * scale))));
        Ok([for_mean.transpose()?, for_log_variance.transpose()?, None])
    })
}

/// A sample of each of these distributions, `mean + exp(log_variance / 2) noise`, all of one shape, for `noise` drawn from the standard
/// normal distribution: so the gradient reaches mean and variance (Kingma and Welling 2014, section 2.4). None flows to the noise.
///
/// # Errors
/// Empty or mismatching arguments.
pub fn reparameterize(mean: &Tensor, log_variance: &Tensor, noise: &Tensor) -> Result<Tensor> {
    const OP: &str = "reparameterize";
    let [mean, log_variance] = [&wide(mean)?, &wide(log_variance)?];
    check::not_empty(OP, "mean", mean)?;
    check::same_shape(OP, "log_variance", log_variance, mean)?;
    check::same_shape(OP, "noise", noise, mean)?;
    let noise = noise.detach();
    if !has_kernel(mean) {
        return by_candle(OP, &[mean, log_variance], move |x| &x[0] + ((&x[1] * 0.5)?.exp()? * &noise)?);
    }
    let [mean, log_variance, noise] = [mean.contiguous()?, log_variance.contiguous()?, noise.contiguous()?];
    let deviation = map2(&values(&log_variance)?, &values(&noise)?, |v, noise| exp(0.5 * v) * noise);
    let sample = map2(&values(&mean)?, &deviation, |m, deviation| m + deviation);
    node(OP, &[&mean, &log_variance], sample, mean.shape(), move |pass| {
        let [for_mean, for_log_variance, ..] = pass.needed;
        let for_log_variance = for_log_variance.then(|| {
            let gradient = map2(&values(pass.gradient)?, &deviation, |gradient, deviation| 0.5 * gradient * deviation);
            Tensor::from_vec(gradient, pass.gradient.shape(), pass.gradient.device())
        });
        // A copy: gradients of other uses are added to it in place.
        let for_mean = for_mean.then(|| pass.gradient.copy());
        Ok([for_mean.transpose()?, for_log_variance.transpose()?, None])
    })
}

/// `exp(x)`, to 3 units in the last place.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let e = exp_negative(-x.abs());
    if x > 0. { 1. / e } else { e }
}

/// `exp(x) - 1 - x`, to a few units in the last place: near 0 by its series, where the difference would have no digits left.
#[inline(always)]
fn excess(x: f32) -> f32 {
    // 1 / k! for k from 10 down to 2; the first term left out is below 1e-9 of the sum.
    let mut p = 2.755_732e-7;
    for coefficient in [
        2.755_731_9e-6,
        2.480_158_7e-5,
        1.984_127e-4,
        1.388_888_9e-3,
        8.333_334e-3,
        4.166_666_8e-2,
        1.666_666_7e-1,
        0.5,
    ] {
        p = p * x + coefficient;
    }
    let far = exp(x) - 1. - x;
    if x.abs() < 0.75 { p * x * x } else { far }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{gaussian_kl, reparameterize};
    use crate::verify::{self, Case, draw, refusal, values};

    #[test]
    fn agree_with_pytorch() {
        for case in Case::of_losses("gaussian_kl") {
            case.check(&["mean", "log_variance"], &|inputs| gaussian_kl(&inputs[0], &inputs[1]));
        }
        for case in Case::of_losses("reparameterize") {
            let noise = case.tensor("noise").unwrap();
            case.check(&["mean", "log_variance"], &|inputs| {
                reparameterize(&inputs[0], &inputs[1], &noise.to_dtype(inputs[0].dtype())?)
            });
        }
    }

    #[test]
    fn hold_everywhere() {
        for shape in [vec![3, 8, 2, 2], vec![1], vec![20, 1000]] {
            let inputs = [(draw(shape.clone(), 1) * 2.).unwrap(), (draw(shape.clone(), 2) * 2.).unwrap()];
            verify::assert_op(&|inputs| gaussian_kl(&inputs[0], &inputs[1]), &inputs);
            let noise = draw(shape, 3);
            let sample = |x: &[Tensor]| reparameterize(&x[0], &x[1], &noise.to_dtype(x[0].dtype()).unwrap());
            verify::assert_op(&sample, &inputs);
            let of_variance = |x: &[Tensor]| gaussian_kl(&inputs[0].to_dtype(x[0].dtype())?, &x[0]);
            verify::assert_op(&of_variance, &inputs[1..]);
        }
    }

    #[test]
    fn it_is_a_sum_over_dimensions_and_a_mean_over_samples() {
        let mean = Tensor::new(&[[1f32, 2.], [0., 0.]], &Device::Cpu).unwrap();
        let log_variance = Tensor::new(&[[0f32, 0.], [0., 2f32.ln()]], &Device::Cpu).unwrap();
        // Halves of 1 + 4 of the means, and of 2 - 1 - ln 2 of the variance, over two samples.
        let expected = f64::midpoint(2.5, 0.5 * (1. - std::f64::consts::LN_2));
        assert!((values(&gaussian_kl(&mean, &log_variance).unwrap())[0] - expected).abs() < 1e-6);
    }

    #[test]
    fn near_the_standard_normal_distribution_digits_are_kept() {
        for x in (0..400u16).map(|i| (f32::from(i) - 200.) * 1.1e-2 * 1.5f32.powi(-i32::from(i % 13))) {
            let x64 = f64::from(x);
            let expected =
                if x.abs() < 1e-2 { x64 * x64 * (0.5 + x64 / 6. + x64 * x64 / 24.) } else { x64.exp_m1() - x64 };
            let actual = f64::from(super::excess(x));
            assert!((actual - expected).abs() <= 1e-6 * expected, "{x}: {actual}, not {expected}");
        }
    }

    #[test]
    fn both_ends_and_nan() {
        for dtype in [DType::F32, DType::F64] {
            let of = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let zeros = of(&[0.]);
            assert!((values(&gaussian_kl(&zeros, &of(&[-200.])).unwrap())[0] - 99.5).abs() < 1e-4);
            assert!(values(&gaussian_kl(&of(&[f32::NAN]), &zeros).unwrap())[0].is_nan());
            assert!(values(&gaussian_kl(&zeros, &of(&[f32::NAN])).unwrap())[0].is_nan());
            assert_eq!(values(&reparameterize(&of(&[3.]), &of(&[-1000.]), &of(&[1.])).unwrap()), [3.]);
            assert!(values(&reparameterize(&zeros, &of(&[f32::NAN]), &of(&[1.])).unwrap())[0].is_nan());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let [x, other] = [draw((2, 3), 1), draw((2, 4), 1)];
        assert_eq!(refusal(gaussian_kl(&x, &other)), "gaussian_kl: log_variance has shape [2, 4], not [2, 3]");
        assert_eq!(refusal(gaussian_kl(&draw((), 1), &draw((), 1))), "gaussian_kl: mean has shape [], not (n, ...)");
        assert_eq!(refusal(reparameterize(&x, &x, &other)), "reparameterize: noise has shape [2, 4], not [2, 3]");
        let empty = draw((0, 3), 1);
        assert_eq!(refusal(gaussian_kl(&empty, &empty)), "gaussian_kl: mean is empty: its shape is [0, 3]");
    }
}
