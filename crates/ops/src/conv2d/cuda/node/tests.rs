use candle_core::{DType, Result, Tensor, Var};

use super::Convolution;
use crate::Activation;
use crate::conv2d::cuda::direction::Direction;
use crate::conv2d::{Conv2d, geometry};
use crate::cuda::{Stage, moves};
use crate::kernel::Order;
use crate::norm::{BatchStatistics, NormEval, NormTrain, batch_norm};
use crate::verify::{self, draw};
use crate::{ConvTranspose2d, Exactness, conv_transpose2d, conv2d};

const STAGE: Stage = Stage::Emulator { without: None };

fn convolve(order: Order, images: &[&Tensor], rest: &[Tensor], spec: Conv2d) -> Result<Tensor> {
    let (weight, bias) = (&rest[0], rest.get(1));
    let stacked = if images.len() > 1 { crate::cat(images)? } else { images[0].clone() };
    let geometry = geometry(&stacked, weight, bias, spec)?;
    let direction = Direction::Forward;
    Convolution { name: "conv2d", direction, images, weight, bias, geometry }.apply(&STAGE, order)
}

fn adjoint(order: Order, x: &[Tensor], spec: ConvTranspose2d) -> Result<Tensor> {
    let (weight, bias) = (&x[1], x.get(2));
    let geometry = crate::conv_transpose2d::geometry(&x[0], weight, bias, spec)?;
    let direction = Direction::InputGradient;
    Convolution { name: "conv_transpose2d", direction, images: &[&x[0]], weight, bias, geometry }.apply(&STAGE, order)
}

const DIRECT: Exactness = Exactness::Direct;

#[test]
fn convolutions_hold_in_both_orders() {
    let uneven = Conv2d { stride: (3, 2), padding: (0, 2), dilation: (1, 2), groups: 2, exactness: DIRECT };
    for (spec, x, weight) in [
        (Conv2d { exactness: DIRECT, ..Conv2d::new(1, 1) }, (2, 5, 7, 6), (4, 5, 3, 3)),
        (Conv2d { exactness: DIRECT, ..Conv2d::default() }, (3, 6, 5, 1), (4, 6, 1, 1)),
        (Conv2d { exactness: DIRECT, ..Conv2d::new(2, 1) }, (2, 1, 9, 8), (9, 1, 4, 4)),
        (uneven, (2, 4, 11, 9), (6, 2, 2, 3)),
    ] {
        for order in [Order::Planes, Order::Pixels] {
            let inputs = [draw(x, 1), draw(weight, 2), draw(weight.0, 3)];
            for inputs in [&inputs[..], &inputs[..2]] {
                let node = |x: &[Tensor]| convolve(order, &[&x[0]], &x[1..], spec);
                verify::assert_like_composed(node, |x| conv2d(&x[0], &x[1], x.get(2), spec), inputs);
            }
        }
    }
}

#[test]
fn adjoints_hold_in_both_orders() {
    for (spec, x, weight) in [
        (ConvTranspose2d { exactness: DIRECT, ..ConvTranspose2d::new(2, 0) }, (2, 6, 4, 5), (6, 3, 2, 2)),
        (ConvTranspose2d { exactness: DIRECT, ..ConvTranspose2d::new(2, 1) }, (2, 3, 5, 3), (3, 4, 4, 4)),
    ] {
        for order in [Order::Planes, Order::Pixels] {
            let inputs = [draw(x, 1), draw(weight, 2), draw(weight.1, 3)];
            let node = |x: &[Tensor]| adjoint(order, x, spec);
            verify::assert_like_composed(node, |x| conv_transpose2d(&x[0], &x[1], x.get(2), spec), &inputs);
        }
    }
}

#[test]
fn stacks_hold_whichever_gradients_are_needed() {
    let spec = Conv2d { exactness: DIRECT, ..Conv2d::new(1, 1) };
    let inputs = [draw((2, 3, 5, 4), 1), draw((2, 9, 5, 4), 2), draw((4, 12, 3, 3), 3), draw(4, 4)];
    for order in [Order::Planes, Order::Pixels] {
        let node = |x: &[Tensor]| convolve(order, &[&x[0], &x[1]], &x[2..], spec);
        let composed = |x: &[Tensor]| conv2d([&x[0], &x[1]], &x[2], x.get(3), spec);
        verify::assert_like_composed(node, composed, &inputs);
        let cotangent = draw((2, 4, 5, 4), 5);
        let (_, expected) = verify::differentiate(&node, &inputs, &cotangent);
        for (at, expected) in expected.iter().enumerate() {
            let variable = Var::from_tensor(&inputs[at]).unwrap();
            let mut some = inputs.clone();
            some[at] = variable.as_tensor().clone();
            let y = (node(&some).unwrap() * &cotangent).unwrap().sum_all().unwrap();
            let gradients = y.backward().unwrap();
            assert_eq!(verify::values(gradients.get(&variable).unwrap()), verify::values(expected));
        }
    }
}

#[test]
fn convolutions_are_normalised_where_they_lie() {
    let [x, weight, bias] = [draw((2, 3, 6, 5), 1), draw((8, 6, 3, 3), 2), draw(8, 3)];
    let [scale, shift, mean] = [draw(8, 4), draw(8, 5), draw(8, 6)];
    let variance = mean.sqr().unwrap();
    let norm = NormEval { weight: &scale, bias: &shift, running_mean: &mean, running_var: &variance, epsilon: 1e-3 };
    for exactness in [DIRECT, Exactness::Fast, Exactness::Bf16] {
        let spec = Conv2d { exactness, ..Conv2d::new(1, 1) };
        let images = [&x, &x];
        let geometry = geometry(images, &weight, Some(&bias), spec).unwrap();
        for (order, bias) in [(Order::Planes, None), (Order::Pixels, None), (Order::Pixels, Some(&bias))] {
            let (direction, name) = (Direction::Forward, "conv2d");
            let of = Convolution { name, direction, images: &images, weight: &weight, bias, geometry };
            let activation = Activation::LeakyRelu(0.2);
            let y = of.apply_norm_eval(&STAGE, order, &norm, activation).unwrap();
            assert_eq!(Order::of(&y), order);
            let one_by_one = norm.apply(&of.apply(&STAGE, order).unwrap(), activation).unwrap();
            let stays_bf16 = exactness == Exactness::Bf16 && order == Order::Pixels;
            assert_eq!(y.dtype(), if stays_bf16 { DType::BF16 } else { DType::F32 });
            let expected = one_by_one.to_dtype(y.dtype()).unwrap().to_dtype(DType::F64).unwrap();
            // Of two neighbours in bf16 rounding may choose the other, here and there.
            let tolerance = if stays_bf16 { 1e-3 } else { 1e-6 };
            verify::assert_close("normalised", &y.to_dtype(DType::F32).unwrap(), &expected, tolerance);
        }
    }
}

/// A part of a U-Net in bf16 from end to end, with an image that two ops use, against the same in f32 between ops.
#[test]
fn images_stay_bf16_from_op_to_op() {
    let exactness = Exactness::Bf16;
    let inputs = [draw((2, 3, 8, 8), 1), draw((8, 3, 4, 4), 2), draw(8, 3), draw((8, 8, 3, 3), 4), draw(8, 5)];
    let rest = [draw((8, 8, 2, 2), 6), draw(8, 7), draw((4, 16, 1, 1), 8)];
    let network = |x: &[Tensor], stays: bool| -> Result<Tensor> {
        let then = |of: Convolution, activation: Activation| {
            let y = if stays {
                let y = of.apply_activated(&STAGE, Order::Pixels, activation)?;
                assert_eq!((y.dtype(), Order::of(&y)), (DType::BF16, Order::Pixels));
                y
            } else {
                crate::activation::cuda::apply(&STAGE, activation, &of.apply(&STAGE, Order::Pixels)?)?
            };
            Ok::<_, candle_core::Error>(y)
        };
        let forward = |images: &[&Tensor], weight: &Tensor, bias: Option<&Tensor>, spec: Conv2d, activation| {
            let stacked = if images.len() > 1 { moves::cat(&STAGE, images)? } else { images[0].clone() };
            let geometry = geometry(&stacked.to_dtype(DType::F32)?, weight, bias, spec)?;
            let (name, direction) = ("conv2d", Direction::Forward);
            let of = Convolution { name, direction, images, weight, bias, geometry };
            if weight.dim(2)? == 1 { of.apply(&STAGE, Order::Pixels) } else { then(of, activation) }
        };
        let spec = |stride| Conv2d { exactness, ..Conv2d::new(stride, 1) };
        let skip = forward(&[&x[0]], &x[1], Some(&x[2]), spec(2), Activation::LeakyRelu(0.2))?;
        let y = crate::pool::max_pool2d::cuda::max_pool2d(&STAGE, &skip, 2)?;
        let y = forward(&[&y], &x[3], Some(&x[4]), spec(1), Activation::Relu)?;
        let up = ConvTranspose2d { exactness, ..ConvTranspose2d::new(2, 0) };
        let geometry = crate::conv_transpose2d::geometry(&y.to_dtype(DType::F32)?, &rest[0], Some(&rest[1]), up)?;
        let (name, direction, weight, bias) = ("conv_transpose2d", Direction::InputGradient, &rest[0], Some(&rest[1]));
        let y = then(Convolution { name, direction, images: &[&y], weight, bias, geometry }, Activation::Relu)?;
        forward(&[&y, &skip], &rest[2], None, Conv2d { exactness, ..Conv2d::default() }, Activation::None)
    };
    let of = |stays: bool| {
        let variables: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let x: Vec<Tensor> = variables.iter().map(|x| x.as_tensor().clone()).collect();
        let y = network(&x, stays).unwrap();
        assert_eq!(y.dtype(), DType::F32);
        let candles = y.sum_all().unwrap().backward().unwrap();
        let mut all = vec![y.detach()];
        all.extend(variables.iter().map(|x| candles.get(x).unwrap().clone()));
        let ours = crate::backward(y).unwrap();
        assert!(!ours.through_candle());
        all.extend(variables.iter().map(|x| ours.get(x).unwrap().clone()));
        all
    };
    for (at, (narrow, wide)) in of(true).iter().zip(&of(false)).enumerate() {
        assert_eq!(narrow.dtype(), DType::F32);
        verify::assert_close(&format!("{at}"), narrow, &wide.to_dtype(DType::F64).unwrap(), 2e-2);
    }
}

/// What is between convolution and normalisation is bf16, and so are its gradient and the result; a bias is left to the statistics.
#[test]
fn what_is_normalised_by_itself_stays_bf16() {
    let spec = Conv2d { exactness: Exactness::Bf16, ..Conv2d::new(1, 1) };
    for channels in [5, 8] {
        let inputs = [
            draw((2, 3, 6, 5), 1),
            draw((channels, 6, 3, 3), 2),
            draw(channels, 3),
            draw(channels, 4),
            draw(channels, 5),
        ];
        let of = |x: &[Tensor], together: bool| -> Result<(Tensor, BatchStatistics)> {
            let images = [&x[0], &x[0]];
            let (direction, name, weight, bias) = (Direction::Forward, "conv2d", &x[1], Some(&x[2]));
            let geometry = geometry(images, weight, bias, spec)?;
            let of = Convolution { name, direction, images: &images, weight, bias, geometry };
            let norm = NormTrain { weight: &x[3], bias: &x[4], epsilon: 1e-5 };
            if together {
                return of.apply_norm_train(&STAGE, Order::Pixels, &norm, Activation::Relu);
            }
            let y = of.apply(&STAGE, Order::Pixels)?;
            batch_norm::cuda::train(&STAGE, &y, norm.weight, norm.bias, norm.epsilon, Activation::Relu)
        };
        let (statistics, expected) = (of(&inputs, true).unwrap().1, of(&inputs, false).unwrap().1);
        for (actual, expected) in [(statistics.mean, expected.mean), (statistics.variance, expected.variance)] {
            verify::assert_close("statistics", &actual, &expected.to_dtype(DType::F64).unwrap(), 1e-6);
        }
        let in_bf16 = |x: &Tensor, dtype: DType| x.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap();
        // As it comes from a result in bf16.
        let cotangent = in_bf16(&draw((2, channels, 6, 5), 6), DType::F32);
        let by = |together: bool| {
            let op = |x: &[Tensor]| {
                let (y, _) = of(x, together)?;
                assert_eq!(y.dtype(), if together { DType::BF16 } else { DType::F32 });
                y.to_dtype(DType::F32)
            };
            verify::differentiate(&op, &inputs, &cotangent)
        };
        let [(y, gradients), (expected, expected_gradients)] = [true, false].map(by);
        // Of two neighbours in bf16 rounding may choose the other, here and there.
        verify::assert_close("result", &y, &in_bf16(&expected, DType::F64), 1e-3);
        for (at, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
            let size = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            if at == 2 {
                // The statistics take it away again: rounding is all that is left.
                assert!(size(gradient) < 0.05 * size(&gradients[1]) && size(expected) < 0.05 * size(&gradients[1]));
            } else {
                verify::assert_close("gradient", gradient, &expected.to_dtype(DType::F64).unwrap(), 1e-5);
            }
        }
    }
}

/// With an image that two ops use, and in bf16 with gradients that are summed in f32.
#[test]
fn what_follows_keeps_the_order_and_both_graphs_agree() {
    let inputs = [draw((2, 3, 6, 4), 1), draw((9, 3, 3, 3), 2), draw(9, 3), draw(9, 4), draw((4, 18, 1, 1), 5)];
    let [deeper, last] = [draw((9, 9, 3, 3), 6), draw((9, 18, 3, 3), 7)];
    for exactness in [Exactness::Fast, Exactness::Bf16] {
        let spec = Conv2d { exactness, ..Conv2d::new(1, 1) };
        let network = |x: &[Tensor]| {
            let normalised =
                |y: &Tensor| batch_norm::cuda::train(&STAGE, y, &x[2], &x[3], 1e-5, Activation::Relu).map(|(y, _)| y);
            let skip = normalised(&convolve(Order::Pixels, &[&x[0]], &x[1..2], spec)?)?;
            let y = normalised(&convolve(Order::Pixels, &[&skip], std::slice::from_ref(&deeper), spec)?)?;
            let y = normalised(&convolve(Order::Pixels, &[&y, &skip], std::slice::from_ref(&last), spec)?)?;
            let y = crate::pool::max_pool2d::cuda::max_pool2d(&STAGE, &y, 2)?;
            let y = crate::activation::cuda::apply(&STAGE, Activation::LeakyRelu(0.2), &y)?;
            assert_eq!(Order::of(&y), Order::Pixels);
            convolve(Order::Pixels, &[&y, &y], &x[4..], spec)
        };
        let variables: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let x: Vec<Tensor> = variables.iter().map(|x| x.as_tensor().clone()).collect();
        let ours = crate::backward(network(&x).unwrap()).unwrap();
        assert!(!ours.through_candle());
        let candles = network(&x).unwrap().sum_all().unwrap().backward().unwrap();
        for variable in &variables {
            let [ours, candles] = [ours.get(variable).unwrap(), candles.get(variable).unwrap()];
            verify::assert_close("gradient", ours, &candles.to_dtype(DType::F64).unwrap(), 1e-6);
        }
    }
}

#[test]
fn bf16_rounds_factors_and_results() {
    let spec = Conv2d { exactness: Exactness::Bf16, ..Conv2d::new(1, 1) };
    let inputs = [draw((2, 5, 7, 6), 1), draw((4, 5, 3, 3), 2)];
    let bias = draw(4, 4);
    let with_bias = [inputs[0].clone(), inputs[1].clone(), bias.clone()];
    let node = |x: &[Tensor]| convolve(Order::Pixels, &[&x[0]], &x[1..], spec);
    let (_, gradients) = verify::differentiate(&node, &with_bias, &draw((2, 4, 7, 6), 3));
    let sums = draw((2, 4, 7, 6), 3).to_dtype(DType::F64).unwrap().sum((0, 2, 3)).unwrap();
    verify::assert_close("gradient of the bias", &gradients[2], &sums, 1e-6);
    let cotangent = draw((2, 4, 7, 6), 3);
    let by = |op: verify::Op| verify::differentiate(op, &inputs, &cotangent);
    let ((y, gradients), (expected, expected_gradients)) = (by(&node), by(&|x| conv2d(&x[0], &x[1], None, spec)));
    assert_eq!(verify::values(&y), verify::values(&expected));
    for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
        assert_eq!(verify::values(gradient), verify::values(expected));
    }
}
