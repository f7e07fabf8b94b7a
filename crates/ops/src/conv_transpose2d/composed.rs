//! Transposed convolution as one matrix product per group and a sum of shifted images, out of ops that every device has.

use candle_core::{Result, Tensor};

use crate::conv2d::Geometry;
use crate::taps;

/// `g` is the convolution that this is the adjoint of: its output is our image.
pub(super) fn conv_transpose2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: &Geometry) -> Result<Tensor> {
    let taps_per_channel = g.kernel.0 * g.kernel.1;
    let (h, w) = g.output;
    let columns = g.in_channels / g.groups * taps_per_channel;
    let image = x.transpose(0, 1)?.contiguous()?; // (in, n, h, w)
    let image = image.reshape((g.groups, g.out_channels / g.groups, g.batch * h * w))?;
    let weight = weight.reshape((g.groups, g.out_channels / g.groups, columns))?;
    let columns = weight.transpose(1, 2)?.contiguous()?.matmul(&image)?.reshape((
        g.in_channels,
        taps_per_channel,
        g.batch,
        h * w,
    ))?;

    // The canvas reaches as far as the last tap of the last pixel and its stride's zeros, and as far as the result.
    let canvas = |positions: usize, kernel: usize, stride: usize, padding: usize, dilation: usize, result: usize| {
        (positions * stride + dilation * (kernel - 1)).max(padding + result)
    };
    let height = canvas(h, g.kernel.0, g.stride.0, g.padding.0, g.dilation.0, g.input.0);
    let width = canvas(w, g.kernel.1, g.stride.1, g.padding.1, g.dilation.1, g.input.1);
    let mut sum: Option<Tensor> = None;
    for i in 0..g.kernel.0 {
        for j in 0..g.kernel.1 {
            let tap = columns.narrow(1, i * g.kernel.1 + j, 1)?.reshape((g.in_channels, g.batch, h, w))?;
            let spread = taps::spread(&tap, g.stride)?;
            let (top, left) = (i * g.dilation.0, j * g.dilation.1);
            let bottom = height - top - h * g.stride.0;
            let right = width - left - w * g.stride.1;
            let placed = taps::pad(&spread, (top, bottom), (left, right))?;
            sum = Some(match sum {
                Some(sum) => (sum + placed)?,
                None => placed,
            });
        }
    }
    let sum = sum.expect("kernels without a tap are refused");
    let y = sum
        .narrow(2, g.padding.0, g.input.0)?
        .narrow(3, g.padding.1, g.input.1)?
        .transpose(0, 1)? // (n, out, h', w')
        .contiguous()?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, g.in_channels, 1, 1))?),
        None => Ok(y),
    }
}
