//! Batch normalisation by kernels on a CUDA device: sums of each channel, and one pass over the image. Results lie in the order in which the
//! image does.

use candle_core::{Result, Tensor};

use super::{BatchStatistics, NormEval};
use crate::Activation;
use crate::cuda::moves::arrange;
use crate::cuda::sums::{Of, Sums, size, sums};
use crate::cuda::{Stage, address, address_to_write};
use crate::kernel::{Order, Pass, node_in};

/// The kernels' `struct Normalisation`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    x: u64,
    gradient: u64,
    mean: u64,
    variance: u64,
    weight: u64,
    bias: u64,
    sums: u64,
    y: u64,
    channels: i32,
    pixels: i32,
    count: i32,
    lanes: i32,
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
    let of = Sums { x: address(&seen)?, ..Sums::default() };
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
    let mut y = stage.memory(x.elem_count())?;
    done.launch(["normalise", "normalise_by_pixel"], 0, 0, y.address()?)?;
    node_in(order, name, &[x, &weight, &bias], y, x.shape(), move |pass| done.backward(pass))
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
            let mut dx = self.stage.memory(self.x.elem_count())?;
            let through = sums.as_ref().filter(|_| self.trains).map_or(Ok(0), address)?;
            self.launch(["normalise_back", "normalise_back_by_pixel"], gradient, through, dx.address()?)?;
            Some(dx.into_image([n, c, h, w], self.order)?)
        } else {
            None
        };
        Ok([x, row(needs_weight, 0)?, row(needs_bias, 1)?])
    }

    #[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
    fn launch(&self, [by_plane, by_pixel]: [&'static str; 2], gradient: u64, sums: u64, y: u64) -> Result<()> {
        let (n, c, h, w) = self.x.dims4()?;
        let (lanes, across) = self.stage.lanes(c);
        let parameters = Parameters {
            x: address(&self.x)?,
            gradient,
            mean: address(&self.mean)?,
            variance: address(&self.variance)?,
            weight: address(&self.weight)?,
            bias: address(&self.bias)?,
            sums,
            y,
            channels: size(c)?,
            pixels: size(h * w)?,
            count: size(n * h * w)?,
            lanes: size(lanes)?,
            epsilon: self.epsilon as f32,
            slope: self.activation.slope(),
        };
        // SAFETY: x, gradient and y have as many values as the sizes say, the others one for each channel and sums two; all are alive.
        unsafe {
            match self.order {
                Order::Planes => self.stage.launch(by_plane, (n * c, self.stage.blocks(h * w)), &parameters),
                Order::Pixels => {
                    let blocks = (across, self.stage.blocks(n * h * w * lanes));
                    self.stage.launch(by_pixel, blocks, &parameters)
                }
            }
        }
    }
}
