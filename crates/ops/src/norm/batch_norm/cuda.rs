//! Batch normalisation by kernels on a CUDA device: sums of each channel, and one pass over the image. Results lie in the order in which the
//! image does.

use candle_core::{Result, Tensor};

use super::{BatchStatistics, NormEval};
use crate::Activation;
use crate::cuda::moves::arrange;
use crate::cuda::sums::{Of, Sums, size, sums};
use crate::cuda::{Memory, Stage, address, address_to_write, is_narrow};
use crate::kernel::{Order, Pass, node_taking_bf16};

/// The kernels' `struct Normalisation`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Parameters {
    x: u64,
    gradient: u64,
    mean: u64,
    variance: u64,
    weight: u64,
    bias: u64,
    sums: u64,
    before: u64,
    y: u64,
    channels: i32,
    pixels: i32,
    count: i32,
    lanes: i32,
    narrow: i32,
    gradient_narrow: i32,
    epsilon: f32,
    slope: f32,
}

/// A normalisation by these statistics `(c)`, all tensors detached and x in this order.
struct Normalisation {
    stage: Stage,
    order: Order,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
    activation: Activation,
    /// Whether the statistics are those of x.
    trains: bool,
}

/// By the statistics of x, f32 or, in the order of pixels, bf16, which the result and the gradient of x are then too.
pub(crate) fn train(
    stage: &Stage,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    let (n, c, h, w) = x.dims4()?;
    let order = Order::of(x);
    let seen = arrange(stage, order, x)?;
    let of = Sums { x: address(&seen)?, is_narrow: is_narrow(&seen).into(), ..Sums::default() };
    let statistics = sums(stage, order, Of::Statistics, (n, c, h * w), of)?;
    let [mean, variance, unbiased] = [statistics.get(0)?, statistics.get(1)?, statistics.get(2)?];
    let batch = BatchStatistics { mean: mean.clone(), variance: unbiased };
    Ok((normalise(stage, "batch_norm_train", [x, &mean, &variance, weight, bias], epsilon, activation, true)?, batch))
}

/// The kernel's `struct Moving`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Moving {
    mean: u64,
    variance: u64,
    running_mean: u64,
    running_variance: u64,
    len: i32,
    keep: f32,
    take: f32,
}

/// Moves running statistics `(c)`, in place, towards those of a batch.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
pub(crate) fn move_running(
    stage: &Stage,
    batch: &BatchStatistics,
    [mean, variance]: [&Tensor; 2],
    momentum: f64,
) -> Result<()> {
    let [batch_mean, batch_variance] = [batch.mean.contiguous()?, batch.variance.contiguous()?];
    let len = batch_mean.elem_count();
    let [keep, take] = [1. - momentum, momentum].map(|share| share as f32);
    let parameters = Moving {
        mean: address(&batch_mean)?,
        variance: address(&batch_variance)?,
        running_mean: address_to_write(mean)?,
        running_variance: address_to_write(variance)?,
        len: size(len)?,
        keep,
        take,
    };
    // SAFETY: all four have `len` values, which the caller has checked, and are alive.
    unsafe { stage.launch("move_running", (stage.blocks(len), 1), &parameters) }
}

pub(crate) fn eval(stage: &Stage, x: &Tensor, norm: &NormEval, activation: Activation) -> Result<Tensor> {
    let [mean, variance] = [norm.running_mean.contiguous()?, norm.running_var.contiguous()?];
    let tensors = [x, &mean, &variance, norm.weight, norm.bias];
    normalise(stage, "batch_norm_eval", tensors, norm.epsilon, activation, false)
}

fn normalise(
    stage: &Stage,
    name: &'static str,
    [x, mean, variance, weight, bias]: [&Tensor; 5],
    epsilon: f64,
    activation: Activation,
    trains: bool,
) -> Result<Tensor> {
    let [weight, bias] = [weight.contiguous()?, bias.contiguous()?];
    let order = Order::of(x);
    let done = Normalisation {
        stage: stage.clone(),
        order,
        x: arrange(stage, order, x)?,
        mean: mean.detach(),
        variance: variance.detach(),
        weight: weight.detach(),
        bias: bias.detach(),
        epsilon,
        activation,
        trains,
    };
    let mut y = if is_narrow(&done.x) { stage.narrow_memory(x.elem_count())? } else { stage.memory(x.elem_count())? };
    done.launch(["normalise", "normalise_by_pixel"], (0, false), 0, y.address()?)?;
    node_taking_bf16(order, name, &[x, &weight, &bias], y, x.shape(), move |pass| done.backward(pass))
}

impl Normalisation {
    fn backward(&self, pass: &Pass) -> Result<[Option<Tensor>; 3]> {
        let (n, c, h, w) = self.x.dims4()?;
        let [needs_x, needs_weight, needs_bias, ..] = pass.needed;
        let gradient = address(pass.gradient)?;
        let of = Sums {
            x: address(&self.x)?,
            gradient,
            mean: address(&self.mean)?,
            variance: address(&self.variance)?,
            weight: address(&self.weight)?,
            bias: address(&self.bias)?,
            is_narrow: is_narrow(&self.x).into(),
            is_gradient_narrow: is_narrow(pass.gradient).into(),
            epsilon: self.epsilon as f32,
            slope: self.activation.slope(),
            ..Sums::default()
        };
        let sums = if needs_weight || needs_bias || self.trains {
            Some(sums(&self.stage, self.order, Of::Gradients, (n, c, h * w), of)?)
        } else {
            None
        };
        let row = |needed: bool, at: usize| sums.as_ref().filter(|_| needed).map(|sums| sums.get(at)).transpose();
        let x = if needs_x {
            let len = self.x.elem_count();
            let mut dx = if is_narrow(&self.x) { self.stage.narrow_memory(len)? } else { self.stage.memory(len)? };
            let through = sums.as_ref().filter(|_| self.trains).map_or(Ok(0), address)?;
            let kernels = ["normalise_back", "normalise_back_by_pixel"];
            self.launch(kernels, (gradient, is_narrow(pass.gradient)), through, dx.address()?)?;
            Some(dx.into_image([n, c, h, w], self.order)?)
        } else {
            None
        };
        Ok([x, row(needs_weight, 0)?, row(needs_bias, 1)?])
    }

    fn launch(
        &self,
        kernels: [&'static str; 2],
        (gradient, gradient_narrow): (u64, bool),
        sums: u64,
        y: u64,
    ) -> Result<()> {
        let (n, c, h, w) = self.x.dims4()?;
        let parameters = Parameters {
            x: address(&self.x)?,
            gradient,
            mean: address(&self.mean)?,
            variance: address(&self.variance)?,
            weight: address(&self.weight)?,
            bias: address(&self.bias)?,
            sums,
            y,
            narrow: is_narrow(&self.x).into(),
            gradient_narrow: gradient_narrow.into(),
            epsilon: self.epsilon as f32,
            slope: self.activation.slope(),
            ..Parameters::default()
        };
        launch(&self.stage, self.order, kernels, [n, c, h, w], parameters)
    }
}

/// Runs the kernel of an order on images of this shape. It fills in sizes.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn launch(
    stage: &Stage,
    order: Order,
    [by_plane, by_pixel]: [&'static str; 2],
    [n, c, h, w]: [usize; 4],
    parameters: Parameters,
) -> Result<()> {
    let (lanes, across) = stage.lanes(c);
    let parameters = Parameters {
        channels: size(c)?,
        pixels: size(h * w)?,
        count: size(n * h * w)?,
        lanes: size(lanes)?,
        ..parameters
    };
    // SAFETY: x, gradient and y have as many values as the sizes say, the others one for each channel and sums two; all are alive. What is
    // written may be what is read, value by value.
    unsafe {
        match order {
            Order::Planes => stage.launch(by_plane, (n * c, stage.blocks(h * w)), &parameters),
            Order::Pixels => stage.launch(by_pixel, (across, stage.blocks(n * h * w * lanes)), &parameters),
        }
    }
}

/// [`eval`] of what a convolution has just written in this order, in f32 or bf16, less its bias, for nobody else.
pub(crate) fn eval_after(
    stage: &Stage,
    order: Order,
    (mut x, shape): (Memory, [usize; 4]),
    bias_before: Option<&Tensor>,
    norm: &NormEval,
    activation: Activation,
) -> Result<Tensor> {
    let [weight, bias] = [norm.weight.contiguous()?, norm.bias.contiguous()?];
    let [mean, variance] = [norm.running_mean.contiguous()?, norm.running_var.contiguous()?];
    let before = bias_before.map(Tensor::contiguous).transpose()?;
    let mut parameters = Parameters {
        x: x.address()?,
        mean: address(&mean)?,
        variance: address(&variance)?,
        weight: address(&weight)?,
        bias: address(&bias)?,
        before: before.as_ref().map_or(Ok(0), address)?,
        narrow: x.is_narrow().into(),
        epsilon: norm.epsilon as f32,
        slope: activation.slope(),
        ..Parameters::default()
    };
    // In the order of pixels what is written is what is read. Otherwise x lives on until the kernel is asked for.
    let mut wide =
        (x.is_narrow() && order == Order::Planes).then(|| stage.memory(shape.iter().product())).transpose()?;
    parameters.y = wide.as_mut().unwrap_or(&mut x).address()?;
    launch(stage, order, ["normalise", "normalise_by_pixel"], shape, parameters)?;
    wide.unwrap_or(x).into_image(shape, order)
}
