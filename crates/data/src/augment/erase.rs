//! Random erasing (Zhong, Zheng, Kang, Li and Yang 2017): a rectangle of the photo is hidden.

use image::RgbImage;

use super::GREY;
use super::rectangle::Rectangle;
use crate::keyed::KeyedRng;

/// A rectangle that is hidden; the paper's ranges.
///
/// The labels under it are kept, as the paper keeps its boxes and albumentations' `CoarseDropout` its masks: what the network is to
/// learn is that surroundings tell what an obstacle hides. Void there would only leave out pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Erase {
    /// Share of the photo, 0.02 to 0.33.
    area: f64,
    /// Height over width, 0.3 to 1 / 0.3: as often upright as lying.
    aspect: f64,
    place: [f64; 2],
}

impl Erase {
    /// Draws a rectangle, with the given probability to be used.
    pub(super) fn draw(probability: f64, draws: &mut KeyedRng) -> Option<Self> {
        let used = draws.chance(probability);
        let area = 0.02 + 0.31 * draws.unit_f64();
        let narrow = 0.3 + 0.7 * draws.unit_f64();
        let aspect = if draws.chance(0.5) { narrow } else { 1.0 / narrow };
        let place = [draws.unit_f64(), draws.unit_f64()];
        used.then_some(Self { area, aspect, place })
    }

    /// Paints the rectangle grey. Where it is longer than the photo's side, it ends there: the paper would draw again.
    pub(super) fn apply(self, photo: &mut RgbImage) {
        let (width, height) = (photo.width() as usize, photo.height() as usize);
        let pixels = self.area * (height * width) as f64;
        let size = [(pixels * self.aspect).sqrt(), (pixels / self.aspect).sqrt()];
        let bytes: &mut [u8] = photo;
        for row in Rectangle::placed(size, [height, width], self.place).rows(3 * width, 3) {
            bytes[row].fill(GREY[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::keyed;

    #[test]
    fn hides_rectangles_of_the_papers_sizes() {
        let (mut areas, mut upright, mut used) = (Vec::new(), 0, 0);
        for key in 0..2000 {
            let Some(erase) = Erase::draw(0.25, &mut keyed::rng(key, "erase", &[])) else { continue };
            used += 1;
            let mut photo = RgbImage::from_pixel(100, 100, Rgb([0; 3]));
            erase.apply(&mut photo);
            let hidden: Vec<(u32, u32)> =
                photo.enumerate_pixels().filter(|pixel| *pixel.2 == GREY).map(|pixel| (pixel.0, pixel.1)).collect();
            let (left, right) = (hidden.iter().map(|p| p.0).min().unwrap(), hidden.iter().map(|p| p.0).max().unwrap());
            let (top, bottom) = (hidden.iter().map(|p| p.1).min().unwrap(), hidden.iter().map(|p| p.1).max().unwrap());
            let (width, height) = (right - left + 1, bottom - top + 1);
            assert_eq!(hidden.len() as u32, width * height);
            let aspect = f64::from(height) / f64::from(width);
            assert!((0.27..3.7).contains(&aspect), "{width}x{height}");
            upright += u32::from(height > width);
            areas.push(f64::from(width * height) / 10_000.0);
        }
        assert!((440..560).contains(&used), "{used}");
        assert!((0.42..0.58).contains(&(f64::from(upright) / f64::from(used))), "{upright}");
        let mean = areas.iter().sum::<f64>() / f64::from(used);
        assert!((mean - 0.175).abs() < 0.012, "{mean}");
        assert!(areas.iter().all(|area| (0.018..0.34).contains(area)));
    }
}
