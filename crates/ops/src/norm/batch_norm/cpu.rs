//! Batch normalisation and activation: two passes over the planes in the order of memory, as convolutions go over them. The first sums up, the
//! second writes.
#![allow(unsafe_code, reason = "results are written without being zeroed first")]
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]

use std::mem::MaybeUninit;

use crate::Activation;
use crate::activation::{Activate, ForActivation};
use crate::kernel::{BLOCK, CHUNK, Work, block_sums, deal_each, sums_of_pairs, vectorised_work, written};

/// `y = activation((x - mean) * scale + shift)` of one channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) mean: f32,
    pub(super) inverse_deviation: f32,
    pub(super) scale: f32,
    pub(super) shift: f32,
}

impl Channel {
    pub(super) fn new(mean: f64, variance: f64, weight: f32, bias: f32, epsilon: f64) -> Self {
        let inverse_deviation = 1. / (variance + epsilon).sqrt();
        let scale = f64::from(weight) * inverse_deviation;
        // What rounding the mean to f32 takes off is put back.
        let shift = f64::from(bias) + (f64::from(mean as f32) - mean) * scale;
        Self {
            mean: mean as f32,
            inverse_deviation: inverse_deviation as f32,
            scale: scale as f32,
            shift: shift as f32,
        }
    }

    #[inline(always)]
    fn before_activation(self, x: f32) -> f32 {
        (x - self.mean) * self.scale + self.shift
    }
}

/// Images, channels and pixels of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) n: usize,
    pub(super) c: usize,
    pub(super) pixels: usize,
}

impl Size {
    fn len(self) -> usize {
        self.n * self.c * self.pixels
    }

    /// Blocks of a plane whose values are summed up together.
    fn blocks(self) -> usize {
        self.pixels.div_ceil(BLOCK)
    }

    fn planes(self, x: &[f32]) -> impl Iterator<Item = &[f32]> {
        x.chunks_exact(self.pixels)
    }

    /// What stands for a channel's planes, so many elements for each, image by image.
    fn of_channel<T>(self, x: &[T], channel: usize, len: usize) -> impl Iterator<Item = &[T]> {
        x.chunks_exact(len).skip(channel).step_by(self.c)
    }

    /// Does `work` for the channel of each plane and what stands for the plane, by as many planes as are worth a piece of work.
    fn deal<T: Send>(self, planes: impl IntoIterator<Item = T>, work: impl Fn(usize, T) + Sync) {
        let mut planes: Vec<_> = planes.into_iter().enumerate().map(Some).collect();
        deal_each(planes.chunks_mut(CHUNK.div_ceil(self.pixels)), |piece| {
            piece.iter_mut().filter_map(Option::take).for_each(|(at, plane)| work(at % self.c, plane));
        });
    }
}

/// What the training pass gives: the result, its channels, and the batch's statistics.
pub(super) struct Trained {
    pub(super) y: Vec<f32>,
    pub(super) channels: Vec<Channel>,
    pub(super) mean: Vec<f32>,
    pub(super) unbiased_variance: Vec<f32>,
}

/// The weights are repeated for as many channels as there are.
pub(super) fn train(
    size: Size,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f64,
    activation: Activation,
) -> Trained {
    let count = (size.n * size.pixels) as f64;
    let mut blocks = vec![OfBlock::default(); size.n * size.c * size.blocks()];
    size.deal(blocks.chunks_exact_mut(size.blocks()).zip(size.planes(x)), |_, (blocks, plane)| {
        vectorised_work(OfBlocks { plane, blocks });
    });
    let moments: Vec<_> =
        (0..size.c).map(|at| moments(size.of_channel(&blocks, at, size.blocks()).flatten(), count)).collect();
    let channel_of = |(at, &(mean, variance)): (usize, &(f64, f64))| {
        let at = at % weight.len();
        Channel::new(mean, variance, weight[at], bias[at], epsilon)
    };
    let channels: Vec<_> = moments.iter().enumerate().map(channel_of).collect();
    Trained {
        y: eval(size, x, &channels, activation),
        channels,
        mean: moments.iter().map(|&(mean, _)| mean as f32).collect(),
        unbiased_variance: moments.iter().map(|&(_, variance)| (variance * (count / (count - 1.))) as f32).collect(),
    }
}

pub(super) fn eval(size: Size, x: &[f32], channels: &[Channel], activation: Activation) -> Vec<f32> {
    let write = |y: &mut [MaybeUninit<f32>]| {
        size.deal(y.chunks_exact_mut(size.pixels).zip(size.planes(x)), |at, (y, x)| {
            activation.choose(Normalise { x, y, channel: channels[at] });
        });
    };
    // SAFETY: the planes are all of y, and `Normalise` writes all of a plane.
    unsafe { written(size.len(), write) }
}

/// A value among those of a block, and around it the sum of all and of their squares: around 0, squares of a large mean would drown the variance.
#[derive(Debug, Clone, Copy, Default)]
struct OfBlock {
    near: f64,
    sum: f64,
    squares: f64,
    len: f64,
}

struct OfBlocks<'a> {
    plane: &'a [f32],
    blocks: &'a mut [OfBlock],
}

impl Work for OfBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (values, block) in self.plane.chunks(BLOCK).zip(self.blocks) {
            // The mean of the first values.
            let few = &values[..values.len().min(64)];
            let near = (block_sums(few, few, |x, _| [x])[0] / few.len() as f64) as f32;
            let [sum, squares] = block_sums(values, values, move |x, _| [x - near, (x - near) * (x - near)]);
            *block = OfBlock { near: f64::from(near), sum, squares, len: values.len() as f64 };
        }
    }
}

/// Mean and biased variance of a channel's blocks.
fn moments<'a>(blocks: impl Iterator<Item = &'a OfBlock>, count: f64) -> (f64, f64) {
    let mut centre = None;
    let (mut sum, mut squares) = (0., 0.);
    for block in blocks {
        let apart = block.near - *centre.get_or_insert(block.near);
        sum += block.sum + block.len * apart;
        squares += block.squares + (2. * block.sum + block.len * apart) * apart;
    }
    let mean = sum / count;
    let variance = squares / count - mean * mean;
    // Rounding may leave a constant channel slightly below zero. A comparison keeps NaN.
    (centre.unwrap_or_default() + mean, if variance < 0. { 0. } else { variance })
}

/// Writes a plane of results.
struct Normalise<'a> {
    x: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
    channel: Channel,
}

impl ForActivation for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, activation: impl Activate) {
        let Self { x, y, channel } = self;
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(activation.value(channel.before_activation(x)));
        }
    }
}

/// What the backward pass has to know of the forward pass.
pub(super) struct Normalisation {
    pub(super) size: Size,
    pub(super) channels: Vec<Channel>,
    /// How many weights and biases there are; those of a channel stand at its place modulo their number.
    pub(super) weights: usize,
    pub(super) activation: Activation,
    /// Whether the mean and variance of the channels depend on x; else they are constants.
    pub(super) through_statistics: bool,
}

/// Gradients of weight and bias.
pub(super) struct Gradients {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl Normalisation {
    fn gradients(&self, sums: &[[f64; 2]]) -> Gradients {
        let of_channels = |value: &dyn Fn(usize) -> f64| {
            let all: Vec<f64> = (0..sums.len()).map(value).collect();
            (0..self.weights).map(|at| all[at..].iter().step_by(self.weights).sum::<f64>() as f32).collect()
        };
        Gradients {
            weight: of_channels(&|at| sums[at][1] * f64::from(self.channels[at].inverse_deviation)),
            bias: of_channels(&|at| sums[at][0]),
        }
    }
}

/// Turns the gradient of the result into that of x, in place. With g the gradient before the activation, d = x - mean and sums over the
/// channel's N pixels: `dbias = sum g`, `dweight = sum g d / deviation`, `dx = scale (g - sum g / N - d / deviation^2 sum g d / N)`.
pub(super) fn backward(normalisation: &Normalisation, x: &[f32], gradient: &mut [f32]) -> Gradients {
    let &Normalisation { size, ref channels, activation, through_statistics, .. } = normalisation;
    let count = (size.n * size.pixels) as f64;
    let sums = channel_sums(normalisation, x, gradient);
    size.deal(size.planes(x).zip(gradient.chunks_exact_mut(size.pixels)), |at, (x, gradient)| {
        let mean = if through_statistics { sums[at].map(|sum| sum / count) } else { [0.; 2] };
        activation.choose(Spread { x, gradient, channel: channels[at], mean });
    });
    normalisation.gradients(&sums)
}

/// [`backward`] where x needs no gradient.
pub(super) fn parameter_gradients(normalisation: &Normalisation, x: &[f32], gradient: &[f32]) -> Gradients {
    normalisation.gradients(&channel_sums(normalisation, x, gradient))
}

/// `[sum g, sum g d]` of each channel.
fn channel_sums(normalisation: &Normalisation, x: &[f32], gradient: &[f32]) -> Vec<[f64; 2]> {
    let &Normalisation { size, ref channels, activation, .. } = normalisation;
    let mut sums = vec![[0.; 2]; size.n * size.c];
    size.deal(sums.iter_mut().zip(size.planes(x).zip(size.planes(gradient))), |at, (sums, (x, gradient))| {
        *sums = activation.choose(Sums { x, gradient, channel: channels[at] });
    });
    let add = |total: [f64; 2], plane: &[f64; 2]| [total[0] + plane[0], total[1] + plane[1]];
    (0..size.c).map(|at| size.of_channel(&sums, at, 1).flatten().fold([0.; 2], add)).collect()
}

/// `[sum g, sum g d]` of a plane.
struct Sums<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    channel: Channel,
}

impl ForActivation for Sums<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run(self, activation: impl Activate) -> [f64; 2] {
        let Self { x, gradient, channel } = self;
        sums_of_pairs(x, gradient, move |x, gradient| {
            let g = activation.gradient(channel.before_activation(x), gradient);
            [g, g * (x - channel.mean)]
        })
    }
}

/// Turns gradients of a plane's results into those of its x.
struct Spread<'a> {
    x: &'a [f32],
    gradient: &'a mut [f32],
    channel: Channel,
    /// Means of g and of g d.
    mean: [f64; 2],
}

impl ForActivation for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, activation: impl Activate) {
        let Self { x, gradient, channel, mean } = self;
        let constant = mean[0] as f32;
        let slope = (mean[1] * f64::from(channel.inverse_deviation) * f64::from(channel.inverse_deviation)) as f32;
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let g = activation.gradient(channel.before_activation(x), *gradient);
            *gradient = channel.scale * (g - constant - (x - channel.mean) * slope);
        }
    }
}
