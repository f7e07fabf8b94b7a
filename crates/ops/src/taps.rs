//! Windows of an image out of ops that candle differentiates rightly on every device: padding, narrowing, reshaping.

use candle_core::{D, Result, Tensor};

/// Zeros around the last two dimensions: (top, bottom) and (left, right).
pub(crate) fn pad(x: &Tensor, vertical: (usize, usize), horizontal: (usize, usize)) -> Result<Tensor> {
    x.pad_with_zeros(D::Minus2, vertical.0, vertical.1)?.pad_with_zeros(D::Minus1, horizontal.0, horizontal.1)
}

/// Every `stride`-th pixel from `offset` on: `(a, b, h, w)` to `(a, b, size.0, size.1)`.
///
/// The image has to reach `offset + size * stride` in both directions, the pixels behind the last tap included.
pub(crate) fn tap(x: &Tensor, offset: (usize, usize), stride: (usize, usize), size: (usize, usize)) -> Result<Tensor> {
    let (a, b, _, _) = x.dims4()?;
    x.narrow(2, offset.0, size.0 * stride.0)?
        .narrow(3, offset.1, size.1 * stride.1)?
        .reshape(&[a, b, size.0, stride.0, size.1, stride.1][..])?
        .narrow(3, 0, 1)?
        .narrow(5, 0, 1)?
        .reshape((a, b, size.0, size.1))
}

/// The adjoint of [`tap`]'s stride: each pixel, followed by `stride - 1` zeros in both directions.
pub(crate) fn spread(x: &Tensor, stride: (usize, usize)) -> Result<Tensor> {
    let (a, b, h, w) = x.dims4()?;
    x.reshape(&[a, b, h, 1, w, 1][..])?
        .pad_with_zeros(3, 0, stride.0 - 1)?
        .pad_with_zeros(5, 0, stride.1 - 1)?
        .reshape((a, b, h * stride.0, w * stride.1))
}
