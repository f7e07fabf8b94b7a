//! Convolutions whose factors and results are rounded to bf16, wherever no tensor core computes them: what such a device would make of a
//! training can be seen on any other.

use candle_core::{DType, Result, Tensor};

use crate::kernel::{has_kernel, map, node, values};

/// The nearest bf16 of each value (of two the even one), in the dtype that it has. Gradients are rounded on their way back, as those of a
/// cast are.
pub(crate) fn rounded(x: &Tensor) -> Result<Tensor> {
    if !has_kernel(x) {
        return x.to_dtype(DType::BF16)?.to_dtype(x.dtype());
    }
    let x = x.contiguous()?;
    let y = map(&values(&x)?, round);
    node("rounded", &[&x], y, x.shape(), |pass| {
        let gradient = map(&values(pass.gradient)?, round);
        Ok([Some(Tensor::from_vec(gradient, pass.gradient.shape(), pass.gradient.device())?), None, None])
    })
}

/// A bf16 is the upper half of an f32.
fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let to_even = 0x7fff + ((bits >> 16) & 1);
    // Carries would make an infinity, or a number, of some NaN.
    let upper = if x.is_nan() { bits | 0x0040_0000 } else { bits.wrapping_add(to_even) };
    f32::from_bits(upper & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{round, rounded};
    use crate::verify::{self, draw};

    #[test]
    fn rounds_as_a_cast_does() {
        let edges = [
            0.,
            -0.,
            1.,
            1. + 1. / 256.,
            1. + 3. / 256.,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
            f32::INFINITY,
            -f32::INFINITY,
        ];
        let drawn = draw(4096, 1).to_vec1::<f32>().unwrap();
        let x: Vec<f32> = edges.into_iter().chain(drawn).collect();
        let cast = Tensor::new(&x[..], &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
        let cast = cast.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        for (x, cast) in x.into_iter().zip(cast) {
            assert_eq!(round(x).to_bits(), cast.to_bits(), "{x}");
        }
        // All bits of the fraction, and one that the upper half does not see.
        assert!([0x7fff_ffff, 0x7f80_0001, 0xffff_ffff].into_iter().all(|bits| round(f32::from_bits(bits)).is_nan()));
    }

    #[test]
    fn gradients_are_rounded_too() {
        let (x, cotangent) = (draw((3, 5), 1), draw((3, 5), 2));
        for dtype in [DType::F32, DType::F64] {
            let [x, cotangent] = [&x, &cotangent].map(|x| x.to_dtype(dtype).unwrap());
            let (y, gradients) = verify::differentiate(&|x| rounded(&x[0]), std::slice::from_ref(&x), &cotangent);
            for (rounded, exact) in [(&y, &x), (&gradients[0], &cotangent)] {
                let expected = exact.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap();
                assert_eq!(verify::values(rounded), verify::values(&expected));
                assert_ne!(verify::values(rounded), verify::values(exact));
            }
        }
    }
}
