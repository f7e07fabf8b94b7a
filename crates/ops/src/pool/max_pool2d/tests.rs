use candle_core::{DType, Device, Tensor, Var};

use crate::max_pool2d;
use crate::verify::{self, Case, draw, refusal};

#[test]
fn agrees_with_pytorch() {
    for case in Case::all("max_pool2d") {
        let kernel = case.size("kernel");
        case.check(&["x"], &|inputs| max_pool2d(&inputs[0], kernel));
    }
}

#[test]
fn holds_everywhere() {
    for (shape, kernel) in [
        ((2, 3, 8, 6), 2),
        ((1, 2, 7, 5), 2),
        ((3, 2, 38, 75), 2),
        ((2, 1, 10, 13), 3),
        ((1, 1, 4, 4), 4),
        ((1, 2, 3, 3), 1),
        ((1, 1, 40, 37), 17),
    ] {
        verify::assert_op(&|inputs| max_pool2d(&inputs[0], kernel), &[draw(shape, 1)]);
    }
}

#[test]
fn the_first_maximum_gets_the_gradient() {
    for dtype in [DType::F32, DType::F64] {
        let x =
            Tensor::new(&[[[[1f32, 1., 0., 2.], [1., 1., 2., 2.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let cotangent = Tensor::new(&[[[[3f32, 5.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let (y, gradients) = verify::differentiate(&|inputs| max_pool2d(&inputs[0], 2), &[x], &cotangent);
        assert_eq!(verify::values(&y), [1., 2.]);
        assert_eq!(verify::values(&gradients[0]), [3., 0., 0., 5., 0., 0., 0., 0.]);
    }
}

/// Each way through a 2x2 window, in rows that are long enough for vectors.
#[test]
fn ties_and_nan_are_settled_alike_in_every_lane() {
    let levels = [0f32, 1., f32::NAN];
    let pixel = |window: usize, at: usize| levels[window / 3usize.pow(at as u32) % 3];
    let x: Vec<f32> = (0..2 * 162).map(|i| pixel(i % 162 / 2, i / 162 * 2 + i % 2)).collect();
    let x = Tensor::from_vec(x, (1, 1, 2, 162), &Device::Cpu).unwrap();
    let ones = Tensor::ones((1, 1, 1, 81), DType::F32, &Device::Cpu).unwrap();
    let (_, gradients) = verify::differentiate(&|i| max_pool2d(&i[0], 2), &[x], &ones);
    let gradient = verify::values(&gradients[0]);
    for window in 0..81 {
        let wins = |best: f32, x: f32| x > best || x.is_nan();
        let best = (1..4).fold(0, |best, at| if wins(pixel(window, best), pixel(window, at)) { at } else { best });
        for at in 0..4 {
            let expected = f64::from(u8::from(at == best));
            assert!((gradient[at / 2 * 162 + window * 2 + at % 2] - expected).abs() < 1e-9);
        }
    }
}

/// Without a gradient to come the places of the maxima are not kept; the maxima are the same.
#[test]
fn a_prediction_pools_as_a_training_does() {
    for (shape, kernel) in [((2, 3, 8, 6), 2), ((3, 2, 39, 75), 2), ((1, 2, 10, 13), 3)] {
        let x = draw(shape, 1);
        let at = x.elem_count() / 2;
        let with_nan = Tensor::arange(0u32, x.elem_count() as u32, &Device::Cpu).unwrap().eq(at as u32).unwrap();
        let with_nan = with_nan.reshape(x.shape()).unwrap();
        let nan = Tensor::full(f32::NAN, x.shape(), &Device::Cpu).unwrap();
        let x = with_nan.where_cond(&nan, &x).unwrap();
        let bits = |y: &Tensor| {
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let trained = max_pool2d(&Var::from_tensor(&x).unwrap(), kernel).unwrap();
        assert_eq!(bits(&max_pool2d(&x, kernel).unwrap()), bits(&trained));
    }
}

#[test]
fn nan_is_largest() {
    for dtype in [DType::F32, DType::F64] {
        for at in 0..4 {
            let mut x = [1f32, f32::INFINITY, -1., 0.];
            x[at] = f32::NAN;
            let x = Tensor::new(&x, &Device::Cpu).unwrap().reshape((1, 1, 2, 2)).unwrap().to_dtype(dtype).unwrap();
            let (y, gradients) = verify::differentiate(
                &|i| max_pool2d(&i[0], 2),
                std::slice::from_ref(&x),
                &Tensor::ones((1, 1, 1, 1), dtype, &Device::Cpu).unwrap(),
            );
            assert!(verify::values(&y)[0].is_nan());
            assert!(verify::values(&gradients[0])[at] > 0.);
        }
    }
    let lowest = Tensor::full(f32::NEG_INFINITY, (1, 1, 2, 2), &Device::Cpu).unwrap();
    assert_eq!(verify::values(&max_pool2d(&lowest, 2).unwrap()), [f64::NEG_INFINITY]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let x = draw((1, 1, 3, 8), 1);
    assert_eq!(refusal(max_pool2d(&x, 4)), "max_pool2d: kernel 4 exceeds x [1, 1, 3, 8]");
    assert_eq!(refusal(max_pool2d(&x, 0)), "max_pool2d: kernel (0, 0) has a zero");
}
