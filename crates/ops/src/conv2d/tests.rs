use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use crate::Exactness::{Bf16, Direct, Fast};
use crate::verify::{self, Case, draw, refusal};
use crate::{Conv2d, cat, conv2d, cuda_refusals};

fn op(spec: Conv2d) -> impl Fn(&[Tensor]) -> candle_core::Result<Tensor> + Sync {
    move |inputs| conv2d(&inputs[0], &inputs[1], inputs.get(2), spec)
}

fn bounds(spec: Conv2d) -> verify::Bounds {
    if spec.exactness == Direct { verify::EXACT } else { verify::FAST }
}

#[test]
fn agrees_with_pytorch() {
    for case in Case::all("conv2d") {
        for exactness in [Fast, Direct] {
            let spec = Conv2d { exactness, ..Conv2d::new(case.size("stride"), case.size("padding")) };
            case.check_within(bounds(spec), &["x", "weight", "bias"], &op(spec));
        }
    }
}

#[test]
fn holds_everywhere() {
    let specs = [
        // Stride 1 with a halo, and with more padding than the kernel reaches.
        (Conv2d::new(1, 1), (2, 5, 7, 6), (4, 5, 3, 3)),
        (Conv2d::new(1, 3), (1, 2, 4, 5), (3, 2, 2, 3)),
        // Without im2col.
        (Conv2d::default(), (3, 6, 5, 7), (4, 6, 1, 1)),
        // Strides that leave pixels over, unequal in both directions.
        (Conv2d::new(2, 1), (2, 3, 9, 8), (5, 3, 4, 4)),
        (
            Conv2d { stride: (3, 2), padding: (0, 2), dilation: (1, 2), groups: 2, exactness: Fast },
            (2, 4, 11, 9),
            (6, 2, 2, 3),
        ),
        // One channel a group.
        (Conv2d { groups: 5, ..Conv2d::new(1, 1) }, (1, 5, 6, 4), (5, 1, 3, 3)),
        (Conv2d { dilation: (2, 3), ..Conv2d::new(1, 2) }, (2, 3, 9, 11), (2, 3, 3, 3)),
        // One pixel out.
        (Conv2d::new(1, 0), (2, 7, 4, 4), (3, 7, 4, 4)),
    ];
    for ((spec, x, weight), exactness) in specs.into_iter().flat_map(|case| [(case, Fast), (case, Direct)]) {
        let spec = Conv2d { exactness, ..spec };
        let inputs = [draw(x, 1), draw(weight, 2), draw(weight.0, 3)];
        verify::assert_op_within(bounds(spec), &op(spec), &inputs);
        verify::assert_within(bounds(spec), &op(spec), &inputs[..2]);
    }
}

#[test]
fn holds_across_tiles_and_blocks() {
    // More pixels than a tile, more channels than a block.
    for (spec, x, weight) in [
        (Conv2d::new(1, 1), (2, 3, 40, 57), (70, 3, 3, 3)),
        (Conv2d::new(1, 1), (1, 150, 9, 9), (140, 150, 3, 3)),
        (Conv2d::new(2, 1), (2, 70, 34, 34), (8, 70, 4, 4)),
        (Conv2d { exactness: Direct, ..Conv2d::new(2, 1) }, (2, 70, 34, 34), (8, 70, 4, 4)),
    ] {
        let inputs = [draw(x, 4), draw(weight, 5), draw(weight.0, 6)];
        verify::assert_within(bounds(spec), &op(spec), &inputs);
        verify::assert_any_pool(&op(spec), &inputs);
    }
}

#[test]
fn rounds_to_bf16() {
    for (spec, x, weight) in [
        (Conv2d::new(1, 1), (2, 16, 20, 17), (18, 16, 3, 3)),
        (Conv2d::new(2, 1), (2, 3, 9, 8), (5, 3, 4, 4)),
        (Conv2d { dilation: (2, 3), ..Conv2d::new(1, 2) }, (2, 3, 9, 11), (2, 3, 3, 3)),
    ] {
        let inputs = [draw(x, 1), draw(weight, 2), draw(weight.0, 3)];
        let [bf16, direct] = [Bf16, Direct].map(|exactness| op(Conv2d { exactness, ..spec }));
        verify::assert_bf16(&bf16, &direct, &inputs);
        verify::assert_bf16(&bf16, &direct, &inputs[..2]);
    }
    let inputs = [draw((2, 16, 9, 8), 1), draw((2, 3, 9, 8), 2), draw((4, 19, 3, 3), 3)];
    let [bf16, direct] = [Bf16, Direct].map(|exactness| of_pair(Conv2d { exactness, ..Conv2d::new(1, 1) }));
    verify::assert_bf16(&bf16, &direct, &inputs);
}

fn of_pair(spec: Conv2d) -> impl Fn(&[Tensor]) -> candle_core::Result<Tensor> + Sync {
    move |inputs| conv2d([&inputs[0], &inputs[1]], &inputs[2], inputs.get(3), spec)
}

/// Two images with channels of their own; sums of theirs are those of the stack, in the same order.
#[test]
fn two_images_are_seen_as_their_stack() {
    let direct = Conv2d { exactness: Direct, ..Conv2d::new(1, 1) };
    let many_kernels = [(1, 112, 9, 9), (1, 32, 9, 9)];
    for (spec, [x, below], weight) in [
        // Winograd's: many tiles, few tiles with many kernels, a kernel of one tap, phases, and a stack that it cannot read in two places.
        (Conv2d::new(1, 1), [(2, 16, 37, 35), (2, 5, 37, 35)], (18, 21, 3, 3)),
        (Conv2d::new(1, 1), many_kernels, (130, 144, 3, 3)),
        (Conv2d::default(), [(2, 32, 9, 10), (2, 16, 9, 10)], (7, 48, 1, 1)),
        (Conv2d::new(2, 1), [(1, 16, 18, 16), (1, 9, 18, 16)], (5, 25, 4, 4)),
        (Conv2d::new(1, 1), [(2, 5, 13, 12), (2, 16, 13, 12)], (9, 21, 3, 3)),
        // Without tiles: sums of products, few pixels, groups that the border between both divides.
        (direct, [(2, 16, 9, 8), (2, 3, 9, 8)], (4, 19, 3, 3)),
        (Conv2d::default(), [(1, 144, 6, 6), (1, 16, 6, 6)], (160, 160, 5, 5)),
        (Conv2d { groups: 2, ..Conv2d::new(1, 1) }, [(2, 16, 7, 6), (2, 8, 7, 6)], (4, 12, 3, 3)),
    ] {
        let inputs = [draw(x, 1), draw(below, 2), draw(weight, 3), draw(weight.0, 4)];
        let op = of_pair(spec);
        verify::assert_within(bounds(spec), &op, &inputs);
        verify::assert_any_pool(&op, &inputs);
        let stacked = |inputs: &[Tensor]| conv2d(&cat(&[&inputs[0], &inputs[1]])?, &inputs[2], inputs.get(3), spec);
        let cotangent = op(&inputs).unwrap().cos().unwrap();
        let (y, gradients) = verify::differentiate(&op, &inputs, &cotangent);
        let (expected, expected_gradients) = verify::differentiate(&stacked, &inputs, &cotangent);
        assert_eq!(verify::values(&y), verify::values(&expected));
        for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
            assert_eq!(verify::values(gradient), verify::values(expected));
        }
    }
}

#[test]
fn two_images_hold_everywhere() {
    for channels in [(16, 3), (3, 2)] {
        let inputs = [
            draw((2, channels.0, 6, 5), 1),
            draw((2, channels.1, 6, 5), 2),
            draw((3, channels.0 + channels.1, 3, 3), 3),
            draw(3, 4),
        ];
        let op = of_pair(Conv2d::new(1, 1));
        verify::assert_op_within(verify::FAST, &op, &inputs);
        verify::assert_op_within(verify::FAST, &op, &inputs[..3]);
    }
    // One image twice gets both gradients.
    let twice = |inputs: &[Tensor]| conv2d([&inputs[0], &inputs[0]], &inputs[1], None, Conv2d::new(1, 1));
    verify::assert_within(verify::FAST, &twice, &[draw((1, 16, 6, 5), 1), draw((4, 32, 3, 3), 2)]);
}

/// candle's graph knows the last two inputs of four by a link, which needs a gradient even where only the very last takes one.
#[test]
fn each_of_four_inputs_may_be_the_only_variable() {
    let inputs = [draw((1, 16, 5, 6), 1), draw((1, 2, 5, 6), 2), draw((3, 18, 3, 3), 3), draw(3, 4)];
    let op = of_pair(Conv2d::new(1, 1));
    let (_, all) = verify::differentiate(&op, &inputs, &op(&inputs).unwrap());
    for (at, expected) in all.iter().enumerate() {
        let only = |variable: &[Tensor]| {
            let mut inputs = inputs.clone();
            inputs[at] = variable[0].clone();
            op(&inputs)
        };
        let (_, gradients) = verify::differentiate(&only, &inputs[at..=at], &op(&inputs).unwrap());
        assert_eq!(verify::values(&gradients[0]), verify::values(expected), "input {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_agrees_with_f64(
        (n, groups, h, w) in (1usize..4, 1usize..4, 1usize..71, 1usize..71),
        (group_in, group_out, kh, kw) in (1usize..9, 1usize..9, 1usize..5, 1usize..5),
        (sy, sx, py, px, dy, dx) in (1usize..4, 1usize..4, 0usize..4, 0usize..4, 1usize..3, 1usize..3),
        bias: bool,
        direct: bool,
    ) {
        prop_assume!(h + 2 * py > dy * (kh - 1) && w + 2 * px > dx * (kw - 1));
        let exactness = if direct { Direct } else { Fast };
        let spec = Conv2d { stride: (sy, sx), padding: (py, px), dilation: (dy, dx), groups, exactness };
        let weight = draw((group_out * groups, group_in, kh, kw), 8);
        let mut inputs = vec![draw((n, group_in * groups, h, w), 7), weight];
        if bias {
            inputs.push(draw(group_out * groups, 9));
        }
        verify::assert_within(bounds(spec), &op(spec), &inputs);
        verify::composed(|| verify::assert_within(verify::FAST, &op(spec), &inputs));
    }
}

#[test]
fn gradients_that_nobody_needs_are_not_computed() {
    let (x, weight) = (draw((1, 2, 4, 4), 1), draw((2, 2, 3, 3), 2));
    let weight = candle_core::Var::from_tensor(&weight).unwrap();
    let y = conv2d(&x, &weight, None, Conv2d::new(1, 1)).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&weight).is_some_and(|gradient| !gradient.track_op()));
    let untracked = conv2d(&x, &weight.as_detached_tensor(), None, Conv2d::new(1, 1)).unwrap();
    assert!(!untracked.track_op());
}

#[test]
fn nan_and_infinity_pass() {
    let weight = draw((2, 1, 3, 3), 1);
    let spec = |exactness| Conv2d { exactness, ..Conv2d::new(1, 1) };
    for value in [f32::NAN, f32::INFINITY] {
        let mut x = vec![0f32; 64];
        x[9 * 3] = value; // (3, 3)
        let x = Tensor::from_vec(x, (1, 1, 8, 8), &Device::Cpu).unwrap();
        let y = verify::values(&conv2d(&x, &weight, None, spec(Direct)).unwrap());
        let fast = verify::values(&conv2d(&x, &weight, None, spec(Fast)).unwrap());
        for (at, (y, fast)) in y.iter().zip(fast).enumerate() {
            let (row, column) = (at / 8 % 8, at % 8);
            let touched = (2..5).contains(&row) && (2..5).contains(&column);
            assert_eq!(!y.is_finite(), touched, "{value} at ({row}, {column})");
            assert!(!fast.is_finite() || !touched, "{value} is lost at ({row}, {column})");
        }
    }
}

#[test]
fn only_a_cuda_device_may_lack_cudnn() {
    for exactness in [Fast, Direct, Bf16] {
        assert!(cuda_refusals(&Device::Cpu, exactness).is_empty());
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let x = draw((1, 4, 5, 5), 1);
    let weight = draw((6, 4, 3, 3), 2);
    let refused = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec| refusal(conv2d(x, weight, bias, spec));
    let plain = Conv2d::default();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(refused(&zeros(&[0, 4, 5, 5]), &weight, None, plain), "conv2d: x is empty: its shape is [0, 4, 5, 5]");
    assert_eq!(refused(&x, &zeros(&[6, 4, 0, 3]), None, plain), "conv2d: weight is empty: its shape is [6, 4, 0, 3]");
    assert_eq!(refused(&zeros(&[4, 5, 5]), &weight, None, plain), "conv2d: x has shape [4, 5, 5], not (n, c, h, w)");
    assert_eq!(
        refused(&x, &draw((6, 3, 3, 3), 2), None, plain),
        "conv2d: weight [6, 3, 3, 3] in 1 groups takes 3 channels, x is [1, 4, 5, 5]"
    );
    assert_eq!(
        refused(&x, &weight, None, Conv2d { groups: 3, ..plain }),
        "conv2d: 3 groups divide not both 4 channels of x and 6 of weight"
    );
    assert_eq!(refused(&x, &weight, Some(&draw(5, 3)), plain), "conv2d: bias has shape [5], not [6]");
    assert_eq!(
        refused(&x, &draw((6, 4, 6, 3), 2), None, plain),
        "conv2d: weight [6, 4, 6, 3] with dilation (1, 1) exceeds x [1, 4, 5, 5] with padding (0, 0)"
    );
    assert_eq!(refused(&x, &weight, None, Conv2d { stride: (1, 0), ..plain }), "conv2d: stride (1, 0) has a zero");
    let wide = weight.to_dtype(DType::F64).unwrap();
    assert_eq!(refused(&x, &wide, None, plain), "conv2d: weight is F64 where F32 is expected");
    let pair = |below: &Tensor| refusal(conv2d([&x, below], &weight, None, plain));
    assert_eq!(pair(&draw((1, 4, 5, 6), 3)), "conv2d: x[1] has shape [1, 4, 5, 6], x[0] [1, 4, 5, 5]");
    assert_eq!(pair(&zeros(&[1, 0, 5, 5])), "conv2d: x[1] is empty: its shape is [1, 0, 5, 5]");
    assert_eq!(pair(&x), "conv2d: weight [6, 4, 3, 3] in 1 groups takes 4 channels, x is [1, 8, 5, 5]");
    assert_eq!(pair(&x.to_dtype(DType::F64).unwrap()), "conv2d: x[1] is F64 where F32 is expected");
}

/// Both endings, with and without a graph, for layers of every algorithm.
#[test]
fn normalisation_may_end_a_convolution() {
    use crate::{Activation, ConvTranspose2d, NormEval, conv_transpose2d_norm_eval, conv2d_norm_eval};
    let layers = [
        (Conv2d::new(1, 1), (2, 9, 12, 10), (10, 9, 3, 3)),
        (Conv2d::new(1, 1), (2, 32, 22, 23), (17, 32, 3, 3)), // in large tiles
        (Conv2d::new(1, 1), (1, 3, 20, 33), (5, 3, 3, 3)),    // few taps
        (Conv2d::new(2, 1), (1, 8, 18, 16), (9, 8, 4, 4)),
        (Conv2d::new(3, 1), (1, 4, 9, 8), (5, 4, 3, 3)),
        (Conv2d::default(), (1, 130, 6, 7), (270, 130, 4, 4)),
    ];
    for ((spec, x, weight), activation) in layers.into_iter().flat_map(|layer| {
        let leaky = [0.2, -0.5, 0., 1.5].map(Activation::LeakyRelu);
        [&[Activation::None, Activation::Relu], &leaky[..]]
            .concat()
            .into_iter()
            .map(move |activation| (layer, activation))
    }) {
        let vectors = |channels: usize| {
            let [weight, bias, mean] = [1, 2, 3].map(|seed| draw(channels, seed));
            (weight, bias, mean, (draw(channels, 4).abs().unwrap() + 0.5).unwrap())
        };
        let kernel = candle_core::Var::from_tensor(&draw(weight, 6)).unwrap();
        let bounds = verify::FAST.output;
        let compare = |channels: usize, op: &dyn Fn(&Tensor, &Tensor, &NormEval) -> Tensor| {
            let (weight, bias, running_mean, running_var) = vectors(channels);
            let norm = NormEval {
                weight: &weight,
                bias: &bias,
                running_mean: &running_mean,
                running_var: &running_var,
                epsilon: 1e-3,
            };
            let extra = draw(channels, 7);
            let apart = op(&kernel, &extra, &norm);
            let at_once = op(&kernel.as_detached_tensor(), &extra, &norm);
            assert!(apart.track_op() && !at_once.track_op());
            verify::assert_close("normalised at once", &at_once, &apart, bounds);
        };
        let image = draw(x, 5);
        compare(weight.0, &|kernel, bias, norm| {
            conv2d_norm_eval(&image, kernel, Some(bias), spec, norm, activation).unwrap()
        });
        let [upper, lower] =
            [(0, x.1 / 2), (x.1 / 2, x.1 - x.1 / 2)].map(|(at, len)| image.narrow(1, at, len).unwrap());
        compare(weight.0, &|kernel, bias, norm| {
            conv2d_norm_eval([&upper, &lower], kernel, Some(bias), spec, norm, activation).unwrap()
        });
        let spec = ConvTranspose2d::new(spec.stride.0, spec.padding.0);
        let image = draw((x.0, weight.0, 5, 6), 8);
        compare(weight.1, &|kernel, bias, norm| {
            conv_transpose2d_norm_eval(&image, kernel, Some(bias), spec, norm, activation).unwrap()
        });
    }
}

/// Bits and gradients are those of the one op after the other, for layers of every algorithm.
#[test]
fn an_activation_may_end_a_convolution() {
    use crate::{Activation, ConvTranspose2d, conv_transpose2d, conv_transpose2d_activated, conv2d_activated};
    let same = |inputs: &[Tensor], together: verify::Op, apart: verify::Op| {
        let cotangent = draw(apart(inputs).unwrap().dims(), 4);
        let (y, gradients) = verify::differentiate(together, inputs, &cotangent);
        let (expected, expected_gradients) = verify::differentiate(apart, inputs, &cotangent);
        assert_eq!((y.dtype(), verify::values(&y)), (DType::F32, verify::values(&expected)));
        for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
            assert_eq!(verify::values(gradient), verify::values(expected));
        }
    };
    let layers = [
        (2, 1, (2, 6, 8, 10), (6, 6, 4, 4)),
        (1, 1, (2, 9, 12, 10), (9, 9, 3, 3)),
        (3, 1, (1, 4, 9, 8), (4, 4, 3, 3)),
        (1, 0, (1, 8, 20, 20), (8, 8, 1, 1)),
        (1, 1, (1, 3, 20, 33), (3, 3, 3, 3)), // few taps
        (1, 0, (1, 130, 6, 7), (270, 130, 4, 4)),
    ];
    let leaky = [0.2, -0.5, 0., 1.5].map(Activation::LeakyRelu);
    let activations = [&[Activation::None, Activation::Relu], &leaky[..]].concat();
    for ((stride, padding, x, weight), activation) in
        layers.into_iter().flat_map(|layer| activations.iter().map(move |&activation| (layer, activation)))
    {
        for exactness in [Fast, Direct, Bf16] {
            let spec = Conv2d { exactness, ..Conv2d::new(stride, padding) };
            same(
                &[draw(x, 1), draw(weight, 3), draw(weight.0, 2)],
                &|x| conv2d_activated(&x[0], &x[1], Some(&x[2]), spec, activation),
                &|x| activation.apply(&conv2d(&x[0], &x[1], Some(&x[2]), spec)?),
            );
            let spec = ConvTranspose2d { exactness, ..ConvTranspose2d::new(stride, padding) };
            same(
                &[draw(x, 1), draw((weight.1, weight.0, weight.2, weight.3), 3), draw(weight.0, 2)],
                &|x| conv_transpose2d_activated(&x[0], &x[1], Some(&x[2]), spec, activation),
                &|x| activation.apply(&conv_transpose2d(&x[0], &x[1], Some(&x[2]), spec)?),
            );
        }
    }
    let x = draw((2, 6, 8, 10), 1);
    let refused = refusal(conv2d_activated(&x, &draw((4, 5, 3, 3), 1), None, Conv2d::default(), Activation::Relu));
    assert_eq!(refused, "conv2d: weight [4, 5, 3, 3] in 1 groups takes 5 channels, x is [2, 6, 8, 10]");
}
