//! Max-pooling by kernels on a CUDA device. The way back looks for each window's maximum again.

use candle_core::{Result, Tensor};

use crate::cuda::moves::arrange;
use crate::cuda::sums::size;
use crate::cuda::{Memory, Stage, address};
use crate::kernel::{Order, node_in};

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
}

pub(crate) fn max_pool2d(stage: &Stage, x: &Tensor, kernel: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let order = Order::of(x);
    let input = arrange(stage, order, x)?;
    let shape = (n, c, h / kernel, w / kernel);
    let y = run(stage, "max_pool", &input, None, kernel, n * c * shape.2 * shape.3)?;
    let stage = stage.clone();
    node_in(order, "max_pool2d", &[x], y, shape, move |pass| {
        let gradient = run(&stage, "max_pool_back", &input, Some(pass.gradient), kernel, input.elem_count())?;
        Ok([Some(gradient.into_image([n, c, h, w], order)?)])
    })
}

/// Makes `len` values.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn run(
    stage: &Stage,
    name: &'static str,
    x: &Tensor,
    gradient: Option<&Tensor>,
    kernel: usize,
    len: usize,
) -> Result<Memory> {
    let (n, c, h, w) = x.dims4()?;
    let mut y = stage.memory(len)?;
    let windows = if gradient.is_some() { n * c * h.div_ceil(kernel) * w.div_ceil(kernel) } else { len };
    let parameters = Parameters {
        x: address(x)?,
        gradient: gradient.map_or(Ok(0), address)?,
        y: y.address()?,
        len: size(windows)?,
        side: size(kernel)?,
        height: size(h)?,
        width: size(w)?,
        pooled_height: size(h / kernel)?,
        pooled_width: size(w / kernel)?,
        channels: size(if Order::of(x) == Order::Pixels { c } else { 1 })?,
    };
    // SAFETY: x has the image's size and its gradient the windows', y has `len` values; all are alive.
    unsafe { stage.launch(name, (stage.blocks(windows), 1), &parameters)? };
    Ok(y)
}
