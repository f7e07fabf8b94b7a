//! A trial of the kernels: small tensors, with all gradients, against the composed paths in f64 on the CPU.

mod narrow;

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{Memory, Stage, address_to_write, is_narrow, moves, sums, tensors};
use crate::activation::{self, Activation};
use crate::check::refuse;
use crate::conv2d::cuda::{drawn, phases_fault};
use crate::kernel::{Order, in_f32};
use crate::loss::cuda::Kind::{self, Absolute, Charbonnier, CrossEntropy, Hinge, Mean, Squared};
use crate::loss::{self, cuda::Target};
use crate::norm::batch_norm;
use crate::optimizer::adam;
use crate::pool::max_pool2d as pool;
use crate::{AdamParameter, AdamStep, BatchStatistics, NormEval, adam_steps, batch_norm_eval, batch_norm_train};
pub(super) use narrow::fault_in_bf16;

/// How far values and gradients may be off, as a relative L2 error: some roundings of f32. What is computed wrongly is off by about 1.
const TOLERANCE: f64 = 1e-5;

/// The same where results and gradients are rounded to bf16.
const ROUNDING: f64 = 2e-2;

const EPSILON: f64 = 1e-5;

/// An op by the kernels or, without a stage, by the composed path.
type Op = dyn Fn(Option<&Stage>, &[Tensor]) -> Result<Tensor>;

/// What is wrong with the kernels on this stage, whose tensors are on `device`, if anything.
pub(super) fn fault(stage: &Stage, device: &Device) -> Option<String> {
    let words = |name: &'static str| move |error: candle_core::Error| Some(format!("{name}: {error}"));
    let fault = adam_differs(stage, device).unwrap_or_else(words("adam_step"));
    fault
        .or_else(|| norms_differ(stage, device).unwrap_or_else(words("squared_norms")))
        .or_else(|| eval_differs(stage, device).unwrap_or_else(words("batch_norm_eval")))
        .or_else(|| phases_fault(stage, device).unwrap_or_else(words("phases")))
        .or_else(|| [Order::Planes, Order::Pixels].iter().find_map(|&order| fault_in(order, stage, device)))
}

fn norms_differ(stage: &Stage, device: &Device) -> Result<Option<String>> {
    let drawn = [7usize, 1000, 1].map(|len| drawn(&[len], len as u64));
    let drawn = drawn.into_iter().collect::<Result<Vec<_>>>()?;
    let there = drawn.iter().map(|x| x.to_device(device)).collect::<Result<Vec<_>>>()?;
    for (x, norm) in drawn.iter().zip(tensors::squared_norms(stage, &there)?) {
        let expected = x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
        if (norm - expected).abs() > 1e-12 * expected || norm.is_nan() {
            return Ok(Some(format!("squared_norms: {norm}, not {expected}")));
        }
    }
    Ok(None)
}

fn eval_differs(stage: &Stage, device: &Device) -> Result<Option<String>> {
    for order in [Order::Planes, Order::Pixels] {
        let image = order.stored(&drawn(&[2, 5, 3, 1], 1)?)?.to_device(device)?;
        if let Some(fault) = eval_after_differs(stage, device, order, &image)? {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

/// A normalisation of five channels, after a bias, of what is stored in this order, f32 or bf16.
fn eval_after_differs(stage: &Stage, device: &Device, order: Order, stored: &Tensor) -> Result<Option<String>> {
    let vectors = [2, 3, 4].map(|seed| drawn(&[5], seed)).into_iter().collect::<Result<Vec<_>>>()?;
    let by = |vectors: &[Tensor], work: &dyn Fn(&Tensor, &NormEval) -> Result<Tensor>| {
        let [before, mean, weight] = vectors else { refuse!("three vectors") };
        let (running_var, epsilon) = (&mean.sqr()?, EPSILON);
        work(before, &NormEval { weight, bias: weight, running_mean: mean, running_var, epsilon })
    };
    let wide = vectors.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
    let image = order.seen(&stored.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?;
    let shape = image.dims4()?;
    let expected =
        by(&wide, &|before, norm| norm.apply(&image.broadcast_add(&before.reshape((1, 5, 1, 1))?)?, Activation::Relu))?;
    let there = vectors.iter().map(|x| x.to_device(device)).collect::<Result<Vec<_>>>()?;
    let actual = by(&there, &|before, norm| {
        let written = Memory::from(stored.storage_and_layout().0.try_clone(stored.layout())?);
        let shape = [shape.0, shape.1, shape.2, shape.3];
        batch_norm::cuda::eval_after(stage, order, (written, shape), Some(before), norm, Activation::Relu)
    })?;
    let fault = off_by(&actual, &expected, if is_narrow(&actual) { ROUNDING } else { TOLERANCE })?;
    Ok(fault.map(|fault| format!("batch_norm_eval after a convolution in {:?}: {fault}", stored.dtype())))
}

fn fault_in(order: Order, stage: &Stage, device: &Device) -> Option<String> {
    let activations = [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)];
    let [height, width] = stage.trial_size();
    for shape in [[2, 3, 5, 7], [3, 2, height, width], [5, 4, 1, 1], [1, 37, 6, 3]] {
        let images = (&shape[..], shape[1]);
        let name = format!("moves of {shape:?} in {order:?}");
        let moved = move |stage: Option<&Stage>, x: &[Tensor]| moved(order, stage, &x[0].detach(), &x[1].detach());
        if let Some(fault) = differs(&name, stage, device, &moved, images, 2, 0) {
            return Some(fault);
        }
        for kind in [activation::cuda::Kind::Tanh, activation::cuda::Kind::Sigmoid] {
            let squashed = move |stage: Option<&Stage>, x: &[Tensor]| match (stage, kind) {
                (Some(stage), _) => activation::cuda::squash(stage, kind, &order.arrange(&x[0])?),
                (None, activation::cuda::Kind::Tanh) => crate::tanh(&x[0]),
                (None, activation::cuda::Kind::Sigmoid) => crate::sigmoid(&x[0]),
            };
            let name = format!("{kind:?} of {shape:?} in {order:?}");
            if let Some(fault) = differs(&name, stage, device, &squashed, images, 1, 1) {
                return Some(fault);
            }
        }
        for kind in [Squared, Absolute, Charbonnier, CrossEntropy, Hinge, Mean] {
            let loss = move |stage: Option<&Stage>, x: &[Tensor]| loss_of(kind, stage, &order.arrange(&x[0])?);
            let name = format!("{kind:?} loss of {shape:?} in {order:?}");
            if let Some(fault) = differs(&name, stage, device, &loss, images, 1, 1) {
                return Some(fault);
            }
        }
        for activation in activations {
            let train = move |stage: Option<&Stage>, x: &[Tensor]| {
                let (x, weight, bias) = (&order.arrange(&x[0])?, &x[1], &x[2]);
                Ok(match stage {
                    Some(stage) => batch_norm::cuda::train(stage, x, weight, bias, EPSILON, activation)?.0,
                    None => batch_norm_train(x, weight, bias, EPSILON, activation)?.0,
                })
            };
            let eval = move |stage: Option<&Stage>, x: &[Tensor]| {
                let (x, weight, bias, mean, variance) =
                    (&order.arrange(&x[0])?, &x[1], &x[2], &x[3].detach(), &x[4].detach().sqr()?);
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
                Some(stage) => activation::cuda::apply(stage, activation, &order.arrange(&x[0])?),
                None => activation.apply(&x[0]),
            };
            let ops: [(&str, usize, usize, &Op); 3] =
                [("batch_norm_train", 3, 3, &train), ("batch_norm_eval", 5, 3, &eval), ("activation", 1, 1, &apply)];
            for (name, inputs, with_gradient, op) in ops {
                let name = format!("{name} of {shape:?} in {order:?}, {activation:?}");
                if let Some(fault) = differs(&name, stage, device, op, images, inputs, with_gradient) {
                    return Some(fault);
                }
            }
        }
    }
    for (shape, kernel) in [([2, 3, 6, 4], 2), ([1, 2, 11, 9], 3)] {
        let pool = move |stage: Option<&Stage>, x: &[Tensor]| match stage {
            Some(stage) => pool::cuda::max_pool2d(stage, &order.arrange(&x[0])?, kernel),
            None => crate::max_pool2d(&x[0], kernel),
        };
        let name = format!("max_pool2d of {shape:?} in {order:?} by {kernel}");
        if let Some(fault) = differs(&name, stage, device, &pool, (&shape, 0), 1, 1) {
            return Some(fault);
        }
    }
    None
}

/// The first channels of an image moved behind the others, half of that and twice the image, a bias, and sums of each channel, of which bias
/// and sums are moved a quarter of the way towards each other. Pairs of channels are moved where there are, as bf16 is.
fn moved(order: Order, stage: Option<&Stage>, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let first = if c > 2 && c.is_multiple_of(2) { 2 } else { 1 };
    let (y, sums) = if let Some(stage) = stage {
        let x = moves::arrange(stage, order, x)?;
        let parts = [moves::part(stage, order, &x, first, c - first)?, moves::part(stage, order, &x, 0, first)?];
        let y = moves::stack(stage, order, &parts)?;
        let x = if is_narrow(&y) { x } else { in_f32(&x)? };
        moves::add_to(stage, &y, &x, [0.5, 2.])?;
        moves::add_bias(stage, order, (address_to_write(&y)?, is_narrow(&y)), bias, (n, c, h * w))?;
        let sums = sums::channel_sums(stage, order, &y)?;
        let batch = BatchStatistics { mean: sums.clone(), variance: bias.detach() };
        let [nearer_bias, nearer_sums] = [bias.force_contiguous()?, sums.force_contiguous()?];
        batch_norm::cuda::move_running(stage, &batch, [&nearer_bias, &nearer_sums], 0.25)?;
        (moves::arrange(stage, Order::Planes, &y)?, (nearer_bias + (nearer_sums * 2.)?)?)
    } else {
        let moved = Tensor::cat(&[x.narrow(1, first, c - first)?, x.narrow(1, 0, first)?], 1)?;
        let y = ((moved * 0.5)? + (x * 2.)?)?.broadcast_add(&bias.reshape((1, c, 1, 1))?)?;
        let sums = y.sum((0, 2, 3))?;
        let between = |near: &Tensor, far: &Tensor| (near * 0.75)? + (far * 0.25)?;
        (y, (between(bias, &sums)? + (between(&sums, bias)? * 2.)?)?)
    };
    y.broadcast_add(&sums.reshape((1, c, 1, 1))?)
}

/// A loss of values against half of what they are, turned round, or against a constant.
fn loss_of(kind: Kind, stage: Option<&Stage>, x: &Tensor) -> Result<Tensor> {
    let target = (x.detach().contiguous()?.flip(&[2])? * 0.5)?;
    if let Some(stage) = stage {
        let target = match kind {
            Squared | Absolute | Charbonnier => Target::Each(&target),
            CrossEntropy => Target::All(0.25),
            Hinge | Mean => Target::All(-1.),
        };
        return loss::cuda::mean_of(stage, "loss", kind, x, target, 0.1);
    }
    match kind {
        Squared => loss::mse(x, &target),
        Absolute => loss::l1(x, &target),
        Charbonnier => loss::charbonnier(x, &target, 0.1),
        CrossEntropy => loss::bce_with_logits(x, 0.25),
        Hinge => loss::hinge(x, -1.),
        Mean => loss::mean(x),
    }
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
            Some(stage) => adam::cuda::adam_steps(stage, &[of], [&settings.factors(1), &settings.factors(3)])?,
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
    off_by(actual, expected, TOLERANCE)
}

fn off_by(actual: &Tensor, expected: &Tensor, tolerance: f64) -> Result<Option<String>> {
    let actual = actual.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt);
    let (error, size) = (norm(&(actual - expected)?)?, norm(expected)?);
    // Not `error > tolerance`, which NaN passes. Where one value is its own mean, nothing but rounding is left of it.
    let is_right = error <= tolerance * size.max(1e-2);
    Ok((!is_right).then(|| format!("off by {error:.1e} where the whole is {size:.1e}")))
}
