//! A trial of the kernels: small tensors, with all gradients, against the composed paths in f64 on the CPU.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::Stage;
use crate::activation::{self, Activation};
use crate::check::refuse;
use crate::conv2d::cuda::drawn;
use crate::norm::batch_norm;
use crate::optimizer::adam;
use crate::pool::max_pool2d as pool;
use crate::{AdamParameter, AdamStep, NormEval, adam_steps, batch_norm_eval, batch_norm_train};

/// How far values and gradients may be off, as a relative L2 error: some roundings of f32. What is computed wrongly is off by about 1.
const TOLERANCE: f64 = 1e-5;

const EPSILON: f64 = 1e-5;

/// An op by the kernels or, without a stage, by the composed path.
type Op = dyn Fn(Option<&Stage>, &[Tensor]) -> Result<Tensor>;

/// What is wrong with the kernels on this stage, whose tensors are on `device`, if anything.
pub(super) fn fault(stage: &Stage, device: &Device) -> Option<String> {
    let activations = [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)];
    for shape in [[2, 3, 5, 7], [3, 2, 37, 41], [5, 4, 1, 1]] {
        let images = (&shape[..], shape[1]);
        for activation in activations {
            let train = move |stage: Option<&Stage>, x: &[Tensor]| {
                let (x, weight, bias) = (&x[0], &x[1], &x[2]);
                Ok(match stage {
                    Some(stage) => batch_norm::cuda::train(stage, x, weight, bias, EPSILON, activation)?.0,
                    None => batch_norm_train(x, weight, bias, EPSILON, activation)?.0,
                })
            };
            let eval = move |stage: Option<&Stage>, x: &[Tensor]| {
                let (x, weight, bias, mean, variance) = (&x[0], &x[1], &x[2], &x[3].detach(), &x[4].detach().sqr()?);
                match stage {
                    Some(stage) => {
                        let norm =
                            NormEval { weight, bias, running_mean: mean, running_var: variance, epsilon: EPSILON };
                        batch_norm::cuda::eval(stage, x, &norm, activation)
                    }
                    None => batch_norm_eval(x, weight, bias, mean, variance, EPSILON, activation),
                }
            };
            let apply = move |stage: Option<&Stage>, x: &[Tensor]| match stage {
                Some(stage) => activation::cuda::apply(stage, activation, &x[0]),
                None => activation.apply(&x[0]),
            };
            let ops: [(&str, usize, usize, &Op); 3] =
                [("batch_norm_train", 3, 3, &train), ("batch_norm_eval", 5, 3, &eval), ("activation", 1, 1, &apply)];
            for (name, inputs, with_gradient, op) in ops {
                let name = format!("{name} of {shape:?}, {activation:?}");
                if let Some(fault) = differs(&name, stage, device, op, images, inputs, with_gradient) {
                    return Some(fault);
                }
            }
        }
    }
    for (shape, kernel) in [([2, 3, 6, 4], 2), ([1, 2, 11, 9], 3)] {
        let pool = move |stage: Option<&Stage>, x: &[Tensor]| match stage {
            Some(stage) => pool::cuda::max_pool2d(stage, &x[0], kernel),
            None => crate::max_pool2d(&x[0], kernel),
        };
        let name = format!("max_pool2d of {shape:?} by {kernel}");
        if let Some(fault) = differs(&name, stage, device, &pool, (&shape, 0), 1, 1) {
            return Some(fault);
        }
    }
    let words = |error: candle_core::Error| Some(format!("adam_step: {error}"));
    adam_differs(stage, device).unwrap_or_else(words)
}

/// Compares an op of an image and vectors of a number for each channel, those `with_gradient` as variables.
fn differs(
    name: &str,
    stage: &Stage,
    device: &Device,
    op: &Op,
    (image, channels): (&[usize], usize),
    inputs: usize,
    with_gradient: usize,
) -> Option<String> {
    let compare = || -> Result<Option<String>> {
        let drawn = (0..inputs).map(|at| if at == 0 { drawn(image, 1) } else { drawn(&[channels], at as u64 + 1) });
        let drawn = drawn.collect::<Result<Vec<_>>>()?;
        let of = |stage: Option<&Stage>, dtype: DType, device: &Device| -> Result<Vec<Tensor>> {
            let place = |x: &Tensor| Ok(Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?)?.into_inner());
            let inputs = drawn.iter().map(place).collect::<Result<Vec<_>>>()?;
            let y = op(stage, &inputs)?;
            let cotangent = self::drawn(y.dims(), 9)?.to_dtype(dtype)?.to_device(device)?;
            let gradients = (&y * cotangent)?.sum_all()?.backward()?;
            let mut all = vec![y.detach()];
            for x in &inputs[..with_gradient] {
                let Some(gradient) = gradients.get(x) else { refuse!("an input has no gradient") };
                all.push(gradient.clone());
            }
            Ok(all)
        };
        let (actual, expected) = (of(Some(stage), DType::F32, device)?, of(None, DType::F64, &Device::Cpu)?);
        let names = ["result", "gradient of x", "gradient of weight", "gradient of bias"];
        for (what, (actual, expected)) in names.into_iter().zip(actual.iter().zip(&expected)) {
            if let Some(fault) = off(actual, expected)? {
                return Ok(Some(format!("{name}: {what}: {fault}")));
            }
        }
        Ok(None)
    };
    compare().unwrap_or_else(|error| Some(format!("{name}: {error}")))
}

fn adam_differs(stage: &Stage, device: &Device) -> Result<Option<String>> {
    let settings = AdamStep {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-3,
        weight_decay: 0.1,
        gradient_factor: 0.5,
    };
    let after = |stage: Option<&Stage>, dtype: DType, device: &Device| -> Result<[Var; 3]> {
        let place = |x: Tensor| x.to_dtype(dtype)?.to_device(device);
        let [parameter, first, second] = [drawn(&[3, 67], 1)?, drawn(&[3, 67], 2)?, drawn(&[3, 67], 3)?.sqr()?]
            .map(|x| Var::from_tensor(&place(x)?));
        let (gradient, [parameter, first_moment, second_moment]) =
            (place(drawn(&[3, 67], 4)?)?, [parameter?, first?, second?]);
        let of = AdamParameter {
            parameter: &parameter,
            gradient: &gradient,
            first_moment: &first_moment,
            second_moment: &second_moment,
            decays: true,
        };
        match stage {
            Some(stage) => {
                let factors = settings.factors(3);
                adam::cuda::adam_step(stage, &parameter, &gradient, &first_moment, &second_moment, &factors)?;
            }
            None => adam_steps(&[of], 3, &settings)?,
        }
        Ok([parameter, first_moment, second_moment])
    };
    let (actual, expected) = (after(Some(stage), DType::F32, device)?, after(None, DType::F64, &Device::Cpu)?);
    for (what, (actual, expected)) in ["parameter", "mean", "square"].into_iter().zip(actual.iter().zip(&expected)) {
        if let Some(fault) = off(actual, expected)? {
            return Ok(Some(format!("adam_step: {what}: {fault}")));
        }
    }
    Ok(None)
}

/// How much too far it is off, if it is.
fn off(actual: &Tensor, expected: &Tensor) -> Result<Option<String>> {
    let actual = actual.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt);
    let (error, size) = (norm(&(actual - expected)?)?, norm(expected)?);
    // Not `error > tolerance`, which NaN passes. Where one value is its own mean, nothing but rounding is left of it.
    let is_right = error <= TOLERANCE * size.max(1e-2);
    Ok((!is_right).then(|| format!("off by {error:.1e} where the whole is {size:.1e}")))
}
