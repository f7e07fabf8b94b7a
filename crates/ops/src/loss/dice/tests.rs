use candle_core::{DType, Device, Tensor};

use crate::loss::labels::example as labels;
use crate::verify::{self, Case, draw, refusal, values};
use crate::{VOID, dice};

#[test]
fn agrees_with_pytorch() {
    for case in Case::of_losses("dice") {
        let labels = case.labels();
        case.check(&["logits"], &|inputs| {
            let weights =
                case.tensor("class_weights").map(|weights| weights.to_dtype(inputs[0].dtype())).transpose()?;
            dice(&inputs[0], &labels, weights.as_ref())
        });
    }
}

#[test]
fn holds_everywhere() {
    for (n, c, h, w) in [(2, 5, 4, 3), (3, 19, 33, 41), (1, 2, 1, 1)] {
        let labels = labels(n, c as u32, h, w);
        let logits = (draw((n, c, h, w), 1) * 6.).unwrap();
        verify::assert_op(&|inputs| dice(&inputs[0], &labels, None), std::slice::from_ref(&logits));
        let weights = (draw(c, 2) + 1.2).unwrap();
        let weighted =
            |inputs: &[Tensor]| dice(&inputs[0], &labels, Some(&weights.to_dtype(inputs[0].dtype()).unwrap()));
        verify::assert_op(&weighted, &[logits]);
    }
}

/// Two pixels of class 0, one of class 2, a void one; probabilities of 0 and 1 but for the second pixel's halves.
#[test]
fn only_classes_that_occur_are_averaged() {
    for dtype in [DType::F32, DType::F64] {
        let planes = [[[1000f32, 0.], [0., 0.]], [[0., -1000.], [0., 0.]], [[0., 0.], [1000., 1000.]]];
        let logits = Tensor::new(&[planes], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let labels = Tensor::new(&[[[0u32, 0], [2, VOID]]], &Device::Cpu).unwrap();
        // Class 0: I = 1.5, P = 1.5, T = 2. Class 2: I = 1, P = 1.5, T = 1.
        let [first, last] = [1. - 4. / 4.5, 1. - 3. / 3.5];
        let loss = |weights: Option<&Tensor>| values(&dice(&logits, &labels, weights).unwrap())[0];
        assert!((loss(None) - f64::midpoint(first, last)).abs() < 1e-6);
        let weights = Tensor::new(&[3f32, 100., 1.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        assert!((loss(Some(&weights)) - (3. * first + last) / 4.).abs() < 1e-6);
    }
}

#[test]
fn void_counts_for_nothing_nan_included() {
    for dtype in [DType::F32, DType::F64] {
        let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
        let logits = Tensor::new(&[[[[f32::NAN, 1.]], [[0., 2.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let differentiate = |labels: [u32; 2]| {
            let labels = Tensor::new(&[[labels]], &Device::Cpu).unwrap();
            let op = |inputs: &[Tensor]| dice(&inputs[0], &labels, None);
            let (y, gradients) = verify::differentiate(&op, std::slice::from_ref(&logits), &one);
            (values(&y)[0], values(&gradients[0]))
        };
        assert_eq!(differentiate([VOID, VOID]), (0., vec![0.; 4]));
        assert!(differentiate([1, 0]).0.is_nan());
        let (loss, gradient) = differentiate([VOID, 0]);
        let p = 0.268_941_42; // 1 - (2 p + 1) / (p + 2)
        assert!((loss - (1. - (2. * p + 1.) / (p + 2.))).abs() < 1e-6);
        assert!(gradient[0] == 0. && gradient[2] == 0. && gradient[1] < 0. && gradient[3] > 0.);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (labels, logits) = (labels(1, 3, 1, 2), draw((1, 4, 1, 3), 1));
    assert_eq!(refusal(dice(&logits, &labels, None)), "dice: labels have shape [1, 1, 2], logits [1, 4, 1, 3]");
    let weights = draw(2, 1);
    assert_eq!(
        refusal(dice(&draw((1, 3, 1, 2), 1), &labels, Some(&weights))),
        "dice: class_weights has shape [2], not [3]"
    );
}
