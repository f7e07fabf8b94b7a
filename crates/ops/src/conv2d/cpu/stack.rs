//! Images whose channels lie in one memory or, stacked, in two: what a skip connection joins need not be copied to one place.

use std::borrow::Cow;

use crate::conv2d::Geometry;
use crate::kernel::Shared;
use crate::shape;

/// Images `(n, channels, pixels)`, the first `first` channels of each in one memory and the others in another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack<P> {
    parts: [P; 2],
    first: usize,
    channels: usize,
    pixels: usize,
}

/// A memory that holds planes.
pub(crate) trait Planes: Copy {
    type Pointer;

    /// Where `len` values from `start` on begin.
    fn start_of(self, start: usize, len: usize) -> Self::Pointer;

    /// As many values before.
    fn before(pointer: Self::Pointer, len: usize) -> Self::Pointer;
}

impl Planes for &[f32] {
    type Pointer = *const f32;

    #[inline(always)]
    fn start_of(self, start: usize, len: usize) -> *const f32 {
        self[start..start + len].as_ptr()
    }

    #[inline(always)]
    fn before(pointer: *const f32, len: usize) -> *const f32 {
        pointer.wrapping_sub(len)
    }
}

impl Planes for Shared {
    type Pointer = *mut f32;

    #[inline(always)]
    fn start_of(self, start: usize, len: usize) -> *mut f32 {
        Self::start_of(self, start, len)
    }

    #[inline(always)]
    fn before(pointer: *mut f32, len: usize) -> *mut f32 {
        pointer.wrapping_sub(len)
    }
}

impl<P: Planes> Stack<P> {
    /// The first `first` of `channels` channels of `pixels` pixels in the first part; if that is all, the second is empty.
    pub(crate) fn new(parts: [P; 2], first: usize, channels: usize, pixels: usize) -> Self {
        Self { parts, first, channels, pixels }
    }

    /// Where channel 0 of an image would lie if all did as `channel` and those after it in its part do.
    #[inline(always)]
    pub(super) fn image(&self, image: usize, channel: usize) -> P::Pointer {
        let (part, before, channels) =
            if channel < self.first { (0, 0, self.first) } else { (1, self.first, self.channels - self.first) };
        let len = channels * self.pixels;
        P::before(self.parts[part].start_of(image * len, len), before * self.pixels)
    }

    /// Whether blocks of `block` channels from multiples of it on lie in one part each.
    pub(super) fn has_whole(&self, block: usize) -> bool {
        self.first == self.channels || self.first.is_multiple_of(block)
    }
}

impl Geometry {
    /// Images with all channels in one memory.
    pub(crate) fn images<'a>(&self, x: &'a [f32]) -> Stack<&'a [f32]> {
        Stack::new([x, &[]], self.in_channels, self.in_channels, self.input_pixels())
    }

    /// Results with all channels in one memory.
    pub(crate) fn results<'a>(&self, y: &'a [f32]) -> Stack<&'a [f32]> {
        Stack::new([y, &[]], self.out_channels, self.out_channels, self.output_pixels())
    }
}

impl<'a> Stack<&'a [f32]> {
    /// All channels in one memory, which is another if they lie in two.
    pub(crate) fn joined(&self) -> Cow<'a, [f32]> {
        if self.first == self.channels {
            return Cow::Borrowed(self.parts[0]);
        }
        let lens = [self.first, self.channels - self.first].map(|channels| channels * self.pixels);
        Cow::Owned(shape::stacked(&self.parts, &lens))
    }
}

/// The first `first` channels of images `(n, channels, pixels)`, and the others.
pub(crate) fn parted(images: Vec<f32>, first: usize, channels: usize, pixels: usize) -> [Vec<f32>; 2] {
    if first == channels {
        return [images, Vec::new()];
    }
    [0..first, first..channels]
        .map(|part| shape::part(&images, part.start * pixels..part.end * pixels, channels * pixels))
}
