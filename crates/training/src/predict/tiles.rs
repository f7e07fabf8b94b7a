//! Predictions of photos of any size, tile by tile, at bounded memory.

use std::collections::VecDeque;

use candle_core::{Device, Tensor};
use image::{Rgb, RgbImage};
use img2seg_data::{ClassTable, photo_tensor};
use img2seg_ops as ops;

use crate::TrainingError;
use crate::learner::{Learner, PredictedImage, Prediction};
use crate::predict::TestTimeAugmentation;

/// Tiles that are predicted at once.
const AT_ONCE: usize = 4;

/// The size of tiles, which overlap by a quarter of their sides or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// Rows of a tile.
    pub height: usize,
    /// Columns of a tile.
    pub width: usize,
}

impl Tiles {
    /// Predicts a photo of any size at its own scale. Where tiles overlap, their predictions are averaged, each weighted by the distance to
    /// its tile's border, so that no seam shows; a tile that is larger than the photo sees its last row and column again. Memory: the
    /// photo, its prediction, and one row of tiles.
    pub fn predict(
        self,
        learner: &dyn Learner,
        tta: TestTimeAugmentation,
        photo: &RgbImage,
        classes: &ClassTable,
        device: &Device,
    ) -> Result<PredictedImage, TrainingError> {
        let (width, height) = (photo.width() as usize, photo.height() as usize);
        if width * height == 0 {
            return Err(candle_core::Error::msg("a photo without pixels").into());
        }
        let (tops, lefts) = (starts(height, self.height), starts(width, self.width));
        let mut open = OpenRows { width, rows: VecDeque::new(), of_classes: true };
        let mut bands = Vec::new();
        for (index, &top) in tops.iter().enumerate() {
            for lefts in lefts.chunks(AT_ONCE) {
                let tiles = lefts.iter().map(|&left| photo_tensor(&self.cut(photo, top, left)));
                let photos = Tensor::cat(&tiles.collect::<Result<Vec<_>, _>>()?, 0)?.to_device(device)?;
                let output = match tta.predict(learner, &photos)? {
                    Prediction::Logits(logits) => ops::softmax(&logits)?,
                    Prediction::Colors(colors) => {
                        open.of_classes = false;
                        colors
                    }
                };
                for (position, &left) in lefts.iter().enumerate() {
                    open.add(self, &output.get(position)?, left)?;
                }
            }
            // What no tile below reaches is done.
            let end = tops.get(index + 1).copied().unwrap_or(height);
            let prediction = open.take(end - top)?;
            let mut band = prediction.decode(classes)?;
            prediction.add_confidences(&mut band)?;
            bands.push(band);
        }
        Ok(PredictedImage::below_each_other(bands.into_iter().flatten()))
    }

    /// The tile with this corner. Beyond the photo its last row and column stand.
    fn cut(self, photo: &RgbImage, top: usize, left: usize) -> RgbImage {
        let last = (photo.width() - 1, photo.height() - 1);
        RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            let &Rgb(color) = photo.get_pixel((left as u32 + x).min(last.0), (top as u32 + y).min(last.1));
            Rgb(color)
        })
    }
}

/// Where tiles begin along an axis: evenly spread, at most three quarters of a tile apart, the first at the beginning and the last at the end.
fn starts(size: usize, tile: usize) -> Vec<usize> {
    let free = size.saturating_sub(tile);
    let steps = free.div_ceil((tile * 3 / 4).max(1));
    (0..=steps).map(|step| (free * step).checked_div(steps).unwrap_or(0)).collect()
}

/// The weight of the pixel at `position` of a tile's side: its distance to the nearer border.
fn weight(position: usize, side: usize) -> f32 {
    (position + 1).min(side - position) as f32
}

/// Rows that some tile has reached and a tile below may still reach; the first is the top of the present tiles.
struct OpenRows {
    width: usize,
    rows: VecDeque<Row>,
    of_classes: bool,
}

struct Row {
    /// Weighted sums, channel by channel.
    sums: Vec<f32>,
    /// The weights' sum of each pixel.
    weights: Vec<f32>,
}

impl OpenRows {
    /// Adds a tile's output (c, h, w), whose top is the first open row.
    fn add(&mut self, tile: Tiles, output: &Tensor, left: usize) -> candle_core::Result<()> {
        let channels = output.dim(0)?;
        let values = output.flatten_all()?.to_vec1::<f32>()?;
        let columns = tile.width.min(self.width - left);
        while self.rows.len() < tile.height {
            self.rows.push_back(Row { sums: vec![0.0; channels * self.width], weights: vec![0.0; self.width] });
        }
        for (y, row) in self.rows.iter_mut().enumerate().take(tile.height) {
            let weights: Vec<f32> = (0..columns).map(|x| weight(x, tile.width) * weight(y, tile.height)).collect();
            for (sum, weight) in row.weights[left..].iter_mut().zip(&weights) {
                *sum += weight;
            }
            for (channel, sums) in row.sums.chunks_exact_mut(self.width).enumerate() {
                let from = (channel * tile.height + y) * tile.width;
                for ((sum, value), weight) in sums[left..].iter_mut().zip(&values[from..]).zip(&weights) {
                    *sum += value * weight;
                }
            }
        }
        Ok(())
    }

    /// Takes the first rows as a prediction of their own.
    fn take(&mut self, count: usize) -> candle_core::Result<Prediction> {
        let rows: Vec<Row> = self.rows.drain(..count.min(self.rows.len())).collect();
        let channels = rows.first().map_or(0, |row| row.sums.len() / self.width);
        let mut planes = Vec::with_capacity(channels * rows.len() * self.width);
        for channel in 0..channels {
            for row in &rows {
                let sums = &row.sums[channel * self.width..][..self.width];
                let means = sums.iter().zip(&row.weights).map(|(sum, weight)| sum / weight);
                // Logits that give these probabilities back.
                planes.extend(means.map(|mean| if self.of_classes { mean.max(f32::MIN_POSITIVE).ln() } else { mean }));
            }
        }
        let planes = Tensor::from_vec(planes, (1, channels, rows.len(), self.width), &Device::Cpu)?;
        Ok(if self.of_classes { Prediction::Logits(planes) } else { Prediction::Colors(planes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::tests::{batch, recipe};
    use crate::learner::{self, Step};

    #[test]
    fn tiles_cover_an_axis_and_overlap() {
        assert_eq!(starts(256, 256), [0]);
        assert_eq!(starts(100, 256), [0]);
        assert_eq!(starts(257, 256), [0, 1]);
        assert_eq!(starts(1024, 256), [0, 192, 384, 576, 768]);
        for (size, tile) in [(2048, 256), (481, 64), (65, 64), (1000, 3), (5, 1)] {
            let starts = starts(size, tile);
            assert_eq!((starts[0], starts[starts.len() - 1] + tile), (0, size));
            assert!(starts.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] <= (tile * 3 / 4).max(1)));
        }
    }

    /// A network of 1x1 convolutions sees no neighbours: cut into tiles or not, it says the same.
    #[test]
    fn tiles_of_single_pixels_agree_with_the_whole() {
        for output in [&["task.segmentation.output=classes"][..], &COLORS] {
            let config = recipe("pixelwise", &[&["data.height=16", "data.width=24"], output].concat());
            let classes = ClassTable::load(&config.data.classes).unwrap();
            let mut learner = learner::build(&config, &classes, &Device::Cpu).unwrap();
            learner.train_step(&batch(16, 24), Step { number: 1, rate_factor: 1.0 }).unwrap();
            for (height, width) in [(50, 61), (16, 24), (7, 90), (40, 5)] {
                let photo = RgbImage::from_fn(width, height, |x, y| Rgb([(x * 5) as u8, (y * 9) as u8, (x * y) as u8]));
                let whole = learner.predict(&photo_tensor(&photo).unwrap()).unwrap().decode(&classes).unwrap();
                let tiles = Tiles { height: 16, width: 24 };
                let tta = TestTimeAugmentation::None;
                let tiled = tiles.predict(learner.as_ref(), tta, &photo, &classes, &Device::Cpu).unwrap();
                assert_eq!((tiled.height, tiled.width), (height as usize, width as usize));
                let same = tiled.labels.iter().zip(&whole[0].labels).filter(|(tiled, whole)| tiled == whole).count();
                // Averages are rounded, and two classes may be as good as equal.
                assert!(same * 100 >= tiled.labels.len() * 99, "{same} of {}", tiled.labels.len());
                if let (Some(tiled), Some(whole)) = (&tiled.colors, &whole[0].colors) {
                    assert!(tiled.iter().zip(whole).all(|(tiled, whole)| (tiled - whole).abs() < 1e-2));
                }
            }
        }
    }

    const COLORS: [&str; 2] = ["task.segmentation.output=rgb", "task.segmentation.loss={ l1 = { weight = 1.0 } }"];

    #[test]
    fn a_photo_without_pixels_is_refused() {
        let config = recipe("pixelwise", &[]);
        let classes = ClassTable::load(&config.data.classes).unwrap();
        let learner = learner::build(&config, &classes, &Device::Cpu).unwrap();
        let tiles = Tiles { height: 16, width: 24 };
        let none = TestTimeAugmentation::None;
        assert!(tiles.predict(learner.as_ref(), none, &RgbImage::new(0, 3), &classes, &Device::Cpu).is_err());
    }
}
