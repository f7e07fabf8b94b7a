use candle_core::{DType, Device, Tensor};

use crate::loss::labels::example as labels;
use crate::verify::{self, Bounds, Case, draw, refusal, values};
use crate::{VOID, lovasz_softmax, softmax};

#[test]
fn agrees_with_pytorch() {
    for case in Case::of_losses("lovasz_softmax") {
        let labels = case.labels();
        case.check(&["logits"], &|inputs| lovasz_softmax(&inputs[0], &labels));
    }
}

#[test]
fn holds_everywhere() {
    for (n, c, h, w) in [(2, 5, 4, 3), (2, 3, 17, 9), (1, 2, 1, 1)] {
        let labels = labels(n, c as u32, h, w);
        let logits = (draw((n, c, h, w), 1) * 6.).unwrap();
        verify::assert_op(&|inputs| lovasz_softmax(&inputs[0], &labels), &[logits]);
    }
}

#[test]
fn any_pool_and_the_f64_path_agree_on_many_pixels() {
    let labels = labels(3, 7, 70, 90);
    let logits = [(draw((3, 7, 70, 90), 1) * 6.).unwrap()];
    verify::assert_any_pool(&|inputs| lovasz_softmax(&inputs[0], &labels), &logits);
    // Errors that f32 sees in another order than f64 have exchanged their slopes, which differ little.
    let bounds = Bounds { output: 1e-6, gradient: 3e-5 };
    verify::assert_within(bounds, &|inputs| lovasz_softmax(&inputs[0], &labels), &logits);
}

/// Where every probability is 0 or 1 the surrogate is the Jaccard loss itself.
#[test]
fn of_certain_predictions_it_is_one_minus_the_mean_iou() {
    for dtype in [DType::F32, DType::F64] {
        let truth = [0u32, 0, 0, 1, 1, VOID, 2, 2];
        let predicted = [0u32, 1, 0, 1, 0, 2, 2, 2];
        let logits: Vec<f32> =
            (0..4).flat_map(|class| predicted.map(|p| if p == class { 1000. } else { 0. })).collect();
        let logits = Tensor::from_vec(logits, (1, 4, 2, 4), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let labels = Tensor::new(&truth, &Device::Cpu).unwrap().reshape((1, 2, 4)).unwrap();
        // IoU of 2 / 4, 1 / 3 and 2 / 2; the fourth class does not occur.
        let expected = 1. - (0.5 + 1. / 3. + 1.) / 3.;
        assert!((values(&lovasz_softmax(&logits, &labels).unwrap())[0] - expected).abs() < 1e-6);
    }
}

/// All errors are equal: the earlier pixel counts as the first to be wrong, and so takes the larger slope.
#[test]
fn equal_errors_go_in_the_order_of_their_pixels() {
    for dtype in [DType::F32, DType::F64] {
        let logits = Tensor::zeros((1, 2, 1, 4), dtype, &Device::Cpu).unwrap();
        let labels = Tensor::new(&[[[0u32, 1, 1, 0]]], &Device::Cpu).unwrap();
        let one = Tensor::ones((), dtype, &Device::Cpu).unwrap();
        let op = |inputs: &[Tensor]| lovasz_softmax(&inputs[0], &labels);
        let (y, gradients) = verify::differentiate(&op, std::slice::from_ref(&logits), &one);
        assert!((values(&y)[0] - 0.5).abs() < 1e-7);
        // By the definition: differences of the Jaccard loss of a class of two pixels.
        let jaccard = |own: [bool; 4]| {
            let (mut i, mut u) = (2., 2.);
            own.map(|own| {
                let before = 1. - i / u;
                if own {
                    i -= 1.;
                } else {
                    u += 1.;
                }
                1. - i / u - before
            })
        };
        let [zero, one] = [jaccard([true, false, false, true]), jaccard([false, true, true, false])];
        assert_eq!(values(&softmax(&logits).unwrap()), [0.5; 8]);
        let signs = [-1., 1., 1., -1.];
        let slopes: Vec<f64> = (0..4).map(|at| signs[at] * (zero[at] + one[at]) / 2.).collect();
        // Through the softmax of two equal logits: a quarter of the difference of both slopes.
        for at in 0..4 {
            let actual = values(&gradients[0]);
            assert!((actual[at] - slopes[at] / 4.).abs() < 1e-7, "{at}: {actual:?}");
            assert!((actual[4 + at] + slopes[at] / 4.).abs() < 1e-7, "{at}: {actual:?}");
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
            let op = |inputs: &[Tensor]| lovasz_softmax(&inputs[0], &labels);
            let (y, gradients) = verify::differentiate(&op, std::slice::from_ref(&logits), &one);
            (values(&y)[0], values(&gradients[0]))
        };
        assert_eq!(differentiate([VOID, VOID]), (0., vec![0.; 4]));
        assert!(differentiate([1, 0]).0.is_nan());
        let (loss, gradient) = differentiate([VOID, 0]);
        assert!((loss - 0.731_058_58).abs() < 1e-6); // the only pixel of the only class: its error
        assert!(gradient[0] == 0. && gradient[2] == 0. && gradient[1] < 0. && gradient[3] > 0.);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let labels = labels(1, 3, 1, 2);
    let refused =
        refusal(lovasz_softmax(&draw((1, 2, 1, 2), 1), &Tensor::full(2u32, (1, 1, 2), &Device::Cpu).unwrap()));
    assert_eq!(refused, "lovasz_softmax: label 2 is neither one of 2 classes nor 255 (void)");
    let refused = refusal(lovasz_softmax(&draw((3, 2), 1), &labels));
    assert_eq!(refused, "lovasz_softmax: logits has shape [3, 2], not (n, c, h, w)");
}
