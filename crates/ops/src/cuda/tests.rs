//! The kernels in the emulator, and of the device only what cannot be seen there: `cargo test --features cuda -- --ignored cuda`.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{Stage, moves, trial};
use crate::kernel::Order;
use crate::verify::{self, draw};
use crate::{Activation, NormEval, activation, batch_norm_eval, batch_norm_train, max_pool2d, norm, pool};

const STAGE: Stage = Stage::Emulator { without: None };
const EPSILON: f64 = 1e-5;

fn train(x: &[Tensor], activation: Activation) -> Result<Tensor> {
    Ok(norm::batch_norm::cuda::train(&STAGE, &x[0], &x[1], &x[2], EPSILON, activation)?.0)
}

fn pool(x: &Tensor, side: usize) -> Result<Tensor> {
    pool::max_pool2d::cuda::max_pool2d(&STAGE, x, side)
}

#[test]
fn normalisations_hold() {
    for shape in [(2, 3, 5, 7), (1, 2, 1, 3), (3, 4, 19, 21)] {
        for activation in [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)] {
            let inputs = [((draw(shape, 1) * 2.).unwrap() + 1.).unwrap(), draw(shape.1, 2), draw(shape.1, 3)];
            let composed = |x: &[Tensor]| Ok(batch_norm_train(&x[0], &x[1], &x[2], EPSILON, activation)?.0);
            verify::assert_like_composed(|x| train(x, activation), composed, &inputs);
            let (mean, variance) = (draw(shape.1, 4), (draw(shape.1, 5) + 1.5).unwrap());
            let kernels = |x: &[Tensor]| {
                let (running_mean, running_var) = (&mean, &variance);
                let norm = NormEval { weight: &x[1], bias: &x[2], running_mean, running_var, epsilon: EPSILON };
                norm::batch_norm::cuda::eval(&STAGE, &x[0], &norm, activation)
            };
            let composed = |x: &[Tensor]| {
                let [mean, variance] = [&mean, &variance].map(|x| x.to_dtype(DType::F64).unwrap());
                batch_norm_eval(&x[0], &x[1], &x[2], &mean, &variance, EPSILON, activation)
            };
            verify::assert_like_composed(kernels, composed, &inputs);
        }
    }
}

#[test]
fn statistics_hold_far_from_zero() {
    let x = (draw((2, 3, 20, 20), 1) + 300.).unwrap();
    let [weight, bias] = [draw(3, 2), draw(3, 3)];
    let (y, statistics) = norm::batch_norm::cuda::train(&STAGE, &x, &weight, &bias, EPSILON, Activation::None).unwrap();
    let wide = [&x, &weight, &bias].map(|x| x.to_dtype(DType::F64).unwrap());
    let (expected, expected_statistics) =
        batch_norm_train(&wide[0], &wide[1], &wide[2], EPSILON, Activation::None).unwrap();
    // The mean has the digits of an f32, which is what is left of a value less it.
    verify::assert_close("result", &y, &expected, 3e-5);
    verify::assert_close("mean", &statistics.mean, &expected_statistics.mean, 1e-7);
    verify::assert_close("variance", &statistics.variance, &expected_statistics.variance, 1e-6);
}

#[test]
fn pools_hold_and_the_first_of_equals_wins() {
    for (shape, side) in [((2, 3, 6, 4), 2), ((1, 2, 11, 9), 3), ((2, 1, 5, 5), 5)] {
        verify::assert_like_composed(|x| pool(&x[0], side), |x| max_pool2d(&x[0], side), &[draw(shape, 1)]);
        let ties = draw(shape, 2).round().unwrap();
        let cotangent = Tensor::ones(pool(&ties, side).unwrap().shape(), DType::F32, &Device::Cpu).unwrap();
        let by = |op: verify::Op| verify::differentiate(op, std::slice::from_ref(&ties), &cotangent);
        let ((y, gradients), (expected, expected_gradients)) =
            (by(&|x| pool(&x[0], side)), by(&|x| max_pool2d(&x[0], side)));
        assert_eq!(verify::values(&y), verify::values(&expected));
        assert_eq!(verify::values(&gradients[0]), verify::values(&expected_gradients[0]));
    }
}

#[test]
fn what_is_not_finite_passes_as_by_the_other_paths() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0., -0., -1., 2., 1e-45, -3.];
    let x = Tensor::from_slice(&special, (1, 1, 3, 3), &Device::Cpu).unwrap();
    let bits = |x: Tensor| -> Vec<u32> {
        let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(|value| if value.is_nan() { f32::NAN } else { value + 0. }.to_bits()).collect()
    };
    for of in [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)] {
        let on = |op: verify::Op| {
            let (y, gradients) = verify::differentiate(op, std::slice::from_ref(&x), &draw((1, 1, 3, 3), 1));
            (bits(y), bits(gradients[0].clone()))
        };
        // candle knows no gradient of what is no op.
        let composed = on(&|x| if of == Activation::None { &x[0] * 1. } else { of.apply(&x[0]) });
        assert_eq!(on(&|x| activation::cuda::apply(&STAGE, of, &x[0])), composed, "{of:?}");
    }
    assert_eq!(bits(pool(&x, 3).unwrap()), bits(max_pool2d(&x, 3).unwrap()));
    let two = Tensor::cat(&[&x, &draw((1, 1, 3, 3), 1)], 1).unwrap();
    let y = train(&[two, draw(2, 2), draw(2, 3)], Activation::Relu).unwrap();
    let nan: Vec<bool> = verify::values(&y).iter().map(|y| y.is_nan()).collect();
    assert_eq!(nan, [[true; 9], [false; 9]].concat());
}

#[test]
fn stacks_hold_in_any_order() {
    let inputs = [draw((2, 3, 4, 5), 1), draw((2, 8, 4, 5), 2), draw((2, 1, 4, 5), 3)];
    for pixels in [[false; 3], [true; 3], [false, true, false]] {
        let arranged = |x: &[Tensor]| -> Result<Vec<Tensor>> {
            x.iter().zip(pixels).map(|(x, yes)| if yes { Order::Pixels.arrange(x) } else { Ok(x.clone()) }).collect()
        };
        // An image is arranged by candle, whose graph then goes all the way.
        let op = |x: &[Tensor]| match x[0].dtype() {
            DType::F32 => moves::cat(&STAGE, &arranged(x)?.iter().collect::<Vec<_>>()),
            _ => crate::cat(&x.iter().collect::<Vec<_>>()),
        };
        verify::assert_like_f64(&op, &inputs);
    }
}

#[test]
fn bf16_is_the_nearest() {
    let edges = [1. + 1. / 256., 1. + 3. / 256., f32::MAX, f32::MIN_POSITIVE, 1e-45, f32::INFINITY, -0., f32::NAN];
    let x = Tensor::cat(&[Tensor::new(&edges[..], &Device::Cpu).unwrap(), draw(1001, 1)], 0).unwrap();
    let x = x.narrow(0, 1, 1008).unwrap(); // not where 16 bytes start
    let bits = |x: &Tensor| -> Vec<u32> {
        let values = x.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(|value| if value.is_nan() { f32::NAN } else { value }.to_bits()).collect()
    };
    let (actual, expected) = (moves::narrow(&STAGE, &x).unwrap(), x.to_dtype(DType::BF16).unwrap());
    assert_eq!((actual.dtype(), bits(&actual)), (DType::BF16, bits(&expected)));
    // All bits of the fraction, and one that the upper half does not see.
    let nan = [0x7fff_ffff, 0x7f80_0001, 0xffff_ffff].map(f32::from_bits);
    let nan = moves::narrow(&STAGE, &Tensor::new(&nan, &Device::Cpu).unwrap()).unwrap();
    assert!(nan.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_nan()));
}

#[test]
fn gradients_that_nobody_needs_are_not_computed() {
    let [x, weight, bias] = [draw((2, 3, 4, 4), 1), draw(3, 2), draw(3, 3)];
    let variable = Var::from_tensor(&weight).unwrap();
    let without = Stage::Emulator { without: Some("normalise_back") };
    let y = |weight: &Tensor| norm::batch_norm::cuda::train(&without, &x, weight, &bias, EPSILON, Activation::Relu);
    let gradients = crate::backward(y(&variable).unwrap().0).unwrap();
    let (_, expected) = verify::differentiate(
        &|w| train(&[x.clone(), w[0].clone(), bias.clone()], Activation::Relu),
        &[weight],
        &Tensor::ones(x.shape(), DType::F32, &Device::Cpu).unwrap(),
    );
    assert_eq!(verify::values(gradients.get(&variable).unwrap()), verify::values(&expected[0]));
}

#[test]
fn the_trial_passes_with_all_kernels_and_with_no_fewer() {
    let fault = |stage: &Stage| trial::fault(stage, &Device::Cpu).or_else(|| trial::fault_in_bf16(stage, &Device::Cpu));
    assert_eq!(fault(&STAGE), None);
    let source = include_str!("kernels.cu");
    let kernels = source.lines().filter_map(|line| line.strip_prefix("KERNEL(")?.split(',').next());
    let mut count = 0;
    for kernel in kernels {
        let fault = fault(&Stage::Emulator { without: Some(kernel) });
        assert!(fault.is_some(), "nothing needs {kernel}");
        count += 1;
    }
    assert_eq!(count, 32);
}

#[test]
#[cfg(feature = "cuda")]
#[ignore = "needs a CUDA device"]
fn the_device_passes_the_trial() {
    let device = crate::cuda_device(0, crate::Algorithms::Deterministic).unwrap();
    assert_eq!(super::refusal(&device), None);
    assert_eq!(super::refusal_in_bf16(&device), None);
}

/// Threads take turns on one stream: each reads what another has just asked for.
#[test]
#[cfg(feature = "cuda")]
#[ignore = "needs a CUDA device"]
fn threads_see_what_others_have_asked_for() {
    let device = crate::cuda_device(0, crate::Algorithms::Deterministic).unwrap();
    let mut x = Tensor::zeros((64, 1 << 16), DType::F32, &device).unwrap();
    for _ in 0..64 {
        x = std::thread::scope(|scope| scope.spawn(|| (&x + 1.).unwrap()).join().unwrap());
    }
    assert_eq!(verify::values(&x.sum_all().unwrap()), [64. * 64. * 65536.]);
}

/// Each batch is sent while the device is busy with the one before, and is what it was.
#[test]
#[cfg(feature = "cuda")]
#[ignore = "needs a CUDA device"]
fn uploads_by_cuda_arrive_whole_and_in_time() {
    let device = crate::cuda_device(0, crate::Algorithms::Deterministic).unwrap();
    let mut uploader = crate::Uploader::new(&device).unwrap();
    assert!(uploader.goes_beside());
    let batch = |at: u64| draw((4, 3, 256, 257), at);
    let labels = |at: u64| (draw((4, 256), at).abs().unwrap() * 255.).unwrap().to_dtype(DType::U32).unwrap();
    let mut next = uploader.start(&batch(0)).unwrap();
    for at in 0..24 {
        let of_labels = uploader.start(&labels(at)).unwrap();
        let lost = uploader.start(&batch(99)).unwrap();
        let x = std::mem::replace(&mut next, uploader.start(&batch(at + 1)).unwrap()).finish().unwrap();
        drop(lost);
        let mut y = x.clone();
        for _ in 0..20 {
            y = (y * -1.).unwrap();
        }
        assert_eq!(verify::values(&y), verify::values(&batch(at)));
        let of_labels = of_labels.finish().unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(verify::values(&of_labels), verify::values(&labels(at).to_dtype(DType::F32).unwrap()));
    }
}
