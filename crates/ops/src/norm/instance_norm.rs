//! Instance normalisation: batch normalisation of each image by itself.

use candle_core::{Result, Tensor};

use super::batch_norm::train;
use crate::check::{self, refuse};
use crate::kernel::{has_kernel, wide};
use crate::{Activation, batch_norm_train};

/// Normalises each channel of each image of `x` `(n, c, h, w)` by its own mean and biased variance over (h, w), scales by
/// `weight` `(c)`, adds `bias` `(c)` and applies the activation (Ulyanov et al. 2016). There are no running statistics.
///
/// # Errors
/// Empty or mismatching arguments, and images of one pixel, which have no variance.
pub fn instance_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "instance_norm";
    let x = &wide(x)?;
    let (n, c, h, w) = check::image(OP, "x", x)?;
    if h * w == 1 {
        refuse!("{OP}: x {:?} has one pixel per image, normalising needs more", x.dims());
    }
    let vector = |argument, vector: Option<&Tensor>, otherwise: f64| match vector {
        Some(vector) => check::vector(OP, argument, vector, c, x).map(|()| vector.clone()),
        None => Tensor::full(otherwise, c, x.device())?.to_dtype(x.dtype()),
    };
    let (weight, bias) = (vector("weight", weight, 1.)?, vector("bias", bias, 0.)?);
    // Each channel of each image becomes a channel of its own.
    if has_kernel(x) {
        return Ok(train(OP, x, (1, n * c, h * w), [&weight, &bias], epsilon, activation)?.0);
    }
    let per_image = |vector: &Tensor| vector.reshape((1, c))?.broadcast_as((n, c))?.contiguous()?.reshape(n * c);
    let (weight, bias) = (per_image(&weight)?, per_image(&bias)?);
    let (y, _) = batch_norm_train(&x.reshape((1, n * c, h, w))?, &weight, &bias, epsilon, activation)?;
    y.reshape((n, c, h, w))
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::instance_norm;
    use crate::verify::{self, draw, refusal};
    use crate::{Activation, batch_norm_train};

    #[test]
    fn holds_everywhere() {
        for activation in [Activation::None, Activation::LeakyRelu(0.2)] {
            let inputs = [draw((3, 4, 5, 7), 1), draw(4, 2), draw(4, 3)];
            verify::assert_op(&|i| instance_norm(&i[0], Some(&i[1]), Some(&i[2]), 1e-5, activation), &inputs);
            verify::assert_op(&|i| instance_norm(&i[0], None, None, 1e-5, activation), &inputs[..1]);
        }
    }

    #[test]
    fn one_image_is_batch_norm() {
        let [x, weight, bias] = [draw((1, 4, 5, 7), 1), draw(4, 2), draw(4, 3)];
        let y = instance_norm(&x, Some(&weight), Some(&bias), 1e-5, Activation::Relu).unwrap();
        let (expected, _) = batch_norm_train(&x, &weight, &bias, 1e-5, Activation::Relu).unwrap();
        assert_eq!(verify::values(&y), verify::values(&expected));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused =
            |x: &Tensor, weight: Option<&Tensor>| refusal(instance_norm(x, weight, None, 1e-5, Activation::None));
        assert_eq!(
            refused(&draw((2, 3, 1, 1), 1), None),
            "instance_norm: x [2, 3, 1, 1] has one pixel per image, normalising needs more"
        );
        assert_eq!(refused(&draw((2, 3, 2, 1), 1), Some(&draw(2, 1))), "instance_norm: weight has shape [2], not [3]");
    }
}
