use candle_core::{Result, Tensor, Var};

use super::Geometry;
use super::cpu::Stack;
use crate::cat;
use crate::check::{self, refuse};
use crate::kernel::{is_tracked, values};

/// What a convolution sees: an image `(n, c, h, w)`, or two of one size whose channels are stacked, as a skip connection does. The two mean
/// what [`cat`] of them does, but where tiles are computed (and the first has a multiple of 16 channels) nothing is copied.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use img2seg_ops::{Conv2d, conv2d};
/// let up = Tensor::ones((1, 2, 4, 4), DType::F32, &Device::Cpu)?;
/// let skip = Tensor::ones((1, 3, 4, 4), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((1, 5, 1, 1), DType::F32, &Device::Cpu)?;
/// let y = conv2d([&up, &skip], &weight, None, Conv2d::default())?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [5.; 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Images<'a> {
    /// One image.
    One(&'a Tensor),
    /// The channels of the second below those of the first.
    Stacked([&'a Tensor; 2]),
}

impl<'a> From<&'a Tensor> for Images<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self::One(x)
    }
}

impl<'a> From<&'a Var> for Images<'a> {
    fn from(x: &'a Var) -> Self {
        Self::One(x)
    }
}

impl<'a> From<[&'a Tensor; 2]> for Images<'a> {
    fn from(x: [&'a Tensor; 2]) -> Self {
        Self::Stacked(x)
    }
}

impl<'a> Images<'a> {
    /// What [`Images::each`] gave.
    pub(super) fn of(images: &'a [Tensor]) -> Self {
        match images {
            [x, below] => Self::Stacked([x, below]),
            _ => Self::One(&images[0]),
        }
    }

    pub(super) fn first(&self) -> &Tensor {
        match self {
            Self::One(x) | Self::Stacked([x, _]) => x,
        }
    }

    /// (n, c, h, w) of the stack.
    pub(super) fn size(&self, op: &str) -> Result<(usize, usize, usize, usize)> {
        let &Self::Stacked([x, below]) = self else { return check::image(op, "x", self.first()) };
        let (n, c, h, w) = check::image(op, "x[0]", x)?;
        let (n_below, c_below, h_below, w_below) = check::image(op, "x[1]", below)?;
        if (n, h, w) != (n_below, h_below, w_below) {
            refuse!("{op}: x[1] has shape {:?}, x[0] {:?}", below.dims(), x.dims());
        }
        // Either may have been left in bf16.
        check::same_kind(op, "x[1]", below, x)
            .or_else(|error| check::same_kind(op, "x[0]", x, below).map_err(|_| error))?;
        Ok((n, c + c_below, h, w))
    }

    #[cfg(feature = "cuda")]
    pub(super) fn all(&self) -> &[&'a Tensor] {
        match self {
            Self::One(x) => std::slice::from_ref(x),
            Self::Stacked(x) => x,
        }
    }

    pub(super) fn are_tracked(&self) -> bool {
        match *self {
            Self::One(x) => is_tracked(&[x]),
            Self::Stacked(x) => is_tracked(&x),
        }
    }

    /// All channels in one tensor, which is another where there are two.
    ///
    /// # Errors
    /// Those of [`cat`].
    pub fn stacked(&self) -> Result<Tensor> {
        match self {
            Self::One(x) => Ok((*x).clone()),
            Self::Stacked(x) => cat(x),
        }
    }

    /// What `change` makes of each.
    pub(super) fn each(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
        match self {
            Self::One(x) => Ok(vec![change(x)?]),
            Self::Stacked([x, below]) => Ok(vec![change(x)?, change(below)?]),
        }
    }

    pub(super) fn contiguous(&self) -> Result<Contiguous> {
        self.each(Tensor::contiguous).map(Contiguous)
    }
}

/// One image or two, contiguous.
#[derive(Clone)]
pub(super) struct Contiguous(Vec<Tensor>);

impl Contiguous {
    pub(super) fn tensors(&self) -> &[Tensor] {
        &self.0
    }

    pub(super) fn detach(&self) -> Self {
        Self(self.0.iter().map(Tensor::detach).collect())
    }

    /// How many of the convolution's channels are the first image's.
    pub(super) fn first_channels(&self, g: &Geometry) -> usize {
        self.0[0].elem_count() / (g.batch * g.input_pixels())
    }

    /// Calls `work` with the values.
    pub(super) fn with_values<R>(&self, g: &Geometry, work: impl FnOnce(Stack<&[f32]>) -> Result<R>) -> Result<R> {
        let first = values(&self.0[0])?;
        let below = self.0.get(1).map(values).transpose()?;
        let parts = [&*first, below.as_deref().unwrap_or_default()];
        work(Stack::new(parts, self.first_channels(g), g.in_channels, g.input_pixels()))
    }
}
