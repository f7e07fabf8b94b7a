//! What becomes of a convolution's sums.
#![allow(clippy::inline_always, reason = "only what is inlined into `vectorised` work is compiled for a level")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use crate::Activation;
use crate::activation::{Activate, ForActivation};
use crate::kernel::{Lanes, deal_each};

/// What becomes of each sum of a channel: `activation(sum * scale + shift)`.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub(crate) scale: Option<&'a [f32]>,
    pub(crate) shift: Option<&'a [f32]>,
    pub(crate) activation: Activation,
}

impl<'a> Ending<'a> {
    /// A bias alone.
    pub(crate) fn bias(bias: Option<&'a [f32]>) -> Self {
        Self { scale: None, shift: bias, activation: Activation::None }
    }

    /// Ends `R` rows of sums in registers, each of a channel, by an activation that is a maximum.
    #[inline(always)]
    pub(super) fn end<L: Lanes, const V: usize, const R: usize>(
        &self,
        mut sums: [[L; V]; R],
        channel_of: impl Fn(usize) -> usize,
    ) -> [[L; V]; R] {
        // One choice for all: the compiler would keep the rows in memory for a loop over them that chooses.
        if self.scale.is_some() || self.shift.is_some() {
            for r in 0..R {
                let channel = channel_of(r);
                let scale = L::splat(self.scale.map_or(1., |scale| scale[channel]));
                let shift = L::splat(self.shift.map_or(0., |shift| shift[channel]));
                for v in 0..V {
                    sums[r][v] = sums[r][v].mul(scale).add(shift);
                }
            }
        }
        match self.activation {
            Activation::None => {}
            Activation::Relu => {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = L::splat(0.).max(sums[r][v]);
                    }
                }
            }
            Activation::LeakyRelu(slope) => {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = sums[r][v].mul(L::splat(slope as f32)).max(sums[r][v]);
                    }
                }
            }
        }
        sums
    }

    /// Ends sums `(n, channels, pixels)` in a pass of its own.
    pub(super) fn apply(self, y: &mut [f32], channels: usize, pixels: usize) {
        if self.scale.is_some() || self.shift.is_some() || self.activation != Activation::None {
            self.activation.choose(Finish { y, channels, pixels, ending: self });
        }
    }
}

struct Finish<'a> {
    y: &'a mut [f32],
    channels: usize,
    pixels: usize,
    ending: Ending<'a>,
}

impl ForActivation for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, activation: impl Activate) {
        let Self { y, channels, pixels, ending } = self;
        deal_each(y.chunks_mut(pixels).enumerate(), |(at, plane)| {
            let of_channel = |values: &[f32]| values[at % channels];
            if ending.scale.is_none() && ending.shift.is_none() {
                for value in plane {
                    *value = activation.value(*value);
                }
                return;
            }
            let (scale, shift) = (ending.scale.map_or(1., of_channel), ending.shift.map_or(0., of_channel));
            for value in plane {
                *value = activation.value(*value * scale + shift);
            }
        });
    }
}
