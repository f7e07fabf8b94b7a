use candle_core::{DType, Device, Tensor};

use crate::loss::labels::example as labels;
use crate::verify::{self, draw, refusal};
use crate::{VOID, cross_entropy};

#[test]
fn holds_everywhere() {
    for (n, c, h, w) in [(2, 5, 4, 3), (1, 1, 2, 2), (3, 19, 33, 41), (1, 2, 1, 1)] {
        let labels = labels(n, c as u32, h, w);
        let logits = (draw((n, c, h, w), 1) * 6.).unwrap();
        verify::assert_op(&|inputs| cross_entropy(&inputs[0], &labels, None), std::slice::from_ref(&logits));
        let weights = (draw(c, 2) + 1.2).unwrap();
        let weighted =
            |inputs: &[Tensor]| cross_entropy(&inputs[0], &labels, Some(&weights.to_dtype(inputs[0].dtype()).unwrap()));
        verify::assert_op(&weighted, &[logits]);
    }
}

#[test]
fn is_the_weighted_mean_of_minus_log_softmax() {
    let logits = draw((1, 3, 1, 2), 1);
    let z = verify::values(&logits); // z[c * 2 + pixel]
    let labels = Tensor::new(&[[[2u32, 0]]], &Device::Cpu).unwrap();
    let weights = Tensor::new(&[0.5f32, 1., 2.], &Device::Cpu).unwrap();
    let loss =
        |pixel: usize, label: usize| (0..3).map(|c| z[c * 2 + pixel].exp()).sum::<f64>().ln() - z[label * 2 + pixel];
    let expected = (2. * loss(0, 2) + 0.5 * loss(1, 0)) / 2.5;
    let actual = verify::values(&cross_entropy(&logits, &labels, Some(&weights)).unwrap())[0];
    assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
}

#[test]
fn large_logits_are_exact() {
    for dtype in [DType::F32, DType::F64] {
        let logits = Tensor::new(&[[[[1000f32]], [[-1000.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
        for (label, loss, gradient) in [(0u32, 0., [0., 0.]), (1, 2000., [1., -1.])] {
            let labels = Tensor::new(&[[[label]]], &Device::Cpu).unwrap();
            let op = |inputs: &[Tensor]| cross_entropy(&inputs[0], &labels, None);
            let (y, gradients) = verify::differentiate(&op, std::slice::from_ref(&logits), &one);
            assert_eq!(verify::values(&y), [loss]);
            assert_eq!(verify::values(&gradients[0]), gradient);
        }
    }
}

#[test]
fn only_void_is_zero_with_zero_gradient() {
    for dtype in [DType::F32, DType::F64] {
        let labels = Tensor::full(VOID, (2, 3, 2), &Device::Cpu).unwrap();
        let logits = draw((2, 4, 3, 2), 1).to_dtype(dtype).unwrap();
        let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
        let op = |inputs: &[Tensor]| cross_entropy(&inputs[0], &labels, None);
        let (y, gradients) = verify::differentiate(&op, &[logits], &one);
        assert_eq!(verify::values(&y), [0.]);
        assert!(verify::values(&gradients[0]).iter().all(|&gradient| gradient == 0.));
    }
}

#[test]
fn nan_passes_but_not_from_void() {
    for dtype in [DType::F32, DType::F64] {
        let logits = Tensor::new(&[[[[f32::NAN, 1.]], [[0., 2.]]]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let loss = |labels: [u32; 2]| {
            let labels = Tensor::new(&labels, &Device::Cpu).unwrap().reshape((1, 1, 2)).unwrap();
            verify::values(&cross_entropy(&logits, &labels, None).unwrap())[0]
        };
        assert!(loss([1, 0]).is_nan());
        assert!((loss([VOID, 0]) - 1.313_261_7).abs() < 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let logits = draw((1, 3, 1, 2), 1);
    let labels = |values: &[u32]| Tensor::new(values, &Device::Cpu).unwrap().reshape((1, 1, values.len())).unwrap();
    let refused = |labels: &Tensor| refusal(cross_entropy(&logits, labels, None));
    assert_eq!(refused(&labels(&[0, 3])), "cross_entropy: label 3 is neither one of 3 classes nor 255 (void)");
    assert_eq!(refused(&labels(&[0, 1, 2])), "cross_entropy: labels have shape [1, 1, 3], logits [1, 3, 1, 2]");
    let float = labels(&[0, 1]).to_dtype(DType::F32).unwrap();
    assert_eq!(refused(&float), "cross_entropy: labels are F32, not U32");
    let many = draw((1, 256, 1, 2), 1);
    assert_eq!(
        refusal(cross_entropy(&many, &labels(&[0, 1]), None)),
        "cross_entropy: logits [1, 256, 1, 2] have more than 255 classes, and label 255 is void"
    );
    let weights = draw(2, 1);
    assert_eq!(
        refusal(cross_entropy(&logits, &labels(&[0, 1]), Some(&weights))),
        "cross_entropy: class_weights has shape [2], not [3]"
    );
}
