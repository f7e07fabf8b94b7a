use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use crate::Exactness::{Bf16, Direct, Fast};
use crate::verify::{self, Case, draw, refusal};
use crate::{Conv2d, ConvTranspose2d, conv_transpose2d, conv2d};

fn op(spec: ConvTranspose2d) -> impl Fn(&[Tensor]) -> candle_core::Result<Tensor> + Sync {
    move |inputs| conv_transpose2d(&inputs[0], &inputs[1], inputs.get(2), spec)
}

fn bounds(spec: ConvTranspose2d) -> verify::Bounds {
    if spec.exactness == Direct { verify::EXACT } else { verify::FAST }
}

#[test]
fn agrees_with_pytorch() {
    for case in Case::all("conv_transpose2d") {
        for exactness in [Fast, Direct] {
            let spec = ConvTranspose2d { exactness, ..ConvTranspose2d::new(case.size("stride"), case.size("padding")) };
            case.check_within(bounds(spec), &["x", "weight", "bias"], &op(spec));
        }
    }
}

#[test]
fn holds_everywhere() {
    let unequal = ConvTranspose2d {
        stride: (3, 2),
        padding: (1, 0),
        output_padding: (2, 1),
        dilation: (1, 2),
        groups: 2,
        exactness: Fast,
    };
    let cases = [
        (ConvTranspose2d::new(2, 0), (2, 6, 4, 5), (6, 3, 2, 2)),
        (ConvTranspose2d::new(2, 1), (2, 3, 5, 3), (3, 4, 4, 4)),
        (ConvTranspose2d::new(1, 0), (1, 4, 2, 3), (4, 5, 4, 4)),
        (ConvTranspose2d::new(1, 1), (2, 4, 5, 6), (4, 5, 3, 3)),
        (ConvTranspose2d::default(), (2, 4, 5, 6), (4, 5, 1, 1)),
        (unequal, (2, 4, 3, 4), (4, 3, 2, 3)),
    ];
    for ((spec, x, weight), exactness) in cases.into_iter().flat_map(|case| [(case, Fast), (case, Direct)]) {
        let spec = ConvTranspose2d { exactness, ..spec };
        let inputs = [draw(x, 1), draw(weight, 2), draw(weight.1 * spec.groups, 3)];
        verify::assert_op_within(bounds(spec), &op(spec), &inputs);
        verify::assert_within(bounds(spec), &op(spec), &inputs[..2]);
    }
}

#[test]
fn rounds_to_bf16() {
    for (spec, x, weight) in [
        (ConvTranspose2d::new(2, 0), (2, 6, 4, 5), (6, 3, 2, 2)),
        (ConvTranspose2d::new(2, 1), (2, 32, 5, 9), (32, 17, 4, 4)),
    ] {
        let inputs = [draw(x, 1), draw(weight, 2), draw(weight.1, 3)];
        let [bf16, direct] = [Bf16, Direct].map(|exactness| op(ConvTranspose2d { exactness, ..spec }));
        verify::assert_bf16(&bf16, &direct, &inputs);
    }
}

#[test]
fn holds_across_tiles_and_blocks() {
    for (spec, x, weight) in [
        (ConvTranspose2d::new(2, 0), (2, 3, 40, 37), (3, 70, 2, 2)),
        (ConvTranspose2d::new(2, 1), (1, 70, 30, 30), (70, 5, 4, 4)),
    ] {
        let inputs = [draw(x, 4), draw(weight, 5), draw(weight.1, 6)];
        verify::assert_within(bounds(spec), &op(spec), &inputs);
        verify::assert_any_pool(&op(spec), &inputs);
    }
}

#[test]
fn is_the_adjoint_of_the_convolution() {
    let weight = draw((3, 4, 4, 4), 1); // (out, in) to conv2d, (in, out) to the transpose
    let (x, y) = (draw((2, 4, 8, 6), 2), draw((2, 3, 4, 3), 3));
    let dot = |a: &Tensor, b: &Tensor| verify::values(&(a * b).unwrap()).iter().sum::<f64>();
    let forth = dot(&conv2d(&x, &weight, None, Conv2d::new(2, 1)).unwrap(), &y);
    let back = dot(&x, &conv_transpose2d(&y, &weight, None, ConvTranspose2d::new(2, 1)).unwrap());
    assert!((forth - back).abs() < 1e-4 * forth.abs(), "{forth} {back}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_agrees_with_f64(
        (n, groups, h, w) in (1usize..4, 1usize..4, 1usize..71, 1usize..71),
        (group_in, group_out, kh, kw) in (1usize..6, 1usize..6, 1usize..5, 1usize..5),
        (sy, sx, py, px, dy, dx) in (1usize..4, 1usize..4, 0usize..4, 0usize..4, 1usize..3, 1usize..3),
        (oy, ox, bias, direct) in (0usize..3, 0usize..3, any::<bool>(), any::<bool>()),
    ) {
        let fits = |size: usize, k, s, p, d, o| o < usize::max(s, d) && (size - 1) * s + d * (k - 1) + o + 1 > 2 * p;
        prop_assume!(fits(h, kh, sy, py, dy, oy) && fits(w, kw, sx, px, dx, ox));
        let exactness = if direct { Direct } else { Fast };
        let spec = ConvTranspose2d { stride: (sy, sx), padding: (py, px), output_padding: (oy, ox), dilation: (dy, dx), groups, exactness };
        let weight = draw((group_in * groups, group_out, kh, kw), 8);
        let mut inputs = vec![draw((n, group_in * groups, h, w), 7), weight];
        if bias {
            inputs.push(draw(group_out * groups, 9));
        }
        verify::assert_within(bounds(spec), &op(spec), &inputs);
    }
}

/// The padded row and column have no tap of a kernel of one pixel.
#[test]
fn a_single_tap_may_have_output_padding() {
    let spec = ConvTranspose2d { output_padding: (1, 1), dilation: (2, 2), ..ConvTranspose2d::new(1, 0) };
    let inputs = [draw((2, 3, 2, 4), 7), draw((3, 2, 1, 1), 8), draw(2, 9)];
    for exactness in [Direct, Fast] {
        let spec = ConvTranspose2d { exactness, ..spec };
        verify::assert_within(bounds(spec), &op(spec), &inputs);
    }
}

#[test]
fn nan_passes() {
    let x = Tensor::from_vec(vec![f32::NAN, 0., 0., 0.], (1, 1, 2, 2), &Device::Cpu).unwrap();
    let y = conv_transpose2d(&x, &draw((1, 1, 2, 2), 1), None, ConvTranspose2d::new(2, 0)).unwrap();
    let nan: Vec<bool> = verify::values(&y).into_iter().map(f64::is_nan).collect();
    assert_eq!(nan.iter().filter(|&&nan| nan).count(), 4);
    assert!(nan[0] && nan[1] && nan[4] && nan[5]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let x = draw((1, 4, 2, 2), 1);
    let weight = draw((4, 3, 2, 2), 2);
    let refused =
        |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec| refusal(conv_transpose2d(x, weight, bias, spec));
    let plain = ConvTranspose2d::new(2, 0);
    let empty = Tensor::zeros((1, 4, 2, 0), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(refused(&empty, &weight, None, plain), "conv_transpose2d: x is empty: its shape is [1, 4, 2, 0]");
    assert_eq!(
        refused(&x, &draw((3, 3, 2, 2), 2), None, plain),
        "conv_transpose2d: weight [3, 3, 2, 2] takes 3 channels, x is [1, 4, 2, 2]"
    );
    assert_eq!(
        refused(&x, &weight, None, ConvTranspose2d { groups: 3, ..plain }),
        "conv_transpose2d: 3 groups do not divide the 4 channels of x"
    );
    assert_eq!(refused(&x, &weight, Some(&draw(4, 3)), plain), "conv_transpose2d: bias has shape [4], not [3]");
    assert_eq!(
        refused(&x, &weight, None, ConvTranspose2d { output_padding: (2, 0), ..plain }),
        "conv_transpose2d: output padding (2, 0) reaches both stride (2, 2) and dilation (1, 1)"
    );
    assert_eq!(
        refused(&x, &weight, None, ConvTranspose2d::new(1, 2)),
        "conv_transpose2d: padding (2, 2) leaves nothing of x [1, 4, 2, 2] and weight [4, 3, 2, 2]"
    );
}
