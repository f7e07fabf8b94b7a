//! Max-pooling by kernels on a CUDA device. The way back looks for each window's maximum again.

use candle_core::{Result, Tensor};

use crate::cuda::moves::arrange;
use crate::cuda::sums::size;
use crate::cuda::{Memory, Stage, address, is_narrow};
use crate::kernel::{Order, node_taking_bf16};

/// The kernels' `struct Pool`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    x: u64,
    gradient: u64,
    y: u64,
    len: i32,
    side: i32,
    height: i32,
    width: i32,
    pooled_height: i32,
    pooled_width: i32,
    channels: i32,
    narrow: i32,
    gradient_narrow: i32,
}

/// Of f32 or, in the order of pixels, bf16, which the result is then too.
pub(crate) fn max_pool2d(stage: &Stage, x: &Tensor, kernel: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let order = Order::of(x);
    let input = arrange(stage, order, x)?;
    let shape = (n, c, h / kernel, w / kernel);
    let y = run(stage, "max_pool", &input, None, kernel)?;
    let stage = stage.clone();
    node_taking_bf16(order, "max_pool2d", &[x], y, shape, move |pass| {
        let gradient = run(&stage, "max_pool_back", &input, Some(pass.gradient), kernel)?;
        Ok([Some(gradient.into_image([n, c, h, w], order)?)])
    })
}

/// The pooled image or, of a gradient of that, the image's.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn run(stage: &Stage, name: &'static str, x: &Tensor, gradient: Option<&Tensor>, kernel: usize) -> Result<Memory> {
    let (n, c, h, w) = x.dims4()?;
    let (pooled_height, pooled_width) = (h / kernel, w / kernel);
    let (len, windows) = match gradient {
        Some(_) => (x.elem_count(), h.div_ceil(kernel) * w.div_ceil(kernel)),
        None => (n * c * pooled_height * pooled_width, pooled_height * pooled_width),
    };
    let (images, channels) = if Order::of(x) == Order::Pixels { (n, c) } else { (n * c, 1) };
    let threads = images * windows * channels.div_ceil(4);
    let mut y = if is_narrow(x) { stage.narrow_memory(len)? } else { stage.memory(len)? };
    let parameters = Parameters {
        x: address(x)?,
        gradient: gradient.map_or(Ok(0), address)?,
        y: y.address()?,
        len: size(threads)?,
        side: size(kernel)?,
        height: size(h)?,
        width: size(w)?,
        pooled_height: size(pooled_height)?,
        pooled_width: size(pooled_width)?,
        channels: size(channels)?,
        narrow: is_narrow(x).into(),
        gradient_narrow: gradient.is_some_and(is_narrow).into(),
    };
    // SAFETY: x has the image's size, its gradient the windows', and y `len` values, in the dtypes said; all are alive.
    unsafe { stage.launch(name, (stage.blocks(threads), 1), &parameters)? };
    Ok(y)
}
