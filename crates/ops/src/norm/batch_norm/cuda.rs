//! Batch normalisation by kernels on a CUDA device: sums of each channel in f64, in two steps that do not depend on the order in which
//! blocks finish, and one pass over the image.

use candle_core::{Error, Result, Tensor};

use super::{BatchStatistics, NormEval};
use crate::Activation;
use crate::cuda::{Stage, address};
use crate::kernel::{Pass, node};

/// The kernels' `struct Sums`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sums {
    x: u64,
    gradient: u64,
    mean: u64,
    variance: u64,
    weight: u64,
    bias: u64,
    parts: u64,
    whole: u64,
    channels: i32,
    pixels: i32,
    count: i32,
    per_block: i32,
    blocks: i32,
    epsilon: f32,
    slope: f32,
}

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
    epsilon: f32,
    slope: f32,
}

/// A normalisation by these statistics `(c)`, all tensors contiguous and detached.
struct Normalisation {
    stage: Stage,
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
    let x = x.contiguous()?;
    let statistics =
        sums(stage, ["statistics_parts", "statistics"], (n, c, h * w), Sums { x: address(&x)?, ..Sums::default() })?;
    let [mean, variance] = [statistics.get(0)?, statistics.get(1)?];
    let count = (n * h * w) as f64;
    let batch = BatchStatistics { mean: mean.copy()?, variance: (&variance * (count / (count - 1.)))? };
    Ok((normalise(stage, "batch_norm_train", [&x, &mean, &variance, weight, bias], epsilon, activation, true)?, batch))
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
    let [x, weight, bias] = [x.contiguous()?, weight.contiguous()?, bias.contiguous()?];
    let done = Normalisation {
        stage: stage.clone(),
        x: x.detach(),
        mean: mean.detach(),
        variance: variance.detach(),
        weight: weight.detach(),
        bias: bias.detach(),
        epsilon,
        activation,
        trains,
    };
    let mut y = stage.memory(x.elem_count())?;
    done.launch("normalise", 0, 0, y.address()?)?;
    node(name, &[&x, &weight, &bias], y, x.shape(), move |pass| done.backward(pass))
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
            Some(sums(&self.stage, ["gradients_parts", "gradients"], (n, c, h * w), of)?)
        } else {
            None
        };
        // Each in its own memory: gradients of other uses are added in place.
        let row = |needed: bool, at: usize| {
            let row = sums.as_ref().filter(|_| needed).map(|sums| sums.get(at)?.copy());
            row.transpose()
        };
        let x = if needs_x {
            let mut dx = self.stage.memory(self.x.elem_count())?;
            let through = sums.as_ref().filter(|_| self.trains).map_or(Ok(0), address)?;
            self.launch("normalise_back", gradient, through, dx.address()?)?;
            Some(dx.into_tensor(self.x.shape()))
        } else {
            None
        };
        Ok([x, row(needs_weight, 0)?, row(needs_bias, 1)?])
    }

    #[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
    fn launch(&self, kernel: &'static str, gradient: u64, sums: u64, y: u64) -> Result<()> {
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
            channels: size(c)?,
            pixels: size(h * w)?,
            count: size(n * h * w)?,
            epsilon: self.epsilon as f32,
            slope: self.activation.slope(),
        };
        // SAFETY: x, gradient and y have as many values as the sizes say, the others one for each channel and sums two; all are alive.
        unsafe { self.stage.launch(kernel, (n * c, self.stage.blocks(h * w)), &parameters) }
    }
}

/// Two sums of each channel `(2, c)`: of the values that one block sees, and of all blocks.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
fn sums(
    stage: &Stage,
    [parts, whole]: [&'static str; 2],
    (n, c, pixels): (usize, usize, usize),
    of: Sums,
) -> Result<Tensor> {
    let blocks = (n * pixels).div_ceil(stage.summands());
    let mut memory = stage.memory(4 * c * blocks)?; // two of f64
    let mut sums = stage.memory(2 * c)?;
    let parameters = Sums {
        parts: memory.address()?,
        whole: sums.address()?,
        channels: size(c)?,
        pixels: size(pixels)?,
        count: size(n * pixels)?,
        per_block: size(stage.summands())?,
        blocks: size(blocks)?,
        ..of
    };
    // SAFETY: the caller's tensors have as many values as the sizes say, or one for each channel, and are alive; memory and sums were made for it.
    unsafe {
        stage.launch(parts, (c, blocks), &parameters)?;
        stage.launch(whole, (c, 1), &parameters)?;
    }
    Ok(sums.into_tensor((2, c)))
}

fn size(size: usize) -> Result<i32> {
    i32::try_from(size).map_err(Error::wrap)
}
