//! What every op refuses, in words that name the op, the argument and its shape.

use candle_core::{DType, Result, Tensor};

/// Returns an error of one line, without the backtrace that candle's `bail!` may add.
macro_rules! refuse {
    ($($text:tt)*) => {
        return Err(candle_core::Error::Msg(format!($($text)*).into()))
    };
}
pub(crate) use refuse;

/// `(n, c, h, w)` of an image batch, none of them zero.
pub(crate) fn image(op: &str, argument: &str, x: &Tensor) -> Result<(usize, usize, usize, usize)> {
    let &[n, c, h, w] = x.dims() else {
        refuse!("{op}: {argument} has shape {:?}, not (n, c, h, w)", x.dims());
    };
    not_empty(op, argument, x)?;
    Ok((n, c, h, w))
}

/// Refuses tensors without elements.
pub(crate) fn not_empty(op: &str, argument: &str, x: &Tensor) -> Result<()> {
    if x.elem_count() == 0 {
        refuse!("{op}: {argument} is empty: its shape is {:?}", x.dims());
    }
    Ok(())
}

/// Refuses a tensor that is not a vector of `len` elements of the dtype and on the device of `like`.
pub(crate) fn vector(op: &str, argument: &str, x: &Tensor, len: usize, like: &Tensor) -> Result<()> {
    if x.dims() != [len] {
        refuse!("{op}: {argument} has shape {:?}, not [{len}]", x.dims());
    }
    same_kind(op, argument, x, like)
}

/// Refuses a tensor whose shape differs from that of `like`.
pub(crate) fn same_shape(op: &str, argument: &str, x: &Tensor, like: &Tensor) -> Result<()> {
    if x.dims() != like.dims() {
        refuse!("{op}: {argument} has shape {:?}, not {:?}", x.dims(), like.dims());
    }
    same_kind(op, argument, x, like)
}

/// Refuses a tensor of another dtype or on another device than `like`. Beside an image that an op has left in bf16 on a CUDA device, f32 stands.
pub(crate) fn same_kind(op: &str, argument: &str, x: &Tensor, like: &Tensor) -> Result<()> {
    let is_mixed = like.device().is_cuda() && (x.dtype(), like.dtype()) == (DType::F32, DType::BF16);
    if x.dtype() != like.dtype() && !is_mixed {
        refuse!("{op}: {argument} is {:?} where {:?} is expected", x.dtype(), like.dtype());
    }
    if !x.device().same_device(like.device()) {
        refuse!("{op}: {argument} is on {:?} where {:?} is expected", x.device().location(), like.device().location());
    }
    Ok(())
}

/// Refuses a pair of strides, dilations or kernel sizes with a zero in it.
pub(crate) fn positive(op: &str, argument: &str, (y, x): (usize, usize)) -> Result<()> {
    if y == 0 || x == 0 {
        refuse!("{op}: {argument} ({y}, {x}) has a zero");
    }
    Ok(())
}
