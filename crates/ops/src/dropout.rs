//! Dropout by a mask that the caller has drawn.

use candle_core::{Result, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{by_candle, has_kernel, map2, node, values, wide};

/// `x * keep / (1 - probability)` of any shape: `keep`, of the shape of `x`, is 0 where an element is dropped, which happens with
/// `probability`, and 1 elsewhere, so that the mean stays what it was (Srivastava et al. 2014, section 10, as PyTorch scales it).
/// No gradient flows to `keep`. As in PyTorch, a NaN or an infinity that is dropped becomes NaN.
///
/// # Errors
/// An empty tensor, a mask that does not fit, and a probability outside [0, 1).
pub fn dropout(x: &Tensor, keep: &Tensor, probability: f64) -> Result<Tensor> {
    const OP: &str = "dropout";
    let x = &wide(x)?;
    check::not_empty(OP, "x", x)?;
    check::same_shape(OP, "keep", keep, x)?;
    if !(0. ..1.).contains(&probability) {
        refuse!("{OP}: probability {probability} is not in [0, 1)");
    }
    let (keep, scale) = (keep.detach().contiguous()?, 1. / (1. - probability));
    if !has_kernel(x) {
        return by_candle(OP, &[x], move |x| &x[0] * (&keep * scale)?);
    }
    let (x, scale) = (x.contiguous()?, scale as f32);
    let y = map2(&values(&x)?, &values(&keep)?, move |x, keep| x * (keep * scale));
    node(OP, &[&x], y, x.shape(), move |pass| {
        let gradient = map2(&values(pass.gradient)?, &values(&keep)?, move |gradient, keep| gradient * (keep * scale));
        Ok([Some(Tensor::from_vec(gradient, keep.shape(), keep.device())?), None, None])
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::dropout;
    use crate::verify::{self, draw, refusal};

    fn mask(x: &Tensor) -> Tensor {
        let keep = (0..x.elem_count()).map(|i| if i % 3 == 0 { 0f32 } else { 1. });
        Tensor::from_iter(keep, &Device::Cpu).unwrap().reshape(x.shape()).unwrap()
    }

    #[test]
    fn holds_everywhere() {
        for shape in [vec![2, 3, 5, 7], vec![1], vec![40_001]] {
            let x = draw(shape, 1);
            let keep = mask(&x);
            for probability in [0., 0.5, 0.3] {
                let op = |x: &[Tensor]| dropout(&x[0], &keep.to_dtype(x[0].dtype())?, probability);
                verify::assert_op(&op, std::slice::from_ref(&x));
            }
        }
    }

    #[test]
    fn what_is_kept_is_scaled_and_the_rest_is_0() {
        let x = Tensor::new(&[1f32, 2., 3., f32::NAN, -5.], &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let x = x.to_dtype(dtype).unwrap();
            let y = verify::values(&dropout(&x, &mask(&x).to_dtype(dtype).unwrap(), 0.75).unwrap());
            assert_eq!((y[0], y[1], y[2], y[4]), (0., 8., 12., -20.));
            assert!(y[3].is_nan());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let x = draw((2, 3), 1);
        assert_eq!(refusal(dropout(&x, &draw((3, 2), 1), 0.5)), "dropout: keep has shape [3, 2], not [2, 3]");
        for probability in [1., -0.1, f64::NAN] {
            assert!(refusal(dropout(&x, &x, probability)).contains("is not in [0, 1)"));
        }
    }
}
