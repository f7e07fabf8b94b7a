//! Group normalisation: batch normalisation of groups of an image's channels, then a scale and a shift of each channel.

use candle_core::{Result, Tensor};

use super::batch_norm::train;
use crate::check::{self, refuse};
use crate::kernel::{has_kernel, wide};
use crate::{Activation, batch_norm_eval, batch_norm_train, instance_norm};

/// Cuts the channels of each image of `x` `(n, c, h, w)` into `groups` of neighbours, normalises each group by its own mean and
/// biased variance over (c / groups, h, w), scales by `weight` `(c)`, adds `bias` `(c)` and applies the activation (Wu and He
/// 2018). There are no running statistics. As many groups as channels are [`instance_norm`].
///
/// # Errors
/// Empty or mismatching arguments, groups that do not divide the channels, and groups of one value, which have no variance.
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "group_norm";
    let x = &wide(x)?;
    let (n, c, h, w) = check::image(OP, "x", x)?;
    check::vector(OP, "weight", weight, c, x)?;
    check::vector(OP, "bias", bias, c, x)?;
    if groups == 0 || !c.is_multiple_of(groups) {
        refuse!("{OP}: groups {groups} do not divide the {c} channels of x {:?}", x.dims());
    }
    let each = c / groups;
    if each * h * w == 1 {
        refuse!("{OP}: x {:?} has one value per group, normalising needs more", x.dims());
    }
    if each == 1 {
        return instance_norm(x, Some(weight), Some(bias), epsilon, activation);
    }
    let constant = |value: f64, len: usize| Tensor::full(value, len, x.device())?.to_dtype(x.dtype());
    // Each group becomes a channel of a batch of one.
    let normalised = if has_kernel(x) {
        let plain = [&constant(1., 1)?, &constant(0., 1)?];
        train(OP, x, (1, n * groups, each * h * w), plain, epsilon, Activation::None)?.0
    } else {
        let [ones, zeros] = [constant(1., n * groups)?, constant(0., n * groups)?];
        let x = x.reshape((1, n * groups, each * h, w))?;
        batch_norm_train(&x, &ones, &zeros, epsilon, Activation::None)?.0.reshape((n, c, h, w))?
    };
    // By a mean of 0 and a variance of 1, exactly: what is left is the scale and the shift.
    batch_norm_eval(&normalised, weight, bias, &constant(0., c)?, &constant(1., c)?, 0., activation)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::group_norm;
    use crate::verify::{self, draw, refusal};
    use crate::{Activation, instance_norm};

    #[test]
    fn holds_everywhere() {
        for (groups, shape) in
            [(2, (3, 4, 5, 7)), (1, (2, 3, 1, 2)), (3, (2, 6, 3, 3)), (2, (1, 8, 1, 2)), (4, (2, 4, 3, 5))]
        {
            for activation in [Activation::None, Activation::LeakyRelu(0.2)] {
                let inputs = [draw(shape, 1), draw(shape.1, 2), draw(shape.1, 3)];
                let op = |i: &[Tensor]| group_norm(&i[0], groups, &i[1], &i[2], 1e-5, activation);
                verify::assert_op(&op, &inputs);
            }
        }
    }

    /// `torch.nn.functional.group_norm` of the same numbers.
    #[test]
    fn agrees_with_pytorch() {
        let expected =
            [-1.025_754_6, -0.652_752_9, 1.186_500_8, 4.170_514, 1.097_350_1, 0.300_883_3, 0.263_280_7, -1.064_164];
        for dtype in [DType::F32, DType::F64] {
            let tensor = |values: &[f32], shape: &[usize]| {
                Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
            };
            let x = tensor(&[1., 2., 4., 8., -1., 0.5, 3., -2.], &[1, 4, 1, 2]);
            let (weight, bias) = (tensor(&[1., 2., -1., 0.5], &[4]), tensor(&[0., 1., 0.5, -0.5], &[4]));
            let y = group_norm(&x, 2, &weight, &bias, 1e-5, Activation::None).unwrap();
            let expected = tensor(&expected, &[1, 4, 1, 2]);
            verify::assert_close("output", &y, &expected, 1e-6);
        }
    }

    #[test]
    fn a_channel_to_a_group_is_instance_norm() {
        let [x, weight, bias] = [draw((2, 4, 5, 7), 1), draw(4, 2), draw(4, 3)];
        let y = group_norm(&x, 4, &weight, &bias, 1e-5, Activation::Relu).unwrap();
        let expected = instance_norm(&x, Some(&weight), Some(&bias), 1e-5, Activation::Relu).unwrap();
        assert_eq!(verify::values(&y), verify::values(&expected));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |x: &Tensor, groups, weight: &Tensor| {
            refusal(group_norm(x, groups, weight, &draw(x.dims()[1], 1), 1e-5, Activation::None))
        };
        let x = draw((2, 4, 1, 1), 1);
        assert_eq!(refused(&x, 3, &draw(4, 1)), "group_norm: groups 3 do not divide the 4 channels of x [2, 4, 1, 1]");
        assert_eq!(refused(&x, 0, &draw(4, 1)), "group_norm: groups 0 do not divide the 4 channels of x [2, 4, 1, 1]");
        assert_eq!(
            refused(&x, 4, &draw(4, 1)),
            "group_norm: x [2, 4, 1, 1] has one value per group, normalising needs more"
        );
        assert_eq!(refused(&x, 2, &draw(3, 1)), "group_norm: weight has shape [3], not [4]");
    }
}
