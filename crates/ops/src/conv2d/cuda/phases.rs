//! A convolution of 4x4 at stride 2 over few channels as one of 2x2 at stride 1 over the phases of its image: the pixels of even and odd rows
//! and columns, each a channel of its own. Tensor cores take channels by eights, of which such an image has hardly one.
#![allow(unsafe_code, reason = "kernels are told where tensors lie")]

use candle_core::{Device, Result, Tensor};

use super::trial::drawn;
use crate::check::refuse;
use crate::conv2d::{Conv2d, Geometry, geometry};
use crate::cuda::sums::size;
use crate::cuda::{Memory, Stage, address, is_narrow};
use crate::kernel::Order;

/// Channels of an image that are few: with four times as many the phases fill what tensor cores take.
const FEW: usize = 8;

/// The kernels' `struct Phases`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    x: u64,
    y: u64,
    bias: u64,
    len: i32,
    channels: i32,
    padded: i32,
    height: i32,
    width: i32,
    rows: i32,
    columns: i32,
    border: i32,
    image_step: i32,
    channel_step: i32,
    row_step: i32,
    pixel_step: i32,
    narrow_x: i32,
    narrow_y: i32,
}

/// Images, or the kernels of a convolution, with phases that lie in the order of pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phases {
    /// (n, channels, height, width)
    shape: [usize; 4],
    /// Zeros around the image.
    border: usize,
    /// Channels of a phase, so that pixels start where 16 bytes do.
    padded: usize,
}

impl Phases {
    /// The convolution over phases, and the phases of its images and of its kernels; none where they are not known to be worth it.
    pub(super) fn of(g: &Geometry, order: Order) -> Option<(Geometry, [Self; 2])> {
        let (height, width) = g.input;
        let is_halving = g.kernel == (4, 4)
            && (g.stride, g.padding, g.dilation, g.groups) == ((2, 2), (1, 1), (1, 1), 1)
            && height.is_multiple_of(2)
            && width.is_multiple_of(2);
        if !is_halving || g.in_channels > FEW || order != Order::Pixels {
            return None;
        }
        let padded = g.in_channels.next_multiple_of(2);
        let images = Self { shape: [g.batch, g.in_channels, height, width], border: 1, padded };
        let kernels = Self { shape: [g.out_channels, g.in_channels, 4, 4], border: 0, padded };
        let (rows, columns) = images.sides();
        let over_phases = Geometry {
            in_channels: 4 * padded,
            kernel: (2, 2),
            stride: (1, 1),
            padding: (0, 0),
            input: (rows, columns),
            ..*g
        };
        Some((over_phases, [images, kernels]))
    }

    /// Rows and columns of a phase.
    fn sides(&self) -> (usize, usize) {
        let [_, _, height, width] = self.shape;
        (height / 2 + self.border, width / 2 + self.border)
    }

    /// The phases of x, f32 or bf16, as they are stored `(n, rows, columns, channels)`, in f32 or bf16.
    pub(super) fn fold(&self, stage: &Stage, x: &Tensor, narrows: bool) -> Result<Tensor> {
        if x.dims() != self.shape {
            refuse!("phases: {:?} is not {:?}", x.dims(), self.shape);
        }
        let lies = x.is_contiguous() || Order::of(x) == Order::Pixels;
        let x = if lies { x.detach() } else { x.detach().contiguous()? };
        let (rows, columns) = self.sides();
        let shape = [self.shape[0], rows, columns, 4 * self.padded];
        let len = shape.iter().product();
        let mut y = if narrows { stage.narrow_memory(len)? } else { stage.memory(len)? };
        let steps = <[usize; 4]>::try_from(x.stride()).map_err(|_| candle_core::Error::Msg("four steps".into()))?;
        let narrow = [is_narrow(&x), narrows];
        self.launch(stage, "fold", (address(&x)?, y.address()?), 0, len, steps, narrow)?;
        Ok(y.into_tensor(&shape[..]))
    }

    /// What [`fold`](Self::fold) gives, by candle's ops.
    #[cfg(any(test, feature = "cuda"))]
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let ([n, c, _, _], (rows, columns)) = (self.shape, self.sides());
        let x = x.pad_with_zeros(2, self.border, self.border)?.pad_with_zeros(3, self.border, self.border)?;
        let x = x.pad_with_zeros(1, 0, self.padded - c)?.contiguous()?;
        let parts = x.reshape(&[n, self.padded, rows, 2, columns, 2][..])?.permute([0, 2, 4, 3, 5, 1])?;
        parts.contiguous()?.reshape((n, rows, columns, 4 * self.padded))
    }

    /// What has these phases, in f32 and in the order of planes, with a bias `(channels)`, contiguous, if there is one.
    pub(super) fn unfold(&self, stage: &Stage, mut phases: Memory, bias: Option<&Tensor>) -> Result<Memory> {
        let len = self.shape.iter().product();
        let mut y = stage.memory(len)?;
        let narrow = [phases.is_narrow(), false];
        let addresses = (phases.address()?, y.address()?);
        self.launch(stage, "unfold", addresses, bias.map_or(Ok(0), address)?, len, [0; 4], narrow)?;
        Ok(y)
    }

    /// Makes `len` values.
    #[allow(clippy::too_many_arguments, reason = "all are one kernel's")]
    fn launch(
        &self,
        stage: &Stage,
        kernel: &'static str,
        (x, y): (u64, u64),
        bias: u64,
        len: usize,
        steps: [usize; 4],
        narrow: [bool; 2],
    ) -> Result<()> {
        let [_, channels, height, width] = self.shape;
        let (rows, columns) = self.sides();
        let [image_step, channel_step, row_step, pixel_step] = steps.map(size);
        let parameters = Parameters {
            x,
            y,
            bias,
            len: size(len)?,
            channels: size(channels)?,
            padded: size(self.padded)?,
            height: size(height)?,
            width: size(width)?,
            rows: size(rows)?,
            columns: size(columns)?,
            border: size(self.border)?,
            image_step: image_step?,
            channel_step: channel_step?,
            row_step: row_step?,
            pixel_step: pixel_step?,
            narrow_x: narrow[0].into(),
            narrow_y: narrow[1].into(),
        };
        // SAFETY: x has as many values as image or phases, in the dtypes said, y was made for `len`, and bias has a value for each channel;
        // all are alive.
        unsafe { stage.launch(kernel, (stage.blocks(len), 1), &parameters) }
    }
}

/// What is wrong with the phases of small images on this stage, whose tensors are on `device`, if anything.
#[cfg(any(test, feature = "cuda"))]
pub(crate) fn fault(stage: &Stage, device: &Device) -> Result<Option<String>> {
    for channels in [3, 4] {
        let x = drawn(&[2, channels, 6, 10], 1)?;
        let kernels = drawn(&[2, channels, 4, 4], 2)?;
        let spec = Conv2d::new(2, 1);
        let Some((_, [of_images, of_kernels])) = Phases::of(&geometry(&x, &kernels, None, spec)?, Order::Pixels) else {
            refuse!("none of {:?}", x.dims());
        };
        let bias = drawn(&[channels], 3)?;
        for (phases, x) in [(of_images, &x), (of_kernels, &kernels)] {
            let expected = phases.composed(x)?;
            for order in [Order::Planes, Order::Pixels] {
                let there = order.arrange(&x.to_device(device)?)?;
                let folded = phases.fold(stage, &there, false)?;
                let back = Memory::from(folded.storage_and_layout().0.try_clone(folded.layout())?);
                let back = phases.unfold(stage, back, Some(&bias.to_device(device)?))?.into_tensor(x.shape());
                let shifted = x.broadcast_add(&bias.reshape((1, channels, 1, 1))?)?;
                for (actual, expected) in [(&folded, &expected), (&back, &shifted)] {
                    let error = (actual.to_device(&Device::Cpu)? - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
                    // Not `error > 0`, which NaN passes.
                    if error != 0. {
                        return Ok(Some(format!("phases of {:?} in {order:?} are off by {error}", x.dims())));
                    }
                }
            }
        }
    }
    Ok(None)
}
