use candle_core::{DType, Device, Result, Tensor, Var};

use super::refusal;
use crate::Exactness::{Bf16, Direct, Fast};
use crate::verify::{self, Bounds, draw};
use crate::{
    Activation, Conv2d, ConvTranspose2d, Exactness, Images, NormEval, NormTrain, add, cat, conv_transpose2d,
    conv_transpose2d_activated, conv2d, conv2d_activated, conv2d_norm_eval, conv2d_norm_train, max_pool2d, tanh,
};

fn device() -> Device {
    Device::new_cuda(0).unwrap()
}

/// TF32 rounds both factors of each product to 11 bits, bf16 to 8.
fn bounds(exactness: Exactness) -> Bounds {
    match exactness {
        Direct => Bounds { output: 5e-6, gradient: 2e-5 },
        Fast => Bounds { output: 2e-3, gradient: 2e-3 },
        Bf16 => Bounds { output: 1e-2, gradient: 1e-2 },
    }
}

/// Checks an op in f32 on the device against the composed path in f64 on the CPU, and the same bits twice.
fn check(exactness: Exactness, op: impl Fn(&[Tensor]) -> Result<Tensor> + Sync, inputs: &[Tensor]) {
    let device = device();
    assert_eq!(refusal(&device, exactness), None);
    let there_and_back = |inputs: &[Tensor]| {
        if inputs[0].dtype() == DType::F64 {
            return op(inputs);
        }
        let inputs = inputs.iter().map(|x| x.to_device(&device)).collect::<Result<Vec<_>>>()?;
        op(&inputs)?.to_device(&Device::Cpu)
    };
    verify::assert_within(bounds(exactness), &there_and_back, inputs);
    let bits = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(bits(there_and_back(inputs).unwrap()), bits(there_and_back(inputs).unwrap()));
}

#[test]
#[ignore = "needs a CUDA device"]
fn the_device_passes_the_trial() {
    for exactness in [Direct, Fast, Bf16] {
        assert_eq!(refusal(&device(), exactness), None);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn convolutions_agree_with_the_composed_path() {
    let uneven = Conv2d { stride: (3, 2), padding: (0, 2), dilation: (1, 2), groups: 2, exactness: Fast };
    for (spec, x, weight) in [
        (Conv2d::new(1, 1), (2, 5, 7, 6), (4, 5, 3, 3)),
        (Conv2d::new(1, 3), (1, 2, 4, 5), (3, 2, 2, 3)),
        (Conv2d::default(), (3, 6, 5, 7), (4, 6, 1, 1)),
        (Conv2d::new(2, 1), (2, 3, 9, 8), (5, 3, 4, 4)),
        (uneven, (2, 4, 11, 9), (6, 2, 2, 3)),
        (Conv2d { groups: 5, ..Conv2d::new(1, 1) }, (1, 5, 6, 4), (5, 1, 3, 3)),
        (Conv2d::new(1, 1), (4, 64, 64, 64), (128, 64, 3, 3)),
        (Conv2d::new(2, 1), (4, 128, 32, 32), (256, 128, 4, 4)),
        // By phases.
        (Conv2d::new(2, 1), (2, 3, 64, 48), (64, 3, 4, 4)),
        (Conv2d::new(2, 1), (2, 6, 10, 8), (5, 6, 4, 4)),
    ] {
        for exactness in [Fast, Direct, Bf16] {
            let spec = Conv2d { exactness, ..spec };
            let inputs = [draw(x, 1), draw(weight, 2), draw(weight.0, 3)];
            check(exactness, |x| conv2d(&x[0], &x[1], x.get(2), spec), &inputs);
            check(exactness, |x| conv2d(&x[0], &x[1], x.get(2), spec), &inputs[..2]);
        }
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn transposed_convolutions_agree_with_the_composed_path() {
    let uneven = ConvTranspose2d {
        stride: (3, 2),
        padding: (1, 0),
        output_padding: (2, 1),
        dilation: (1, 2),
        groups: 2,
        exactness: Fast,
    };
    // cuDNN has no such convolution, since its image would hold another position.
    let padded = ConvTranspose2d { output_padding: (2, 2), dilation: (3, 3), ..ConvTranspose2d::new(1, 0) };
    for (spec, x, weight) in [
        (ConvTranspose2d::new(2, 0), (2, 6, 4, 5), (6, 3, 2, 2)),
        (ConvTranspose2d::new(2, 1), (2, 3, 5, 3), (3, 4, 4, 4)),
        (ConvTranspose2d::new(1, 1), (2, 4, 5, 6), (4, 5, 3, 3)),
        (uneven, (2, 4, 3, 4), (4, 3, 2, 3)),
        (padded, (2, 3, 4, 4), (3, 2, 2, 2)),
        (ConvTranspose2d::new(2, 1), (4, 256, 16, 16), (256, 128, 4, 4)),
        (ConvTranspose2d::new(2, 1), (2, 128, 16, 12), (128, 3, 4, 4)), // by phases
    ] {
        for exactness in [Fast, Direct, Bf16] {
            let spec = ConvTranspose2d { exactness, ..spec };
            let inputs = [draw(x, 1), draw(weight, 2), draw(weight.1 * spec.groups, 3)];
            check(exactness, |x| conv_transpose2d(&x[0], &x[1], x.get(2), spec), &inputs);
            check(exactness, |x| conv_transpose2d(&x[0], &x[1], x.get(2), spec), &inputs[..2]);
        }
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn views_are_convolved() {
    // The second image of 75 values starts at none of 16 bytes.
    let inputs = [draw((2, 3, 5, 5), 1), draw((4, 3, 3, 3), 2)];
    check(Direct, |x| conv2d(&x[0].narrow(0, 1, 1)?, &x[1], None, direct()), &inputs);
    check(Direct, |x| conv2d(&x[0].transpose(2, 3)?, &x[1].transpose(2, 3)?, None, direct()), &inputs);
}

#[test]
#[ignore = "needs a CUDA device"]
fn threads_and_sizes_take_turns() {
    std::thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || {
                for size in [40, 9, 64, 17] {
                    let inputs = [draw((2, 8, size, size), seed), draw((8, 8, 3, 3), 2)];
                    check(Direct, |x| conv2d(&x[0], &x[1], None, direct()), &inputs);
                }
            });
        }
    });
}

fn direct() -> Conv2d {
    Conv2d { exactness: Direct, ..Conv2d::new(1, 1) }
}

/// Parts of a U-Net and of a generator, with images that are used twice: between ops they stay bf16 there, and so do their gradients.
#[test]
#[ignore = "needs a CUDA device"]
fn networks_agree_with_the_cpu() {
    let inputs = [
        draw((2, 3, 32, 24), 1),
        draw((16, 3, 3, 3), 2),
        draw(16, 3),
        draw((16, 16, 3, 3), 4),
        draw((16, 16, 2, 2), 5),
        draw((8, 32, 3, 3), 6),
        draw(8, 7),
        draw((16, 3, 4, 4), 8),
        draw(16, 9),
        draw((16, 3, 4, 4), 10),
    ];
    let [scale, shift] = [(draw(16, 8) + 1.5).unwrap(), draw(16, 9)];
    // Rounding moves values across the activation's kink.
    for (exactness, tolerance) in [(Direct, 1e-4), (Fast, 2e-2), (Bf16, 1e-1)] {
        let network = |x: &[Tensor], train: bool| -> Result<Tensor> {
            let on = |vector: &Tensor| vector.to_device(x[0].device());
            let (scale, shift, variance) = (on(&scale)?, on(&shift)?, on(&scale)?);
            let after = |images: &[&Tensor], weight: &Tensor, bias: Option<&Tensor>, stride| -> Result<Tensor> {
                let (spec, activation) = (Conv2d { exactness, ..Conv2d::new(stride, 1) }, Activation::LeakyRelu(0.2));
                let images = if let [a, b] = *images { Images::from([a, b]) } else { Images::from(images[0]) };
                if train {
                    let norm = NormTrain { weight: &scale, bias: &shift, epsilon: 1e-3 };
                    return Ok(conv2d_norm_train(images, weight, bias, spec, &norm, activation)?.0);
                }
                let (running_mean, running_var) = (&shift, &variance);
                let norm = NormEval { weight: &scale, bias: &shift, running_mean, running_var, epsilon: 1e-3 };
                conv2d_norm_eval(images, weight, bias, spec, &norm, activation)
            };
            let skip = after(&[&x[0]], &x[1], Some(&x[2]), 1)?;
            let y = after(&[&skip], &x[3], None, 2)?;
            let halve = Conv2d { exactness, ..Conv2d::new(2, 1) };
            let first = conv2d_activated(&x[0], &x[7], Some(&x[8]), halve, Activation::LeakyRelu(0.2))?;
            let y = add(&add(&y, &first, Activation::None)?, &max_pool2d(&skip, 2)?, Activation::Relu)?;
            let up = |padding| ConvTranspose2d { exactness, ..ConvTranspose2d::new(2, padding) };
            let painted = tanh(&conv_transpose2d(&y, &x[9], None, up(1))?)?;
            let y = conv_transpose2d_activated(&y, &x[4], None, up(0), Activation::Relu)?;
            let y = conv2d([&y, &skip], &x[5], Some(&x[6]), Conv2d { exactness, ..Conv2d::new(1, 1) })?;
            cat(&[&y, &painted])
        };
        let device = device();
        assert_eq!(refusal(&device, exactness), None);
        let moved = |device: &Device| -> Vec<Tensor> { inputs.iter().map(|x| x.to_device(device).unwrap()).collect() };
        let of = |device: &Device| {
            let variables: Vec<Var> = moved(device).iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let x: Vec<Tensor> = variables.iter().map(|x| x.as_tensor().clone()).collect();
            let y = network(&x, true).unwrap();
            let gradients = crate::backward(crate::mse(&y, &y.zeros_like().unwrap()).unwrap()).unwrap();
            assert!(!gradients.through_candle());
            let mut all = vec![y.detach(), network(&moved(device), false).unwrap()];
            // The statistics take a bias away again, and leave rounding as its gradient.
            all.extend(
                variables.iter().enumerate().filter(|&(at, _)| at != 2).map(|(_, x)| gradients.get(x).unwrap().clone()),
            );
            all.into_iter().map(|x| x.to_device(&Device::Cpu).unwrap()).collect::<Vec<_>>()
        };
        let there = of(&device);
        let exact = of(&Device::Cpu);
        for (at, (there, exact)) in there.iter().zip(&exact).enumerate() {
            verify::assert_close(
                &format!("{exactness:?}, {at}"),
                there,
                &exact.to_dtype(DType::F64).unwrap(),
                tolerance,
            );
        }
        for (once, again) in there.iter().zip(&of(&device)) {
            assert_eq!(verify::values(once), verify::values(again));
        }
    }
}
