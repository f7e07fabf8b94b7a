//! Convolution as one matrix product per group over a stack of shifted images, out of ops that every device has.

use candle_core::{Result, Tensor};

use super::Geometry;
use crate::taps;

pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: &Geometry) -> Result<Tensor> {
    let taps_per_channel = g.kernel.0 * g.kernel.1;
    let pixels = g.batch * g.output.0 * g.output.1;
    // The slack of stride - 1 at the far side lets every tap be cut out as whole strides.
    let image = taps::pad(
        &x.transpose(0, 1)?.contiguous()?, // (in, n, h, w)
        (g.padding.0, g.padding.0 + g.stride.0 - 1),
        (g.padding.1, g.padding.1 + g.stride.1 - 1),
    )?;
    let mut columns = Vec::with_capacity(taps_per_channel);
    for i in 0..g.kernel.0 {
        for j in 0..g.kernel.1 {
            columns.push(taps::tap(&image, (i * g.dilation.0, j * g.dilation.1), g.stride, g.output)?);
        }
    }
    let columns = Tensor::stack(&columns, 1)? // (in, kh kw, n, h', w')
        .reshape((g.groups, g.in_channels / g.groups * taps_per_channel, pixels))?;
    let weight = weight.reshape((g.groups, g.out_channels / g.groups, g.in_channels / g.groups * taps_per_channel))?;
    let y = weight
        .matmul(&columns)? // (groups, out / groups, n h' w')
        .reshape((g.out_channels, g.batch, g.output.0, g.output.1))?
        .transpose(0, 1)?
        .contiguous()?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, g.out_channels, 1, 1))?),
        None => Ok(y),
    }
}
