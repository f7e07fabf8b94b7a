use candle_core::{DType, Device, Result, Tensor};

use crate::verify::{self, Case, draw};
use crate::{Activation, add, leaky_relu, relu, sigmoid, soft_clamp, tanh};

type Unary = fn(&Tensor) -> Result<Tensor>;

fn at(op: Unary, x: &[f32], dtype: DType) -> (Vec<f64>, Vec<f64>) {
    let x = Tensor::new(x, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let (y, gradients) =
        verify::differentiate(&|inputs| op(&inputs[0]), std::slice::from_ref(&x), &x.ones_like().unwrap());
    (verify::values(&y), verify::values(&gradients[0]))
}

#[test]
fn leaky_relu_agrees_with_pytorch() {
    for case in Case::all("leaky_relu") {
        let slope = case.number("slope");
        case.check(&["x"], &|inputs| leaky_relu(&inputs[0], slope));
    }
}

#[test]
fn holds_everywhere() {
    let ops: [Unary; 5] = [relu, |x| leaky_relu(x, 0.2), tanh, sigmoid, |x| soft_clamp(x, 1.5)];
    for op in ops {
        for shape in [vec![2, 3, 5, 7], vec![1], vec![40_001]] {
            let x = (draw(shape, 1) * 2.).unwrap();
            verify::assert_op(&|inputs| op(&inputs[0]), &[x]);
        }
    }
}

#[test]
fn gradients_at_zero_are_pytorchs() {
    for dtype in [DType::F32, DType::F64] {
        assert_eq!(at(relu, &[0., -0., 1.], dtype), (vec![0., 0., 1.], vec![0., 0., 1.]));
        assert_eq!(at(|x| leaky_relu(x, 0.25), &[0., -4., 1.], dtype), (vec![0., -1., 1.], vec![0.25, 0.25, 1.]));
        assert_eq!(at(sigmoid, &[0.], dtype), (vec![0.5], vec![0.25]));
        assert_eq!(at(tanh, &[0.], dtype), (vec![0.], vec![1.]));
    }
}

#[test]
fn nothing_overflows_and_nan_passes() {
    for dtype in [DType::F32, DType::F64] {
        let ends = [f32::NEG_INFINITY, -1e30, -200., 200., 1e30, f32::INFINITY];
        assert_eq!(at(sigmoid, &ends, dtype).0.iter().map(|y| y.round()).collect::<Vec<_>>(), [0., 0., 0., 1., 1., 1.]);
        assert!(
            at(sigmoid, &[-200., 200., -1e30, 1e30], dtype)
                .1
                .iter()
                .all(|gradient| gradient.abs() < 1e-80_f64.max(1e-30))
        );
        assert_eq!(at(tanh, &ends, dtype).0, [-1., -1., -1., 1., 1., 1.]);
        let ops: [Unary; 5] = [relu, |x| leaky_relu(x, 0.2), tanh, sigmoid, |x| soft_clamp(x, 1.5)];
        for op in ops {
            assert!(at(op, &[f32::NAN], dtype).0[0].is_nan());
        }
        assert_eq!(at(relu, &ends[4..], dtype).0, [f64::from(1e30f32), f64::INFINITY]);
    }
}

#[test]
fn small_values_keep_their_digits() {
    let x: Vec<f32> = (0..2000).map(|i| (f32::from(i as u16) - 1000.) * 1e-3 * 1.7f32.powi(i % 7 - 12)).collect();
    let (y, _) = at(tanh, &x, DType::F32);
    for (x, y) in x.iter().zip(y) {
        let expected = f64::from(*x).tanh();
        assert!((y - expected).abs() <= 3e-7 * expected.abs(), "tanh({x}) = {y}, not {expected}");
    }
}

#[test]
fn logarithms_are_exact() {
    for i in 0..20_000u16 {
        let x = 1.002f32.powi(i32::from(i % 9000) - 3000) * (1. + f32::from(i) * 1e-5);
        let (actual, expected) = (f64::from(super::ln_normal(x)), f64::from(x).ln());
        assert!((actual - expected).abs() <= 2e-7 * expected.abs(), "ln({x}) = {actual}, not {expected}");
    }
    assert!(super::ln_normal(1.).abs() < 1e-30 && super::ln_normal(f32::NAN).is_nan());
}

#[test]
fn sums_hold_everywhere() {
    let leaky = [0.2, 1.5, 0., -0.5].map(Activation::LeakyRelu);
    for activation in [&[Activation::None, Activation::Relu], &leaky[..]].concat() {
        for shape in [vec![2, 3, 5, 7], vec![1], vec![40_001]] {
            let inputs = [draw(&shape[..], 1), draw(&shape[..], 2)];
            verify::assert_op(&|x| add(&x[0], &x[1], activation), &inputs);
        }
    }
    let error = verify::refusal(add(&draw((2, 3), 1), &draw((3, 2), 1), Activation::None));
    assert_eq!(error, "add: b has shape [3, 2], not [2, 3]");
}

/// The gradients of both addends stay apart where one of them has other uses.
#[test]
fn an_addend_that_is_used_again_keeps_the_others_gradient() {
    // The way back reaches the ReLU last, whose gradient is then added to that of x[0] in place.
    let op = |x: &[Tensor]| {
        let other_use = relu(&x[0])?;
        add(&other_use, &add(&x[0], &x[1], Activation::None)?, Activation::Relu)
    };
    verify::assert_op(&op, &[draw((2, 3, 4, 5), 1), draw((2, 3, 4, 5), 2)]);
    for activation in [Activation::None, Activation::LeakyRelu(0.2)] {
        verify::assert_op(&|x| add(&x[0], &x[0], activation), &[draw((2, 3, 4, 5), 1)]);
    }
}

#[test]
fn a_soft_clamp_is_x_near_0_and_bounded_far_away() {
    for dtype in [DType::F32, DType::F64] {
        let (y, gradients) = at(|x| soft_clamp(x, 8.), &[0., 0.01, 1e6, -1e6], dtype);
        assert_eq!((y[0], gradients[0], y[2], y[3]), (0., 1., 8., -8.));
        assert!((y[1] - 0.01).abs() < 1e-7);
    }
    assert!(verify::refusal(soft_clamp(&draw(3, 1), 0.)).contains("bound 0 is not positive"));
}
