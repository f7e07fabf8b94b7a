//! One value for each plane of an image: the plane's mean, and a plane filled with the value.

#![allow(unsafe_code, reason = "planes are filled without being zeroed first")]

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{by_candle, deal_each, dealt, has_kernel, node, sum_in_f64, values, wide, written};

/// The mean of each plane of `x` `(n, c, h, w)`, to `(n, c)` (Lin, Chen and Yan 2014, section 3.2).
///
/// # Errors
/// Empty images.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    const OP: &str = "global_avg_pool";
    let x = &wide(x)?;
    let (n, c, h, w) = check::image(OP, "x", x)?;
    if !has_kernel(x) {
        return by_candle(OP, &[x], move |x| x[0].sum((2, 3))? / (h * w) as f64);
    }
    let (x, share) = (x.contiguous()?, 1. / (h * w) as f64);
    let y = sums(&values(&x)?, h * w, share);
    node(OP, &[&x], y, (n, c), move |pass| {
        let shares: Vec<f32> = values(pass.gradient)?.iter().map(|&g| (f64::from(g) * share) as f32).collect();
        Ok([Some(Tensor::from_vec(filled(&shares, h * w), (n, c, h, w), pass.gradient.device())?), None, None])
    })
}

/// Fills planes with the values of `x` `(n, c)`, to `(n, c, height, width)`.
///
/// # Errors
/// An empty `x` or one of another rank, and empty planes.
pub fn spread(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    const OP: &str = "spread";
    check::not_empty(OP, "x", x)?;
    let &[n, c] = x.dims() else { refuse!("{OP}: x has shape {:?}, not (n, c)", x.dims()) };
    if height == 0 || width == 0 {
        refuse!("{OP}: size ({height}, {width}) has a zero");
    }
    if !has_kernel(x) {
        let all = (n, c, height, width);
        return by_candle(OP, &[x], move |x| x[0].reshape((n, c, 1, 1))?.broadcast_as(all)?.contiguous());
    }
    let (x, pixels) = (x.contiguous()?, height * width);
    let y = filled(&values(&x)?, pixels);
    node(OP, &[&x], y, (n, c, height, width), move |pass| {
        let gradient = sums(&values(pass.gradient)?, pixels, 1.);
        Ok([Some(Tensor::from_vec(gradient, (n, c), pass.gradient.device())?), None, None])
    })
}

/// `factor` times the sum of each plane.
fn sums(x: &[f32], pixels: usize, factor: f64) -> Vec<f32> {
    dealt(x.chunks(pixels), |plane| (sum_in_f64(plane, |value| value) * factor) as f32).collect()
}

fn filled(x: &[f32], pixels: usize) -> Vec<f32> {
    let write = |planes: &mut [MaybeUninit<f32>]| {
        deal_each(planes.chunks_mut(pixels).zip(x), |(plane, &value)| plane.fill(MaybeUninit::new(value)));
    };
    // SAFETY: there is a plane for each value, and each is filled whole.
    unsafe { written(x.len() * pixels, write) }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{global_avg_pool, spread};
    use crate::verify::{self, draw, refusal};

    #[test]
    fn holds_everywhere() {
        for shape in [(2, 3, 5, 7), (1, 1, 1, 1), (3, 2, 64, 33)] {
            verify::assert_op(&|x| global_avg_pool(&x[0]), &[draw(shape, 1)]);
            verify::assert_op(&|x| spread(&x[0], shape.2, shape.3), &[draw((shape.0, shape.1), 1)]);
        }
    }

    #[test]
    fn a_plane_has_its_mean_and_a_value_its_plane() {
        let x = Tensor::new(&[[[[1f32, 2.], [3., 6.]], [[0., 0.], [0., -4.]]]], &Device::Cpu).unwrap();
        let means = global_avg_pool(&x).unwrap();
        assert_eq!(means.to_vec2::<f32>().unwrap(), [[3., -1.]]);
        let planes = spread(&means, 1, 3).unwrap();
        assert_eq!(planes.dims(), [1, 2, 1, 3]);
        assert_eq!(verify::values(&planes), [3., 3., 3., -1., -1., -1.]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        assert_eq!(refusal(global_avg_pool(&draw((2, 3), 1))), "global_avg_pool: x has shape [2, 3], not (n, c, h, w)");
        assert_eq!(refusal(spread(&draw((2, 3, 1), 1), 4, 4)), "spread: x has shape [2, 3, 1], not (n, c)");
        assert_eq!(refusal(spread(&draw((2, 3), 1), 4, 0)), "spread: size (4, 0) has a zero");
    }
}
