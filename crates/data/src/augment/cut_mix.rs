//! `CutMix` (Yun, Han, Oh, Chun, Choe and Yoo 2019): a rectangle of a sample comes from another one.

use super::rectangle::Rectangle;
use crate::Sample;
use crate::keyed::KeyedRng;

/// A rectangle and the sample that it comes from.
///
/// Its share of the area is uniform in [0, 1): 1 - lambda of the paper, whose lambda follows Beta(1, 1). It lies wholly inside; the
/// paper's reference code draws its middle and cuts off what is outside, which makes it smaller than drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CutMix {
    /// The other sample's index.
    pub(crate) partner: usize,
    share: f64,
    place: [f64; 2],
}

impl CutMix {
    /// Draws for sample `own` of `samples`, with the given probability to be used; never where there is no other sample.
    pub(crate) fn draw(probability: f64, own: usize, samples: usize, draws: &mut KeyedRng) -> Option<Self> {
        let used = draws.chance(probability);
        let share = draws.unit_f64();
        let place = [draws.unit_f64(), draws.unit_f64()];
        let other = draws.below(samples.saturating_sub(1));
        let partner = if other < own { other } else { other + 1 };
        (used && samples > 1).then_some(Self { partner, share, place })
    }

    /// Puts the rectangle of `partner` in the same place of `sample`: photo, label map and labels. Both are of one size.
    pub(crate) fn paste(self, sample: &mut Sample, partner: &Sample) {
        let (width, height) = (sample.photo.width() as usize, sample.photo.height() as usize);
        let side = self.share.sqrt();
        let size = [side * height as f64, side * width as f64];
        let rectangle = Rectangle::placed(size, [height, width], self.place);
        let copy = |to: &mut [u8], from: &[u8], values: usize| {
            for row in rectangle.rows(values * width, values) {
                to[row.clone()].copy_from_slice(&from[row]);
            }
        };
        copy(&mut sample.photo, &partner.photo, 3);
        copy(&mut sample.label_map, &partner.label_map, 3);
        copy(&mut sample.labels, &partner.labels, 1);
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::keyed;

    fn plain(level: u8, width: u32, height: u32) -> Sample {
        let image = RgbImage::from_pixel(width, height, Rgb([level; 3]));
        let labels = vec![level; (width * height) as usize];
        Sample { name: level.to_string(), photo: image.clone(), label_map: image, labels }
    }

    #[test]
    fn the_three_parts_share_a_rectangle_of_any_size() {
        let (mut shares, mut used) = (0.0, 0);
        for key in 0..2000 {
            let mix = CutMix::draw(0.5, 3, 10, &mut keyed::rng(key, "cut mix", &[]));
            let Some(mix) = mix else { continue };
            let mut sample = plain(1, 60, 40);
            mix.paste(&mut sample, &plain(9, 60, 40));
            assert_eq!((sample.photo.clone(), &*sample.name), (sample.label_map, "1"));
            assert!(sample.photo.pixels().zip(&sample.labels).all(|(pixel, &label)| pixel[0] == label));
            used += 1;
            shares += sample.labels.iter().map(|&label| f64::from(u8::from(label == 9))).sum::<f64>() / 2400.0;
        }
        assert!((930..1070).contains(&used), "{used}");
        assert!((shares / f64::from(used) - 0.5).abs() < 0.03, "{shares}");
    }

    #[test]
    fn partners_are_all_the_others_alike() {
        let mut counts = [0; 5];
        for key in 0..4000 {
            let mix = CutMix::draw(1.0, 2, 5, &mut keyed::rng(key, "cut mix", &[])).unwrap();
            counts[mix.partner] += 1;
        }
        assert_eq!(counts[2], 0);
        assert!(counts.iter().enumerate().all(|(i, count)| i == 2 || (900..1100).contains(count)), "{counts:?}");
        assert_eq!(CutMix::draw(1.0, 0, 1, &mut keyed::rng(0, "cut mix", &[])), None);
        assert_eq!(CutMix::draw(0.0, 0, 9, &mut keyed::rng(0, "cut mix", &[])), None);
    }
}
