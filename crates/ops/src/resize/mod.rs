//! Resampling to a size, as PyTorch's `interpolate` with `align_corners = false` and no antialiasing.

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

use crate::check;

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
    let (_, _, h, w) = check::image(OP, "x", x)?;
    if height == 0 || width == 0 {
        bail!("{OP}: size ({height}, {width}) has a zero");
    }
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    composed::resize(x, &Axis::new(h, height, how), &Axis::new(w, width, how))
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

    /// Whether every pixel is one pixel of the image, as it is.
    fn copies(&self) -> bool {
        self.weight.iter().all(|&weight| weight == 0.)
    }
}
