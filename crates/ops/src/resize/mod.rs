//! Resampling to a size, as PyTorch's `interpolate` with `align_corners = false` and no antialiasing.

mod composed;
mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{by_candle, has_kernel, node, values, wide};

/// How a pixel of the result is made of pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The pixel at `floor(position * old / new)`.
    Nearest,
    /// The four around `(position + 1/2) * old / new - 1/2`, by their distance; the border repeats.
    Bilinear,
}

/// Resamples `x` `(n, c, h, w)` to `(n, c, height, width)`.
///
/// candle's nearest neighbour has a wrong backward pass, its bilinear has none.
///
/// # Errors
/// Empty images and sizes.
pub fn resize(x: &Tensor, height: usize, width: usize, how: Resize) -> Result<Tensor> {
    const OP: &str = "resize";
    let (n, c, h, w) = check::image(OP, "x", x)?;
    if height == 0 || width == 0 {
        refuse!("{OP}: size ({height}, {width}) has a zero");
    }
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    let x = &wide(x)?;
    let (vertical, horizontal) = (Axis::new(h, height, how), Axis::new(w, width, how));
    if !has_kernel(x) {
        return by_candle(OP, &[x], move |x| composed::resize(&x[0], &vertical, &horizontal));
    }
    let x = x.contiguous()?;
    let y = cpu::forward(&values(&x)?, (h, w), &vertical, &horizontal);
    node(OP, &[&x], y, (n, c, height, width), move |pass| {
        let gradient = cpu::backward(&values(pass.gradient)?, (h, w), &vertical, &horizontal);
        Ok([Some(Tensor::from_vec(gradient, (n, c, h, w), pass.gradient.device())?), None, None])
    })
}

/// Along one direction, pixel `i` of the result is `(1 - weight[i]) x[from[i]] + weight[i] x[to[i]]`.
#[derive(Debug, Clone)]
struct Axis {
    from: Vec<u32>,
    to: Vec<u32>,
    /// In f32, as PyTorch computes it.
    weight: Vec<f32>,
}

impl Axis {
    fn new(old: usize, new: usize, how: Resize) -> Self {
        let scale = old as f32 / new as f32;
        let last = old - 1;
        let mut axis = Self { from: Vec::new(), to: Vec::new(), weight: Vec::new() };
        for i in 0..new {
            let (from, weight) = match how {
                Resize::Nearest => (((i as f32 * scale) as usize).min(last), 0.),
                Resize::Bilinear => {
                    let position = ((i as f32 + 0.5) * scale - 0.5).max(0.);
                    let from = (position as usize).min(last);
                    (from, (position - from as f32).clamp(0., 1.))
                }
            };
            axis.from.push(from as u32);
            axis.to.push((from + 1).min(last) as u32);
            axis.weight.push(weight);
        }
        axis
    }

    /// From, to and weight of each pixel.
    fn steps(&self) -> impl Iterator<Item = (usize, usize, f32)> {
        self.from
            .iter()
            .zip(&self.to)
            .zip(&self.weight)
            .map(|((&from, &to), &weight)| (from as usize, to as usize, weight))
    }

    /// Whether every pixel is one pixel of the image, as it is.
    fn copies(&self) -> bool {
        self.weight.iter().all(|&weight| weight == 0.)
    }
}
