use candle_core::{DType, Device, Tensor};

use crate::loss::labels::example as labels;
use crate::verify::{self, Case, draw, refusal, values};
use crate::{VOID, cross_entropy, focal};

#[test]
fn agrees_with_pytorch() {
    for case in Case::of_losses("focal") {
        let (labels, gamma) = (case.labels(), case.number("gamma"));
        case.check(&["logits"], &|inputs| {
            let weights =
                case.tensor("class_weights").map(|weights| weights.to_dtype(inputs[0].dtype())).transpose()?;
            focal(&inputs[0], &labels, gamma, weights.as_ref())
        });
    }
}

#[test]
fn holds_everywhere() {
    for (n, c, h, w) in [(2, 5, 4, 3), (3, 19, 33, 41), (1, 2, 1, 1)] {
        let labels = labels(n, c as u32, h, w);
        let logits = (draw((n, c, h, w), 1) * 6.).unwrap();
        let weights = (draw(c, 2) + 1.2).unwrap();
        for gamma in [0.5, 1., 2., 5.] {
            verify::assert_op(&|inputs| focal(&inputs[0], &labels, gamma, None), std::slice::from_ref(&logits));
            let weighted = |inputs: &[Tensor]| {
                focal(&inputs[0], &labels, gamma, Some(&weights.to_dtype(inputs[0].dtype()).unwrap()))
            };
            verify::assert_op(&weighted, std::slice::from_ref(&logits));
        }
    }
}

#[test]
fn without_gamma_it_is_cross_entropy_and_with_one_it_is_less() {
    let (labels, logits) = (labels(1, 4, 6, 5), draw((1, 4, 6, 5), 1));
    let plain = values(&cross_entropy(&logits, &labels, None).unwrap());
    assert_eq!(values(&focal(&logits, &labels, 0., None).unwrap()), plain);
    assert!(values(&focal(&logits, &labels, 2., None).unwrap())[0] < plain[0]);
}

#[test]
fn both_ends_are_exact() {
    for dtype in [DType::F32, DType::F64] {
        let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
        for (gap, label, gamma, loss, gradient) in [
            (2000f32, 0u32, 2., 0., [0., 0.]),
            (2000., 0, 0.5, 0., [0., 0.]),
            (2000., 1, 2., 2000., [1., -1.]),
            // (1 - p)^2 l of p = 1 - e with e = exp(-10): e^3, and 3 e^3 towards the logits.
            (10., 0, 2., 9.356_e-14, [-2.807e-13, 2.807e-13]),
        ] {
            let logits = Tensor::new(&[[[[gap]], [[0.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let labels = Tensor::new(&[[[label]]], &Device::Cpu).unwrap();
            let op = |inputs: &[Tensor]| focal(&inputs[0], &labels, gamma, None);
            let (y, gradients) = verify::differentiate(&op, &[logits], &one);
            let close = |actual: f64, expected: f64| (actual - expected).abs() <= 1e-3 * expected.abs();
            assert!(close(values(&y)[0], loss), "{gap} {label} {gamma}: {y}");
            assert!(values(&gradients[0]).iter().zip(gradient).all(|(&a, b)| close(a, b)), "{gap}: {}", gradients[0]);
        }
    }
}

#[test]
fn void_counts_for_nothing_nan_included() {
    for dtype in [DType::F32, DType::F64] {
        let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
        let logits = Tensor::new(&[[[[f32::NAN, 1.]], [[0., 2.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let differentiate = |labels: [u32; 2]| {
            let labels = Tensor::new(&[[labels]], &Device::Cpu).unwrap();
            let op = |inputs: &[Tensor]| focal(&inputs[0], &labels, 2., None);
            let (y, gradients) = verify::differentiate(&op, std::slice::from_ref(&logits), &one);
            (values(&y)[0], values(&gradients[0]))
        };
        assert_eq!(differentiate([VOID, VOID]), (0., vec![0.; 4]));
        assert!(differentiate([1, 0]).0.is_nan());
        let (loss, gradient) = differentiate([VOID, 0]);
        assert!((loss - 0.731_058_58f64.powi(2) * 1.313_261_7).abs() < 1e-6);
        assert!(gradient[0] == 0. && gradient[2] == 0. && gradient[1] < 0. && gradient[3] > 0.);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (labels, logits) = (labels(1, 3, 1, 2), draw((1, 3, 1, 2), 1));
    assert_eq!(refusal(focal(&logits, &labels, -1., None)), "focal: gamma is -1, not a number from 0 on");
    assert_eq!(refusal(focal(&logits, &labels, f64::NAN, None)), "focal: gamma is NaN, not a number from 0 on");
    let four = Tensor::full(3u32, (1, 1, 2), &Device::Cpu).unwrap();
    assert_eq!(refusal(focal(&logits, &four, 2., None)), "focal: label 3 is neither one of 3 classes nor 255 (void)");
}
