//! How far results are from those in f64, for the documentation.

use candle_core::{DType, Result, Tensor};

use super::{Op, cotangent, differentiate, draw, every_op, relative_l2};
use crate::{Activation, Conv2d, ConvTranspose2d, Exactness, NormEval, conv_transpose2d, conv2d, conv2d_norm_eval};

fn print(name: &str, op: Op, inputs: &[Tensor]) {
    let wide: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    let cotangent = cotangent(op, inputs);
    let (y, gradients) = differentiate(op, inputs, &cotangent);
    let (expected, expected_gradients) = differentiate(op, &wide, &cotangent.to_dtype(DType::F64).unwrap());
    let errors = gradients.iter().zip(&expected_gradients).map(|(g, e)| format!("{:.1e}", relative_l2(g, e)));
    println!("{name:<44} {:.1e} | {}", relative_l2(&y, &expected), errors.collect::<Vec<_>>().join(" "));
}

/// The tables of errors in docs/ops.md: convolutions at the sizes of a training run, and every op.
#[test]
#[ignore = "prints; takes a minute"]
fn measured_errors() {
    for (exactness, name) in [(Exactness::Fast, "fast"), (Exactness::Direct, "direct")] {
        let convolve = |spec| move |x: &[Tensor]| -> Result<Tensor> { conv2d(&x[0], &x[1], x.get(2), spec) };
        for (i, o, size) in [(3, 16, 128), (16, 16, 128), (64, 64, 64), (256, 256, 16)] {
            let inputs = [draw((2, i, size, size), 1), draw((o, i, 3, 3), 2), draw(o, 3)];
            let op = convolve(Conv2d { exactness, ..Conv2d::new(1, 1) });
            print(&format!("conv2d 3x3 {i}->{o} @{size}, {name}"), &op, &inputs);
        }
        for (i, o, size, stride, padding) in [(64, 128, 64, 2, 1), (512, 1024, 8, 1, 0), (256, 512, 16, 1, 1)] {
            let inputs = [draw((2, i, size, size), 1), draw((o, i, 4, 4), 2)];
            let op = convolve(Conv2d { exactness, ..Conv2d::new(stride, padding) });
            print(&format!("conv2d 4x4 stride {stride} {i}->{o} @{size}, {name}"), &op, &inputs);
        }
        let inputs = [draw((2, 128, 32, 32), 1), draw((128, 64, 4, 4), 2)];
        let spec = ConvTranspose2d { exactness, ..ConvTranspose2d::new(2, 1) };
        let op = |x: &[Tensor]| conv_transpose2d(&x[0], &x[1], None, spec);
        print(&format!("conv_transpose2d 4x4 stride 2 128->64 @32, {name}"), &op, &inputs);
    }
    for (i, o, size) in [(16, 16, 128), (64, 64, 64), (128, 64, 64)] {
        let predict = |dtype| {
            let of = |dims: &[usize], seed| draw(dims, seed).to_dtype(dtype).unwrap();
            let [x, kernel] = [of(&[2, i, size, size], 1), of(&[o, i, 3, 3], 2)];
            let [weight, bias, mean, variance] = [3, 4, 5, 6].map(|seed| of(&[o], seed));
            let (running_mean, running_var) = (&mean, &(variance.abs().unwrap() + 0.5).unwrap());
            let norm = NormEval { weight: &weight, bias: &bias, running_mean, running_var, epsilon: 1e-5 };
            conv2d_norm_eval(&x, &kernel, None, Conv2d::new(1, 1), &norm, Activation::None).unwrap()
        };
        let error = relative_l2(&predict(DType::F32), &predict(DType::F64));
        println!("{:<44} {error:.1e}", format!("conv2d_norm_eval 3x3 {i}->{o} @{size}, fast"));
    }
    println!("every op of (2, 16, 64, 64):");
    for of in every_op::all().iter().filter(|of| !of.name.starts_with("conv")) {
        print(of.name, &of.run, &(of.inputs)((2, 16, 64, 64)));
    }
}
