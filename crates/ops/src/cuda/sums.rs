//! Sums over the pixels of each channel, in f64 and in two steps that do not depend on the order in which blocks finish.

use candle_core::{Result, Tensor};

use super::{Stage, address, is_narrow};
use crate::check::refuse;
use crate::kernel::Order;

/// The kernels' `struct Sums`. [`sums`] fills in memory and sizes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) x: u64,
    pub(crate) gradient: u64,
    pub(crate) mean: u64,
    pub(crate) variance: u64,
    pub(crate) weight: u64,
    pub(crate) bias: u64,
    pub(crate) parts: u64,
    pub(crate) whole: u64,
    /// Where x goes in bf16, or 0: in the order of pixels, of fours of channels.
    pub(crate) narrow: u64,
    pub(crate) channels: i32,
    pub(crate) pixels: i32,
    pub(crate) count: i32,
    pub(crate) per_block: i32,
    pub(crate) blocks: i32,
    pub(crate) lanes: i32,
    /// Whether x is bf16, in the order of pixels alone.
    pub(crate) is_narrow: i32,
    /// The same of the gradient.
    pub(crate) is_gradient_narrow: i32,
    pub(crate) epsilon: f32,
    pub(crate) slope: f32,
}

/// What is summed.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    /// x `(1, c)`.
    Values,
    /// x and its squares, to mean, biased and unbiased variance `(3, c)`.
    Statistics,
    /// The gradients of a normalisation's weight and bias `(2, c)`.
    Gradients,
}

impl Of {
    /// Rows of the result, and the two kernels.
    fn kernels(self, order: Order) -> (usize, [&'static str; 2]) {
        let (rows, parts, whole) = match self {
            Self::Values => (1, ["statistics_parts", "statistics_parts_by_pixel"], "totals"),
            Self::Statistics => (3, ["statistics_parts", "statistics_parts_by_pixel"], "statistics"),
            Self::Gradients => (2, ["gradients_parts", "gradients_parts_by_pixel"], "gradients"),
        };
        (rows, [parts[usize::from(order == Order::Pixels)], whole])
    }
}

/// Sums of images `(n, c, pixels)` that all lie in one order.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
pub(crate) fn sums(
    stage: &Stage,
    order: Order,
    of: Of,
    (n, c, pixels): (usize, usize, usize),
    parameters: Sums,
) -> Result<Tensor> {
    if order == Order::Planes && (parameters.is_narrow | parameters.is_gradient_narrow) != 0 {
        refuse!("sums of bf16 are in the order of pixels");
    }
    let (rows, [parts, whole]) = of.kernels(order);
    let count = n * pixels;
    let (lanes, across) = stage.lanes(c);
    let (per_block, columns) = match order {
        Order::Planes => (stage.summands(), c),
        Order::Pixels => (stage.pixels(count, (lanes, across)), across),
    };
    let blocks = count.div_ceil(per_block);
    let mut memory = stage.memory(4 * c * blocks)?; // two of f64
    let mut sums = stage.memory(rows * c)?;
    let parameters = Sums {
        parts: memory.address()?,
        whole: sums.address()?,
        channels: size(c)?,
        pixels: size(pixels)?,
        count: size(count)?,
        per_block: size(per_block)?,
        blocks: size(blocks)?,
        lanes: size(lanes)?,
        ..parameters
    };
    // SAFETY: the caller's tensors have as many values as the sizes say, or one for each channel, and are alive; memory and sums were made for it.
    unsafe {
        stage.launch(parts, (columns, blocks), &parameters)?;
        stage.launch(whole, (c, 1), &parameters)?;
    }
    Ok(sums.into_tensor((rows, c)))
}

/// The sum of each channel `(c)` of an image that lies in this order.
pub(crate) fn channel_sums(stage: &Stage, order: Order, x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let of = Sums { x: address(x)?, is_narrow: is_narrow(x).into(), ..Sums::default() };
    sums(stage, order, Of::Values, (n, c, h * w), of)?.get(0)
}

/// The same of an image in the order of pixels, and the image in bf16 as it is stored; none where it has no fours of channels.
pub(crate) fn narrow_with_sums(stage: &Stage, x: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
    let (n, c, h, w) = x.dims4()?;
    if !c.is_multiple_of(4) {
        return Ok(None);
    }
    let mut narrow = stage.narrow_memory(x.elem_count())?;
    let of = Sums { x: address(x)?, narrow: narrow.address()?, ..Sums::default() };
    let sums = sums(stage, Order::Pixels, Of::Values, (n, c, h * w), of)?.get(0)?;
    Ok(Some((narrow.into_tensor((n, h, w, c)), sums)))
}

/// A size as kernels count, with room for a step beyond the last value.
///
/// # Errors
/// One that is too large.
pub(crate) fn size(size: usize) -> Result<i32> {
    const STEP: i32 = 65_535 * 256;
    match i32::try_from(size) {
        Ok(size) if size <= i32::MAX - STEP => Ok(size),
        _ => refuse!("{size} values are more than kernels count"),
    }
}
