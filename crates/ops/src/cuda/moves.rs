//! Values moved from one order to the other, from images to a stack of their channels and back, and added in place.
#![allow(unsafe_code, reason = "kernels are told where tensors lie")]

use candle_core::{Result, Tensor};

use super::sums::size;
use super::{Memory, Stage, address, address_to_write, is_narrow};
use crate::check::refuse;
use crate::kernel::{InputGradients, Order, in_f32, node_taking_bf16};

#[repr(C)]
#[derive(Clone, Copy)]
struct Rows {
    x: u64,
    y: u64,
    len: i32,
    width: i32,
    x_step: i32,
    x_start: i32,
    y_step: i32,
    y_start: i32,
    fours: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Transposition {
    x: u64,
    y: u64,
    rows: i32,
    columns: i32,
    tile_rows: i32,
    tile_columns: i32,
    tiles: i32,
    narrow: i32,
    fours: i32,
    by_rows: u32,
    by_columns: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Addition {
    x: u64,
    y: u64,
    len: i32,
    repeat: i32,
    period: i32,
    fours: i32,
    narrow: i32,
    keep: f32,
    take: f32,
}

/// The same image in this order, without a gradient. bf16 is in the order of pixels alone.
pub(crate) fn arrange(stage: &Stage, order: Order, x: &Tensor) -> Result<Tensor> {
    let x = x.detach();
    let (n, c, h, w) = x.dims4()?;
    let x = if order == Order::Pixels && Order::of(&x) == Order::Pixels { x } else { in_f32(&x)? };
    let from = Order::of(&x);
    if from == order || c == 1 || h * w == 1 || (from == Order::Planes && !x.is_contiguous()) {
        let x = order.arrange(&x)?;
        // Kernels read 16 bytes at a time.
        let starts_well = x.layout().start_offset().is_multiple_of(4);
        return if starts_well { Ok(x) } else { order.seen(&order.stored(&x)?.force_contiguous()?) };
    }
    let mut y = stage.memory(x.elem_count())?;
    transpose(stage, order, &x, y.address()?, false)?;
    y.into_image([n, c, h, w], order)
}

/// The same image rounded to bf16, as it is stored in this order; none where it lies in that order already.
pub(crate) fn arrange_narrow(stage: &Stage, order: Order, x: &Tensor) -> Result<Option<Tensor>> {
    let x = x.detach();
    let (_, c, h, w) = x.dims4()?;
    let from = Order::of(&x);
    if from == order || c == 1 || h * w == 1 || (from == Order::Planes && !x.is_contiguous()) {
        return Ok(None);
    }
    let mut y = stage.narrow_memory(x.elem_count())?;
    transpose(stage, order, &x, y.address()?, true)?;
    Ok(Some(y.into_tensor(&order.shape([x.dim(0)?, c, h, w])[..])))
}

/// Rows and columns of a tile, where there are so many. Of short rows, or columns, a tile has more, so that runs in memory stay long.
const SIDE: usize = 32;

/// Writes an image of the other order in this one.
fn transpose(stage: &Stage, order: Order, x: &Tensor, y: u64, narrow: bool) -> Result<()> {
    let (n, c, h, w) = x.dims4()?;
    let (rows, columns) = if order == Order::Pixels { (c, h * w) } else { (h * w, c) };
    let tile = stage.tile();
    let side = SIDE.min(tile / 4);
    let long = |beside: usize| {
        let most = tile / beside;
        if most > side { most - most % side } else { most } // so that runs begin where others do
    };
    let (tile_rows, tile_columns) = if columns <= rows {
        (rows.min(long(columns.min(side))), columns.min(side))
    } else {
        (rows.min(side), columns.min(long(rows.min(side))))
    };
    let tiles = n * rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns);
    size(x.elem_count())?;
    let at = address(x)?;
    let fours = [rows, columns, tile_rows, tile_columns].iter().all(|count| count.is_multiple_of(4))
        && [at, y].iter().all(|at| at.is_multiple_of(16));
    let parameters = Transposition {
        x: at,
        y,
        rows: size(rows)?,
        columns: size(columns)?,
        tile_rows: size(tile_rows)?,
        tile_columns: size(tile_columns)?,
        tiles: size(tiles)?,
        narrow: narrow.into(),
        fours: fours.into(),
        by_rows: dividing_by(tile_rows)?,
        by_columns: dividing_by(tile_columns)?,
    };
    // SAFETY: both have n matrices of rows and columns, x in f32 and y in what it says, and are alive.
    unsafe { stage.launch("transpose", (tiles.min(65_535), 1), &parameters) }
}

/// What kernels multiply by instead of dividing by a side of a tile.
///
/// # Errors
/// A side of one value: there is nothing to transpose.
fn dividing_by(side: usize) -> Result<u32> {
    match u32::try_from((1u64 << 32).div_ceil(side.max(1) as u64)) {
        Ok(by) => Ok(by),
        Err(_) => refuse!("a tile has a side of {side}"),
    }
}

/// The same image in bf16 and in the order of pixels, without a gradient.
pub(crate) fn narrow_image(stage: &Stage, x: &Tensor) -> Result<Tensor> {
    let order = Order::Pixels;
    if is_narrow(x) {
        return arrange(stage, order, x);
    }
    let narrow = match arrange_narrow(stage, order, x)? {
        Some(narrow) => narrow,
        None => narrow(stage, &order.stored(&arrange(stage, order, x)?)?)?,
    };
    order.seen(&narrow)
}

/// The channels of images, one image's after the other's, in this order: in bf16 if all are, in f32 otherwise.
pub(crate) fn stack(stage: &Stage, order: Order, images: &[Tensor]) -> Result<Tensor> {
    let (y, shape) = stacked(stage, order, images)?;
    y.into_image(shape, order)
}

/// The same, not yet a tensor, and its shape.
fn stacked(stage: &Stage, order: Order, images: &[Tensor]) -> Result<(Memory, [usize; 4])> {
    let (n, _, h, w) = images[0].dims4()?;
    let channels = images.iter().map(|x| x.dim(1)).collect::<Result<Vec<_>>>()?;
    // Values of bf16 are copied in pairs.
    let by_pairs =
        order == Order::Pixels && images.iter().all(is_narrow) && channels.iter().all(|c| c.is_multiple_of(2));
    let arranged = |x: &Tensor| if by_pairs { arrange(stage, order, x) } else { arrange(stage, order, &in_f32(x)?) };
    let images = images.iter().map(arranged).collect::<Result<Vec<_>>>()?;
    let whole: usize = channels.iter().sum();
    let len = n * whole * h * w;
    let (mut y, pair) = if by_pairs { (stage.narrow_memory(len)?, 2) } else { (stage.memory(len)?, 1) };
    let mut start = 0;
    for (x, c) in images.iter().zip(channels) {
        let size = (n, c / pair, h * w);
        copy(stage, order, size, (address(x)?, c / pair, 0), (y.address()?, whole / pair, start / pair))?;
        start += c;
    }
    Ok((y, [n, whole, h, w]))
}

/// [`stack`] as a node: in the order of pixels if one of the images is.
pub(crate) fn cat(stage: &Stage, images: &[&Tensor]) -> Result<Tensor> {
    let by_pixels = images.iter().any(|x| Order::of(x) == Order::Pixels);
    let order = if by_pixels { Order::Pixels } else { Order::Planes };
    let channels = images.iter().map(|x| x.dim(1)).collect::<Result<Vec<_>>>()?;
    let (y, shape) = stacked(stage, order, &images.iter().map(|x| x.detach()).collect::<Vec<_>>())?;
    let stage = stage.clone();
    node_taking_bf16(order, "cat", images, y, &shape[..], move |pass| {
        let mut gradients = InputGradients::<4>::default();
        let mut start = 0;
        for (at, &channels) in channels.iter().enumerate() {
            if pass.needed[at] {
                gradients[at] = Some(part(&stage, order, pass.gradient, start, channels)?);
            }
            start += channels;
        }
        Ok(gradients)
    })
}

/// The `channels` from `start` on of an image that lies in this order, in memory of their own.
pub(crate) fn part(stage: &Stage, order: Order, x: &Tensor, start: usize, channels: usize) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let by_pairs = is_narrow(x) && order == Order::Pixels && [c, start, channels].iter().all(|c| c.is_multiple_of(2));
    let x = if by_pairs { x.clone() } else { in_f32(x)? };
    let len = n * channels * h * w;
    let (mut y, pair) = if by_pairs { (stage.narrow_memory(len)?, 2) } else { (stage.memory(len)?, 1) };
    let from = (address(&x)?, c / pair, start / pair);
    copy(stage, order, (n, channels / pair, h * w), from, (y.address()?, channels / pair, 0))?;
    y.into_image([n, channels, h, w], order)
}

/// Copies `(n, channels, pixels)`. Either side is an address, how many channels an image has there, and which is the first.
fn copy(
    stage: &Stage,
    order: Order,
    (n, channels, pixels): (usize, usize, usize),
    (x, x_channels, x_first): (u64, usize, usize),
    (y, y_channels, y_first): (u64, usize, usize),
) -> Result<()> {
    // A row is an image's part in the order of planes, and a pixel's in that of pixels.
    let of_one = if order == Order::Pixels { 1 } else { pixels };
    let counts = [channels, x_channels, x_first, y_channels, y_first].map(|channels| channels * of_one);
    let fours = counts.iter().all(|count| count.is_multiple_of(4)) && [x, y].iter().all(|at| at.is_multiple_of(16));
    let together = if fours { 4 } else { 1 };
    let len = n * channels * pixels / together;
    let [width, x_step, x_start, y_step, y_start] = counts.map(|count| size(count / together));
    let parameters = Rows {
        x,
        y,
        len: size(len)?,
        width: width?,
        x_step: x_step?,
        x_start: x_start?,
        y_step: y_step?,
        y_start: y_start?,
        fours: fours.into(),
    };
    // SAFETY: the callers' sizes, whose tensors are alive.
    unsafe { stage.launch("copy_rows", (stage.blocks(len), 1), &parameters) }
}

/// `y = keep y + take x`, in place: whoever shares the values of y sees it. Both have one shape and dtype, f32 or bf16, and lie in one order.
pub(crate) fn add_to(stage: &Stage, y: &Tensor, x: &Tensor, [keep, take]: [f64; 2]) -> Result<()> {
    if !Order::is_one_of(x, y) || x.dtype() != y.dtype() {
        refuse!("add_to: {:?} {:?} is not {:?} {:?}", x.dtype(), x.layout(), y.dtype(), y.layout());
    }
    let len = x.elem_count();
    let [keep, take] = [keep as f32, take as f32];
    let (x, y, narrow) = (address(x)?, address_to_write(y)?, is_narrow(x).into());
    let fours = (len.is_multiple_of(4) && [x, y].iter().all(|at| at.is_multiple_of(16))).into();
    let parameters = Addition { x, y, len: size(len)?, repeat: 1, period: 1, fours, narrow, keep, take };
    // SAFETY: both have `len` values side by side, which `address` has checked, and are alive.
    unsafe { stage.launch("add_to", (stage.blocks(len), 1), &parameters) }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Cast {
    x: u64,
    y: u64,
    bias: u64,
    len: i32,
    repeat: i32,
    period: i32,
}

/// A contiguous tensor rounded to bf16.
pub(crate) fn narrow(stage: &Stage, x: &Tensor) -> Result<Tensor> {
    // Kernels read 16 bytes at a time.
    let x = if x.layout().start_offset().is_multiple_of(4) { x.clone() } else { x.force_contiguous()? };
    let len = x.elem_count();
    let mut y = stage.narrow_memory(len)?;
    let parameters = Cast { x: address(&x)?, y: y.address()?, bias: 0, len: size(len)?, repeat: 1, period: 1 };
    // SAFETY: both have `len` values, x in f32 and y in bf16, and are alive.
    unsafe { stage.launch("narrow", (stage.blocks(len), 1), &parameters)? };
    Ok(y.into_tensor(x.shape()))
}

/// The values of an image in bf16 in f32, as they lie.
#[cfg(feature = "cuda")]
pub(crate) fn widened(stage: &Stage, x: &Tensor) -> Result<Memory> {
    widen(stage, Order::Pixels, address(x)?, None, (1, 1, x.elem_count()))
}

/// bf16 values in f32, those of an image `(n, c, pixels)` in this order with a bias `(c)`, contiguous, if there is one.
pub(crate) fn widen(
    stage: &Stage,
    order: Order,
    x: u64,
    bias: Option<&Tensor>,
    (n, c, pixels): (usize, usize, usize),
) -> Result<Memory> {
    let len = n * c * pixels;
    let repeat = if order == Order::Pixels { 1 } else { pixels };
    let mut y = stage.memory(len)?;
    let parameters = Cast {
        x,
        y: y.address()?,
        bias: bias.map_or(Ok(0), address)?,
        len: size(len)?,
        repeat: size(repeat)?,
        period: size(c)?,
    };
    // SAFETY: both have `len` values, x in bf16 and y in f32, and bias has c; all are alive.
    unsafe { stage.launch("widen", (stage.blocks(len), 1), &parameters)? };
    Ok(y)
}

/// Adds a bias `(c)`, contiguous, to the channels of an image `(n, c, pixels)` that lies there in this order, and may be bf16.
pub(crate) fn add_bias(
    stage: &Stage,
    order: Order,
    (y, narrow): (u64, bool),
    bias: &Tensor,
    (n, c, pixels): (usize, usize, usize),
) -> Result<()> {
    let len = n * c * pixels;
    let repeat = if order == Order::Pixels { 1 } else { pixels };
    let x = address(bias)?;
    let fours = if repeat == 1 { c.is_multiple_of(4) } else { repeat.is_multiple_of(4) } && y.is_multiple_of(16);
    let parameters = Addition {
        x,
        y,
        len: size(len)?,
        repeat: size(repeat)?,
        period: size(c)?,
        fours: fours.into(),
        narrow: narrow.into(),
        keep: 1.,
        take: 1.,
    };
    // SAFETY: the caller's sizes, whose tensors are alive.
    unsafe { stage.launch("add_each", (stage.blocks(len), 1), &parameters) }
}
