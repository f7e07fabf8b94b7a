//! Softmax along the channels: what classes' logits say of their probabilities.

mod cpu;

use candle_core::{Result, Tensor};

pub(super) use cpu::{BLOCK, Block, mean_of_blocks, softmax_of};

use super::labels::VOID;
use crate::check;
use crate::kernel::{Order, by_candle, has_kernel, node_of_result, values, wide};

/// `exp(logits) / sum of exp(logits)` along c of `(n, c, h, w)`, around the largest logit of each pixel, so that nothing overflows.
///
/// # Errors
/// Empty logits, and ones that are no `(n, c, h, w)`.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    const OP: &str = "softmax";
    let logits = &wide(logits)?;
    check::image(OP, "logits", logits)?;
    if !has_kernel(logits) {
        return by_candle(OP, &[logits], |x| composed(&x[0]));
    }
    kernel(OP, logits, None)
}

/// The [`softmax`] of counted pixels, and 0 for all classes of pixels whose label is void: whatever a loss says of those, no
/// gradient reaches their logits, NaN included. `class_ids` are `labels` `(n, h, w)` in row order.
pub(super) fn of_counted(op: &'static str, logits: &Tensor, labels: &Tensor, class_ids: &[u32]) -> Result<Tensor> {
    if has_kernel(logits) {
        return kernel(op, logits, Some(class_ids));
    }
    let counted = labels.ne(VOID)?.unsqueeze(1)?.broadcast_as(logits.shape())?.contiguous()?;
    by_candle(op, &[logits], move |x| {
        let zeros = x[0].zeros_like()?;
        counted.where_cond(&composed(&counted.where_cond(&x[0], &zeros)?)?, &zeros)
    })
}

fn kernel(op: &'static str, logits: &Tensor, class_ids: Option<&[u32]>) -> Result<Tensor> {
    let (_, c, h, w) = logits.dims4()?;
    let logits = logits.contiguous()?;
    let y = cpu::softmax(&values(&logits)?, class_ids, c, h * w);
    node_of_result(Order::Planes, op, &[&logits], y, logits.shape(), move |pass, y| {
        let gradient = cpu::gradient(&values(y)?, &values(pass.gradient)?, c, h * w);
        Ok([Some(Tensor::from_vec(gradient, y.shape(), y.device())?)])
    })
}

fn composed(logits: &Tensor) -> Result<Tensor> {
    let exponentials = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::softmax;
    use crate::verify::{self, Case, draw, refusal, values};

    #[test]
    fn agrees_with_pytorch() {
        for case in Case::of_losses("softmax") {
            case.check(&["logits"], &|inputs| softmax(&inputs[0]));
        }
    }

    #[test]
    fn holds_everywhere() {
        for shape in [(2, 5, 4, 3), (1, 1, 2, 2), (3, 19, 33, 41), (1, 2, 1, 1)] {
            verify::assert_op(&|inputs| softmax(&inputs[0]), &[(draw(shape, 1) * 6.).unwrap()]);
        }
    }

    #[test]
    fn every_pixel_sums_to_one_at_any_size_of_logits() {
        for dtype in [DType::F32, DType::F64] {
            let logits = Tensor::new(&[[[[1e30f32, -1e30, 3.]], [[0., -1e30, 3.]]]], &Device::Cpu).unwrap();
            let y = softmax(&logits.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(values(&y), [1., 0.5, 0.5, 0., 0.5, 0.5]);
        }
    }

    #[test]
    fn nan_stays_in_its_pixel_and_other_shapes_are_refused() {
        for dtype in [DType::F32, DType::F64] {
            let logits = Tensor::new(&[[[[f32::NAN, 1.]], [[0., 1.]]]], &Device::Cpu).unwrap();
            let y = values(&softmax(&logits.to_dtype(dtype).unwrap()).unwrap());
            assert!(y[0].is_nan() && y[2].is_nan());
            assert_eq!(y[1..].iter().step_by(2).copied().collect::<Vec<_>>(), [0.5; 2]);
        }
        assert_eq!(refusal(softmax(&draw((2, 3), 1))), "softmax: logits has shape [2, 3], not (n, c, h, w)");
        assert_eq!(refusal(softmax(&draw((1, 0, 2, 2), 1))), "softmax: logits is empty: its shape is [1, 0, 2, 2]");
    }
}
