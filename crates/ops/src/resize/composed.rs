//! Resampling as two selections a direction; the gradient of a selection is a sum in index order.

use candle_core::{Result, Tensor};

use super::Axis;

pub(super) fn resize(x: &Tensor, vertical: &Axis, horizontal: &Axis) -> Result<Tensor> {
    along(&along(x, vertical, 2)?, horizontal, 3)
}

fn along(x: &Tensor, axis: &Axis, dim: usize) -> Result<Tensor> {
    let len = axis.from.len();
    let from = Tensor::from_slice(&axis.from, len, x.device())?;
    let selected = x.contiguous()?.index_select(&from, dim)?;
    if axis.copies() {
        return Ok(selected);
    }
    let mut shape = [1; 4];
    shape[dim] = len;
    let to = Tensor::from_slice(&axis.to, len, x.device())?;
    let weight = Tensor::from_slice(&axis.weight, &shape[..], x.device())?.to_dtype(x.dtype())?;
    let near = selected.broadcast_mul(&(1. - &weight)?)?;
    let far = x.contiguous()?.index_select(&to, dim)?.broadcast_mul(&weight)?;
    near + far
}
