//! Batch normalisation and activation, channel by channel: statistics and result while the channel is in the cache.
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

    /// The planes of a channel, image by image.
    fn planes(self, x: &[f32], channel: usize) -> impl Iterator<Item = &[f32]> {
        x.chunks_exact(self.pixels).skip(channel).step_by(self.c)
    }

    /// Does `work` for what stands for each channel, numbered, by as many channels as are worth a piece of work.
    fn deal<T: Send>(self, channels: impl IntoIterator<Item = T>, work: impl Fn(usize, T) + Sync) {
        let channels_of_piece = CHUNK.div_ceil(self.n * self.pixels);
        let mut channels: Vec<_> = channels.into_iter().enumerate().map(Some).collect();
        deal_each(channels.chunks_mut(channels_of_piece), |piece| {
            piece.iter_mut().filter_map(Option::take).for_each(|(at, channel)| work(at, channel));
        });
    }

    /// All planes to be written, those of a channel beside each other.
    fn planes_by_channel<T>(self, x: &mut [T]) -> Vec<&mut [T]> {
        let mut planes: Vec<&mut [T]> = (0..self.n * self.c).map(|_| <&mut [T]>::default()).collect();
        for (image, x) in x.chunks_exact_mut(self.c * self.pixels).enumerate() {
            for (channel, plane) in x.chunks_exact_mut(self.pixels).enumerate() {
                planes[channel * self.n + image] = plane;
            }
        }
        planes
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
    let mut moments = vec![(0., 0.); size.c];
    let channel_of = |channel: usize, (mean, variance): (f64, f64)| {
        let at = channel % weight.len();
        Channel::new(mean, variance, weight[at], bias[at], epsilon)
    };
    let write = |out: &mut [MaybeUninit<f32>]| {
        let mut planes = size.planes_by_channel(out);
        size.deal(planes.chunks_exact_mut(size.n).zip(&mut moments), |at, (out, moments)| {
            *moments = self::moments(size.planes(x, at), count);
            activation.choose(Normalise { x: size.planes(x, at), y: out, channel: channel_of(at, *moments) });
        });
    };
    // SAFETY: each plane is in one channel, and `Normalise` writes all of it.
    let y = unsafe { written(size.len(), write) };
    Trained {
        y,
        channels: moments.iter().enumerate().map(|(at, &moments)| channel_of(at, moments)).collect(),
        mean: moments.iter().map(|&(mean, _)| mean as f32).collect(),
        unbiased_variance: moments.iter().map(|&(_, variance)| (variance * (count / (count - 1.))) as f32).collect(),
    }
}

pub(super) fn eval(size: Size, x: &[f32], channels: &[Channel], activation: Activation) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        let mut planes = size.planes_by_channel(out);
        size.deal(planes.chunks_exact_mut(size.n).zip(channels), |at, (out, &channel)| {
            activation.choose(Normalise { x: size.planes(x, at), y: out, channel });
        });
    };
    // SAFETY: each plane is in one channel, and `Normalise` writes all of it.
    unsafe { written(size.len(), write) }
}

/// Mean and biased variance.
fn moments<'a>(planes: impl Iterator<Item = &'a [f32]>, count: f64) -> (f64, f64) {
    let (centre, sum, squares) = vectorised_work(Moments(planes));
    let mean = sum / count;
    let variance = squares / count - mean * mean;
    // Rounding may leave a constant channel slightly below zero. A comparison keeps NaN.
    (centre + mean, if variance < 0. { 0. } else { variance })
}

/// A value among those of the planes, and around it the sum of all and of their squares.
///
/// Sums of a block are taken around the mean of its first values: around 0, squares of a large mean would drown the variance.
struct Moments<P>(P);

impl<'a, P: Iterator<Item = &'a [f32]>> Work for Moments<P> {
    type Output = (f64, f64, f64);

    #[inline(always)]
    fn run(self) -> (f64, f64, f64) {
        let mut centre = None;
        let (mut sum, mut squares) = (0., 0.);
        for plane in self.0 {
            for block in plane.chunks(BLOCK) {
                let few = &block[..block.len().min(64)];
                let near = (block_sums(few, few, |x, _| [x])[0] / few.len() as f64) as f32;
                let [s, q] = block_sums(block, block, move |x, _| [x - near, (x - near) * (x - near)]);
                let apart = f64::from(near) - *centre.get_or_insert(f64::from(near));
                let len = block.len() as f64;
                sum += s + len * apart;
                squares += q + (2. * s + len * apart) * apart;
            }
        }
        (centre.unwrap_or_default(), sum, squares)
    }
}

struct Normalise<'a, 'b, P> {
    x: P,
    y: &'a mut [&'b mut [MaybeUninit<f32>]],
    channel: Channel,
}

impl<'a, P: Iterator<Item = &'a [f32]>> ForActivation for Normalise<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run(self, activation: impl Activate) {
        let channel = self.channel;
        for (x, y) in self.x.zip(self.y) {
            for (y, &x) in y.iter_mut().zip(x) {
                y.write(activation.value(channel.before_activation(x)));
            }
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
    let mut sums = vec![[0.; 2]; size.c];
    let mut planes = size.planes_by_channel(gradient);
    size.deal(planes.chunks_exact_mut(size.n).zip(&mut sums), |at, (gradient, sums)| {
        let channel = channels[at];
        let planes = size.planes(x, at).zip(gradient.iter().map(|plane| &**plane));
        *sums = activation.choose(Sums { planes, channel });
        let mean = if through_statistics { sums.map(|sum| sum / count) } else { [0.; 2] };
        activation.choose(Spread { x: size.planes(x, at), gradient, channel, mean });
    });
    normalisation.gradients(&sums)
}

/// [`backward`] where x needs no gradient.
pub(super) fn parameter_gradients(normalisation: &Normalisation, x: &[f32], gradient: &[f32]) -> Gradients {
    let &Normalisation { size, ref channels, activation, .. } = normalisation;
    let mut sums = vec![[0.; 2]; size.c];
    size.deal(&mut sums, |at, sums| {
        let planes = size.planes(x, at).zip(size.planes(gradient, at));
        *sums = activation.choose(Sums { planes, channel: channels[at] });
    });
    normalisation.gradients(&sums)
}

/// `[sum g, sum g d]` of a channel.
struct Sums<P> {
    planes: P,
    channel: Channel,
}

impl<'a, P: Iterator<Item = (&'a [f32], &'a [f32])>> ForActivation for Sums<P> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run(self, activation: impl Activate) -> [f64; 2] {
        let channel = self.channel;
        let mut total = [0.; 2];
        for (x, gradient) in self.planes {
            let sums = sums_of_pairs(x, gradient, move |x, gradient| {
                let g = activation.gradient(channel.before_activation(x), gradient);
                [g, g * (x - channel.mean)]
            });
            total[0] += sums[0];
            total[1] += sums[1];
        }
        total
    }
}

/// Turns gradients of a channel's results into those of its x.
struct Spread<'a, 'b, P> {
    x: P,
    gradient: &'a mut [&'b mut [f32]],
    channel: Channel,
    /// Means of g and of g d.
    mean: [f64; 2],
}

impl<'a, P: Iterator<Item = &'a [f32]>> ForActivation for Spread<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run(self, activation: impl Activate) {
        let channel = self.channel;
        let constant = self.mean[0] as f32;
        let slope = (self.mean[1] * f64::from(channel.inverse_deviation) * f64::from(channel.inverse_deviation)) as f32;
        for (x, gradient) in self.x.zip(self.gradient) {
            for (gradient, &x) in gradient.iter_mut().zip(x) {
                let g = activation.gradient(channel.before_activation(x), *gradient);
                *gradient = channel.scale * (g - constant - (x - channel.mean) * slope);
            }
        }
    }
}
