//! The picture while it is painted: samples at the centres of pixels and half-way between them.

use super::label::Label;
use super::rgb::Rgb;

/// A picture of (2 h + 1, 2 w + 1) samples. Sample (2 y + 1, 2 x + 1) is the centre of pixel (y, x): its label is the pixel's
/// exact label, while the pixel's colour is a tent filter over the 3 x 3 samples around it.
pub(super) struct Canvas {
    height: usize,
    width: usize,
    samples: Vec<Paint>,
    crossings: Vec<f32>,
}

/// What one sample shows.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) rgb: Rgb,
    pub(super) label: Label,
}

impl Canvas {
    /// A black, void picture of that many pixels.
    pub(super) fn new(height: usize, width: usize) -> Self {
        let (height, width) = (2 * height + 1, 2 * width + 1);
        let samples = vec![Paint { rgb: Rgb::BLACK, label: Label::Void }; height * width];
        Self { height, width, samples, crossings: Vec::new() }
    }

    /// (height, width) in samples.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The rows of samples, from the top.
    pub(super) fn rows(&mut self) -> impl Iterator<Item = &mut [Paint]> {
        self.samples.chunks_exact_mut(self.width)
    }

    /// Calls `paint(sample, x, y)` for the samples inside a polygon (even-odd rule); coordinates are in samples.
    pub(super) fn polygon(&mut self, points: &[[f32; 2]], mut paint: impl FnMut(&mut Paint, f32, f32)) {
        let low = points.iter().fold(f32::INFINITY, |low, p| low.min(p[1]));
        let high = points.iter().fold(f32::NEG_INFINITY, |high, p| high.max(p[1]));
        let limit = self.height as f32;
        for row in low.ceil().clamp(0.0, limit) as usize..high.ceil().clamp(0.0, limit) as usize {
            let y = row as f32;
            self.crossings.clear();
            for (i, &[x0, y0]) in points.iter().enumerate() {
                let [x1, y1] = points[(i + 1) % points.len()];
                if (y0 <= y) != (y1 <= y) {
                    self.crossings.push(x0 + (y - y0) / (y1 - y0) * (x1 - x0));
                }
            }
            self.crossings.sort_unstable_by(f32::total_cmp);
            let samples = &mut self.samples[row * self.width..(row + 1) * self.width];
            for span in self.crossings.chunks_exact(2) {
                let [from, to] = [span[0], span[1]].map(|x| x.ceil().clamp(0.0, self.width as f32) as usize);
                for (column, sample) in (from..to).zip(samples.iter_mut().skip(from)) {
                    paint(sample, column as f32, y);
                }
            }
        }
    }

    /// Calls `paint(sample, dx, dy)` for the samples inside an upright ellipse, seen as the unit disc; dy points down.
    pub(super) fn ellipse(&mut self, center: [f32; 2], radius: [f32; 2], mut paint: impl FnMut(&mut Paint, f32, f32)) {
        let [rx, ry] = radius.map(|r| r.max(1e-3));
        let limit = self.height as f32;
        let rows =
            (center[1] - ry).ceil().clamp(0.0, limit) as usize..(center[1] + ry).ceil().clamp(0.0, limit) as usize;
        for row in rows {
            let dy = (row as f32 - center[1]) / ry;
            let half = rx * (1.0 - dy * dy).max(0.0).sqrt();
            let [from, to] =
                [center[0] - half, center[0] + half].map(|x| x.ceil().clamp(0.0, self.width as f32) as usize);
            let samples = &mut self.samples[row * self.width..(row + 1) * self.width];
            for (column, sample) in (from..to).zip(samples.iter_mut().skip(from)) {
                paint(sample, (column as f32 - center[0]) / rx, dy);
            }
        }
    }

    /// The pixels' colours, row by row.
    pub(super) fn colors(&self) -> Vec<Rgb> {
        const TENT: [f32; 3] = [0.25, 0.5, 0.25];
        let (height, width) = (self.height / 2, self.width / 2);
        let mut colors = Vec::with_capacity(height * width);
        for y in 0..height {
            let rows = [0, 1, 2].map(|row| &self.samples[(2 * y + row) * self.width..][..self.width]);
            for x in 0..width {
                let across = |row: &[Paint]| {
                    row[2 * x].rgb * TENT[0] + row[2 * x + 1].rgb * TENT[1] + row[2 * x + 2].rgb * TENT[2]
                };
                colors.push(across(rows[0]) * TENT[0] + across(rows[1]) * TENT[1] + across(rows[2]) * TENT[2]);
            }
        }
        colors
    }

    /// The pixels' labels, row by row.
    pub(super) fn labels(&self) -> Vec<Label> {
        let odd_rows = self.samples.chunks_exact(self.width).skip(1).step_by(2);
        odd_rows.flat_map(|row| row.iter().skip(1).step_by(2)).map(|sample| sample.label).collect()
    }
}
