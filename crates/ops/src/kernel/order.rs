//! How images `(n, c, h, w)` lie in memory.

use candle_core::{DType, Result, Tensor};

/// Shapes say `(n, c, h, w)` in either order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// Channel after channel: what candle calls contiguous.
    Planes,
    /// Pixel after pixel, the channels of each side by side: PyTorch's `channels_last`, and what tensor cores read.
    Pixels,
}

impl Order {
    /// How `x` lies; planes too if in neither order. What lies in both is said to be planes, unless it is bf16, which kernels read in the
    /// order of pixels alone.
    pub(crate) fn of(x: &Tensor) -> Self {
        let may_be_pixels = !x.is_contiguous() || x.dtype() == DType::BF16;
        if may_be_pixels && Self::Pixels.holds(x) { Self::Pixels } else { Self::Planes }
    }

    fn holds(self, x: &Tensor) -> bool {
        match self {
            Self::Planes => x.is_contiguous(),
            Self::Pixels => x.rank() == 4 && x.permute(TO_PIXELS).is_ok_and(|x| x.is_contiguous()),
        }
    }

    /// Whether the values of both lie in the same places, one after the other.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn is_one_of(x: &Tensor, y: &Tensor) -> bool {
        x.shape() == y.shape() && [Self::Planes, Self::Pixels].iter().any(|order| order.holds(x) && order.holds(y))
    }

    /// The same values in this order.
    pub(crate) fn arrange(self, x: &Tensor) -> Result<Tensor> {
        if self.holds(x) { Ok(x.clone()) } else { self.seen(&self.stored(x)?) }
    }

    /// The same values in this order as a contiguous tensor, that is `(n, h, w, c)` in the order of pixels.
    pub(crate) fn stored(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Planes => x.contiguous(),
            Self::Pixels => x.permute(TO_PIXELS)?.contiguous(),
        }
    }

    /// What is stored, as `(n, c, h, w)`.
    pub(crate) fn seen(self, stored: &Tensor) -> Result<Tensor> {
        match self {
            Self::Planes => Ok(stored.clone()),
            Self::Pixels => stored.permute(TO_PLANES),
        }
    }

    /// The shape of what is stored, of an image's shape.
    pub(crate) fn shape(self, [n, c, h, w]: [usize; 4]) -> [usize; 4] {
        match self {
            Self::Planes => [n, c, h, w],
            Self::Pixels => [n, h, w, c],
        }
    }
}

const TO_PIXELS: [usize; 4] = [0, 2, 3, 1];
const TO_PLANES: [usize; 4] = [0, 3, 1, 2];

#[cfg(test)]
mod tests {
    use super::Order::{self, Pixels, Planes};
    use crate::verify::{draw, values};

    #[test]
    fn shapes_and_values_are_the_same_in_both() {
        let x = draw((2, 3, 4, 5), 1);
        assert_eq!((Order::of(&x), Order::of(&x.transpose(2, 3).unwrap())), (Planes, Planes));
        let y = Pixels.arrange(&x).unwrap();
        assert_eq!((y.dims(), Order::of(&y)), (x.dims(), Pixels));
        assert_eq!(values(&y), values(&x));
        assert!(Order::is_one_of(&y, &y) && !Order::is_one_of(&x, &y));
        let stored = Pixels.stored(&y).unwrap();
        assert_eq!(stored.dims(), Pixels.shape([2, 3, 4, 5]));
        // Pixel (0, 1) of the second image, as x has it.
        let pixel = x.narrow(0, 1, 1).unwrap().narrow(2, 0, 1).unwrap().narrow(3, 1, 1).unwrap();
        assert_eq!(values(&stored)[3 * 21..][..3], values(&pixel));
        let back = Planes.arrange(&Pixels.seen(&stored).unwrap()).unwrap();
        assert!(back.is_contiguous());
        assert_eq!(values(&back), values(&x));
    }

    #[test]
    fn where_both_are_one_nothing_is_copied() {
        for shape in [(2, 1, 4, 5), (2, 7, 1, 1)] {
            let x = draw(shape, 1);
            let y = Pixels.arrange(&x).unwrap();
            assert_eq!((y.id(), Order::of(&y)), (x.id(), Planes));
            assert!(Order::is_one_of(&x, &Pixels.seen(&Pixels.stored(&x).unwrap()).unwrap()));
        }
    }
}
