use candle_core::{DType, Device, Tensor, Var};

use crate::verify::{self, Case, draw, refusal};
use crate::{Activation, BatchStatistics, batch_norm_eval, batch_norm_train};

const EPSILON: f64 = 1e-5;
const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)];

fn inputs(n: usize, c: usize, h: usize, w: usize) -> [Tensor; 3] {
    [((draw((n, c, h, w), 1) * 2.).unwrap() + 1.).unwrap(), (draw(c, 2) + 1.5).unwrap(), draw(c, 3)]
}

#[test]
fn agrees_with_pytorch() {
    for case in Case::all("batch_norm") {
        let (epsilon, momentum) = (case.number("eps"), case.number("momentum"));
        case.check(&["x", "weight", "bias"], &|inputs| {
            Ok(batch_norm_train(&inputs[0], &inputs[1], &inputs[2], epsilon, Activation::None)?.0)
        });
        let [x, weight, bias] = ["x", "weight", "bias"].map(|name| case.tensor(name).unwrap());
        let (_, statistics) = batch_norm_train(&x, &weight, &bias, epsilon, Activation::None).unwrap();
        for dtype in [DType::F32, DType::F64] {
            // PyTorch's running statistics start at 0 and 1.
            let mean = Var::zeros(weight.shape(), dtype, &Device::Cpu).unwrap();
            let variance = Var::ones(weight.shape(), dtype, &Device::Cpu).unwrap();
            let statistics = BatchStatistics {
                mean: statistics.mean.to_dtype(dtype).unwrap(),
                variance: statistics.variance.to_dtype(dtype).unwrap(),
            };
            statistics.move_running(&mean, &variance, momentum).unwrap();
            verify::assert_close("running mean", &mean, &case.tensor("after_running_mean").unwrap(), 1e-6);
            verify::assert_close("running variance", &variance, &case.tensor("after_running_var").unwrap(), 1e-6);
        }
    }
}

#[test]
fn holds_everywhere() {
    for shape in [(2, 3, 5, 7), (1, 2, 1, 3), (5, 1, 1, 1), (3, 4, 37, 41)] {
        for activation in ACTIVATIONS {
            let inputs = inputs(shape.0, shape.1, shape.2, shape.3);
            verify::assert_op(&|i| Ok(batch_norm_train(&i[0], &i[1], &i[2], EPSILON, activation)?.0), &inputs);
            let (mean, variance) = (draw(shape.1, 4), (draw(shape.1, 5) + 1.5).unwrap());
            let eval = |i: &[Tensor]| {
                let [mean, variance] = [&mean, &variance].map(|x| x.to_dtype(i[0].dtype()).unwrap());
                batch_norm_eval(&i[0], &i[1], &i[2], &mean, &variance, EPSILON, activation)
            };
            verify::assert_op(&eval, &inputs);
        }
    }
}

/// Planes of several blocks, in few channels and in many.
#[test]
fn large_planes_hold_too() {
    for (n, c) in [(2, 1), (1, 5)] {
        let inputs = inputs(n, c, 90, 61);
        let train = |i: &[Tensor]| Ok(batch_norm_train(&i[0], &i[1], &i[2], EPSILON, Activation::LeakyRelu(0.2))?.0);
        verify::assert_like_f64(&train, &inputs);
        verify::assert_any_pool(&train, &inputs);
    }
}

#[test]
fn a_large_mean_costs_no_digits() {
    let [x, weight, bias] = inputs(2, 3, 20, 20);
    let x = (x + 300.).unwrap();
    let wide = [&x, &weight, &bias].map(|x| x.to_dtype(DType::F64).unwrap());
    let (y, _) = batch_norm_train(&x, &weight, &bias, EPSILON, Activation::None).unwrap();
    let (expected, _) = batch_norm_train(&wide[0], &wide[1], &wide[2], EPSILON, Activation::None).unwrap();
    verify::assert_close("output", &y, &expected, 1e-6);
}

#[test]
fn each_gradient_is_computed_alone() {
    let inputs = inputs(2, 3, 4, 5);
    let train = |i: &[Tensor]| Ok(batch_norm_train(&i[0], &i[1], &i[2], EPSILON, Activation::Relu)?.0);
    let cotangent = draw((2, 3, 4, 5), 9);
    let (_, all) = verify::differentiate(&train, &inputs, &cotangent);
    for (at, expected) in all.iter().enumerate() {
        let alone = |i: &[Tensor]| {
            let mut inputs = inputs.to_vec();
            inputs[at] = i[0].clone();
            train(&inputs)
        };
        let (_, gradient) = verify::differentiate(&alone, &inputs[at..=at], &cotangent);
        assert_eq!(verify::values(&gradient[0]), verify::values(expected));
    }
}

#[test]
fn statistics_take_no_gradient() {
    let [x, weight, bias] = inputs(2, 3, 4, 5).map(|x| candle_core::Var::from_tensor(&x).unwrap().into_inner());
    let (_, statistics) = batch_norm_train(&x, &weight, &bias, EPSILON, Activation::None).unwrap();
    assert!(!statistics.mean.track_op() && !statistics.variance.track_op());
}

#[test]
fn nan_stays_in_its_channel() {
    let [x, weight, bias] = inputs(2, 2, 3, 3);
    let mut values = verify::values(&x);
    values[9] = f64::NAN; // image 0, channel 1
    let x = Tensor::from_vec(values, (2, 2, 3, 3), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    for activation in ACTIVATIONS {
        let (y, statistics) = batch_norm_train(&x, &weight, &bias, EPSILON, activation).unwrap();
        for (channel, nan) in [(0, false), (1, true)] {
            let y = verify::values(&y.narrow(1, channel, 1).unwrap());
            assert!(y.iter().all(|y| y.is_nan() == nan));
            assert_eq!(verify::values(&statistics.variance)[channel].is_nan(), nan);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let [x, weight, bias] = inputs(1, 2, 1, 1);
    assert_eq!(
        refusal(batch_norm_train(&x, &weight, &bias, EPSILON, Activation::None)),
        "batch_norm_train: x [1, 2, 1, 1] has one value per channel, training needs more"
    );
    let three = draw(3, 1);
    assert_eq!(
        refusal(batch_norm_eval(&x, &weight, &bias, &three, &weight, EPSILON, Activation::None)),
        "batch_norm_eval: running_mean has shape [3], not [2]"
    );
    assert_eq!(
        refusal(batch_norm_train(&x.squeeze(0).unwrap(), &weight, &bias, EPSILON, Activation::None)),
        "batch_norm_train: x has shape [2, 1, 1], not (n, c, h, w)"
    );
}
