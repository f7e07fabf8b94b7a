//! Max-pooling over windows that do not overlap.

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::check;

/// The largest value of each `kernel x kernel` window of `x` `(n, c, h, w)`, to `(n, c, h / kernel, w / kernel)` rounded down:
/// PyTorch's `max_pool2d` with stride = kernel. The first maximum in row order gets the gradient; NaN counts as largest.
///
/// candle's backward pass scales the gradient by the share of maxima in the window (a quarter of what is right at 2 x 2).
///
/// # Errors
/// Empty images, kernel 0, and images smaller than the kernel.
pub fn max_pool2d(x: &Tensor, kernel: usize) -> Result<Tensor> {
    const OP: &str = "max_pool2d";
    let (_, _, h, w) = check::image(OP, "x", x)?;
    check::positive(OP, "kernel", (kernel, kernel))?;
    if h < kernel || w < kernel {
        bail!("{OP}: kernel {kernel} exceeds x {:?}", x.dims());
    }
    composed::max_pool2d(x, kernel)
}
