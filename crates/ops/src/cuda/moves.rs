//! Values moved from one order to the other, from images to a stack of their channels and back, and added in place.
#![allow(unsafe_code, reason = "kernels are told where tensors lie")]

use candle_core::{Result, Tensor};

use super::sums::size;
use super::{Memory, Stage, address, address_to_write, is_narrow};
use crate::check::refuse;
use crate::kernel::{InputGradients, Order, in_f32, node_in};

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
    keep: f32,
    take: f32,
}

/// The same image in this order, without a gradient.
pub(crate) fn arrange(stage: &Stage, order: Order, x: &Tensor) -> Result<Tensor> {
    let x = x.detach();
    let (n, c, h, w) = x.dims4()?;
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
    let (tile_rows, tile_columns) = if columns <= rows {
        (rows.min(tile / columns.min(side)), columns.min(side))
    } else {
        (rows.min(side), columns.min(tile / rows.min(side)))
    };
    let tiles = n * rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns);
    size(x.elem_count())?;
    let parameters = Transposition {
        x: address(x)?,
        y,
        rows: size(rows)?,
        columns: size(columns)?,
        tile_rows: size(tile_rows)?,
        tile_columns: size(tile_columns)?,
        tiles: size(tiles)?,
        narrow: narrow.into(),
    };
    // SAFETY: both have n matrices of rows and columns, x in f32 and y in what it says, and are alive.
    unsafe { stage.launch("transpose", (tiles.min(65_535), 1), &parameters) }
}

/// The channels of images that lie in this order, one image's after the other's.
pub(crate) fn stack(stage: &Stage, order: Order, images: &[Tensor]) -> Result<Tensor> {
    let (n, _, h, w) = images[0].dims4()?;
    let channels = images.iter().map(|x| x.dim(1)).sum::<Result<usize>>()?;
    stacked(stage, order, images)?.into_image([n, channels, h, w], order)
}

fn stacked(stage: &Stage, order: Order, images: &[Tensor]) -> Result<Memory> {
    let (n, _, h, w) = images[0].dims4()?;
    let channels = images.iter().map(|x| x.dim(1)).sum::<Result<usize>>()?;
    let mut y = stage.memory(n * channels * h * w)?;
    let mut start = 0;
    for x in images {
        let c = x.dim(1)?;
        let (x, y) = (address(x)?, y.address()?);
        copy(stage, order, (n, c, h * w), (x, c, 0), (y, channels, start))?;
        start += c;
    }
    Ok(y)
}

/// [`stack`] as a node: in the order of pixels if one of the images is.
pub(crate) fn cat(stage: &Stage, images: &[&Tensor]) -> Result<Tensor> {
    let orders: Vec<Order> = images.iter().map(|x| Order::of(x)).collect();
    let order = if orders.contains(&Order::Pixels) { Order::Pixels } else { Order::Planes };
    let arranged = images.iter().map(|x| arrange(stage, order, x)).collect::<Result<Vec<_>>>()?;
    let channels = arranged.iter().map(|x| x.dim(1)).collect::<Result<Vec<_>>>()?;
    let (n, _, h, w) = arranged[0].dims4()?;
    let y = stacked(stage, order, &arranged)?;
    let shape = (n, channels.iter().sum::<usize>(), h, w);
    let stage = stage.clone();
    node_in(order, "cat", images, y, shape, move |pass| {
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
    // Values of bf16 are copied in pairs.
    let by_pairs = is_narrow(x) && order == Order::Pixels && [c, start, channels].iter().all(|c| c.is_multiple_of(2));
    let x = if by_pairs { x.clone() } else { in_f32(x)? };
    let (mut y, pair) = if by_pairs {
        (stage.narrow_memory(n * channels * h * w)?, 2)
    } else {
        (stage.memory(n * channels * h * w)?, 1)
    };
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

/// `y = keep y + take x`, in place: whoever shares the values of y sees it. Both have one shape and lie in one order.
pub(crate) fn add_to(stage: &Stage, y: &Tensor, x: &Tensor, [keep, take]: [f64; 2]) -> Result<()> {
    if !Order::is_one_of(x, y) {
        refuse!("add_to: {:?} is not {:?}", x.layout(), y.layout());
    }
    let len = x.elem_count();
    let [keep, take] = [keep as f32, take as f32];
    let parameters = Addition {
        x: address(x)?,
        y: address_to_write(y)?,
        len: size(len)?,
        repeat: 1,
        period: 1,
        fours: 0,
        keep,
        take,
    };
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

/// bf16 values in f32, those of an image `(n, c, pixels)` in this order with a bias `(c)`, contiguous, if there is one.
pub(crate) fn widen(
    stage: &Stage,
    order: Order,
    mut x: Memory,
    bias: Option<&Tensor>,
    (n, c, pixels): (usize, usize, usize),
) -> Result<Memory> {
    let len = n * c * pixels;
    let repeat = if order == Order::Pixels { 1 } else { pixels };
    let mut y = stage.memory(len)?;
    let parameters = Cast {
        x: x.address()?,
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

/// Adds a bias `(c)`, contiguous, to the channels of an image `(n, c, pixels)` that lies there in this order.
pub(crate) fn add_bias(
    stage: &Stage,
    order: Order,
    y: u64,
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
        keep: 1.,
        take: 1.,
    };
    // SAFETY: the caller's sizes, whose tensors are alive.
    unsafe { stage.launch("add_each", (stage.blocks(len), 1), &parameters) }
}
