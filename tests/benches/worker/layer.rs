//! A convolution alone: forward, and the gradients of its image and of its weight.

use anyhow::{Result, bail};
use candle_core::{Device, Shape, Tensor, Var};
use img2seg_ops::{Conv2d, ConvTranspose2d, Exactness, backward, conv_transpose2d, conv2d};

use crate::Case;

/// `conv` or `conv-transpose`; the numbers are kernel, stride, padding, channels in and out, the image's side, and the batch.
pub(crate) fn build(kind: &str, numbers: [usize; 7], exactness: Exactness, device: &Device) -> Result<Case> {
    let [kernel, stride, padding, in_channels, out_channels, size, batch] = numbers;
    let transposed = match kind {
        "conv" => false,
        "conv-transpose" => true,
        _ => bail!("{kind}: not one of conv, conv-transpose"),
    };
    let channels = if transposed { (in_channels, out_channels) } else { (out_channels, in_channels) };
    let x = draw((batch, in_channels, size, size), device)?;
    let weight = draw((channels.0, channels.1, kernel, kernel), device)?;
    let size = weight.elem_count();
    let step = move || {
        let y = if transposed {
            conv_transpose2d(&x, &weight, None, ConvTranspose2d { exactness, ..ConvTranspose2d::new(stride, padding) })?
        } else {
            conv2d(&x, &weight, None, Conv2d { exactness, ..Conv2d::new(stride, padding) })?
        };
        backward(y)?; // of the sum of y, as learners go back
        Ok(())
    };
    Ok(Case { size, step: Box::new(step) })
}

/// A variable with values in -1..1.
fn draw(shape: impl Into<Shape>, device: &Device) -> Result<Var> {
    let shape = shape.into();
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    let values: Vec<f32> = (0..shape.elem_count() as u32).map(value).collect();
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?)
}
