//! Max-pooling over windows that do not overlap.

mod composed;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{has_kernel, is_tracked, lend, node, values};
use cpu::Windows;

/// The largest value of each `kernel x kernel` window of `x` `(n, c, h, w)`, to `(n, c, h / kernel, w / kernel)` rounded down:
/// PyTorch's `max_pool2d` with stride = kernel. The first maximum in row order gets the gradient; NaN counts as largest.
///
/// candle's backward pass scales the gradient by the share of maxima in the window (a quarter of what is right at 2 x 2).
///
/// # Errors
/// Empty images, kernel 0, and images smaller than the kernel.
pub fn max_pool2d(x: &Tensor, kernel: usize) -> Result<Tensor> {
    const OP: &str = "max_pool2d";
    let (n, c, h, w) = check::image(OP, "x", x)?;
    check::positive(OP, "kernel", (kernel, kernel))?;
    if h < kernel || w < kernel {
        refuse!("{OP}: kernel {kernel} exceeds x {:?}", x.dims());
    }
    #[cfg(feature = "cuda")]
    if let Some(stage) = crate::cuda::Stage::of_image(x) {
        return cuda::max_pool2d(&stage, x, kernel);
    }
    if !has_kernel(x) || kernel > cpu::LARGEST_KERNEL {
        return composed::max_pool2d(x, kernel);
    }
    let x = x.contiguous()?;
    let windows = Windows { kernel, input: (h, w), output: (h / kernel, w / kernel) };
    if !is_tracked(&[&x]) {
        return Tensor::from_vec(cpu::maxima(windows, &values(&x)?), (n, c, h / kernel, w / kernel), x.device());
    }
    let (y, places) = cpu::forward(windows, &values(&x)?);
    node(OP, &[&x], y, (n, c, h / kernel, w / kernel), move |pass| {
        // Where the image has been used before, no more than this use's part is added to what came back from there.
        if let Some(sum) = pass.take_so_far() {
            let gradient = values(pass.gradient)?;
            lend(&sum, |sum| {
                cpu::add_backward(windows, &gradient, &places, sum);
                Ok(())
            })?;
            return Ok([Some(sum), None, None]);
        }
        let gradient = cpu::backward(windows, &values(pass.gradient)?, &places);
        Ok([Some(Tensor::from_vec(gradient, (n, c, h, w), pass.gradient.device())?), None, None])
    })
}
